"""Measures of CAMs and of the affinity that propagates them."""

from aream_mm.evaluation.affinity_profile import AffinityProfile
from aream_mm.evaluation.cam_metric import AveragePrecision, CAMMetric
from aream_mm.evaluation.sweep import threshold_sweep
