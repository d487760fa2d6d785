"""Real photographs and pretrained weights, where ../shared has them."""

from pathlib import Path

import pytest
import torch
from toy_voc import voc_config

from aream_mm.datasets import ImageTagDataset
from aream_mm.datasets.tags import load_tag_file
from aream_mm.models import AttentionViT, TimmCNN
from aream_mm.models.vit import create_timm_model

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
def test_tags_of_the_file_and_of_the_masks_differ_for_the_images_known_to():
    """25 of the 1,482, as the folder's ORIGIN.txt says."""
    differing, folders = 0, dict(img_path='JPEGImages', seg_map_path='SegmentationClassAug')
    for split in ('trainaug', 'val'):
        inner = dict(voc_config(VOC, split), data_prefix=folders)
        from_file = ImageTagDataset(inner, tag_file=str(VOC / 'cls_labels.npy'))
        from_masks = ImageTagDataset(inner)
        for i in range(len(from_file)):
            differing += (from_file.get_data_info(i)['gt_score'] != from_masks.get_data_info(i)['gt_score']).any()
    assert differing == 25


@needs_weights
@pytest.mark.parametrize(('img_size', 'patch_size'), [(196, 14), (224, 14), (224, 16), (336, 14), (336, 16)])
def test_the_pretrained_vit_gives_the_tokens_of_timms_at_any_size(img_size, patch_size):
    vit = AttentionViT('vit_small_patch14_dinov2', pretrained=str(VIT), img_size=img_size, patch_size=patch_size)
    vit.init_weights()
    arguments = dict(img_size=img_size, patch_size=patch_size, num_classes=0)
    timms = create_timm_model('vit_small_patch14_dinov2', str(VIT), **arguments).eval()
    images = torch.rand(1, 3, img_size, img_size)
    with torch.no_grad():
        ours = vit.eval()(images, affinity={11: 1.0}).features
        (theirs,) = timms.forward_intermediates(vit.normalize(images), indices=1, intermediates_only=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@needs_weights
def test_the_pretrained_cnn_loads():
    cnn = TimmCNN('tf_efficientnet_lite0', out_indices=(3, 4), pretrained=str(CNN))
    cnn.init_weights()
    weights = torch.load(CNN, weights_only=True)
    assert torch.equal(cnn.cnn.conv_stem.weight, weights['conv_stem.weight'])


@needs_photographs
@pytest.mark.parametrize('split', ['train', 'val', 'trainaug'])
def test_the_lists_of_the_subset_name_the_photographs_that_the_figures_were_measured_on(split):
    ours = Path(__file__).parents[1] / f'configs/_base_/datasets/animals/{split}.txt'
    assert ours.read_text() == (VOC / f'ImageSets/Segmentation/{split}.txt').read_text()
