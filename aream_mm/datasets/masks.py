"""MaskDataset: any mmseg data set with its own masks, all of them checked at start, to measure stage 2 with."""

from pathlib import Path
from typing import Any

from aream_mm.datasets.wrapper import SegDatasetWrapper, has_mask
from aream_mm.registry import DATASETS


@DATASETS.register_module()
class MaskDataset(SegDatasetWrapper):
    """Photographs and their true masks, which every one has to have if the pipeline loads masks.

    Args:
        dataset: config of an mmseg data set.
        drop_unmasked: leave out the images without a mask, instead of refusing them.
        learnt: folder, below the data set's root, of true masks that stage 2 learns: their images are left out.
        options: as in `SegDatasetWrapper`, with transforms of mmseg's.

    Raises:
        ValueError: images without a mask, or with one that cannot be read or is of another size; learnt ones alone.
    """

    what = 'a mask'

    def __init__(self, dataset: dict, drop_unmasked: bool = False, learnt: str | None = None, **options: Any) -> None:
        self.drop_unmasked, self.learnt = drop_unmasked, learnt
        super().__init__(dataset, **options)

    def change(self, infos: list[dict]) -> list[dict]:
        if self.drop_unmasked:
            infos = list(filter(has_mask, infos)) or infos
        if self.learnt:
            learnt = Path(self.inner.data_root or '', self.learnt)
            infos = [info for info in infos if not (learnt / f'{info["sample_id"]}.png').is_file()]
            if not infos:
                raise ValueError(f'expected true masks beside those in {learnt}, which stage 2 learns, got none')
        if self.loads_masks:
            self.require_masks(infos, self.what)
        return infos
