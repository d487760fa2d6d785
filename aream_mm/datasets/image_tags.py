"""ImageTagDataset: any mmseg data set as photographs and tags."""

from collections.abc import Callable, Sequence
from pathlib import Path
from unicodedata import normalize

import numpy as np

from aream_mm.datasets.tags import load_tag_file, tags_from_masks
from aream_mm.datasets.wrapper import SegDatasetWrapper
from aream_mm.registry import DATASETS


@DATASETS.register_module()
class ImageTagDataset(SegDatasetWrapper):
    """Photographs with multi-hot tags `gt_score` (C,). Infos for training name no mask, so no transform can read one.

    Args:
        dataset: config of an mmseg data set.
        tag_file: path of a tag table (`tags.csv`, which tools/converters/tags.py makes from many forms of tags), or of
            a `cls_labels.npy` whose vectors follow the data set's own classes, background left out. With a `metainfo`
            of fewer classes, tags of the data set's other classes are not used. None derives the tags from the masks.
        drop_untagged: leave out the images that have none of the classes, instead of refusing them.
        pipeline: transforms, ending in `PackTagInputs`.
        test_mode: name the masks that exist in the infos, for evaluation.
        unreadable: as in `SegDatasetWrapper`.

    Raises:
        ValueError: images without a picture, without an entry in the tag file, without tags, or without a mask that
            the pipeline or the tags need; tags of classes that the data set does not have.
    """

    def __init__(
        self,
        dataset: dict,
        tag_file: str | None = None,
        drop_untagged: bool = False,
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = False,
        unreadable: str = 'raise',
    ) -> None:
        self.tag_file = tag_file
        self.drop_untagged = drop_untagged
        super().__init__(dataset, pipeline, test_mode, unreadable)

    def change(self, infos: list[dict]) -> list[dict]:
        has_mask = lambda info: 'seg_map_path' in info and Path(info['seg_map_path']).is_file()  # noqa: E731
        needs_masks = self.tag_file is None or self.loads_masks
        if needs_masks or self.test_mode:
            self.require_masks(infos if needs_masks else [info for info in infos if has_mask(info)], 'a mask')
        if self.tag_file is None:
            tags = tags_from_masks(infos, len(self.metainfo['classes']), self.first_id)
        else:
            tags = self._tags_from_file(infos)
        for info, tag in zip(infos, tags, strict=True):
            info['gt_score'] = tag
            if not (self.test_mode and has_mask(info)):
                info.pop('seg_map_path', None)
        tagged = [info for info in infos if info['gt_score'].any()]
        if self.drop_untagged and tagged:
            return tagged
        what = f'at least one of the tags {self.metainfo["classes"][self.first_id :]} (or set drop_untagged=True)'
        self.require(infos, lambda info: info['gt_score'].any(), what, 'sample_id')
        return infos

    def _tags_from_file(self, infos: list[dict]) -> list[np.ndarray]:
        # A data set type without classes of its own has those that its config gives.
        all_classes = self.inner.METAINFO.get('classes', self.metainfo['classes'])[self.first_id :]
        table = load_tag_file(self.tag_file, all_classes)
        key = lambda info: normalize('NFC', info['sample_id'])  # noqa: E731
        self.require(infos, lambda info: key(info) in table, f'an entry in {self.tag_file}', 'sample_id')
        columns = [all_classes.index(name) for name in self.metainfo['classes'][self.first_id :]]
        return [table[key(info)][columns] for info in infos]
