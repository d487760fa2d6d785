"""ImageTagDataset: any mmseg data set as photographs and tags."""

from typing import Any

import numpy as np

from aream_mm.datasets.images import warn
from aream_mm.datasets.wrapper import SegDatasetWrapper, has_mask
from aream_mm.registry import DATASETS


@DATASETS.register_module()
class ImageTagDataset(SegDatasetWrapper):
    """Photographs with multi-hot tags `gt_score` (C,). Infos for training name no mask, unless true masks are learnt.

    Args:
        dataset: config of an mmseg data set.
        tag_file: path of a tag table (`tags.csv`, which tools/converters/tags.py makes from many forms of tags), or of
            a `cls_labels.npy` whose vectors follow the data set's own classes, background left out. With a `metainfo`
            of fewer classes, tags of the data set's other classes are not used. None derives the tags from the masks.
        drop_untagged: leave out the images that have none of the classes, which else are negatives: background alone.
        options: as in `SegDatasetWrapper`. The pipeline ends in `PackTagInputs`; with test_mode the infos name the
            masks that exist, for evaluation.

    Raises:
        ValueError: an image that is missing, without an entry in the tag file, or without a mask that the pipeline or
            the tags need; no tags at all, or without background no tags of an image; tags of other classes; entries
            without an image, unless the data set has a list of its images; masks as in `require_masks`.
    """

    def __init__(self, dataset: dict, tag_file: str | None = None, drop_untagged: bool = False, **options: Any) -> None:
        self.tag_file = tag_file
        self.drop_untagged = drop_untagged
        super().__init__(dataset, **options)

    def change(self, infos: list[dict]) -> list[dict]:
        required, named = self.tag_file is None or self.loads_masks, self.test_mode or bool(self.with_true_masks(infos))
        masked = [info for info in infos if required or named and has_mask(info)]
        masks = self.require_masks(masked, 'a mask')
        present = self.classes_in(masked, masks)
        tags = present if self.tag_file is None else self.tags_from_file(infos, self.tag_file)
        for info, tag in zip(infos, tags, strict=True):
            info['gt_score'] = tag
        self.compare(self.tag_file, masked, [info['gt_score'] for info in masked], present)
        for info in infos:
            if not (named and has_mask(info)):
                info.pop('seg_map_path', None)
        names, untagged = self.metainfo['classes'][self.first_id :], [not info['gt_score'].any() for info in infos]
        if self.drop_untagged and not all(untagged):
            infos = [info for info in infos if info['gt_score'].any()]
        elif not self.first_id or all(untagged):
            reason = '' if self.first_id else ', since without background every pixel belongs to a class,'
            self.require(infos, untagged, f'at least one of the tags {names}{reason}', 'sample_id')
        shares = zip(names, np.mean([info['gt_score'] for info in infos], axis=0), strict=True)
        constant = [f'{name} is in {"every image" if share else "none"}' for name, share in shares if share in (0, 1)]
        if constant and not self.test_mode:
            advice = 'add photographs without it (an empty cell in the tag table), or with it'
            warn(f'CAMs cannot learn what is in every image or in none. {"; ".join(constant)}: {advice}')
        return infos
