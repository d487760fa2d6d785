"""Real photographs and pretrained weights, where ../shared has them."""

from pathlib import Path

import pytest
import torch
from toy_voc import ANIMALS, voc_config

from aream_mm.datasets import ImageTagDataset
from aream_mm.datasets.tags import load_tag_file
from aream_mm.models import AttentionViT, TimmCNN

SHARED = Path(__file__).parents[2] / 'shared'
VOC = SHARED / 'data/VOCdevkit/VOC2012'
VIT = SHARED / 'weights/vit_small_patch14_dinov2_saliency_fp16.pth'
CNN = SHARED / 'weights/tf_efficientnet_lite0.pth'
needs_photographs = pytest.mark.skipif(not VOC.is_dir(), reason=f'no photographs at {VOC}')
needs_weights = pytest.mark.skipif(not (VIT.is_file() and CNN.is_file()), reason=f'no weights at {SHARED / "weights"}')


@needs_photographs
def test_the_fields_tag_file_is_read_without_trusting_its_pickle():
    table = load_tag_file(VOC / 'cls_labels.npy')
    assert len(table) == 12031
    assert {value.shape for value in table.values()} == {(20,)}


@needs_photographs
def test_tags_of_file_and_masks_differ_for_the_few_images_where_the_field_knows_they_do():
    inner = voc_config(VOC, metainfo=dict(classes=ANIMALS))
    from_file = ImageTagDataset(inner, tag_file=str(VOC / 'cls_labels.npy'))
    from_masks = ImageTagDataset(inner)
    differing = sum((from_file[i]['gt_score'] != from_masks[i]['gt_score']).any() for i in range(len(from_file)))
    assert len(from_file) == 437
    assert differing <= 25


@needs_weights
@pytest.mark.parametrize(('img_size', 'patch_size'), [(196, 14), (224, 14), (224, 16)])
def test_the_pretrained_vit_loads_at_any_size_and_attends_like_timms(img_size, patch_size):
    vit = AttentionViT('vit_small_patch14_dinov2', pretrained=str(VIT), img_size=img_size, patch_size=patch_size)
    vit.init_weights()
    images = torch.rand(1, 3, img_size, img_size)
    with torch.no_grad():
        collected = vit(images, affinity={11: 1.0})
        fused = vit(images)
    side = img_size // patch_size
    assert collected.patch_affinity.shape == (1, side**2, side**2)
    # Pretrained attention is far from uniform, whose largest weight would be 1 / P.
    assert collected.patch_affinity.amax(dim=-1).mean() > 3 / side**2
    torch.testing.assert_close(collected.features, fused.features, rtol=1e-4, atol=1e-4)


@needs_weights
def test_the_pretrained_cnn_loads():
    cnn = TimmCNN('tf_efficientnet_lite0', out_indices=(3, 4), pretrained=str(CNN))
    cnn.init_weights()
    weights = torch.load(CNN, weights_only=True)
    assert torch.equal(cnn.cnn.conv_stem.weight, weights['conv_stem.weight'])
