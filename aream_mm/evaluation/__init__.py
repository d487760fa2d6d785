"""Measures of CAMs."""

from aream_mm.evaluation.sweep import threshold_sweep

__all__ = ['threshold_sweep']
