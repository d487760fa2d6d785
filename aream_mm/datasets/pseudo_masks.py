"""PseudoMaskDataset: any mmseg data set with its masks replaced by pseudo masks, for stage 2."""

import json
from pathlib import Path
from typing import Any

from aream_mm.datasets.masks import MaskDataset
from aream_mm.registry import DATASETS


@DATASETS.register_module()
class PseudoMaskDataset(MaskDataset):
    """Points an mmseg data set at the folder that `PseudoMaskHook` wrote; the data set's own masks are never read.

    Args:
        dataset: config of an mmseg data set.
        mask_dir: folder with one PNG per image and a manifest.json.
        options: as in `MaskDataset`; drop_unmasked leaves out those that stage 1 left out with drop_untagged.

    Raises:
        FileNotFoundError: the folder has no manifest: nothing was written there, or writing has not ended.
        ValueError: the masks were made for other classes, or are missing for some images.
    """

    what = 'a pseudo mask'
    loads_masks = True  # whatever the pipeline does

    def __init__(self, dataset: dict, mask_dir: str, **options: Any) -> None:
        self.mask_dir = Path(mask_dir)
        super().__init__(dataset, **options)

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
        return super().change(infos)
