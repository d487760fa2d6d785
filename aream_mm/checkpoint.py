"""Checkpoints that fit the model: mmengine only warns where they do not, and goes on with untrained weights."""

from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import CheckpointLoader
from torch import nn

from aream_mm.datasets.pictures import first_few


def require_fitting_shapes(model: nn.Module, checkpoint: str) -> dict:
    """The checkpoint, read.

    Raises:
        ValueError: weights of other shapes than the model's, such as those of another number of classes, or none of
            the model's.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    loaded = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    weights, own = loaded.get('state_dict', loaded), model.state_dict()
    if not weights.keys() & own.keys():
        raise ValueError(
            f'{checkpoint}: expected weights of the model in the config, such as {next(iter(own))}, got '
            f'{first_few(list(weights))}'
        )
    other = [
        f'{key}: expected {tuple(own[key].shape)}, got {tuple(value.shape)}'
        for key, value in weights.items()
        if key in own and value.shape != own[key].shape
    ]
    if other:
        raise ValueError(
            f'{checkpoint}: expected the weights of the model in the config, {len(other)} have another shape, as with '
            f'another number of classes: {first_few(other)}'
        )
    return loaded


def load_fitting_checkpoint(model: nn.Module, checkpoint: str) -> dict:
    """Load all weights of the model, in evaluation; returns the checkpoint.

    Raises:
        ValueError: weights that are missing, left over or of another shape.
    """
    loaded = require_fitting_shapes(model, checkpoint)
    try:
        model.load_state_dict(loaded.get('state_dict', loaded))
    except RuntimeError as error:
        raise ValueError(f'{checkpoint}: expected a checkpoint of the model in the config, got {error}') from error
    return loaded
