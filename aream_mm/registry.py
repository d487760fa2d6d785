"""The registries of aream_mm: children of mmengine's, so `type='aream_mm.X'` builds from any config with no import."""

import mmengine.registry
import mmseg.registry
from mmengine.registry import Registry


class OwnFirst(Registry):
    """Finds mmseg's where we have none of a name: `_base_ = 'aream_mm::…'` makes this the scope of all in the base."""

    def __init__(self, kind: str, room: str = 'engine') -> None:
        parent = getattr(mmengine.registry, kind)
        super().__init__(parent.name, parent=parent, scope='aream_mm', locations=[f'aream_mm.{room}'])
        self.theirs = getattr(mmseg.registry, kind)

    def get(self, key: str) -> type | None:
        self.import_from_location()
        return self.module_dict.get(key) or self.theirs.get(key)


MODELS = OwnFirst('MODELS', 'models')
DATASETS = OwnFirst('DATASETS', 'datasets')
DATA_SAMPLERS = OwnFirst('DATA_SAMPLERS', 'datasets')
TRANSFORMS = OwnFirst('TRANSFORMS', 'datasets')
HOOKS = OwnFirst('HOOKS')
METRICS = OwnFirst('METRICS', 'evaluation')
OPTIM_WRAPPERS = OwnFirst('OPTIM_WRAPPERS')
PARAM_SCHEDULERS = OwnFirst('PARAM_SCHEDULERS')
VISUALIZERS = OwnFirst('VISUALIZERS')
for _kind in set(mmseg.registry.__all__) - set(globals()):
    OwnFirst(_kind)
