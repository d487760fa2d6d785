"""PhotographDataset: a folder of photographs as an mmseg data set, with masks where there are some."""

from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from mmseg.datasets import BaseSegDataset

from aream_mm.checks import require
from aream_mm.datasets.images import ENDINGS, SHOWN, endings, find_images, require_distinct_names, warn
from aream_mm.datasets.tags import refuse
from aream_mm.files import read_lines
from aream_mm.masks import VOC_COLOURS
from aream_mm.registry import DATASETS


@DATASETS.register_module()
class PhotographDataset(BaseSegDataset):
    """Every JPEG, PNG, BMP, TIFF and WebP below a folder, whatever the case of its ending; of several frames the first.

    An image's id is its path below the folder without the ending ('cats/0001').

    Args:
        metainfo: dict(classes=('background', …)), or the classes alone where every pixel belongs to one; without a
            `palette`, PASCAL's colours are taken.
        data_prefix: `img_path`, the folder; `seg_map_path`, where masks are wanted: `<id>.png` in it is an image's
            mask of class ids. The info of an image without one has no `seg_map_path`. No other images lie there.
        ann_file: file of the ids to take, one a line; by default all.
        data_root: what the relative ones of these paths are relative to.

    Raises:
        FileNotFoundError: no such folder or list.
        ValueError: no classes, no images, two images that differ in their endings alone, masks that are no
            photograph's, or ids in the list without an image or named twice.
    """

    def __init__(
        self, metainfo: dict, data_prefix: dict, ann_file: str = '', data_root: str | None = None, **kwargs
    ) -> None:
        classes = metainfo.get('classes', ())
        named = isinstance(classes, Sequence) and all(isinstance(name, str) and name.strip() for name in classes)
        good = named and not isinstance(classes, str) and len(set(classes)) == len(classes) > 1
        expected = "two or more different names in quotes, separated by commas: ('background', 'cat')"
        require('PhotographDataset: classes', classes, expected, good)
        meant = [name for name in classes if get_close_matches(name.casefold(), ['background'], cutoff=0.8)]
        require('PhotographDataset: classes', classes, "'background', spelt so, or none", meant in ([], ['background']))
        expected, good = 'names of folders in quotes', all(isinstance(name, str) for name in data_prefix.values())
        require('PhotographDataset: data_prefix (seg_map_path is true_masks of own.py)', data_prefix, expected, good)
        # Of more classes than colours, which mmseg would complain about first, the wrappers say that they are too many.
        metainfo = {'palette': VOC_COLOURS[: len(classes)] if len(classes) <= len(VOC_COLOURS) else [], **metainfo}
        super().__init__(metainfo=metainfo, data_prefix=data_prefix, ann_file=ann_file, data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        folder, masks = Path(self.data_prefix['img_path']), self.data_prefix.get('seg_map_path')
        if not folder.is_dir():
            raise FileNotFoundError(f'PhotographDataset: expected a folder of images, got {str(folder)!r}')
        images, others = find_images(folder)
        if not images:
            found = f'{len(others)} other files: {endings(others)}' if others else 'an empty folder'
            raise ValueError(f'{folder}: expected images ({" ".join(ENDINGS)}), got {found}')
        if others and not self.test_mode:
            warn(f'{folder}: {len(others)} files are left out, which are no {" ".join(ENDINGS)}: {endings(others)}')
        require_distinct_names(folder, images)
        by_id = {Path(image).with_suffix('').as_posix(): image for image in images}
        if masks and Path(masks).is_dir():
            self._require_photographs(Path(masks), folder, list(by_id))
        infos = []
        for sample_id in self._listed(by_id):
            info = dict(
                img_path=str(folder / by_id[sample_id]),
                label_map=self.label_map,
                reduce_zero_label=self.reduce_zero_label,
                seg_fields=[],
            )
            if masks and (mask := Path(masks) / f'{sample_id}.png').is_file():
                info['seg_map_path'] = str(mask)
            infos.append(info)
        return infos

    @staticmethod
    def _require_photographs(masks: Path, folder: Path, ids: list[str]) -> None:
        """Raise a ValueError for masks that are named otherwise than the photographs below `folder`."""
        files, others = find_images(masks)
        if others and not files:
            warn(f'{masks}: expected masks (.png), got other files: {endings(others)}')
        known, strangers = {f'{sample_id}.png' for sample_id in ids}, []
        for file in files:
            if file not in known and not (masks / file).is_relative_to(folder):
                nearest = get_close_matches(file, known, n=1, cutoff=0) if len(strangers) < SHOWN else ['']
                strangers.append(f'{file} (looked for {nearest[0]})')
        refuse(masks, 'masks named as their photographs are, with .png', strangers)

    def _listed(self, by_id: dict[str, str]) -> list[str]:
        """The ids to take, in order."""
        if not self.ann_file:
            return list(by_id)
        if not Path(self.ann_file).is_file():
            raise FileNotFoundError(f'PhotographDataset: expected a list of ids, got {self.ann_file!r}')
        listed = [line for line in read_lines(self.ann_file, encoding='utf-8-sig') if line]
        expected = 'ids of images (paths below the folder, without ending)'
        refuse(self.ann_file, expected, [sample_id for sample_id in listed if sample_id not in by_id])
        refuse(self.ann_file, 'each id once', sorted(i for i, number in Counter(listed).items() if number > 1))
        return listed
