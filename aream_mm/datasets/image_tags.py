"""ImageTagDataset: any mmseg data set as photographs and tags."""

from pathlib import Path, PureWindowsPath
from typing import Any
from unicodedata import normalize

import numpy as np

from aream_mm.datasets.pictures import ENDINGS, files_below, first_few, warn
from aream_mm.datasets.tags import load_tag_file, tags_from_masks
from aream_mm.datasets.wrapper import SegDatasetWrapper, has_mask
from aream_mm.registry import DATASETS


@DATASETS.register_module()
class ImageTagDataset(SegDatasetWrapper):
    """Photographs with multi-hot tags `gt_score` (C,). Infos for training name no mask, so no transform can read one.

    Args:
        dataset: config of an mmseg data set.
        tag_file: path of a tag table (`tags.csv`, which tools/converters/tags.py makes from many forms of tags), or of
            a `cls_labels.npy` whose vectors follow the data set's own classes, background left out. With a `metainfo`
            of fewer classes, tags of the data set's other classes are not used. None derives the tags from the masks.
        drop_untagged: leave out the images that have none of the classes, which else are negatives: background alone.
        options: as in `SegDatasetWrapper`. The pipeline ends in `PackTagInputs`; with test_mode the infos name the
            masks that exist, for evaluation.

    Raises:
        ValueError: images without a picture, without an entry in the tag file, or without a mask that the pipeline or
            the tags need; no tags at all, or without background no tags of an image; tags of other classes; entries
            without an image, unless the data set has a list of its images.
    """

    def __init__(self, dataset: dict, tag_file: str | None = None, drop_untagged: bool = False, **options: Any) -> None:
        self.tag_file = tag_file
        self.drop_untagged = drop_untagged
        super().__init__(dataset, **options)

    def change(self, infos: list[dict]) -> list[dict]:
        if self.tag_file is None or self.loads_masks:
            self.require_masks(infos, 'a mask')
        elif self.test_mode:
            self.require_masks([info for info in infos if has_mask(info)], 'a mask')
        if self.tag_file is None:
            tags = tags_from_masks(infos, len(self.metainfo['classes']), self.first_id)
        else:
            tags = self._tags_from_file(infos)
        for info, tag in zip(infos, tags, strict=True):
            info['gt_score'] = tag
            if not (self.test_mode and has_mask(info)):
                info.pop('seg_map_path', None)
        names, tagged = self.metainfo['classes'][self.first_id :], [info['gt_score'].any() for info in infos]
        if self.drop_untagged and any(tagged):
            infos = [info for info in infos if info['gt_score'].any()]
        elif not (self.first_id and any(tagged)):
            reason = '' if self.first_id else ', since without background every pixel belongs to a class,'
            self.require(infos, tagged, f'at least one of the tags {names}{reason}', 'sample_id')
        shares = zip(names, np.mean([info['gt_score'] for info in infos], axis=0), strict=True)
        constant = [f'{name} is in {"every picture" if share else "none"}' for name, share in shares if share in (0, 1)]
        if constant and not self.test_mode:
            advice = 'add photographs without it (an empty cell in the tag table), or with it'
            warn(f'CAMs cannot learn what is in every picture or in none. {"; ".join(constant)}: {advice}')
        return infos

    def _tags_from_file(self, infos: list[dict]) -> list[np.ndarray]:
        # A data set type without classes of its own has those that its config gives.
        all_classes = self.inner.METAINFO.get('classes', self.metainfo['classes'])[self.first_id :]
        table = load_tag_file(self.tag_file, all_classes)
        keys = [normalize('NFC', info['sample_id']) for info in infos]
        known = set(keys)
        if not self.inner.ann_file:
            self._require_pictures([key for key in table if key not in known], len(table))
        self.require(infos, [key in table for key in keys], f'an entry in {self.tag_file}', 'sample_id')
        columns = [all_classes.index(name) for name in self.metainfo['classes'][self.first_id :]]
        return [table[key][columns] for key in keys]

    def _require_pictures(self, missing: list[str], number: int) -> None:
        """Raise a ValueError that names the entries without a picture, if there are any, and what may be meant."""
        root = Path(self.inner.data_prefix['img_path'])
        like = {Path(file).stem.casefold(): file for file in (files_below(root) if missing else ())}
        stems = [PureWindowsPath(key).name.casefold() for key in missing]  # its paths have slashes of both kinds
        files = [like.get(stem) or like.get(Path(stem).stem) for stem in stems]
        shown = [f'{key} (there is {file})' if file else key for key, file in zip(missing, files, strict=True)]
        if missing:
            raise ValueError(
                f'{self.tag_file}: expected a picture ({" ".join(ENDINGS)}) for each of {number} entries, missing for '
                f'{len(missing)}: {first_few(shown)}; add or convert them in {root}, remove the entries, or name a '
                'list of the images to take as ann_file of the data set'
            )
