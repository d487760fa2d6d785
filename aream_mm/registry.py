"""The registries of aream_mm: children of mmengine's, so `type='aream_mm.X'` builds from any config with no import."""

from mmengine import registry as parents
from mmengine.registry import Registry

MODELS = Registry('model', parent=parents.MODELS, scope='aream_mm', locations=['aream_mm.models'])
DATASETS = Registry('dataset', parent=parents.DATASETS, scope='aream_mm', locations=['aream_mm.datasets'])
DATA_SAMPLERS = Registry(
    'data sampler', parent=parents.DATA_SAMPLERS, scope='aream_mm', locations=['aream_mm.datasets']
)
TRANSFORMS = Registry('transform', parent=parents.TRANSFORMS, scope='aream_mm', locations=['aream_mm.datasets'])
HOOKS = Registry('hook', parent=parents.HOOKS, scope='aream_mm', locations=['aream_mm.engine'])
METRICS = Registry('metric', parent=parents.METRICS, scope='aream_mm', locations=['aream_mm.evaluation'])
OPTIM_WRAPPERS = Registry(
    'optim_wrapper', parent=parents.OPTIM_WRAPPERS, scope='aream_mm', locations=['aream_mm.engine']
)
PARAM_SCHEDULERS = Registry(
    'parameter scheduler', parent=parents.PARAM_SCHEDULERS, scope='aream_mm', locations=['aream_mm.engine']
)
VISUALIZERS = Registry('visualizer', parent=parents.VISUALIZERS, scope='aream_mm', locations=['aream_mm.engine'])
