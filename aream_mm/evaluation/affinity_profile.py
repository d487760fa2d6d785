"""What the affinity of each layer does to the evidence: smoothing and over-smoothing, in figures.

G rows of a profile: each layer alone, and the means over the layers that the loss groups and over all.
"""

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from mmseg.structures import SegDataSample
from torch import Tensor

from aream_mm.evaluation.sweep import confusion_matrices, count_pixels, intersection_over_union
from aream_mm.models import cam as cams
from aream_mm.models.aream import layer_entropy
from aream_mm.models.segmentor import CAMSegmentor, View

THRESHOLDS = torch.arange(1, 100, dtype=torch.float64) / 100
FIGURES = ('entropy', 'effective_tokens', 'token_similarity', 'foreground_to_foreground', 'background_to_foreground')


def effective_tokens(affinity: Tensor) -> Tensor:
    """How many patches a patch attends to: exp of the entropy of a row over the patches, mean over rows.

    (…, P, P) → (…), between 1 (one patch has all the attention) and P (all have the same).
    """
    rows = affinity.double() / affinity.double().sum(dim=-1, keepdim=True)
    return torch.special.entr(rows).sum(dim=-1).exp().mean(dim=-1)


def token_similarity(tokens: Tensor) -> Tensor:
    """Mean cosine between two different patch tokens, the usual measure of over-smoothing: (…, P, D) → (…)."""
    directions = F.normalize(tokens.double(), dim=-1)
    count = tokens.shape[-2]
    # Σ_pq cos(p, q) = |Σ_p direction_p|², of which P are the tokens with themselves.
    return (directions.sum(dim=-2).square().sum(dim=-1) - count) / (count * (count - 1))


