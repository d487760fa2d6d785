"""Checkpoints that are safe to read and fit the model.

Left alone, mmengine runs whatever code an unknown checkpoint asks for, and where weights do not fit, it only warns and
goes on with untrained ones. Importing this module makes mmengine's own loading of files and URLs safe as well.
"""

import os
import tarfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlparse

import torch
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from aream_mm import safe_pickle
from aream_mm.datasets.images import first_few
from aream_mm.datasets.tags import require_same_classes


def download(url: str) -> str:
    """The path of the file in torch's cache, which is asked first."""
    path = Path(torch.hub.get_dir(), 'checkpoints', Path(urlparse(url).path).name)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path))
    return str(path)


@CheckpointLoader.register_scheme(prefixes=('', 'http://', 'https://'), force=True)
def read_checkpoint(path: str, map_location: str | torch.device | Callable | None = None) -> dict:
    """The content of a checkpoint file or of one that a URL names. No code in it is run.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no checkpoint, is broken, or holds objects other than tensors, numbers, texts and logs.
    """
    url = path.startswith(('http://', 'https://'))
    path = path if url else os.path.expanduser(path)
    if not url and not os.path.isfile(path):
        raise FileNotFoundError(f'{path}: expected a checkpoint, got no file')
    try:
        file = download(path) if url else path
        if tarfile.is_tarfile(file):  # which torch would unpack
            raise ValueError('an archive of torch before 0.1.10')
        with warnings.catch_warnings():
            warnings.filterwarnings('error', '.*TorchScript archive')  # which torch would hand to its interpreter
            loaded = torch.load(file, map_location, pickle_module=safe_pickle, weights_only=False)
    except Exception as error:  # a broken file raises whatever it likes
        raise ValueError(f'{path}: expected a checkpoint of tensors, numbers and texts, got {error!r}') from error
    if not isinstance(loaded, dict):
        raise ValueError(f'{path}: expected a checkpoint with weights by name, got {type(loaded).__name__}')
    for part in ('state_dict', 'meta', 'message_hub'):
        if not isinstance(loaded.get(part, {}), dict):
            raise ValueError(f'{path}: expected a dict as {part}, got {type(loaded[part]).__name__}')
    # A text that nothing needs, in checkpoints of mmcv's; mmengine would run it as Python when it resumes.
    loaded.get('meta', {}).pop('config', None)
    return loaded


def load_fitting_checkpoint(
    model: nn.Module,
    checkpoint: str,
    resume: bool = False,
    strict: bool = True,
    classes: Sequence[str] | None = None,
) -> dict:
    """Load the weights of a checkpoint, which is returned.

    Args:
        model: as the config has it.
        checkpoint: file or URL.
        resume: expect what mmengine resumes a run from, too.
        strict: expect all weights of the model and no others; else some of them are enough.
        classes: expect these in this order, where the checkpoint tells them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be read; weights of other shapes than the model's, such as those of another number
            of classes, or that are not numbers, or none of the model's, or not all; other classes; no run to resume.
    """
    loaded = read_checkpoint(checkpoint, map_location='cpu')
    weights, own = loaded.get('state_dict', loaded), within(model).state_dict()
    shared = {key: value for key, value in weights.items() if key in own}
    if not shared:
        raise ValueError(
            f'{checkpoint}: expected weights of the model in the config, such as {next(iter(own))}, got '
            f'{first_few([str(key) for key in weights])}; the config that it was trained with lies in its folder'
        )
    if odd := [key for key, value in shared.items() if not isinstance(value, Tensor)]:
        raise ValueError(f'{checkpoint}: expected tensors, {len(odd)} are none: {first_few(odd)}')
    sizes = {key: (tuple(own[key].shape), tuple(value.shape)) for key, value in shared.items()}
    if other := [f'{key}: expected {size}, got {got}' for key, (size, got) in sizes.items() if got != size]:
        raise ValueError(
            f'{checkpoint}: expected the weights of the model in the config, {len(other)} have another shape, as with '
            f'another number of classes (these are of {classes_of(loaded)}): {first_few(other)}'
        )
    # Where the model itself begins with NaN, as in layer weights that are measured later, the checkpoint may too.
    if nan := [key for key, value in shared.items() if (value.isnan() & ~own[key].cpu().isnan()).any()]:
        raise ValueError(f'{checkpoint}: expected numbers as weights, {len(nan)} tensors hold NaN: {first_few(nan)}')
    meta, hub = loaded.get('meta', {}), loaded.get('message_hub', {})
    numbers = dict(epoch=meta.get('epoch'), iter=meta.get('iter'), seed=meta.get('seed', 0))
    missing = [key for key in ('log_scalars', 'runtime_info', 'resumed_keys') if not isinstance(hub.get(key), dict)]
    if resume and (missing or not all(isinstance(number, int) for number in numbers.values())):
        raise ValueError(
            f'{checkpoint}: expected a checkpoint to resume from, with the logs in message_hub and integers in meta; '
            f'missing: {missing}, got {numbers}'
        )
    if classes and (theirs := classes_of(loaded)):
        require_same_classes(checkpoint, classes, theirs)
    try:
        within(model).load_state_dict(weights, strict)
    except (AttributeError, RuntimeError, TypeError) as error:  # names that are no texts, and weights that do not fit
        raise ValueError(f'{checkpoint}: expected a checkpoint of the model in the config, got {error}') from error
    return loaded


def classes_of(checkpoint: dict) -> Sequence[str] | None:
    """Those that a checkpoint was trained with; None where it does not tell, as converted weights."""
    meta = checkpoint.get('meta', {}).get('dataset_meta')
    classes = meta.get('classes') if isinstance(meta, dict) else None
    return classes if isinstance(classes, list | tuple) else None


def within(model: nn.Module) -> nn.Module:
    """Without what shares it out among processes, or averages its views."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
