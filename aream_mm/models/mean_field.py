"""Mean-field inference of a dense CRF over a picture, and the process that does nothing else.

DenseCRF starts this file as a script, as pydensecrf holds Python's lock while it computes. The process imports no more
than it needs, reads pickled arguments of `mean_field` from standard input, and writes the results to standard output
until the input ends, as it does when the process that asks is killed.
"""

import pickle
import sys

import numpy as np
from pydensecrf.densecrf import DenseCRF2D


def mean_field(image: np.ndarray, energies: np.ndarray, gaussian: dict, bilateral: dict, num_iters: int) -> np.ndarray:
    """Image (H, W, 3) uint8 RGB, energies (K, H, W) float32 → probabilities (K, H, W) float32.

    gaussian, bilateral: options of pydensecrf's addPairwiseGaussian and addPairwiseBilateral.
    """
    classes, height, width = energies.shape
    crf = DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(energies.reshape(classes, -1))
    crf.addPairwiseGaussian(**gaussian)
    crf.addPairwiseBilateral(rgbim=image, **bilateral)
    return np.array(crf.inference(num_iters), np.float32).reshape(energies.shape)


if __name__ == '__main__':
    while sys.stdin.buffer.peek(1):
        pickle.dump(mean_field(*pickle.load(sys.stdin.buffer)), sys.stdout.buffer, pickle.HIGHEST_PROTOCOL)
        sys.stdout.buffer.flush()
