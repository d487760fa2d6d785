"""What the data set wrappers share: an mmseg data set inside, its infos changed, a pipeline of their own."""

from collections.abc import Callable, Sequence
from pathlib import Path, PureWindowsPath
from unicodedata import normalize

import cv2
import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmseg.datasets.transforms import LoadAnnotations

from aream_mm.datasets.contents import contents, read_digest, read_mask
from aream_mm.datasets.formatting import LoadAnnotationsIfAny, ToEightBits
from aream_mm.datasets.images import (
    ENDINGS,
    ID_MODES,
    RANGE_ADVICE,
    damage,
    files_below,
    first_few,
    measured_range,
    read_headers,
    warn,
    why_unreadable,
)
from aream_mm.datasets.seeding import SeededIndex, seed_generators
from aream_mm.datasets.tags import load_tag_file
from aream_mm.masks import IGNORE_INDEX, SIZES, renumbered

UNCHECKED, WHOLE, UNREADABLE = range(3)
COLOURS_ALONE = ('ColorJitter', 'GaussianBlur', 'Lighting', 'RandomErasing')  # mmpretrain's that move nothing
# Predicting and measuring a CAM hold at most two float32 planes of the image's full size per class, and these.
OTHER_PLANES = 15
WARN_FROM = 2e9  # bytes


