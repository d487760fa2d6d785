"""Random numbers that depend on where the training is, and not on what ran before."""

import random

import numpy as np
import torch


def seed_generators(*key: int) -> None:
    """Seed Python's, NumPy's and torch's generators, those of the GPUs too, with a hash of non-negative integers."""
    (seed,) = np.random.SeedSequence(key).generate_state(1).tolist()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class SeededIndex(int):
    """Index of an item, with the key that seeds the generators before a `SegDatasetWrapper` prepares it."""

    key: tuple[int, ...]

    def __new__(cls, index: int, key: tuple[int, ...]) -> 'SeededIndex':
        self = super().__new__(cls, index)
        self.key = key
        return self

    def __getnewargs__(self) -> tuple:  # what a worker of the data loader makes it from
        return int(self), self.key
