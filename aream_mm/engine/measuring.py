"""What is measured on some images while a network is trained: the layers' entropies, and what their affinities do."""

from collections.abc import Iterator

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.runner import Runner
from mmseg.structures import SegDataSample
from torch import Tensor

from aream_mm.checks import require_whole
from aream_mm.engine.training import bare
from aream_mm.evaluation.affinity_profile import AffinityProfile
from aream_mm.models import cam as cams
from aream_mm.models.aream import AReAMLoss, layer_entropy
from aream_mm.models.segmentor import CAMSegmentor
from aream_mm.progress import progress
from aream_mm.registry import HOOKS


class MeasuringHook(Hook):
    """Base of the hooks that measure a network on some images.

    Args:
        dataloader: config over an `ImageTagDataset` with each image once.
        num_images: measure on so many images, evenly spread over the data set; None for all.
    """

    def __init__(self, dataloader: dict, num_images: int | None = None) -> None:
        require_whole(type(self).__name__, low=1, num_images=1 if num_images is None else num_images)
        self.dataloader, self.num_images, self.loader = dataloader, num_images, None

    def before_train(self, runner: Runner) -> None:
        """Find wrong settings and missing files before training."""
        dataset = evenly_spread(MMENGINE_DATASETS.build(self.dataloader['dataset']), self.num_images)
        self.loader = runner.build_dataloader({**self.dataloader, 'dataset': dataset})

    def batches(self, runner: Runner, what: str) -> Iterator[tuple[Tensor, list[SegDataSample]]]:
        """Images (B, 3, H, W) and samples, while the model is in evaluation mode."""
        model = bare(runner.model)
        training = model.training
        runner.logger.info(f'{what}: measuring on {len(self.loader.dataset)} images')
        model.eval()
        for batch in progress(self.loader):
            batch = model.data_preprocessor(batch)
            yield batch['inputs'], batch['data_samples']
        model.train(training)


@HOOKS.register_module()
class LayerEntropyHook(MeasuringHook):
    """Measures how widely each layer spreads the evidence, once, when the warm-up ends, and weighs the layers by it.

    The weights are a buffer of the loss, so that checkpoints carry them and a resumed run measures nothing. Arguments
    are those of `MeasuringHook`; batches need images of one size.

    Raises:
        ValueError: the model has no `AReAMLoss` with weights='entropy'.
    """

    priority = 'LOW'  # after WarmUpHook

    def before_train(self, runner: Runner) -> None:
        loss = bare(runner.model).attention_loss
        if not isinstance(loss, AReAMLoss) or loss.weights != 'entropy':
            got = f'weights={loss.weights!r}' if isinstance(loss, AReAMLoss) else f'{loss}'
            raise ValueError(f"LayerEntropyHook: expected an AReAMLoss with weights='entropy', got {got}")
        super().before_train(runner)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        model = bare(runner.model)
        if not model.warm_up and not model.attention_loss.measured:
            self.measure(runner)

    def measure(self, runner: Runner) -> None:
        """Set the loss's layer weights, and log them beside the entropies in bits."""
        model = bare(runner.model)
        total = torch.zeros(model.backbone.num_layers, dtype=torch.float64)
        number = torch.zeros((), dtype=torch.float64)
        for images, samples in self.batches(runner, 'Layer entropies'):
            total += entropy_of_layers(model, images, model.tags(samples).to(images.device)).cpu() * len(images)
            number += len(images)
        all_reduce(total), all_reduce(number)
        entropy = total / number
        model.attention_loss.weigh_layers(entropy)
        weights = model.attention_loss.layer_weights.tolist()
        for layer, (bits, weight) in enumerate(zip(entropy.tolist(), weights, strict=True)):
            runner.logger.info(f'Layer {layer}: entropy {bits:.4f} bits, weight {weight:.3f}')
        runner.visualizer.add_scalars(
            {f'layer_weight/layer_{layer:02}': weight for layer, weight in enumerate(weights)}, step=runner.iter
        )


@HOOKS.register_module()
class AffinityProfileHook(MeasuringHook):
    """After each validation, logs the figures of `AffinityProfile` as scalars `affinity/<figure>/<row>`.

    mmengine's visualisation backends (local JSON, TensorBoard, W&B) draw them over the training. Arguments are those of
    `MeasuringHook`, over a data set with test_mode=True.
    """

    def __init__(self, dataloader: dict, num_images: int | None = 32) -> None:
        # One image at a time, for it takes as many affinities as the profile has rows.
        super().__init__(dict(dataloader, batch_size=1), num_images)

    def before_val(self, runner: Runner) -> None:
        if self.loader is None:  # where nothing is trained
            self.before_train(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        profile = AffinityProfile(bare(runner.model))
        for images, samples in self.batches(runner, 'Affinity profile'):
            profile.update(images, samples)
        scalars = {
            f'affinity/{figure}/{row.replace(" ", "_")}': value
            for row, figures in profile.compute().items()
            for figure, value in figures.items()
        }
        runner.visualizer.add_scalars(scalars, step=runner.iter)


@torch.no_grad()
def entropy_of_layers(model: CAMSegmentor, images: Tensor, tags: Tensor) -> Tensor:
    """Images (B, 3, H, W), tags (B, C) → entropy of the evidence that each layer spreads, (L,) bits, batch mean."""
    each_layer = dict(enumerate(torch.eye(model.backbone.num_layers, device=images.device)))
    attended = model.backbone(images, affinity=each_layer)
    class_map, _ = model.head(attended)
    return layer_entropy(cams.activate(class_map), attended.patch_affinity, tags)


def evenly_spread(dataset: BaseDataset, number: int | None) -> BaseDataset:
    """`number` items of the data set from its first to its last; all for None, or where it has fewer."""
    number = min(number or len(dataset), len(dataset))
    return dataset.get_subset(np.linspace(0, len(dataset) - 1, number, dtype=int).tolist())
