"""What is read of a config: by mmengine's runner, and of a dict of it by what is built of that, as signatures tell."""

import inspect
from collections.abc import Callable
from functools import cache

import mmengine.registry as registries
from mmengine.runner import LogProcessor, Runner, set_random_seed
from torch.utils.data import DataLoader

from aream_mm.models.refined import MMSEG_SETTINGS
from aream_mm.models.settings import TestSettings, TrainSettings


def arguments(called: Callable) -> set[str]:
    """Names of the arguments of a function, or of a class and the bases that its **kwargs go to."""
    names = set()
    for each in inspect.getmro(called) if inspect.isclass(called) else [called]:
        if inspect.isclass(each) and '__init__' not in vars(each):
            continue
        parameters = inspect.signature(each.__init__ if inspect.isclass(each) else each).parameters.values()
        names |= {one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
        if all(one.kind != one.VAR_KEYWORD for one in parameters):
            break
    return names - {'self'}


# What mmengine's runner is built from, and what it reads of the config itself.
RUNNER = arguments(Runner) - {'cfg'} | {
    *('activation_checkpointing', 'compile', 'efficient_conv_bn_eval', 'find_unused_parameters'),
    *('model_wrapper_cfg', 'strategy', 'sync_bn'),
}
# What dicts at places that end so may have, beside the arguments of their type.
TAKEN = {
    'dataloader': arguments(DataLoader) | {'num_batch_per_epoch'},
    '.test_cfg': arguments(TestSettings) | {*MMSEG_SETTINGS},
    'model.train_cfg': arguments(TrainSettings),
    'log_processor': arguments(LogProcessor),
    'randomness': arguments(set_random_seed),
    'optim_wrapper': {'constructor', 'paramwise_cfg'},
    'paramwise_cfg': {'bypass_duplicate', 'custom_keys', 'dcn_offset_lr_mult'}
    | {f'{part}_mult' for part in ('bias_decay', 'bias_lr', 'dwconv_decay', 'flat_decay', 'norm_decay')},
    'param_scheduler': {'convert_to_iter_based'},
    'auto_scale_lr': {'enable', 'base_batch_size'},
}


@cache
def registered(kind: str, scope: str) -> set[str]:
    """Names of the arguments of what is registered by this name, be it a model, a hook or a transform."""
    names = set()
    for registry in vars(registries).values():
        found = isinstance(registry, registries.Registry) and (registry.get(f'{scope}.{kind}') or registry.get(kind))
        if found:
            names |= arguments(found) | {'type'} | ({'priority'} if registry is registries.HOOKS else set())
    return names


def taken(place: str, node: dict, scope: str) -> set[str]:
    """Names of what is read of a dict of a config, as far as signatures tell."""
    names, kind = set().union(*(keys for end, keys in TAKEN.items() if place.endswith(end))), node.get('type')
    if isinstance(kind, str):
        return names | registered(kind, node.get('_scope_', scope))
    return names | arguments(kind) | {'type'} if kind else names
