"""Stage 2 whose predictions are kept to the tags and refined with the photograph, wherever it predicts."""

import dataclasses
from collections import defaultdict

import mmcv
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder, SegTTAModel
from mmseg.structures import SegDataSample
from torch import Tensor

from aream_mm.datasets.images import read_image
from aream_mm.models import cam as cams
from aream_mm.models.settings import RefineSettings
from aream_mm.registry import MODELS

MMSEG_SETTINGS = ('mode', 'crop_size', 'stride')  # of test_cfg


@MODELS.register_module()
class RefinedEncoderDecoder(EncoderDecoder):
    """mmseg's `EncoderDecoder`, whose test_cfg may have `refine` and `refine_scale`: see `RefineSettings`.

    A sample with tags, `gt_score` (C,), is predicted as these classes and background alone. A refiner's `seg_logits`
    (K, H, W) have the original size, as has their argmax, `pred_sem_seg` (1, H, W). It reads the images from their
    files; those without a file, such as an inferencer's arrays, are as the network gets them.

    Raises:
        ValueError: a setting that neither mmseg nor `RefineSettings` has, a resolution outside 0..1, or a refiner or
            tags for a network of a single plane.
    """

    def __init__(self, *args, test_cfg: dict | None = None, **kwargs) -> None:
        test_cfg = test_cfg or {}
        names = [field.name for field in dataclasses.fields(RefineSettings)]
        if unknown := [key for key in test_cfg if key not in (*MMSEG_SETTINGS, *names)]:
            raise ValueError(f'test_cfg: expected some of {", ".join((*MMSEG_SETTINGS, *names))}, got {unknown}')
        super().__init__(*args, test_cfg=test_cfg, **kwargs)
        self.settings = RefineSettings(**{key: test_cfg[key] for key in names if key in test_cfg})
        if self.settings.refine and self.out_channels < 2:
            raise ValueError(f'test_cfg.refine: expected a network of 2 planes or more, got {self.out_channels}')

    def settings_with(self, **changes) -> RefineSettings:
        """What `test_cfg` says of refinement, with some of it changed."""
        return dataclasses.replace(self.settings, **changes)

    def predict(
        self,
        inputs: Tensor,
        data_samples: list[SegDataSample] | None = None,
        settings: RefineSettings | None = None,
    ) -> list[SegDataSample]:
        """Images (B, 3, H, W) as the data preprocessor makes them → samples as described for the class.

        The settings are the model's own unless others are given.
        """
        settings = settings or self.settings
        samples = super().predict(inputs, data_samples)
        for sample in samples:
            if 'gt_score' in sample:
                keep_to_tags(sample)
        if settings.refiner is not None:
            planes = [sample.seg_logits.data.float().softmax(dim=0) for sample in samples]
            refine_samples(samples, planes, self.photographs(samples, inputs), settings)
        return samples

    def photographs(self, samples: list[SegDataSample], inputs: Tensor) -> list[Tensor]:
        """The image of each sample as RGB in 0..1, (3, H, W) of its prediction's size."""
        found = []
        for sample, network_input in zip(samples, inputs, strict=True):
            planes, preprocessor = sample.seg_logits.data, self.data_preprocessor
            if sample.get('img_path'):
                found.append(photograph(sample, planes))
                continue
            if preprocessor._enable_normalize:
                network_input = network_input * preprocessor.std + preprocessor.mean
            older = hasattr(preprocessor, 'channel_conversion')  # mmseg 1.2
            if not getattr(preprocessor, 'channel_conversion' if older else '_channel_conversion'):
                network_input = network_input.flip(0)
            height, width = sample.get('img_shape', network_input.shape[-2:])[:2]
            found.append(cams.upsample(network_input[None, :, :height, :width] / 255, planes.shape[-2:])[0])
        return found


