"""Hooks: when the method's parts run, and the files they write."""

from aream_mm.engine.affinity_curves import AffinityProfileHook
from aream_mm.engine.cam_pictures import CAMPictureHook
from aream_mm.engine.checkpoints import SafeCheckpointHook
from aream_mm.engine.layer_entropy import LayerEntropyHook
from aream_mm.engine.pseudo_masks import PseudoMaskHook
from aream_mm.engine.threshold_curve import ThresholdCurveHook
from aream_mm.engine.training import BFloat16OptimWrapper, InvalidLossHook, RandomStateHook, TimmCosineLR, WarmUpHook
from aream_mm.engine.visualizer import PathVisualizer
