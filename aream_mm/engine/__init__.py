"""Hooks: when the method's parts run, and the files they write."""

from aream_mm.engine.checkpoints import SafeCheckpointHook
from aream_mm.engine.drawing import CAMPictureHook, PathVisualizer, ThresholdCurveHook
from aream_mm.engine.measuring import AffinityProfileHook, LayerEntropyHook
from aream_mm.engine.pseudo_masks import PseudoMaskHook
from aream_mm.engine.training import BFloat16OptimWrapper, InvalidLossHook, RandomStateHook, TimmCosineLR, WarmUpHook
