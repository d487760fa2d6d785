"""A loss on the attention as a user writes it, in a file of their own: affinity from attention (arXiv 2203.02664).

A layer of its own reads the affinity of some transformer layers, whether one patch attends to the other or is attended
to, and learns from the masks of the CAM which two patches belong together. The gradient goes on into the attention.
"""

import torch
from mmseg.registry import MODELS
from torch import nn

from aream_mm.models import AttentionLoss
from aream_mm.models.aream import pair_counts, pair_labels
from aream_mm.models.attention import mean_of


@MODELS.register_module()
class AffinityFromAttention(AttentionLoss):
    name = 'affinity'

    def __init__(self, layers, loss_weight=0.1, num_layers=12):
        super().__init__()
        self.affinity_layers = layers
        self.label_affinity = mean_of(range(num_layers))
        self.loss_weight = loss_weight
        self.together = nn.Linear(len(layers), 1)

    def forward(self, attended, masks):
        pairs = pair_labels(masks, attended.features.shape[-2:])
        affinity = attended.layer_affinity + attended.layer_affinity.transpose(-2, -1)  # (L', B, P, P)
        likelihood = self.together(affinity.movedim(0, -1)).squeeze(-1).sigmoid()
        number_positive, number_negative = pair_counts(pairs) + 1
        apart = torch.where(pairs == 1, 1 - likelihood, 0).sum() / number_positive
        mixed = torch.where(pairs == 0, likelihood, 0).sum() / number_negative
        return self.loss_weight * (apart + mixed) / 2
