"""Hooks: when the method's parts run, and the files they write."""

from aream_mm.engine.affinity_curves import AffinityProfileHook
from aream_mm.engine.bfloat16 import BFloat16OptimWrapper
from aream_mm.engine.cam_pictures import CAMPictureHook
from aream_mm.engine.checkpoints import SafeCheckpointHook
from aream_mm.engine.invalid_loss import InvalidLossHook
from aream_mm.engine.layer_entropy import LayerEntropyHook
from aream_mm.engine.pseudo_masks import PseudoMaskHook
from aream_mm.engine.random_state import RandomStateHook
from aream_mm.engine.schedule import TimmCosineLR
from aream_mm.engine.threshold_curve import ThresholdCurveHook
from aream_mm.engine.visualizer import PathVisualizer
from aream_mm.engine.warm_up import WarmUpHook
