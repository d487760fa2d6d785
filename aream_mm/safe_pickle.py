"""pickle for files from elsewhere: tensors, arrays, numbers, texts, containers and mmengine's logs, and no code.

`torch.load(…, pickle_module=safe_pickle, weights_only=False)` reads checkpoints by it, in every version of torch.
"""

import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

ALLOWED = {
    '__builtin__.set',  # as protocol 2 has it
    'builtins.set',
    'collections.Counter',  # a MultiStepLR's milestones
    'collections.OrderedDict',
    '_codecs.encode',
    'mmengine.logging.history_buffer.HistoryBuffer',
    'numpy.dtype',
    'numpy.ndarray',
    *(f'numpy.{core}.multiarray.{name}' for core in ('core', '_core') for name in ('_reconstruct', 'scalar')),
    'torch.Size',
    'torch.Tensor',
    'torch.device',
    'torch.storage.UntypedStorage',
    *(f'torch._utils._rebuild_{what}' for what in ('parameter', 'tensor', 'tensor_v2', 'tensor_v3')),
}
HISTORY_METHODS = ('min', 'max', 'current', 'mean')


def history_method(owner: type, name: str) -> Callable:
    """What `getattr` is asked for by the logs in mmengine's checkpoints, and nothing else."""
    if owner is not HistoryBuffer or name not in HISTORY_METHODS:
        raise pickle.UnpicklingError(f'{owner}.{name} does not belong in a file of data')
    return getattr(owner, name)


class Unpickler(pickle._Unpickler):  # in Python, as torch.package's: the one in C lets a file set any attribute
    """Raises an UnpicklingError for anything else."""

    dispatch = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> object:
        if (module, name) in (('__builtin__', 'getattr'), ('builtins', 'getattr')):
            return history_method
        if (module, name) == ('torch._tensor', '_rebuild_from_type_v2'):
            return lambda rebuild, kind, arguments, state: rebuild(*arguments)  # FSDP's have attributes, for itself
        is_dtype = module == 'torch' and isinstance(vars(torch).get(name), torch.dtype)
        if f'{module}.{name}' not in ALLOWED and not is_dtype:
            raise pickle.UnpicklingError(f'{module}.{name} does not belong in a file of data')
        return super().find_class(module, name)

    def load_build(self) -> None:
        if not isinstance(self.stack[-2], OrderedDict | HistoryBuffer | np.ndarray | np.dtype):
            raise pickle.UnpicklingError(f'a state of {type(self.stack[-2])} does not belong in a file of data')
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build


def load(file: IO[bytes], **options: Any) -> Any:
    return Unpickler(file, **options).load()
