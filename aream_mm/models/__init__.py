"""The method: networks that expose attention, the CAM, AReAM and PAR, and the segmentor that puts them together."""

from aream_mm.models.affinity_net import AffinityNet, RandomWalk
from aream_mm.models.aream import AReAMLoss
from aream_mm.models.conformer import AttentionConformer
from aream_mm.models.dense_crf import DenseCRF
from aream_mm.models.dual_branch import CNNBackbone, DualBranch, TimmCNN
from aream_mm.models.head import CAMHead
from aream_mm.models.par import PAR
from aream_mm.models.refined_tta import RefinedTTAModel
from aream_mm.models.refiner import Refiner
from aream_mm.models.resnet38 import ResNet38
from aream_mm.models.segmentor import CAMSegmentor
from aream_mm.models.vit import AttentionViT
from aream_mm.registry import MODELS

for _module in (PAR, DenseCRF, RandomWalk):  # a refiner is tensors in, tensors out, and knows no registry
    MODELS.register_module(module=_module)

__all__ = [
    'AReAMLoss',
    'AffinityNet',
    'AttentionConformer',
    'AttentionViT',
    'CAMHead',
    'CAMSegmentor',
    'CNNBackbone',
    'DenseCRF',
    'DualBranch',
    'PAR',
    'RandomWalk',
    'RefinedTTAModel',
    'Refiner',
    'ResNet38',
    'TimmCNN',
]
