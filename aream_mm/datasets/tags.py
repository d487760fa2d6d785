"""Where tags come from: the `cls_labels.npy` file of the field, or the masks of a data set."""

import pickle
from pathlib import Path

import numpy as np
from mmengine.dist import is_main_process
from mmengine.utils import track_iter_progress
from mmseg.datasets.transforms import LoadAnnotations

IGNORE_INDEX = 255


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles numpy arrays and builtin containers and nothing else, so that a tag file cannot run code."""

    ALLOWED = {
        ('numpy', 'ndarray'),
        ('numpy', 'dtype'),
        ('numpy.core.multiarray', '_reconstruct'),
        ('numpy._core.multiarray', '_reconstruct'),
        ('_codecs', 'encode'),
    }

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f'{module}.{name} does not belong in a tag file')
        return super().find_class(module, name)


def load_tag_file(path: str | Path) -> dict[str, np.ndarray]:
    """Read a `cls_labels.npy`: image id → multi-hot vector over all classes but background.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no pickled dict of arrays, or asks for anything else to be unpickled.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'tag file: expected a cls_labels.npy, got {str(path)!r} which does not exist')
    with open(path, 'rb') as file:
        try:
            major, _ = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(file)
            table = _ArrayUnpickler(file).load().item() if dtype.hasobject and shape == () else None
        except (ValueError, EOFError, AttributeError, pickle.UnpicklingError) as error:
            raise ValueError(f'tag file {str(path)!r}: expected a dict from image id to array, got {error}') from error
    if not isinstance(table, dict):
        raise ValueError(f'tag file {str(path)!r}: expected a dict from image id to array, got {dtype} {shape}')
    return {str(key): np.asarray(value) for key, value in table.items()}


def tags_from_masks(data_list: list[dict], num_classes: int) -> list[np.ndarray]:
    """Multi-hot vectors (num_classes − 1,) of the classes in each mask, as mmseg's `LoadAnnotations` reads it.

    Args:
        data_list: data infos of an mmseg data set.
        num_classes: with background.
    """
    load = LoadAnnotations()
    tags = []
    for info in track_iter_progress(data_list) if is_main_process() else data_list:
        present = np.unique(load(dict(info, seg_fields=[]))['gt_seg_map'])
        if unknown := [int(i) for i in present if num_classes <= i != IGNORE_INDEX]:
            raise ValueError(f'{info["seg_map_path"]}: expected ids 0..{num_classes - 1} or 255, got {unknown}')
        tags.append(np.isin(np.arange(1, num_classes), present).astype(np.float32))
    return tags
