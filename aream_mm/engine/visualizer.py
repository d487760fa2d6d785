"""PathVisualizer: mmseg's, whose pictures of different photographs never overwrite each other."""

from pathlib import Path
from typing import Any

import numpy as np
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

from aream_mm.datasets.images import read_image
from aream_mm.registry import VISUALIZERS


@VISUALIZERS.register_module()
class PathVisualizer(SegLocalVisualizer):
    """Draws images of more than 8 bits as the network sees them, each to a file of its own.

    With `overlay_dir` to `<sample_id>.png` there. A ValueError where two would share a file, as where MMSegInferencer
    is given a/1.jpg and b/1.jpg.
    """

    def __init__(self, name: str = 'visualizer', overlay_dir: str | None = None, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.overlay_dir, self.drawn = overlay_dir, {}

    def add_datasample(
        self, name: str, image: np.ndarray, data_sample: SegDataSample, out_file: str | None = None, **options: Any
    ) -> None:
        path = data_sample.get('img_path')
        if self.overlay_dir:
            out_file = str(Path(self.overlay_dir, f'{data_sample.get("sample_id") or Path(path).stem}.png'))
        if out_file and self.drawn.setdefault(out_file, path) != path:
            raise ValueError(
                f'{out_file}: expected one photograph, got {self.drawn[out_file]} and {path}; draw those of each '
                'folder into one of their own, or use tools/predict.py, which keeps their folders'
            )
        if data_sample.get('value_range'):
            image = read_image(path, data_sample.value_range)
        super().add_datasample(name, image, data_sample, out_file=out_file, **options)
