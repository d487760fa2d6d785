"""What the data set wrappers share: an mmseg data set inside, its infos changed, a pipeline of their own."""

from collections.abc import Callable, Sequence
from pathlib import Path

from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from PIL import Image

SHOWN = 5  # offenders listed in an error
ORIENTATION = 0x0112  # EXIF tag; from 5 on, width and height are swapped


class SegDatasetWrapper(BaseDataset):
    """Base of the wrappers: loads the inner mmseg data set and hands its infos to `change`.

    Every info gains `sample_id`, the path of the picture below the image folder without its ending ('2007_000063',
    'cats/0001'): the name under which tags are looked up and pseudo masks are written.

    Args:
        dataset: config of an mmseg data set with 'background' as class 0, without a pipeline. A `metainfo` with fewer
            `classes` makes a problem of these classes; pixels of the others are ignored.
        pipeline: transforms.
        test_mode: as in mmengine's `BaseDataset`.
    """

    def __init__(self, dataset: dict, pipeline: Sequence[dict | Callable] = (), test_mode: bool = False) -> None:
        self.inner = MMENGINE_DATASETS.build(dict(dataset, pipeline=[], test_mode=test_mode))
        classes = self.inner.metainfo['classes']
        if classes[0] != 'background' or self.inner.reduce_zero_label:
            raise ValueError(
                f'{type(self).__name__}: expected background as class 0 and reduce_zero_label=False, got classes '
                f'{tuple(classes)[:3]}… and reduce_zero_label={self.inner.reduce_zero_label}'
            )
        super().__init__(metainfo=self.inner.metainfo, pipeline=list(pipeline), test_mode=test_mode)

    def load_data_list(self) -> list[dict]:
        infos = [self.inner.get_data_info(i) for i in range(len(self.inner))]
        root = Path(self.inner.data_prefix['img_path'])
        for info in infos:
            info['sample_id'] = Path(info['img_path']).relative_to(root).with_suffix('').as_posix()
        self.require(infos, lambda info: picture_size(info['img_path']) is not None, 'a readable picture', 'img_path')
        return self.change(infos)

    def change(self, infos: list[dict]) -> list[dict]:
        """The infos of this data set, from those of the inner one."""
        raise TypeError(f'{type(self).__name__} is a base class')

    def require_masks(self, infos: list[dict], what: str) -> None:
        """Raise a ValueError unless every info names a mask that can be read and has the size of its picture."""
        has_mask = lambda info: picture_size(info.get('seg_map_path')) is not None  # noqa: E731
        self.require(infos, has_mask, what, 'img_path')
        fits = lambda info: picture_size(info['seg_map_path']) == picture_size(info['img_path'])  # noqa: E731
        self.require(infos, fits, f'{what} of the size of the picture', 'seg_map_path')

    def require(self, infos: list[dict], good: Callable[[dict], bool], what: str, key: str) -> None:
        """Raise a ValueError that names the first infos that are not good, and counts them."""
        bad = [str(info[key]) for info in infos if not good(info)]
        if bad:
            shown = ', '.join(bad[:SHOWN]) + (', …' if len(bad) > SHOWN else '')
            raise ValueError(
                f'{type(self).__name__} over {self.inner.ann_file or self.inner.data_prefix}: expected {what} for each '
                f'of {len(infos)} images, missing for {len(bad)}: {shown}'
            )


def picture_size(path: str | None) -> tuple[int, int] | None:
    """(width, height) in pixels as it is shown, that is after EXIF rotation; None where no picture can be read.

    Only the header is read.
    """
    try:
        with Image.open(path or '') as picture:
            width, height = picture.size
            return (height, width) if picture.getexif().get(ORIENTATION, 1) >= 5 else (width, height)
    except OSError:  # no such file, or not a picture
        return None
