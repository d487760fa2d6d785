"""ThresholdCurveHook: the mIoU of the CAMs over the background threshold, as a picture and a table."""

import csv
import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.runner import Runner

from aream_mm.evaluation.cam_metric import CAMMetric, ThresholdCurve
from aream_mm.files import write_atomically
from aream_mm.registry import HOOKS


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
