"""CAMPictureHook: what the CAMs of a few fixed photographs look like, over the training."""

from collections.abc import Sequence

import mmcv
import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from mmseg.structures import SegDataSample

from aream_mm.checks import require_whole
from aream_mm.datasets.images import read_image
from aream_mm.registry import HOOKS

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