def foreground_mass(affinity: Tensor, foreground: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Share of the attention that foreground patches, and that background patches, give to foreground patches.

    Mean over the patches of an image; attention on unknown patches is left out. Attention that keeps objects apart has
    a high first and a low second share: affinity (…, P, P), foreground and known (P,) bool → two of (…), nan where the
    image has no such patch.
    """
    affinity = affinity[..., known, :][..., known].double()
    foreground = foreground[known]
    share = affinity[..., foreground].sum(dim=-1) / affinity.sum(dim=-1)
    return share[..., foreground].mean(dim=-1), share[..., ~foreground].mean(dim=-1)


class AffinityProfile:
    """Figures of each layer's affinity over a data set, for a `CAMSegmentor` and its test settings.

    mIoU and threshold   of the CAM that this affinity alone propagates, at its best threshold, in percent; also of the
                         CAM that is not propagated ('none')
    entropy              of the evidence that it spreads, in bits: see `aream.layer_entropy`
    effective_tokens, token_similarity, foreground_to_foreground, background_to_foreground   see the functions above

    Figures that need masks are missing where no image has one, or where there is no background.
    """

    def __init__(self, model: CAMSegmentor) -> None:
        self.model = model
        layers = model.backbone.num_layers
        weights = {f'layer {layer}': row for layer, row in enumerate(torch.eye(layers))}
        groups = {} if model.attention_loss is None else model.attention_loss.layer_groups
        for name, group in groups.items():
            weights[f'{name} mean'] = torch.zeros(layers).index_fill_(0, torch.tensor(group), 1 / len(group))
        weights['all mean'] = torch.full((layers,), 1 / layers)
        self.rows = ('none', *weights)
        self.weights = torch.stack(list(weights.values()))  # (G, L)
        classes = model.out_channels
        self.counts = torch.zeros(len(self.rows), classes + 1, classes, len(THRESHOLDS) + 1, dtype=torch.int64)
        self.sums = {figure: torch.zeros(2, len(self.weights), dtype=torch.float64) for figure in FIGURES}  # and number

    @torch.no_grad()
    def update(self, images: Tensor, samples: list[SegDataSample]) -> list[Tensor]:
        """Take in images (B, 3, H, W) with tags, and with masks where they have one.

        Returns the CAMs of each image's `present_classes`, (1 + G, K, H, W) in 0..1 in the order of `rows`.
        """
        model, settings, size = self.model, self.model.test_cfg, images.shape[-2:]
        tags, rows, total = model.tags(samples), len(self.rows), 0
        present = cams.present_classes(tags)
        by_layer = dict(enumerate(self.weights.T.to(images.device)))
        every = range(model.backbone.num_layers)
        for number, view in enumerate(model.views(images, settings, by_layer, every)):
            if number == 0:
                self._add_figures(view, tags, samples)
            propagated = cams.propagate(view.cam, view.attended.patch_affinity, settings.propagate_steps)
            for placed in view.placed(torch.cat([view.cam[None], propagated])):  # (1 + G, B, C, h, w)
                placed = placed._replace(cam=placed.cam.flatten(0, 1))
                total = total + placed.at(size, present.classes.repeat(rows, 1)).unflatten(0, (rows, -1))
        normalized = (cams.normalize(total) * present.mask[:, :, None, None]).unbind(1)
        for cam, classes, sample in zip(normalized, present.classes, samples, strict=True):
            if self._has_background(sample):
                self._count(cam, classes + 1, sample)
        return normalized

    def _add_figures(self, view: View, tags: Tensor, samples: list[SegDataSample]) -> None:
        batch = len(tags)
        affinity = view.attended.patch_affinity[:, :batch]  # (G, B, P, P), of the upright images
        grid = view.cam.shape[-2:]
        similarity = token_similarity(view.attended.layer_tokens[:, :batch]).cpu()  # (L, B)
        self._add('token_similarity', self.weights.double() @ similarity)
        self._add('effective_tokens', effective_tokens(affinity))
        evidence = cams.activate(view.class_map)
        for i, sample in enumerate(samples):
            one = slice(i, i + 1)
            if tags[i].any():
                self._add('entropy', layer_entropy(evidence[one], affinity[:, one], tags[one])[:, None])
            if self._has_background(sample):
                mask = F.interpolate(sample.gt_sem_seg.data[None].float(), grid, mode='nearest').flatten()
                shares = foreground_mass(affinity[:, i], mask > 0, mask != cams.IGNORE_INDEX)
                for name, share in zip(('foreground', 'background'), shares, strict=True):
                    self._add(f'{name}_to_foreground', share[:, None])

    def _has_background(self, sample: SegDataSample) -> bool:
        return 'gt_sem_seg' in sample and self.model.test_cfg.background is not None

    def _add(self, figure: str, values: Tensor) -> None:
        """Take in (G, B) values; nan is left out."""
        values = values.cpu()
        self.sums[figure] += torch.stack([values.nansum(dim=1), (~values.isnan()).sum(dim=1)])

    def _count(self, cam: Tensor, classes: Tensor, sample: SegDataSample) -> None:
        copies = [SegDataSample(metainfo=sample.metainfo) for _ in cam]
        resized = self.model.postprocess_result(cams.add_background(cam, 0), copies)  # to the size of the photograph
        mask = sample.gt_sem_seg.data[0]
        for row, copy in zip(self.counts, resized, strict=True):
            row += count_pixels(classes, copy.seg_logits.data[1:], mask, THRESHOLDS, self.model.out_channels).cpu()

    def compute(self) -> dict[str, dict[str, float]]:
        """Row → figure → value, over all processes."""
        profile = {row: {} for row in self.rows}
        all_reduce(self.counts)
        if self.counts[0, :-1].any():
            miou = torch.stack(
                [intersection_over_union(confusion_matrices(row)).nanmean(dim=-1) for row in self.counts]
            )
            best, where = miou.max(dim=1)
            for row, value, threshold in zip(self.rows, best.tolist(), THRESHOLDS[where].tolist(), strict=True):
                profile[row] = dict(mIoU=value, threshold=threshold)
        for figure, sums in self.sums.items():
            all_reduce(sums)
            total, number = sums
            if number.any():
                for row, value in zip(self.rows[1:], (total / number).tolist(), strict=True):
                    profile[row][figure] = value
        return profile
