"""CAMSegmentor: stage 1 as an mmseg segmentor, so that mmseg's metrics, visualisers and inferencers work on CAMs."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce_dict
from mmengine.structures import PixelData
from mmseg.models.segmentors import BaseSegmentor
from mmseg.structures import SegDataSample
from torch import Tensor

from aream_mm.checks import require
from aream_mm.masks import IGNORE_INDEX
from aream_mm.models import cam as cams
from aream_mm.models.attention import Attended, at_least_float32, mean_of
from aream_mm.models.settings import TestSettings, TrainSettings
from aream_mm.registry import MODELS


class PlacedCAM(NamedTuple):
    """A CAM (B, C, h, w) and where it lies: on `padded` (H, W) pixels, of which the image has the first `size`."""

    cam: Tensor
    padded: tuple[int, int]
    size: tuple[int, int]
    mirrored: bool = False

    def at(self, size: tuple[int, int], classes: Tensor) -> Tensor:
        """The classes (B, K) of 0..C − 1 at (H, W) pixels of the image, upright: (B, K, H, W)."""
        cam = cams.select(self.cam, classes)
        if self.padded != self.size:
            cam = cams.upsample(cam, self.padded)[..., : self.size[0], : self.size[1]]
        cam = cam.flip(-1) if self.mirrored else cam
        return cam if tuple(cam.shape[-2:]) == tuple(size) else cams.upsample(cam, size)


class RawCAM(NamedTuple):
    """CAMs of B images before normalisation.

    cams           one or two for each scale; `at` sums them
    unpropagated   (B, C, h, w)   at the last scale; leaves out the mirror images of padded images
    logits         (B, C)         mean over heads, scales and mirror images
    """

    cams: list[PlacedCAM]
    unpropagated: Tensor
    logits: Tensor

    def at(self, size: tuple[int, int], classes: Tensor) -> Tensor:
        """The sum at (H, W) pixels, of the classes (B, K) of 0..C − 1: (B, K, H, W)."""
        return sum(cam.at(size, classes) for cam in self.cams)


class View(NamedTuple):
    """B images at one scale; with V = 2 their mirror images follow them.

    class_map  (V·B, C, h, w)   before ReLU
    cam        (V·B, C, h, w)   activated, before propagation
    attended   what the backbone returned
    logits     (B, C) of each head, mean over the views
    padded     (H, W) of the network's input
    size       (H, W) of the images in it
    """

    class_map: Tensor
    cam: Tensor
    attended: Attended
    logits: list[Tensor]
    padded: tuple[int, int]
    size: tuple[int, int]

    def placed(self, cam: Tensor) -> list[PlacedCAM]:
        """A CAM of the views (…, V·B, C, h, w) as CAMs of the images, which are to be summed: (…, B, C, h, w)."""
        if cam.shape[-4] == len(self.logits[0]):
            return [PlacedCAM(cam, self.padded, self.size)]
        upright, mirrored = cam.chunk(2, dim=-4)
        if self.padded == self.size:
            return [PlacedCAM(upright + mirrored.flip(-1), self.padded, self.size)]
        return [PlacedCAM(upright, self.padded, self.size), PlacedCAM(mirrored, self.padded, self.size, mirrored=True)]


@MODELS.register_module()
class CAMSegmentor(BaseSegmentor):
    """Trains from tags with L_cls and a loss on the attention, such as L_AReAM. Predicts CAM masks.

    `gt_score` (C,) of a sample has its tags. K classes have a CAM: the tagged ones, without tags the predicted ones.
    A prediction has
        pred_sem_seg       the CAM mask: 0 background, 1..C; 255 doubtful, with a band alone
        seg_logits         (1 + C, H, W), background first; with a band those of its high score
        pred_score         (C,) probabilities
        cam, cam_classes   (K, H, W) in 0..1 and (K,) in 1..C
        unpropagated_cam   (K, h, w) in 0..1, of the patches before the affinity propagates it
        background         the background score, in the meta information

    Args:
        backbone: config of an `AttentionBackbone`.
        head: config of a `CAMHead`.
        attention_loss: config of an `AttentionLoss`. None trains the classification alone.
        refiner: config of the `Refiner` of the labels. Default: `PAR`.
        data_preprocessor: mmseg's, set to RGB in 0..1 (mean 0, std 255). The networks normalise for themselves.
        train_cfg, test_cfg: `TrainSettings`, `TestSettings`.
        pretrained: None. mmseg's `init_model` passes it to every segmentor.
    """

    align_corners = False  # of mmseg's postprocess_result

    def __init__(
        self,
        backbone: dict,
        head: dict,
        attention_loss: dict | None = None,
        refiner: dict | None = None,
        data_preprocessor: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        pretrained: None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        self.head = MODELS.build(head)
        self.attention_loss = attention_loss and MODELS.build(
            {**attention_loss, 'num_layers': self.backbone.num_layers}
        )
        self.refiner = MODELS.build(refiner or dict(type='aream_mm.PAR'))
        name = type(self.refiner).__name__
        require('refiner', name, 'one that does not read which images it gets', not self.refiner.reads_samples)
        self.train_cfg = TrainSettings(**(train_cfg or {}))
        self.test_cfg = TestSettings(**(test_cfg or {}))
        self.settings_with()
        self.warm_up = False  # set by WarmUpHook: classification only

    @property
    def out_channels(self) -> int:
        """Number of planes of a prediction, background among them; read by mmseg's `SegTTAModel`."""
        return (self.test_cfg.background is not None) + self.head.num_classes

    def settings_with(self, **changes) -> TestSettings:
        """The test settings with changes. TypeError: no such setting. ValueError: one, or a layer, out of range."""
        settings = dataclasses.replace(self.test_cfg, **changes)
        if outside := [i for i in settings.propagate_layers or () if not 0 <= i < self.backbone.num_layers]:
            raise ValueError(
                f'test_cfg.propagate_layers: expected layers in 0..{self.backbone.num_layers - 1}, got {outside}'
            )
        return settings

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
        """`loss_class` and `loss_patch`, and after the warm-up that of the attention, such as `loss_aream`."""
        tags, on_attention = self.tags(data_samples), None if self.warm_up else self.attention_loss
        asked = {}
        if on_attention is not None:
            asked = dict(logit_layers=on_attention.logit_layers, affinity_layers=on_attention.affinity_layers)
            asked['affinity'] = on_attention.label_affinity
        attended = self.backbone(inputs, **asked)
        class_map, logits = self.head(attended)
        losses = {
            f'loss_{name}': F.multilabel_soft_margin_loss(at_least_float32(logit), tags)
            for name, logit in logits.items()
        }
        if on_attention is not None:
            no_label = on_attention.label_affinity is None
            masks = None if no_label else self.label_masks(inputs, tags, class_map, attended)
            for i, sample in enumerate(() if masks is None else data_samples):
                if 'gt_sem_seg' in sample:  # the true mask, or where no file was read `LoadImageArea`'s: 255 is padding
                    truth = sample.gt_sem_seg.data[0]
                    padded = masks[i].masked_fill(truth == IGNORE_INDEX, IGNORE_INDEX)
                    masks[i] = truth if 'seg_map_path' in sample else padded
            losses[f'loss_{on_attention.name}'] = on_attention(attended, masks)
        return losses

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """mmengine's, but what is logged is the mean over the processes: the losses of the whole batch."""
        loss, log_vars = super().parse_losses(losses)
        log_vars = {name: value.detach() for name, value in log_vars.items()}
        all_reduce_dict(log_vars, op='mean')
        return loss, log_vars

    @torch.compiler.disable  # which would compile it anew for each number of classes present
    @torch.no_grad()
    def label_masks(self, images: Tensor, tags: Tensor, class_map: Tensor, attended: Attended) -> Tensor:
        """Reliable masks (B, H, W) of the CAM that the loss propagates. An image without tags is 255 everywhere.

        The CAM comes from the forward pass that is trained. Mirror images and other scales take one more, in its mode.

        Args:
            images: (B, 3, H, W) RGB in 0..1.
            tags: (B, C).
            class_map: (B, C, h, w) before ReLU.
            attended: of these images, with the affinity that the loss asks for.
        """
        settings, affinity, steps = self.train_cfg, self.attention_loss.label_affinity, self.attention_loss.label_steps
        present, size = cams.present_classes(tags), tuple(images.shape[-2:])
        whole = cams.propagate(cams.activate(class_map, attended.class_affinity), attended.patch_affinity, steps)
        if settings.mirror:
            upright = TestSettings(propagate_steps=steps, mirror=False)
            whole = whole + self.raw_cam(images.flip(-1), upright, affinity).cams[0].cam.flip(-1)
        cam = PlacedCAM(whole, size, size).at(size, present.classes)
        if others := [scale for scale in settings.scales if scale != 1]:
            scaled = TestSettings(propagate_steps=steps, mirror=settings.mirror, scales=others)
            cam = cam + self.raw_cam(images, scaled, affinity).at(size, present.classes)
        masks = cams.reliable_masks(cams.normalize(cam), present, images, self.refiner, settings.low, settings.high)
        return masks.masked_fill(~present.mask.any(dim=1)[:, None, None], IGNORE_INDEX)

    def raw_cam(
        self, images: Tensor, settings: TestSettings, affinity: Mapping[int, float | Tensor] | None = None
    ) -> RawCAM:
        """The CAM before normalisation.

        Args:
            images: (B, 3, H, W) RGB in 0..1.
            settings: at which scales, mirrored, how fitted, and how often propagated.
            affinity: layer → weight in the affinity that propagates the CAM. Empty: no propagation. Default: the mean
                of the layers in the settings.
        """
        if affinity is None:
            layers = settings.propagate_layers
            affinity = mean_of(range(self.backbone.num_layers) if layers is None else layers)
        placed, scores = [], []
        for view in self.views(images, settings, affinity):
            cam = cams.propagate(view.cam, view.attended.patch_affinity, settings.propagate_steps)
            placed.extend(view.placed(cam))
            scores.extend(view.logits)
        return RawCAM(placed, view.placed(view.cam)[0].cam, torch.stack(scores).mean(dim=0))

    def views(
        self,
        images: Tensor,
        settings: TestSettings,
        affinity: Mapping[int, float | Tensor],
        token_layers: Sequence[int] = (),
    ) -> Iterator[View]:
        """A `View` of images (B, 3, H, W) at each scale. `raw_cam` and the backbone describe the arguments."""
        batch, patch_size = len(images), self.backbone.patch_size
        for scale in settings.scales:
            unit = 1 if settings.fit == 'pad' else patch_size
            size = tuple(max(round(side * scale / unit), 1) * unit for side in images.shape[-2:])
            padded = tuple(-(-side // patch_size) * patch_size for side in size)
            views = images if size == tuple(images.shape[-2:]) else cams.upsample(images, size)
            if settings.mirror:
                views = torch.cat([views, views.flip(-1)])
            if padded != size:  # at right and bottom, by what the network's normalisation makes zero
                canvas = self.backbone.normalize.mean.repeat(len(views), 1, *padded)
                canvas[..., : size[0], : size[1]] = views
                views = canvas
            attended = self.backbone(views, affinity=affinity, token_layers=token_layers)
            class_map, logits = self.head(attended)
            cam = cams.activate(class_map, attended.class_affinity)
            scores = [logit.unflatten(0, (-1, batch)).mean(dim=0) for logit in logits.values()]
            yield View(class_map, cam, attended, scores, padded, size)

    def predict(
        self,
        inputs: Tensor,
        data_samples: list[SegDataSample] | None = None,
        settings: TestSettings | None = None,
        raw: RawCAM | None = None,
    ) -> list[SegDataSample]:
        """Images (B, 3, H, W) → samples of the original sizes, those of the images without data samples.

        The class describes them. Settings replace `test_cfg`. With a raw CAM of the images the network does not run.
        """
        settings = settings or self.test_cfg
        raw = raw or self.raw_cam(inputs, settings)
        scores = raw.logits.sigmoid()
        first_id = int(settings.background is not None)
        present = self.present(scores, data_samples, settings)
        cam = cams.normalize(raw.at(inputs.shape[-2:], present.classes))
        cam = cam.masked_fill(~present.mask[:, :, None, None], 0 if first_id else -1)
        planes = cams.add_background(cam, settings.background)
        number, refiner = planes.shape[1], settings.refiner
        if refiner is not None:
            backgrounds = settings.band or (settings.background,)
            refiner, scale = refiner.to(inputs.device), settings.refine_scale
            refined = cams.refine(cam, present.mask, inputs, refiner, backgrounds, scale, data_samples)
            planes = torch.cat([planes, *refined], dim=1)
        # In this order mmseg's argmax over the planes is ten times faster.
        results = self.postprocess_result(planes.contiguous(memory_format=torch.channels_last), data_samples)
        unpropagated = cams.normalize(cams.select(raw.unpropagated, present.classes))
        fields = zip(results, scores, *present, unpropagated, strict=True)
        for sample, score, classes, mask, before in fields:
            original, *refined = sample.seg_logits.data.split(number)  # of the present classes
            if settings.band and refiner is None:
                refined = [F.pad(original[1:], (0, 0, 0, 0, 1, 0), value=score) for score in settings.band]
            ids = F.pad(classes + 1, (1, 0)) if first_id else classes
            highest = [planes.max(dim=0, keepdim=True).indices for planes in refined] or [sample.pred_sem_seg.data]
            masks = [ids[index] for index in highest]  # of a band that at the low score first
            size = (first_id + self.head.num_classes, *original.shape[-2:])
            every = original.new_full(size, 0 if first_id or refined else -1)
            sample.set_metainfo(dict(background=settings.background))
            sample.set_field(score, 'pred_score')
            sample.set_field(classes[mask] + first_id, 'cam_classes')
            sample.set_field(before[mask], 'unpropagated_cam')
            sample.set_data(
                dict(
                    cam=PixelData(data=original[first_id:][mask]),
                    seg_logits=PixelData(data=every.index_copy_(0, ids, [original, *refined][-1])),
                    pred_sem_seg=PixelData(data=cams.ignore_doubtful(*masks) if settings.band else masks[0]),
                )
            )
        return results

    def present(self, scores: Tensor, data_samples: list[SegDataSample] | None, settings: TestSettings) -> cams.Present:
        """The tags of each image; without tags the classes whose score (B, C), in 0..1, is above the threshold."""
        tags = scores > settings.class_threshold
        for i, sample in enumerate(data_samples or ()):
            if 'gt_score' in sample:
                tags[i] = self.tags([sample])[0] > 0
        if settings.background is None:  # every pixel belongs to a class, if need be to the most probable one
            tags |= ~tags.any(dim=1, keepdim=True) & (scores == scores.amax(dim=1, keepdim=True))
        # With the background two planes, because mmseg takes a single one for a binary problem.
        return cams.present_classes(tags, least=1 if settings.background is not None else 2)

    def tags(self, data_samples: list[SegDataSample]) -> Tensor:
        """(B, C) float32, 1 for the classes in the image."""
        tags = torch.stack([sample.gt_score for sample in data_samples]).float()
        if tags.shape[1] != self.head.num_classes:
            raise ValueError(
                f'CAMSegmentor: the head has num_classes={self.head.num_classes}, the data set has {tags.shape[1]} '
                'classes besides background'
            )
        return tags
