"""Libraries imported without what they say to the terminal and without a race of theirs; each tool imports it first."""

import io
import logging
import os
import pickle
import tempfile
import warnings
from contextlib import redirect_stdout
from unittest.mock import patch

warnings.filterwarnings('ignore', 'Fail to import ``MultiScaleDeformableAttention``')  # nothing here uses it
logging.getLogger('torch.utils.cpp_extension').setLevel('ERROR')  # it warns of a CUDA without a GPU
with redirect_stdout(io.StringIO()):  # of an optional library that nothing here uses
    import mmseg.datasets  # noqa: F401

# mmengine lays out configs with yapf, whose cache another process, say of another GPU, may be writing just now.
try:
    import yapf
except (EOFError, pickle.UnpicklingError):
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, XDG_CACHE_HOME=folder):
        import yapf  # noqa: F401
