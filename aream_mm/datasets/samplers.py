"""SizeBatchSampler: batches of images of one size, for predicting."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from mmengine.dist import get_dist_info
from torch.utils.data import Sampler

from aream_mm.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class SizeBatchSampler(Sampler[list[int]]):
    """Batches of images of one size, so that nothing is padded and a batch gives what its images give alone.

    Every image comes once, in another order than that of the data set. Each of n processes takes every n-th batch, so
    that the results do not depend on their number.

    Args:
        sampler: a sampler over the data set, whose infos have `width` and `height`; its order is not used.
        batch_size: most images in a batch.
        indices: leave out the batches that hold none of these images.

    Raises:
        TypeError: a data set whose infos do not tell the sizes.
    """

    def __init__(self, sampler: Sampler, batch_size: int, indices: Sequence[int] | None = None) -> None:
        dataset, by_size = sampler.dataset, defaultdict(list)
        for index in range(len(dataset)):
            info = dataset.get_data_info(index)
            if 'width' not in info or 'height' not in info:
                raise TypeError(
                    'SizeBatchSampler: expected a data set whose infos have width and height, such as '
                    f'ImageTagDataset, got {type(dataset).__name__}'
                )
            by_size[info['width'], info['height']].append(index)
        batches = [same[i : i + batch_size] for same in by_size.values() for i in range(0, len(same), batch_size)]
        if indices is not None:
            wanted = set(indices)
            batches = [batch for batch in batches if not wanted.isdisjoint(batch)]
        rank, processes = get_dist_info()
        self.batches = batches[rank::processes]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)
