"""Imports mmseg and mmpretrain, and keeps from the terminal what they and mmcv say meanwhile."""

import io
import logging
from contextlib import redirect_stdout
from logging.handlers import MemoryHandler

logging.captureWarnings(True)
warned = MemoryHandler(capacity=1000, flushLevel=logging.CRITICAL)  # until there is a log file
logging.getLogger('py.warnings').addHandler(warned)
with redirect_stdout(io.StringIO()):  # of an optional library that nothing here uses
    import mmseg.datasets  # noqa: F401
