"""The method: networks that expose attention, the CAM, AReAM and PAR, and the segmentor that puts them together."""

from aream_mm.models.affinity_net import AffinityNet, RandomWalk
from aream_mm.models.aream import AReAMLoss
from aream_mm.models.conformer import AttentionConformer
from aream_mm.models.dual_branch import CNNBackbone, DualBranch, TimmCNN
from aream_mm.models.head import CAMHead
from aream_mm.models.par import PAR
from aream_mm.models.resnet38 import ResNet38
from aream_mm.models.segmentor import CAMSegmentor
from aream_mm.models.vit import AttentionViT
from aream_mm.registry import MODELS

MODELS.register_module(module=PAR)  # par.py knows tensors only

__all__ = [
    'AReAMLoss',
    'AffinityNet',
    'AttentionConformer',
    'AttentionViT',
    'CAMHead',
    'CAMSegmentor',
    'CNNBackbone',
    'DualBranch',
    'PAR',
    'RandomWalk',
    'ResNet38',
    'TimmCNN',
]
