"""CAMSegmentor: stage 1 as an mmseg segmentor, so that mmseg's metrics, visualisers and inferencers work on CAMs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce_dict
from mmengine.structures import PixelData
from mmseg.models.segmentors import BaseSegmentor
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from aream_mm.models import cam as cams
from aream_mm.models.aream import layer_entropy, pair_labels
from aream_mm.models.attention import Attended
from aream_mm.models.settings import TestSettings, TrainSettings
from aream_mm.registry import MODELS


class RawCAM(NamedTuple):
    """CAMs of B images before normalisation, each the sum of the image's and its mirror image's where asked for.

    cams           one (B, C, h, w) for each scale
    unpropagated   (B, C, h, w)   at the last scale, without propagation
    logits         (B, C)         mean over heads, scales and mirror images
    """

    cams: list[Tensor]
    unpropagated: Tensor
    logits: Tensor

    def at(self, size: tuple[int, int], classes: Tensor) -> Tensor:
        """The sum over scales at (H, W) pixels, of the classes (B, K) of 0..C − 1: (B, K, H, W)."""
        return sum(cams.upsample(cams.select(cam, classes), size) for cam in self.cams)


class View(NamedTuple):
    """B images at one scale, followed by their mirror images where asked for: V = 1 or 2.

    class_map  (V·B, C, h, w)   before ReLU
    cam        (V·B, C, h, w)   activated, before propagation
    attended   what the backbone returned
    logits     (B, C) of each head, mean over the views
    """

    class_map: Tensor
    cam: Tensor
    attended: Attended
    logits: list[Tensor]


def propagated(cam: Tensor, attended: Attended, steps: int = 1) -> Tensor:
    """The activated CAM (B, C, h, w), propagated by the patch affinity if there is one."""
    return cam if attended.patch_affinity is None else cams.propagate(cam, attended.patch_affinity, steps)


def mean_of(layers: Sequence[int]) -> dict[int, float]:
    """Layer → weight in the mean of the layers' affinities."""
    return {layer: 1 / len(layers) for layer in layers}


def varies_in_training(network: nn.Module) -> bool:
    """Whether the network, in its present mode, computes something else than in evaluation mode."""
    return any(
        module.training
        and (isinstance(module, _NormBase) or getattr(module, 'p', 0) > 0 or getattr(module, 'drop_prob', 0) > 0)
        for module in network.modules()  # p is that of dropout, drop_prob that of drop path
    )


