"""The networks, images and tags that the benchmarks run on: random weights, which take as long as trained ones."""

import timm
import torch
from mmengine.runner import autocast
from mmseg.structures import SegDataSample
from timing import DEVICE, Work
from torch import Tensor, nn

from aream_mm.models.segmentor import CAMSegmentor
from aream_mm.registry import MODELS

NAME = 'deit_small_patch16_224'
DROP_PATH = 0.1


def segmentor(num_classes: int, drop_path_rate: float = DROP_PATH, **settings) -> CAMSegmentor:
    """The model of configs/aream_vit_voc.py."""
    config = dict(
        type='aream_mm.CAMSegmentor',
        backbone=dict(
            type='aream_mm.AttentionViT', name=NAME, num_class_tokens=num_classes, drop_path_rate=drop_path_rate
        ),
        head=dict(type='aream_mm.CAMHead', num_classes=num_classes, in_channels=384),
        attention_loss=dict(type='aream_mm.AReAMLoss', layer_index=7),
        **settings,
    )
    return MODELS.build(config).to(DEVICE)


def timm_network(num_classes: int) -> nn.Module:
    return timm.create_model(NAME, num_classes=num_classes, dynamic_img_size=True, drop_path_rate=DROP_PATH).to(DEVICE)


def photographs(batch: int, height: int, width: int) -> Tensor:
    """Smooth random images (B, 3, H, W) in 0..1: PAR and JPEG know no noise."""
    return nn.functional.interpolate(torch.rand(batch, 3, height // 16 + 1, width // 16 + 1), (height, width)).to(
        DEVICE
    )


def tags(batch: int, num_classes: int) -> Tensor:
    """One to three classes in each image, (B, C)."""
    tags = torch.zeros(batch, num_classes)
    for i, tag in enumerate(tags):
        tag[torch.randperm(num_classes)[: 1 + i % 3]] = 1
    return tags.to(DEVICE)


def samples(tags: Tensor, size: tuple[int, int]) -> list[SegDataSample]:
    """The samples of images of one size with these tags."""
    packed = [SegDataSample(metainfo=dict(ori_shape=size, img_shape=size)) for _ in tags]
    for sample, tag in zip(packed, tags, strict=True):
        sample.gt_score = tag
    return packed


def training_step(network: CAMSegmentor, images: Tensor, labels: Tensor) -> Work:
    """Forward, backward and AdamW."""
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-5)
    packed = samples(labels, images.shape[-2:])

    def step() -> None:
        optimizer.zero_grad()
        sum(network.loss(images, packed).values()).backward()
        optimizer.step()

    return step


def prediction(network: CAMSegmentor, images: Tensor, labels: Tensor, fp16: bool = False) -> Work:
    """CAMs and masks of photographs."""
    network.eval()

    @torch.no_grad()
    def predict() -> None:
        with autocast(enabled=fp16):
            network.predict(images, samples(labels, images.shape[-2:]))

    return predict
