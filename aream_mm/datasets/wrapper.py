"""What the data set wrappers share: an mmseg data set inside, its infos changed, a pipeline of their own."""

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import torch
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmseg.datasets.transforms import LoadAnnotations

from aream_mm.datasets.formatting import LoadAnnotationsIfAny, ToEightBits
from aream_mm.datasets.pictures import (
    ID_MODES,
    RANGE_ADVICE,
    damage,
    first_few,
    measured_range,
    read_headers,
    warn,
    why_unreadable,
)
from aream_mm.datasets.seeding import SeededIndex, seed_generators

UNCHECKED, WHOLE, UNREADABLE = range(3)
# Of float32 planes of a picture's full size that predicting and measuring a CAM hold at most: two a class and these.
OTHER_PLANES = 15
WARN_FROM = 2e9  # bytes


class SegDatasetWrapper(BaseDataset):
    """Base of the wrappers: loads the inner mmseg data set and hands its infos to `change`.

    Every info gains `sample_id`, the path of the picture below the image folder without its ending ('2007_000063',
    'cats/0001'): the name under which tags are looked up and pseudo masks are written. `width` and `height` are those
    of the picture as it is shown, in pixels. The headers of all pictures are read at start; data that is broken behind
    a good header is found when the picture is first needed.

    Args:
        dataset: config of an mmseg data set, without a pipeline. Class 0 is 'background', or there is none of this name
            and every pixel belongs to a class. A `metainfo` with fewer `classes` makes a problem of these classes;
            pixels of the others are ignored.
        pipeline: transforms.
        test_mode: as in mmengine's `BaseDataset`.
        unreadable: what a picture or mask gets whose data is broken: 'raise', or 'skip' to log its name and take the
            next one in its place. With test_mode it always raises.
    """

    def __init__(
        self,
        dataset: dict,
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = False,
        unreadable: str = 'raise',
    ) -> None:
        if unreadable not in ('raise', 'skip'):
            raise ValueError(f"{type(self).__name__}: expected unreadable='raise' or 'skip', got {unreadable!r}")
        self.unreadable = unreadable
        try:
            arguments = dict(pipeline=[], test_mode=test_mode, serialize_data=False)  # which an empty list would break
            self.inner = MMENGINE_DATASETS.build(dict(dataset, **arguments))
        except (AssertionError, UnicodeDecodeError) as error:  # mmseg's, of a list that it cannot read
            where = Path(dataset.get('data_root') or '', dataset.get('ann_file', ''))
            raise ValueError(f'{where}: expected an image list in UTF-8 and its pictures, got {error!r}') from error
        classes = self.inner.metainfo['classes']
        known_background = 'background' in self.inner.METAINFO.get('classes', ())
        if 'background' in classes[1:] or (known_background and classes[0] != 'background'):
            raise ValueError(f'{type(self).__name__}: expected background as class 0, got classes {tuple(classes)}')
        if self.inner.reduce_zero_label:
            raise ValueError(f'{type(self).__name__}: expected reduce_zero_label=False, got True')
        self.first_id = int(classes[0] == 'background')  # of the classes that are tags
        super().__init__(metainfo=self.inner.metainfo, pipeline=list(pipeline), test_mode=test_mode)
        # Shared by the workers of a data loader, so that each picture is checked once and a skipped one counted once.
        self.state = torch.full((len(self),), UNCHECKED, dtype=torch.uint8).share_memory_()

    def load_data_list(self) -> list[dict]:
        infos = [self.inner.get_data_info(i) for i in range(len(self.inner))]
        if not infos:
            where = self.inner.ann_file or self.inner.data_prefix
            raise ValueError(f'{type(self).__name__} over {where}: expected images, got none')
        root = Path(self.inner.data_prefix['img_path'])
        # Masks are written under these names, and must not end up anywhere else.
        paths = [Path(info['img_path']) for info in infos]
        below = [path.is_relative_to(root) and '..' not in path.relative_to(root).parts for path in paths]
        self.require(infos, below, f'a picture below {root}', 'img_path')
        headers = read_headers(paths)
        problems = [header is not None or why_unreadable(path) for path, header in zip(paths, headers, strict=True)]
        self.require(infos, problems, 'a readable picture', 'img_path')
        deep = [str(path) for path, header in zip(paths, headers, strict=True) if header.deep]
        if deep and not self.value_range:
            raise ValueError(
                f'{root}: expected a value_range, the values that become black and white, for {len(deep)} of '
                f'{len(paths)} pictures that have more than 8 bits, such as {deep[0]}, got None: '
                f'{measured_range(deep)}. For training and all that follows, {RANGE_ADVICE}'
            )
        # mmseg's LoadAnnotations squeezes the mask of a picture of a single row or column.
        has_area = [min(header.size) > 1 for header in headers]
        self.require(infos, has_area, 'a picture of at least 2 × 2 pixels', 'img_path')
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
                f'{needed / 1e9:.0f} GB of memory; scale such pictures down if that is too much'
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
        """Whether the pipeline loads a mask for every picture."""
        return any(
            isinstance(step, LoadAnnotations) and not isinstance(step, LoadAnnotationsIfAny)
            for step in self.pipeline.transforms
        )

    def require_masks(self, infos: list[dict], what: str) -> None:
        """Raise a ValueError unless every info names a mask of ids that can be read and has the size of its picture."""
        masks = read_headers([info.get('seg_map_path') for info in infos])
        self.require(infos, [mask is not None for mask in masks], what, 'img_path')
        holds_ids = [mask.mode in ID_MODES for mask in masks]
        self.require(infos, holds_ids, f'{what} of class ids (a grey or palette PNG of 8 bits)', 'seg_map_path')
        fits = [mask.size == (info['width'], info['height']) for info, mask in zip(infos, masks, strict=True)]
        self.require(infos, fits, f'{what} of the size of the picture', 'seg_map_path')

    def require(self, infos: list[dict], good: Sequence[bool | str], what: str, key: str) -> None:
        """Raise a ValueError that names the first infos that are not good, or the text why not, and counts them."""
        marked = [(str(info[key]), mark) for info, mark in zip(infos, good, strict=True)]
        bad = [f'{name} ({mark})' if mark else name for name, mark in marked if isinstance(mark, str) or not mark]
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
                except cv2.error as error:  # such as a picture so thin that nothing is left of it when it is resized
                    raise ValueError(f'{info["img_path"]}: {error}') from error
                if item is None:  # mmengine would take a random other item
                    raise ValueError(f'{info["img_path"]}: expected an item from the pipeline, got None')
                return item
        raise ValueError(f'{type(self).__name__}: none of {len(self)} pictures can be read')

    def _is_whole(self, info: dict) -> bool:
        state = int(self.state[info['position']])
        if state != UNCHECKED:
            return state == WHOLE
        paths = [info['img_path']]
        if 'seg_map_path' in info and any(isinstance(step, LoadAnnotations) for step in self.pipeline.transforms):
            paths.append(info['seg_map_path'])
        broken = [f'{path} ({problem})' for path in paths if (problem := damage(path))]
        if not broken:
            self.state[info['position']] = WHOLE
            return True
        if self.unreadable == 'raise' or self.test_mode:
            advice = '' if self.test_mode else "; repair or remove it, or set unreadable='skip'"
            expected = f'{type(self).__name__}: expected pictures that can be read to their end'
            raise ValueError(f'{expected}, got {", ".join(broken)}{advice}')
        self.state[info['position']] = UNREADABLE
        number = int((self.state == UNREADABLE).sum())
        warn(
            f'{type(self).__name__}: skipping {", ".join(broken)}, the next picture takes its place; '
            f'{number} of {len(self.state)} skipped so far'
        )
        return False


def has_mask(info: dict) -> bool:
    """Whether the file of the mask is there."""
    return Path(info.get('seg_map_path', '')).is_file()
