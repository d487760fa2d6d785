"""The method: networks that expose attention, the CAM, AReAM and PAR, and the segmentor that puts them together."""

from aream_mm.models.affinity_net import AffinityNet, RandomWalk
from aream_mm.models.aream import AReAMLoss, AttentionLoss
from aream_mm.models.attention import AttentionBackbone
from aream_mm.models.conformer import AttentionConformer
from aream_mm.models.dense_crf import DenseCRF
from aream_mm.models.dual_branch import CNNBackbone, DualBranch
from aream_mm.models.head import CAMHead
from aream_mm.models.par import PAR
from aream_mm.models.refined import RefinedEncoderDecoder, RefinedTTAModel
from aream_mm.models.refiner import Refiner
from aream_mm.models.resnet38 import ResNet38
from aream_mm.models.segmentor import CAMSegmentor
from aream_mm.models.segments import SegmentVote
from aream_mm.models.timm_networks import TimmCNN
from aream_mm.models.vit import AttentionViT
from aream_mm.registry import MODELS

for _module in (AReAMLoss, PAR, DenseCRF, RandomWalk, SegmentVote):  # tensors in, tensors out: they know no registry
    MODELS.register_module(module=_module)
