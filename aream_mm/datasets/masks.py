"""MaskDataset: any mmseg data set with its own masks, all of them checked at start, to measure stage 2 with."""

from collections.abc import Callable, Sequence
from pathlib import Path

from aream_mm.datasets.wrapper import SegDatasetWrapper
from aream_mm.registry import DATASETS


@DATASETS.register_module()
class MaskDataset(SegDatasetWrapper):
    """Photographs and their true masks, which every one has to have if the pipeline loads masks.

    Args:
        dataset: config of an mmseg data set.
        drop_unmasked: leave out the pictures without a mask, instead of refusing them.
        pipeline: transforms, mmseg's.
        test_mode: as in mmengine's `BaseDataset`.
        unreadable: as in `SegDatasetWrapper`.

    Raises:
        ValueError: pictures without a mask, or with one that cannot be read or is of another size.
    """

    def __init__(
        self,
        dataset: dict,
        drop_unmasked: bool = False,
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = False,
        unreadable: str = 'raise',
    ) -> None:
        self.drop_unmasked = drop_unmasked
        super().__init__(dataset, pipeline, test_mode, unreadable)

    def change(self, infos: list[dict]) -> list[dict]:
        if self.drop_unmasked:
            infos = [info for info in infos if Path(info.get('seg_map_path', '')).is_file()] or infos
        if self.loads_masks:
            self.require_masks(infos, 'a mask')
        return infos
