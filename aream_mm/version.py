"""The versions of the package and of its method, readable without importing anything else."""

__version__ = '0.2.0'
# Raised whenever an equation between an image and its mask changes, so that masks on disk are written anew.
METHOD = 1
