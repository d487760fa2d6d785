"""What a training and its results look like: pictures of CAMs, the curve of the thresholds, photographs with masks."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from matplotlib.figure import Figure
from mmengine.dist import is_main_process
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

from aream_mm.checks import require_whole
from aream_mm.datasets.images import read_image
from aream_mm.evaluation.cam_metric import CAMMetric, ThresholdCurve
from aream_mm.files import write_atomically
from aream_mm.registry import HOOKS, VISUALIZERS

HEIGHT = 240  # pixels


@HOOKS.register_module()
class CAMPictureHook(Hook):
    """In each validation, draws photograph | CAM | mask | ground truth of the same few images side by side.

    They go to mmengine's visualisation backends (a folder, TensorBoard, W&B) as `cam_<sample_id>`.

    Args:
        num_images: how many, evenly spread over the validation data, or over the main process's share of it.
    """

    def __init__(self, num_images: int = 4) -> None:
        require_whole('CAMPictureHook', num_images=num_images)
        self.num_images = num_images

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[SegDataSample]
    ) -> None:
        if not is_main_process():  # mmengine's visualiser draws nothing there
            return
        batches = len(runner.val_dataloader)
        if batch_idx in np.linspace(0, batches - 1, min(self.num_images, batches), dtype=int):
            sample = outputs[0].cpu()
            picture = side_by_side(runner.visualizer, sample, runner.val_dataloader.dataset.metainfo)
            runner.visualizer.add_image(f'cam_{sample.sample_id.replace("/", "_")}', picture, step=runner.iter)


def side_by_side(visualizer: Visualizer, sample: SegDataSample, metainfo: dict) -> np.ndarray:
    """Photograph | CAM, the highest class of each pixel | mask | ground truth where there is one: (H, W, 3) RGB."""
    photograph = read_image(sample.img_path, sample.get('value_range'))
    present = [metainfo['classes'][c] for c in sample.cam_classes.tolist()]
    cam = photograph
    if present:
        cam = visualizer.draw_featmap(sample.cam.data.amax(dim=0, keepdim=True), photograph)
    panels = {'photograph': photograph, f'CAM: {", ".join(present)}': cam}
    panels['mask'] = blend(photograph, sample.pred_sem_seg.data[0].numpy(), metainfo['palette'])
    if 'gt_sem_seg' in sample:
        panels['ground truth'] = blend(photograph, sample.gt_sem_seg.data[0].numpy(), metainfo['palette'])
    scaled = [
        mmcv.imresize(panel, (round(panel.shape[1] * HEIGHT / panel.shape[0]), HEIGHT)) for panel in panels.values()
    ]
    visualizer.set_image(np.concatenate(scaled, axis=1))
    left = np.cumsum([0] + [panel.shape[1] for panel in scaled[:-1]])
    positions = np.stack([left + 4, np.full(len(left), 4)], axis=1)
    boxes = [dict(facecolor='black', alpha=0.6, pad=2, edgecolor='none')] * len(left)
    visualizer.draw_texts(list(panels), positions, font_sizes=10, colors='white', bboxes=boxes)
    return visualizer.get_image()


def blend(photograph: np.ndarray, mask: np.ndarray, palette: Sequence) -> np.ndarray:
    """Mask (H, W) painted over the photograph (H, W, 3); 255 is white."""
    colours = np.full((256, 3), 255)
    colours[: len(palette)] = palette
    return ((photograph.astype(int) + colours[mask]) // 2).astype(np.uint8)


@HOOKS.register_module()
class ThresholdCurveHook(Hook):
    """After each validation or test, writes `threshold_curve_*.png` and `.csv` of the `CAMMetric` to the log folder."""

    priority = 'LOW'

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self._write(runner, runner.val_loop.evaluator, f'iter_{runner.iter}')

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self._write(runner, runner.test_loop.evaluator, 'test')

    def _write(self, runner: Runner, evaluator: Evaluator, when: str) -> None:
        for metric in evaluator.metrics:
            if isinstance(metric, CAMMetric) and metric.curve is not None:  # on the main process, where masks exist
                path = Path(runner.log_dir) / f'threshold_curve_{when}'
                write_atomically(path.with_suffix('.png'), draw(metric.curve))
                write_atomically(path.with_suffix('.csv'), table(metric.curve, metric.dataset_meta['classes']))
                runner.logger.info(f'Threshold curve: {path}.png, {path}.csv')


def draw(curve: ThresholdCurve) -> bytes:
    """The curve with the reported thresholds, as PNG."""
    figure = Figure(figsize=(6, 4), layout='constrained')
    axes = figure.subplots()
    axes.plot(curve.thresholds, curve.miou, color='black')
    for (name, index), colour in zip(curve.chosen.items(), ('tab:green', 'tab:blue', 'tab:orange'), strict=True):
        label = f'{name.replace("_", "-")}: {curve.miou[index]:.1f} at {curve.thresholds[index]:.3g}'
        axes.axvline(curve.thresholds[index], color=colour, linestyle='--', label=label)
    axes.set(xlabel='background threshold', ylabel='mIoU (%)', xlim=(0, 1), ylim=(0, None))
    axes.legend()
    content = io.BytesIO()
    figure.savefig(content, format='png', dpi=120)
    return content.getvalue()


def table(curve: ThresholdCurve, classes: list[str]) -> bytes:
    """Threshold, mIoU and the IoU of each class, as CSV; empty for a class that neither truth nor masks have."""
    content = io.StringIO()
    writer = csv.writer(content)
    writer.writerow(['threshold', 'mIoU', *classes])
    for threshold, miou, iou in zip(curve.thresholds, curve.miou, curve.iou, strict=True):
        figures = ['' if np.isnan(value) else f'{value:.4f}' for value in (miou, *iou)]
        writer.writerow([f'{threshold:.6g}', *figures])
    return content.getvalue().encode()


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
