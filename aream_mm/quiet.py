"""Keeps from the terminal what mmseg, mmpretrain and mmcv say when they are imported; each tool imports it first."""

import io
import logging
import warnings
from contextlib import redirect_stdout

warnings.filterwarnings('ignore', 'Fail to import ``MultiScaleDeformableAttention``')  # nothing here uses it
logging.getLogger('torch.utils.cpp_extension').setLevel('ERROR')  # it warns of a CUDA without a GPU
with redirect_stdout(io.StringIO()):  # of an optional library that nothing here uses
    import mmseg.datasets  # noqa: F401
