"""An mmseg data set as somebody has it, in a module beside their config."""

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS


@DATASETS.register_module()
class Scenes(BaseSegDataset):
    METAINFO = dict(
        classes=('background', 'fish', 'boat', 'beetle', 'mushroom', 'ball'),
        palette=[[0, 0, 0], [230, 25, 75], [60, 180, 75], [255, 225, 25], [0, 130, 200], [245, 130, 48]],
    )

    def __init__(self, **arguments) -> None:
        super().__init__(
            img_suffix='.jpg',
            seg_map_suffix='.png',
            data_prefix=dict(img_path='images', seg_map_path='masks'),
            **arguments,
        )