@MODELS.register_module()
class RefinedTTAModel(SegTTAModel):
    """mmseg's `SegTTAModel` over a `RefinedEncoderDecoder`.

    It refines the mean of the views' probabilities, at the image's original size, and not the views.
    """

    def __init__(self, module: dict, data_preprocessor: dict | None = None) -> None:
        super().__init__(module, data_preprocessor)
        if not isinstance(self.module, RefinedEncoderDecoder):
            raise TypeError(
                f'RefinedTTAModel: expected an aream_mm.RefinedEncoderDecoder, got {type(self.module).__name__}'
            )
        self.settings, self.module.settings = self.module.settings, RefineSettings()

    def merge_preds(self, data_samples_list: list[tuple[SegDataSample, ...]]) -> list[SegDataSample]:
        """The views of each image, of one size, to its prediction."""
        if self.settings.refiner is None:
            return super().merge_preds(data_samples_list)
        samples = [views[0] for views in data_samples_list]
        planes = [
            sum(view.seg_logits.data.float().softmax(dim=0) for view in views) / len(views)
            for views in data_samples_list
        ]
        images = [photograph(sample, mean) for sample, mean in zip(samples, planes, strict=True)]
        refine_samples(samples, planes, images, self.settings)
        return samples


def keep_to_tags(sample: SegDataSample) -> None:
    """Replace a prediction by that of the tagged classes and background alone."""
    planes, tags = sample.seg_logits.data, sample.gt_score > 0
    first_id = len(planes) - len(tags)  # 1, or 0 where there is no background
    if first_id not in (0, 1) or not tags.any() and not first_id:
        raise ValueError(
            f'{sample.get("img_path")}: expected tags for {len(planes)} planes, or {len(planes) - 1} and a background, '
            f'got {sample.gt_score.tolist()}'
        )
    known = F.pad(tags, (first_id, 0), value=True)
    planes = planes.masked_fill(~known[:, None, None], -torch.inf)
    mask = planes.argmax(dim=0, keepdim=True)
    sample.set_data(dict(seg_logits=PixelData(data=planes), pred_sem_seg=PixelData(data=mask)))


def refine_samples(
    samples: list[SegDataSample], planes: list[Tensor], images: list[Tensor], settings: RefineSettings
) -> None:
    """Replace the predictions of samples by what the refiner makes of their planes; those of one size are a batch.

    Args:
        samples: whose `seg_logits` and `pred_sem_seg` are set.
        planes: (K, H, W) of each, probabilities.
        images: (3, H, W) of each, RGB in 0..1.
        settings: with a refiner.
    """
    by_size = defaultdict(list)
    for number, image in enumerate(images):
        by_size[tuple(image.shape[-2:])].append(number)
    for size, numbers in by_size.items():
        low, refiner = cams.scaled(size, settings.refine_scale), settings.refiner.to(images[0].device)
        stacked, refined = (torch.stack([group[i] for i in numbers]) for group in (images, planes))
        there = refined.any(dim=-1).any(dim=-1).any(dim=0)  # (K,): with tags most of the planes are zero
        inputs = (cams.upsample(tensor, low) for tensor in (stacked, refined[:, there]))
        refined[:, there] = cams.upsample(refiner(*inputs, [samples[i] for i in numbers]), size)
        for i, result in zip(numbers, refined, strict=True):
            mask = result.max(dim=0, keepdim=True).indices
            samples[i].set_data(dict(seg_logits=PixelData(data=result), pred_sem_seg=PixelData(data=mask)))


def photograph(sample: SegDataSample, planes: Tensor) -> Tensor:
    """The image of a sample as RGB in 0..1, (3, H, W) of the size of the planes (K, H, W), on their device."""
    image, (height, width) = read_image(sample.img_path, sample.get('value_range')), planes.shape[-2:]
    if image.shape[:2] != (height, width):
        image = mmcv.imresize(image, (width, height))
    return torch.from_numpy(image).to(planes.device).permute(2, 0, 1) / 255
