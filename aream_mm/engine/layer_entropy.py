"""LayerEntropyHook: measures the weights of `AReAMLoss(weights='entropy')` with the model that is being trained."""

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.runner import Runner
from torch import Tensor

from aream_mm.checks import require_whole
from aream_mm.engine.training import bare
from aream_mm.models import cam as cams
from aream_mm.models.aream import AReAMLoss, layer_entropy
from aream_mm.models.segmentor import CAMSegmentor
from aream_mm.progress import progress
from aream_mm.registry import HOOKS


@HOOKS.register_module()
class LayerEntropyHook(Hook):
    """Measures how widely each layer spreads the evidence, once, when the warm-up ends, and weighs the layers by it.

    The weights are a buffer of the loss, so that checkpoints carry them and a resumed run measures nothing.

    Args:
        dataloader: config over an `ImageTagDataset`, each image once; batches need images of one size.
        num_images: measure on so many images, evenly spread over the data set; None for all.

    Raises:
        ValueError: the model has no `AReAMLoss` with weights='entropy'.
    """

    priority = 'LOW'  # after WarmUpHook

    def __init__(self, dataloader: dict, num_images: int | None = None) -> None:
        self.dataloader = dataloader
        require_whole('LayerEntropyHook', low=1, num_images=1 if num_images is None else num_images)
        self.num_images = num_images

    def before_train(self, runner: Runner) -> None:
        loss = bare(runner.model).attention_loss
        if not isinstance(loss, AReAMLoss) or loss.weights != 'entropy':
            got = f'weights={loss.weights!r}' if isinstance(loss, AReAMLoss) else f'{loss}'
            raise ValueError(f"LayerEntropyHook: expected an AReAMLoss with weights='entropy', got {got}")
        self.dataset = evenly_spread(MMENGINE_DATASETS.build(self.dataloader['dataset']), self.num_images)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        model = bare(runner.model)
        if not model.warm_up and not model.attention_loss.measured:
            self.measure(runner)

    def measure(self, runner: Runner) -> None:
        """Set the loss's layer weights, and log them beside the entropies in bits."""
        model = bare(runner.model)
        loader = runner.build_dataloader({**self.dataloader, 'dataset': self.dataset})
        runner.logger.info(f'Layer entropies: measuring on {len(self.dataset)} images')
        total = torch.zeros(model.backbone.num_layers, dtype=torch.float64)
        number = torch.zeros((), dtype=torch.float64)
        model.eval()
        for batch in progress(loader):
            batch = model.data_preprocessor(batch)
            images, tags = batch['inputs'], model.tags(batch['data_samples']).to(batch['inputs'].device)
            total += entropy_of_layers(model, images, tags).cpu() * len(images)
            number += len(images)
        model.train()
        all_reduce(total), all_reduce(number)
        entropy = total / number
        model.attention_loss.weigh_layers(entropy)
        weights = model.attention_loss.layer_weights.tolist()
        for layer, (bits, weight) in enumerate(zip(entropy.tolist(), weights, strict=True)):
            runner.logger.info(f'Layer {layer}: entropy {bits:.4f} bits, weight {weight:.3f}')
        runner.visualizer.add_scalars(
            {f'layer_weight/layer_{layer:02}': weight for layer, weight in enumerate(weights)}, step=runner.iter
        )


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