class SegDatasetWrapper(BaseDataset):
    """Base of the wrappers: loads the inner mmseg data set and hands its infos to `change`.

    Every info gains `sample_id`, the path of the image below the image folder without its ending ('2007_000063',
    'cats/0001'): the name under which tags are looked up and pseudo masks are written. `width` and `height` are those
    of the image as it is shown, in pixels. The headers of all images, and all of the masks that are used, are read
    at start; an image that is broken behind a good header is found when it is first needed.

    Args:
        dataset: config of an mmseg data set, without a pipeline. Class 0 is 'background', or there is none of this name
            and every pixel belongs to a class. A `metainfo` with fewer `classes` makes a problem of these classes;
            pixels of the others are ignored.
        pipeline: transforms.
        test_mode: as in mmengine's `BaseDataset`.
        unreadable: what an image gets whose data is broken: 'raise', or 'skip' to log its name and take the
            next one in its place. With test_mode it always raises.
        true_masks: learn the masks of the inner data set: stage 1 as labels of the attention loss, where the pipeline
            has `LoadAnnotationsIfAny`, stage 2 in the place of pseudo masks.
    """

    def __init__(
        self,
        dataset: dict,
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = False,
        unreadable: str = 'raise',
        true_masks: bool = False,
    ) -> None:
        if unreadable not in ('raise', 'skip'):
            raise ValueError(f"{type(self).__name__}: expected unreadable='raise' or 'skip', got {unreadable!r}")
        self.unreadable, self.true_masks = unreadable, true_masks
        try:
            arguments = dict(pipeline=[], test_mode=test_mode, serialize_data=False)  # which an empty list would break
            self.inner = MMENGINE_DATASETS.build(dict(dataset, **arguments))
        except (AssertionError, UnicodeDecodeError) as error:  # mmseg's, of a list that it cannot read
            where = Path(dataset.get('data_root') or '', dataset.get('ann_file', ''))
            raise ValueError(f'{where}: expected an image list in UTF-8 and its images, got {error!r}') from error
        classes = self.inner.metainfo['classes']
        known_background = 'background' in self.inner.METAINFO.get('classes', ())
        if 'background' in classes[1:] or (known_background and classes[0] != 'background'):
            raise ValueError(f'{type(self).__name__}: expected background as class 0, got classes {tuple(classes)}')
        if len(classes) > IGNORE_INDEX:
            expected = f'at most {IGNORE_INDEX} classes, since masks have 8 bits and {IGNORE_INDEX} is ignored'
            raise ValueError(f'{type(self).__name__}: expected {expected}, got {len(classes)}')
        if self.inner.reduce_zero_label:
            raise ValueError(f'{type(self).__name__}: expected reduce_zero_label=False, got True')
        self.first_id = int(classes[0] == 'background')  # of the classes that are tags
        super().__init__(metainfo=self.inner.metainfo, pipeline=list(pipeline), test_mode=test_mode)
        # Shared by the workers of a data loader, so that each image is checked once and a skipped one counted once.
        self.state = torch.full((len(self),), UNCHECKED, dtype=torch.uint8).share_memory_()

    def load_data_list(self) -> list[dict]:
        infos = [self.inner.get_data_info(i) for i in range(len(self.inner))]
        if not infos:
            where = self.inner.ann_file or self.inner.data_prefix
            raise ValueError(f'{type(self).__name__} over {where}: expected images, got none')
        root = Path(self.inner.data_prefix['img_path'])
        # Masks are written under these names, and must not end up anywhere else.
        paths = [Path(info['img_path']) for info in infos]
        outside = [not path.is_relative_to(root) or '..' in path.relative_to(root).parts for path in paths]
        self.require(infos, outside, f'a file below {root}', 'img_path')
        headers = read_headers(paths)
        problems = [
            header is None and (why_unreadable(path) or True) for path, header in zip(paths, headers, strict=True)
        ]
        self.require(infos, problems, 'a readable file', 'img_path')
        deep = [str(path) for path, header in zip(paths, headers, strict=True) if header.deep]
        if deep and not self.value_range:
            raise ValueError(
                f'{root}: expected a value_range, the values that become black and white, for {len(deep)} of '
                f'{len(paths)} images that have more than 8 bits, such as {deep[0]}, got None: '
                f'{measured_range(deep)}. For training and all that follows, {RANGE_ADVICE}'
            )
        # mmseg's LoadAnnotations squeezes the mask of an image of a single row or column.
        thin = [min(header.size) < 2 for header in headers]
        self.require(infos, thin, 'at least 2 × 2 pixels', 'img_path')
        for info, path, header in zip(infos, paths, headers, strict=True):
            info['sample_id'] = path.relative_to(root).with_suffix('').as_posix()
            info['width'], info['height'] = header.size
        infos = self.change(infos)
        if self.test_mode and infos:
            self._warn_of_memory(infos)
        for position, info in enumerate(infos):
            info['position'] = position  # in `state`; a subset of the data set has other indices
        return infos

    def _warn_of_memory(self, infos: list[dict]) -> None:
        largest = max(infos, key=lambda info: info['width'] * info['height'])
        width, height, number = largest['width'], largest['height'], len(self.metainfo['classes'])
        needed = 4 * width * height * (2 * number + OTHER_PLANES)
        if needed > WARN_FROM:
            warn(
                f'{largest["img_path"]} has {width} × {height} pixels: its prediction for {number} classes takes up to '
                f'{needed / 1e9:.0f} GB of memory; scale such images down if that is too much'
            )

    def change(self, infos: list[dict]) -> list[dict]:
        """The infos of this data set, from those of the inner one."""
        raise TypeError(f'{type(self).__name__} is a base class')

    @property
    def value_range(self) -> Sequence[float] | None:
        """Of the pipeline's `ToEightBits`."""
        return next((step.value_range for step in self.pipeline.transforms if isinstance(step, ToEightBits)), None)

    @property
    def loads_masks(self) -> bool:
        """Whether the pipeline loads a mask for every image."""
        return any(
            isinstance(step, LoadAnnotations) and not isinstance(step, LoadAnnotationsIfAny)
            for step in self.pipeline.transforms
        )

    def require_masks(self, infos: list[dict], what: str) -> list[dict]:
        """What `read_mask` finds in the mask of every info.

        Raises:
            ValueError: no mask, or one that cannot be read, has another size than its image, holds ids that no class
                has, or, as all others, 0 and 255 alone; or colours of classes at other indices beside other colours.
        """
        paths = [info.get('seg_map_path') for info in infos]
        masks = contents(read_mask, paths)
        looked_for = [f'looked for {path}' if path else True for path in paths]
        missing = ['size' not in mask and problem for mask, problem in zip(masks, looked_for, strict=True)]
        self.require(infos, missing, what, 'img_path')
        modes = [mask['mode'] not in ID_MODES and mask['mode'] for mask in masks]
        advice = 'a grey or palette PNG of 8 bits; tools/converters/import_masks.py makes one of colours'
        self.require(infos, modes, f'{what} of class ids ({advice})', 'seg_map_path')
        sizes = [([info['width'], info['height']], list(mask['size'])) for info, mask in zip(infos, masks, strict=True)]
        sizes = [size != got and SIZES.format(*size, *got) for size, got in sizes]
        self.require(infos, sizes, f'{what} of the size of the image', 'seg_map_path')
        broken = [mask.get('problem') for mask in masks]
        self.require(infos, broken, f'{what} that can be read to its end', 'seg_map_path')
        standard = self.inner.METAINFO.get('classes')  # of data sets that have a numbering of their own
        metainfo = self.inner.METAINFO if infos and infos[0].get('label_map') else self.metainfo
        names, palette = metainfo['classes'], metainfo.get('palette', ())
        numbers = renumbered(masks, palette)
        ids = [{each.get(i, i) for i in mask['ids']} for mask, each in zip(masks, numbers, strict=True)]
        known = {*range(len(names)), IGNORE_INDEX}
        expected = f'{what} of ids 0..{len(names) - 1} ({first_few(names)}) or {IGNORE_INDEX}'
        expected += getattr(self.inner, 'origin_of_masks', '')
        self.require(infos, [sorted(each - known) for each in ids], expected, 'seg_map_path')
        moved = [(info, each) for info, each in zip(infos, numbers, strict=True) if each]
        for info, each in moved:  # LoadAnnotations brings index to id to class
            info['label_map'] = {i: (info.get('label_map') or {}).get(number, number) for i, number in each.items()}
        if moved:
            named = first_few([info['seg_map_path'] for info, _ in moved])
            warn(f'{len(moved)} masks are read by their colours, which an editor has given other indices: {named}')
        foreign = [each for each, mask in zip(ids, masks, strict=True) if not mask['made_from']]
        painted = set().union(*foreign) in ({0, IGNORE_INDEX}, {IGNORE_INDEX})
        # An id too low by one cannot be told from a right one, but then the background, which most masks have, is 255.
        own = standard and what == 'a mask'
        low = sum(IGNORE_INDEX in ids and 0 not in ids for ids in foreign) if own else 0
        if painted or low > max(1, len(foreign) / 5):
            got = f'0 and {IGNORE_INDEX} alone in all of {len(foreign)}, as if objects were painted with {IGNORE_INDEX}'
            if not painted:
                got = f'{IGNORE_INDEX} and no 0 in {low} of {len(foreign)}, as if the classes were counted from 0'
            raise ValueError(f'{paths[0]}: expected {expected}, got masks with {got}')
        return masks

    def with_true_masks(self, infos: list[dict]) -> list[dict]:
        masked = [info for info in infos if self.true_masks and has_mask(info)]
        loaded = any(isinstance(step, LoadAnnotations) for step in self.pipeline.transforms)
        if self.true_masks and not (masked and loaded):
            got = 'none' if loaded else 'a pipeline without LoadAnnotationsIfAny'
            raise ValueError(f'true_masks: expected masks of some images in {self.inner.data_prefix}, got {got}')
        moved = [type(step) for step in self.pipeline.transforms if type(step).__module__.startswith('mmpretrain.')]
        if self.true_masks and (moved := [step.__name__ for step in moved if step.__name__ not in COLOURS_ALONE]):
            raise ValueError(f'true_masks: expected transforms that move masks with their images, got {moved}')
        self.learnt_masks = contents(read_digest, [info['img_path'] for info in masked])
        return masked

    def classes_in(self, infos: list[dict], masks: list[dict]) -> list[np.ndarray]:
        """Multi-hot float32 vectors (C,) of the classes in masks that `require_masks` has read."""
        classes, maps = np.arange(self.first_id, len(self.metainfo['classes'])), [i.get('label_map') for i in infos]
        ids = [[(ids or {}).get(i, i) for i in mask['ids']] for ids, mask in zip(maps, masks, strict=True)]
        return [np.isin(classes, present).astype(np.float32) for present in ids]

    def compare(
        self, tag_file: str | None, infos: list[dict], tags: list[np.ndarray], present: list[np.ndarray]
    ) -> None:
        """Name the images whose tags, vectors (C,), and the classes present in their true masks differ."""
        for what, others in (('hold classes without a tag', np.greater), ('have no pixel of a tag', np.less)):
            each = [self.names(others(classes, tag)) for classes, tag in zip(present, tags, strict=True)]
            named = [f'{i["sample_id"]} ({", ".join(names)})' for i, names in zip(infos, each, strict=True) if names]
            if named:
                warn(f'{tag_file}: {len(named)} of {len(infos)} masks {what}: {first_few(named)}')

    def tags_from_file(self, infos: list[dict], tag_file: str) -> list[np.ndarray]:
        """Multi-hot float32 vectors (C,)."""
        # A data set type without classes of its own has those that its config gives.
        all_classes = self.inner.METAINFO.get('classes', self.metainfo['classes'])[self.first_id :]
        table = load_tag_file(tag_file, all_classes)
        keys = [normalize('NFC', info['sample_id']) for info in infos]
        if not self.inner.ann_file:
            self._require_images(tag_file, sorted(table.keys() - set(keys)), len(table))
        self.require(infos, [key not in table for key in keys], f'an entry in {tag_file}', 'sample_id')
        columns = [all_classes.index(name) for name in self.metainfo['classes'][self.first_id :]]
        return [table[key][columns] for key in keys]

    def _require_images(self, tag_file: str, missing: list[str], number: int) -> None:
        """Raise a ValueError that names the entries without an image, if there are any, and what may be meant."""
        root = Path(self.inner.data_prefix['img_path'])
        like = {Path(file).stem.casefold(): file for file in (files_below(root) if missing else ())}
        stems = [PureWindowsPath(key).name.casefold() for key in missing]  # its paths have slashes of both kinds
        files = [like.get(stem) or like.get(Path(stem).stem) for stem in stems]
        shown = [f'{key} (there is {file})' if file else key for key, file in zip(missing, files, strict=True)]
        if missing:
            raise ValueError(
                f'{tag_file}: expected an image ({" ".join(ENDINGS)}) for each of {number} entries, missing for '
                f'{len(missing)}: {first_few(shown)}; add or convert them in {root}, remove the entries, or name a '
                'list of the images to take as ann_file of the data set'
            )

    def names(self, tags: np.ndarray) -> list[str]:
        """Those of the classes in a multi-hot vector (C,)."""
        return [self.metainfo['classes'][self.first_id + i] for i in np.flatnonzero(tags)]

    def sources(self, identity: str, infos: list[dict], tags: Sequence[np.ndarray | None]) -> list[dict]:
        """What a pseudo mask of each image is made from: by whom, the names of its tags, the photograph's digest."""
        digests = contents(read_digest, [info['img_path'] for info in infos])
        names = [tag is not None and self.names(tag) for tag in tags]
        return [dict(made_by=identity, tags=n, photograph=d) for n, d in zip(names, digests, strict=True)]

    def require(self, infos: list[dict], problems: Sequence, what: str, key: str) -> None:
        """Raise a ValueError that names the first infos with a problem, which may say what it is, and counts them."""
        bad = [
            str(info[key]) + ('' if problem is True else f' ({problem})')
            for info, problem in zip(infos, problems, strict=True)
            if problem
        ]
        if bad:
            raise ValueError(
                f'{type(self).__name__} over {self.inner.ann_file or self.inner.data_prefix}: expected {what} for each '
                f'of {len(infos)} images, missing for {len(bad)}: {first_few(bad)}'
            )

    def prepare_data(self, idx: int) -> dict:
        """The item through the pipeline, or the first one after it whose data can be read.

        Raises:
            ValueError: data that cannot be read, unless it is to be skipped, or that the pipeline cannot take.
        """
        if isinstance(idx, SeededIndex):
            seed_generators(*idx.key)
        for step in range(len(self)):
            # The first as it is asked for, so that an index outside raises, and ends a loop over the data set.
            info = self.get_data_info((idx + step) % len(self) if step else idx)
            if self._is_whole(info):
                try:
                    item = self.pipeline(info)
                except cv2.error as error:  # such as an image so thin that nothing is left of it when it is resized
                    raise ValueError(f'{info["img_path"]}: {error}') from error
                if item is None:  # mmengine would take a random other item
                    raise ValueError(f'{info["img_path"]}: expected an item from the pipeline, got None')
                return item
        raise ValueError(f'{type(self).__name__}: none of {len(self)} images can be read')

    def _is_whole(self, info: dict) -> bool:
        state = int(self.state[info['position']])
        if state != UNCHECKED:
            return state == WHOLE
        problem = damage(info['img_path'])
        if not problem:
            self.state[info['position']] = WHOLE
            return True
        if self.unreadable == 'raise' or self.test_mode:
            advice = '' if self.test_mode else "; repair or remove it, or set unreadable='skip'"
            expected = f'{type(self).__name__}: expected images that can be read to their end'
            raise ValueError(f'{expected}, got {info["img_path"]} ({problem}){advice}')
        self.state[info['position']] = UNREADABLE
        number = int((self.state == UNREADABLE).sum())
        warn(
            f'{type(self).__name__}: skipping {info["img_path"]} ({problem}), the next image takes its place; '
            f'{number} of {len(self.state)} skipped so far'
        )
        return False


def has_mask(info: dict) -> bool:
    """Whether the file of the mask is there."""
    return Path(info.get('seg_map_path', '')).is_file()
