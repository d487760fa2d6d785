"""PseudoMaskDataset: any mmseg data set with its masks replaced by pseudo masks, for stage 2."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from aream_mm.datasets.wrapper import SegDatasetWrapper
from aream_mm.registry import DATASETS


@DATASETS.register_module()
class PseudoMaskDataset(SegDatasetWrapper):
    """Points an mmseg data set at the folder that `PseudoMaskHook` wrote; the data set's own masks are never read.

    Args:
        dataset: config of an mmseg data set.
        mask_dir: folder with one PNG per image and a manifest.json.
        drop_unmasked: leave out the images that have no pseudo mask, such as those that stage 1 left out because none
            of the classes is in them, instead of refusing them.
        pipeline: transforms of stage 2, mmseg's.
        test_mode: as in mmengine's `BaseDataset`.
        unreadable: as in `SegDatasetWrapper`.

    Raises:
        FileNotFoundError: the folder has no manifest: nothing was written there, or writing has not ended.
        ValueError: the masks were made for other classes, or are missing for some images.
    """

    def __init__(
        self,
        dataset: dict,
        mask_dir: str,
        drop_unmasked: bool = False,
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = False,
        unreadable: str = 'raise',
    ) -> None:
        self.mask_dir = Path(mask_dir)
        self.drop_unmasked = drop_unmasked
        super().__init__(dataset, pipeline, test_mode, unreadable)

    def change(self, infos: list[dict]) -> list[dict]:
        manifest = self.mask_dir / 'manifest.json'
        if not manifest.is_file():
            raise FileNotFoundError(
                f'pseudo masks: expected {manifest}, which is written when they are complete; run stage 1 first'
            )
        classes = list(self.metainfo['classes'])
        try:
            made_for = json.loads(manifest.read_bytes())['classes']
        except (LookupError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(f'{manifest}: expected JSON with the classes of the masks, got {error!r}') from error
        if made_for != classes:
            raise ValueError(f'{manifest}: expected masks of the classes {classes}, got {made_for}')
        for info in infos:
            # Pseudo masks hold the ids of this problem already, so the map from the data set's ids must not apply.
            info.update(seg_map_path=str(self.mask_dir / f'{info["sample_id"]}.png'), label_map=None)
        if self.drop_unmasked:
            infos = [info for info in infos if Path(info['seg_map_path']).is_file()] or infos
        self.require_masks(infos, 'a pseudo mask')
        return infos
