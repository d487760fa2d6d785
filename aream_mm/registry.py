"""The registries of aream_mm: children of mmengine's, so `type='aream_mm.X'` builds from any config with no import."""

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import PARAM_SCHEDULERS as MMENGINE_PARAM_SCHEDULERS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

MODELS = Registry('model', parent=MMENGINE_MODELS, scope='aream_mm', locations=['aream_mm.models'])
DATASETS = Registry('dataset', parent=MMENGINE_DATASETS, scope='aream_mm', locations=['aream_mm.datasets'])
DATA_SAMPLERS = Registry(
    'data sampler', parent=MMENGINE_DATA_SAMPLERS, scope='aream_mm', locations=['aream_mm.datasets']
)
TRANSFORMS = Registry('transform', parent=MMENGINE_TRANSFORMS, scope='aream_mm', locations=['aream_mm.datasets'])
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope='aream_mm', locations=['aream_mm.engine'])
METRICS = Registry('metric', parent=MMENGINE_METRICS, scope='aream_mm', locations=['aream_mm.evaluation'])
OPTIM_WRAPPERS = Registry(
    'optim_wrapper', parent=MMENGINE_OPTIM_WRAPPERS, scope='aream_mm', locations=['aream_mm.engine']
)
PARAM_SCHEDULERS = Registry(
    'parameter scheduler', parent=MMENGINE_PARAM_SCHEDULERS, scope='aream_mm', locations=['aream_mm.engine']
)