@MODELS.register_module()
class CAMSegmentor(BaseSegmentor):
    """Trains from tags with L_cls + L_AReAM, predicts CAM masks.

    Every sample carries its tags as `gt_score` (C,) where it has them. A prediction carries `pred_sem_seg` (the CAM
    mask: 0 background, 1..C, with a band 255 too), `seg_logits` (background plane and class planes; with a band those
    of its high score), `pred_score` (C,), the probability of each class, and `cam` (K, H, W) in 0..1 with
    `cam_classes` (K,) in 1..C: of the tagged classes where the sample has tags, otherwise of the predicted ones.
    `unpropagated_cam` (K, h, w) in 0..1 is the CAM of the patches before the affinity propagates it, and `background`
    among the meta information the background score.

    Args:
        backbone: config of a network that returns `Attended`, such as `AttentionViT` or `DualBranch`.
        head: config of a `CAMHead`.
        aream: config of an `AReAMLoss`; None trains the classification alone.
        par: config of the `PAR` that refines the labels of the AReAM loss.
        data_preprocessor: mmseg's, set to RGB in 0..1 (mean 0, std 255); the networks normalise for themselves.
        train_cfg: `TrainSettings`.
        test_cfg: `TestSettings`.
        pretrained: None; mmseg's `init_model` passes it to every segmentor.
    """

    align_corners = False  # of mmseg's postprocess_result

    def __init__(
        self,
        backbone: dict,
        head: dict,
        aream: dict | None = None,
        par: dict | None = None,
        data_preprocessor: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        pretrained: None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        self.head = MODELS.build(head)
        self.aream = aream and MODELS.build({**aream, 'num_layers': self.backbone.num_layers})
        self.par = MODELS.build(par or dict(type='aream_mm.PAR'))
        self.train_cfg = TrainSettings(**(train_cfg or {}))
        self.test_cfg = TestSettings(**(test_cfg or {}))
        self.warm_up = False  # set by WarmUpHook: classification only
        self.check_propagate_layers(self.test_cfg)
        self.check_propagate_layers(self.train_cfg)

    @property
    def first_id(self) -> int:
        """The id of the first class in a mask: 1, or 0 where there is no background."""
        return 0 if self.test_cfg.background is None else 1

    @property
    def out_channels(self) -> int:
        """Number of planes of a prediction, background among them; read by mmseg's `SegTTAModel`."""
        return self.first_id + self.head.num_classes

    def check_propagate_layers(self, settings: TrainSettings | TestSettings) -> None:
        """Raise a ValueError if the settings name layers that the network does not have."""
        outside = [i for i in settings.propagate_layers or () if not 0 <= i < self.backbone.num_layers]
        if outside:
            raise ValueError(
                f'{settings.name}.propagate_layers: expected layers in 0..{self.backbone.num_layers - 1}, got {outside}'
            )

    def extract_feat(self, inputs: Tensor):
        """`Attended` of images (B, 3, H, W), with no affinity."""
        return self.backbone(inputs)

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Class map (B, C, h, w) before ReLU."""
        return self._forward(inputs)[0]

    def _forward(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> tuple[Tensor, dict]:
        """Class map (B, C, h, w) before ReLU, and the heads' logits (B, C)."""
        return self.head(self.backbone(inputs))

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        """`loss_class` and `loss_patch`, and after the warm-up `loss_aream`."""
        tags = self.tags(data_samples)
        use_aream = self.aream is not None and not self.warm_up
        shared = use_aream and (self.train_cfg.label_cam_mode == 'train' or not varies_in_training(self))
        if use_aream and not shared:
            masks = self.label_masks(inputs, tags)  # before there is a graph, which takes the memory
        attended = self.backbone(
            inputs,
            affinity=self.label_affinity if shared else None,
            logit_layers=self.aream.deep_layers if use_aream else (),
        )
        class_map, logits = self.head(attended)
        losses = {f'loss_{name}': F.multilabel_soft_margin_loss(logit.float(), tags) for name, logit in logits.items()}
        if use_aream:
            if shared:
                cam = cams.activate(class_map.detach(), attended.class_affinity)
                masks = self.label_masks(inputs, tags, upright=(cam, attended))
            losses['loss_aream'] = self.aream(attended.mean_logits, pair_labels(masks, class_map.shape[-2:]))
        return losses

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """mmengine's, but what is logged is the mean over the processes: the losses of the whole batch."""
        loss, log_vars = super().parse_losses(losses)
        log_vars = {name: value.detach() for name, value in log_vars.items()}
        all_reduce_dict(log_vars, op='mean')
        return loss, log_vars

    @property
    def label_affinity(self) -> dict[int, Tensor]:
        """Layer → weight of the affinity that propagates the CAM of a label."""
        layers = self.train_cfg.propagate_layers
        return self.aream.shallow_affinity if layers is None else mean_of(layers)

    @torch.no_grad()
    def label_masks(self, images: Tensor, tags: Tensor, upright: tuple[Tensor, Attended] | None = None) -> Tensor:
        """Images (B, 3, H, W) and tags (B, C) → reliable masks (B, H, W), from the propagated CAM.

        `upright` are the activated CAM and the `Attended` of these images where there are any already: the network is
        then run for the mirror images alone.
        """
        settings, training, steps = self.train_cfg, self.training, self.train_cfg.propagate_steps
        present = cams.present_classes(tags)
        self.train(training and settings.label_cam_mode == 'train')
        if upright is None:
            cam = self.raw_cam(images, self.label_affinity, steps, mirror=settings.mirror).cams[0]
        else:
            cam = propagated(*upright, steps)
            if settings.mirror:
                cam = cam + self.raw_cam(images.flip(-1), self.label_affinity, steps, mirror=False).cams[0].flip(-1)
        self.train(training)
        cam = cams.normalize(cams.upsample(cams.select(cam, present.classes), images.shape[-2:]))
        return cams.reliable_masks_of_present(cam, present, images, self.par, settings.low, settings.high)

    def raw_cam(
        self,
        images: Tensor,
        affinity: Mapping[int, float | Tensor],
        steps: int = 1,
        scales: Sequence[float] = (1.0,),
        mirror: bool = True,
    ) -> RawCAM:
        """The CAM before normalisation.

        Args:
            images: (B, 3, H, W) RGB in 0..1.
            affinity: layer → weight of the affinity that propagates the CAM; empty for none.
            steps: how often it is propagated.
            scales: sizes relative to the input, rounded to whole patches.
            mirror: add the CAM of the mirrored image.
        """
        total, scores = [], []
        for view in self.views(images, affinity, scales, mirror):
            cam = propagated(view.cam, view.attended, steps)
            total.append(cams.add_mirror(cam) if mirror else cam)
            scores.extend(view.logits)
        unpropagated = cams.add_mirror(view.cam) if mirror else view.cam
        return RawCAM(total, unpropagated, torch.stack(scores).mean(dim=0))

    def views(
        self,
        images: Tensor,
        affinity: Mapping[int, float | Tensor],
        scales: Sequence[float] = (1.0,),
        mirror: bool = True,
        token_layers: Sequence[int] = (),
    ) -> Iterator[View]:
        """What the network makes of images (B, 3, H, W) at each scale; with `mirror`, the mirror images follow them.

        Arguments as for `raw_cam` and the backbone.
        """
        batch, patch_size = len(images), self.backbone.patch_size
        for scale in scales:
            size = [max(round(side * scale / patch_size), 1) * patch_size for side in images.shape[-2:]]
            views = images if size == list(images.shape[-2:]) else cams.upsample(images, size)
            if mirror:
                views = torch.cat([views, views.flip(-1)])
            attended = self.backbone(views, affinity=affinity, token_layers=token_layers)
            class_map, logits = self.head(attended)
            cam = cams.activate(class_map, attended.class_affinity)
            yield View(class_map, cam, attended, [logit.unflatten(0, (-1, batch)).mean(0) for logit in logits.values()])

    @property
    def propagation(self) -> dict[int, float]:
        """Layer → weight of the affinity that propagates the CAM of a prediction."""
        layers = self.test_cfg.propagate_layers
        return mean_of(range(self.backbone.num_layers) if layers is None else layers)

    @torch.no_grad()
    def layer_entropy(self, images: Tensor, tags: Tensor) -> Tensor:
        """Images (B, 3, H, W), tags (B, C) → entropy of the evidence that each layer spreads, (L,) bits, batch mean."""
        each_layer = dict(enumerate(torch.eye(self.backbone.num_layers, device=images.device)))
        attended = self.backbone(images, affinity=each_layer)
        class_map, _ = self.head(attended)
        return layer_entropy(cams.activate(class_map), attended.patch_affinity, tags)

    def predict(self, inputs: Tensor, data_samples: list[SegDataSample] | None = None) -> list[SegDataSample]:
        """Images (B, 3, H, W) → samples as described for the class, at each sample's original size."""
        settings = self.test_cfg
        raw = self.raw_cam(inputs, self.propagation, settings.propagate_steps, settings.scales, settings.mirror)
        return self.predict_from(raw, inputs, data_samples)

    def predict_from(
        self, raw: RawCAM, inputs: Tensor, data_samples: list[SegDataSample] | None = None
    ) -> list[SegDataSample]:
        """What `predict` makes of the CAM: all but running the network."""
        settings = self.test_cfg
        scores = raw.logits.sigmoid()
        tags = scores > settings.class_threshold
        for i, sample in enumerate(data_samples or ()):
            if 'gt_score' in sample:
                tags[i] = self.tags([sample])[0] > 0
        if settings.background is None:  # every pixel belongs to a class, if need be to the most probable one
            tags |= ~tags.any(dim=1, keepdim=True) & (scores == scores.amax(dim=1, keepdim=True))

        # With the background two planes, because mmseg takes a single one for a binary problem.
        present = cams.present_classes(tags, least=2 - self.first_id)
        nowhere = 0 if self.first_id else -1
        cam = cams.normalize(raw.at(inputs.shape[-2:], present.classes))
        cam = cam.masked_fill(~present.mask[:, :, None, None], nowhere)
        planes = cams.add_background(cam, settings.background)
        # In this order mmseg's argmax over the planes is ten times faster.
        results = self.postprocess_result(planes.contiguous(memory_format=torch.channels_last), data_samples)
        unpropagated = cams.normalize(cams.select(raw.unpropagated, present.classes))
        fields = zip(results, scores, *present, unpropagated, strict=True)
        for sample, score, classes, mask, before in fields:
            sample.set_metainfo(dict(background=settings.background))
            sample.set_field(score, 'pred_score')
            sample.set_field(classes[mask] + self.first_id, 'cam_classes')
            sample.set_field(PixelData(data=sample.seg_logits.data[self.first_id :][mask]), 'cam')
            sample.set_field(before[mask], 'unpropagated_cam')
        backgrounds, masks = settings.band or (settings.background,), []
        if settings.refiner is not None:
            refiner = settings.refiner.to(inputs.device)
            planes_at = cams.refine(cam, present.mask, inputs, refiner, backgrounds, settings.refine_scale)
            nowhere = 0
        else:
            planes_at = [cams.add_background(cam, background) for background in settings.band or ()]
        for planes in planes_at:  # of a band those at the high score last
            results = self.postprocess_result(planes, results)
            masks.append([sample.pred_sem_seg.data for sample in results])
        for i, (sample, classes) in enumerate(zip(results, present.classes, strict=True)):
            ids = F.pad(classes + 1, (1, 0)) if self.first_id else classes
            planes = sample.seg_logits.data  # of the present classes
            every = planes.new_full((self.out_channels, *planes.shape[-2:]), nowhere)
            sample.seg_logits.data = every.index_copy_(0, ids, planes)
            sample.pred_sem_seg.data = ids[sample.pred_sem_seg.data]
            if settings.band is not None:
                sample.pred_sem_seg.data = cams.ignore_doubtful(masks[0][i], sample.pred_sem_seg.data)
        return results

    def tags(self, data_samples: list[SegDataSample]) -> Tensor:
        """(B, C) float32, 1 for the classes in the picture."""
        tags = torch.stack([sample.gt_score for sample in data_samples]).float()
        if tags.shape[1] != self.head.num_classes:
            raise ValueError(
                f'CAMSegmentor: the head has num_classes={self.head.num_classes}, the data set has {tags.shape[1]} '
                'classes besides background'
            )
        return tags
