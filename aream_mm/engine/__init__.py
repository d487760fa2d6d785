"""Hooks: when the method's parts run, and the files they write."""

from aream_mm.engine.pseudo_masks import PseudoMaskHook
from aream_mm.engine.warm_up import WarmUpHook

__all__ = ['PseudoMaskHook', 'WarmUpHook']
