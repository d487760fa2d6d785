"""The wrappers: what reaches the pipelines, how classes and ids map, and what bad data gets."""

import pickle

import numpy as np
import pytest
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image
from toy_voc import ANIMALS, make_voc, voc_config, write_masks

from aream_mm.datasets import ImageTagDataset, PseudoMaskDataset
from aream_mm.datasets.tags import load_tag_file
from aream_mm.registry import DATASETS

LOAD = [dict(type='LoadImageFromFile'), dict(type='mmseg.LoadAnnotations')]
CAT, COW, DOG, HORSE, PERSON, SHEEP = range(6)


@pytest.fixture
def voc(tmp_path):
    return make_voc(tmp_path / 'voc')


def tag_dataset(root, **arguments):
    return ImageTagDataset(voc_config(root, **arguments.pop('inner', {})), **arguments)


@pytest.fixture
def masks(voc, tmp_path):
    """A folder of pseudo masks for the training images of `voc`, made for the animals."""
    return write_masks(tmp_path / 'masks', [f'2007_{i:06d}' for i in range(4)], ANIMALS)


def test_no_mask_is_named_in_the_infos_of_the_training_pipeline(voc):
    dataset = tag_dataset(voc, tag_file=str(voc / 'cls_labels.npy'))
    seen = [dataset.get_data_info(i) for i in range(len(dataset))]
    assert len(seen) == 4
    assert not any('Segmentation' in str(value) for info in seen for value in info.values())


def test_masks_are_named_for_evaluation(voc):
    dataset = tag_dataset(voc, pipeline=LOAD, test_mode=True)
    assert dataset[0]['gt_seg_map'].shape == (80, 96)


def test_tags_of_the_file_and_tags_of_the_masks_agree(voc):
    from_file = tag_dataset(voc, tag_file=str(voc / 'cls_labels.npy'))
    from_masks = tag_dataset(voc)
    for i in range(4):
        np.testing.assert_array_equal(from_file[i]['gt_score'], from_masks[i]['gt_score'])
        assert from_file[i]['gt_score'].shape == (20,)


def test_a_subset_of_classes_picks_the_tags_by_name(voc):
    tags = {
        name: np.eye(20, dtype=np.float32)[[11, 14]].sum(0)
        for name in np.load(voc / 'cls_labels.npy', allow_pickle=True).item()
    }
    np.save(voc / 'cls_labels.npy', tags)  # 12 dog, 15 person
    subset = tag_dataset(voc, tag_file=str(voc / 'cls_labels.npy'), inner=dict(metainfo=dict(classes=ANIMALS)))
    assert subset[0]['gt_score'].nonzero()[0].tolist() == [DOG, PERSON]


def test_a_subset_of_classes_ignores_the_pixels_of_the_others(voc):
    inner = dict(metainfo=dict(classes=('background', 'dog', 'person')))
    subset = tag_dataset(voc, inner=inner, pipeline=LOAD, test_mode=True, drop_untagged=True)
    for i in range(len(subset)):
        assert set(np.unique(subset[i]['gt_seg_map'])) <= {0, 1, 2, 255}


def test_an_untagged_image_is_a_negative_or_dropped(voc):
    tags = np.load(voc / 'cls_labels.npy', allow_pickle=True).item()
    tags['2007_000001'] = np.zeros(20, np.float32)
    np.save(voc / 'cls_labels.npy', tags)
    every = tag_dataset(voc, tag_file=str(voc / 'cls_labels.npy'))
    assert [every[i]['gt_score'].any() for i in range(4)] == [True, False, True, True]
    kept = tag_dataset(voc, tag_file=str(voc / 'cls_labels.npy'), drop_untagged=True)
    assert [kept[i]['sample_id'] for i in range(len(kept))] == ['2007_000000', '2007_000002', '2007_000003']


@pytest.mark.parametrize('drop_untagged', [True, False])
def test_a_data_set_without_any_tagged_image_is_refused(voc, drop_untagged):
    with pytest.raises(ValueError, match=r"at least one of the tags \('sofa',\) for each.* missing for 4: 2007_000000"):
        tag_dataset(voc, inner=dict(metainfo=dict(classes=('background', 'sofa'))), drop_untagged=drop_untagged)


def test_a_missing_image_is_named_at_start(voc):
    (voc / 'JPEGImages/2007_000002.jpg').unlink()
    with pytest.raises(ValueError, match=r'a readable file for each of 4 images, missing for 1: .*2007_000002.jpg'):
        tag_dataset(voc, tag_file=str(voc / 'cls_labels.npy'))


def test_an_unreadable_image_is_named_at_start(voc):
    (voc / 'JPEGImages/2007_000002.jpg').write_bytes(b'not an image')
    with pytest.raises(ValueError, match=r'expected a readable file .* missing for 1: .*2007_000002.jpg'):
        tag_dataset(voc, tag_file=str(voc / 'cls_labels.npy'))


def test_a_mask_of_another_size_than_its_image_is_named_at_start(voc, masks, tmp_path):
    Image.new('L', (80, 96)).save(tmp_path / 'masks/2007_000001.png')
    with pytest.raises(ValueError, match=r'a pseudo mask of the size of the image .* missing for 1: .*000001.png'):
        PseudoMaskDataset(voc_config(voc, metainfo=dict(classes=ANIMALS)), masks)


def test_a_rotated_photograph_fits_a_mask_of_its_size_as_shown(voc, masks, tmp_path):
    photograph = Image.open(voc / 'JPEGImages/2007_000001.jpg').transpose(Image.Transpose.ROTATE_90)
    exif = photograph.getexif()
    exif[0x0112] = 6
    photograph.save(voc / 'JPEGImages/2007_000001.jpg', exif=exif)
    dataset = PseudoMaskDataset(voc_config(voc, metainfo=dict(classes=ANIMALS)), masks, pipeline=LOAD)
    assert dataset[1]['img'].shape[:2] == dataset[1]['gt_seg_map'].shape == (80, 96)


def test_a_missing_mask_is_named_at_start_where_the_pipeline_reads_masks(voc):
    (voc / 'SegmentationClass/2007_000002.png').unlink()
    arguments = dict(tag_file=str(voc / 'cls_labels.npy'), test_mode=True)
    with pytest.raises(ValueError, match=r'expected a mask for each of 4 images, missing for 1: .*2007_000002.jpg'):
        tag_dataset(voc, pipeline=LOAD, **arguments)
    without = tag_dataset(voc, pipeline=LOAD[:1], **arguments)
    assert ['seg_map_path' in without.get_data_info(i) for i in range(4)] == [True, True, False, True]


def test_an_image_without_an_entry_in_the_tag_file_is_named(voc):
    np.save(voc / 'cls_labels.npy', {'2007_000000': np.ones(20)})
    with pytest.raises(ValueError, match=r'expected an entry in .*cls_labels.npy .* missing for 3: 2007_000001, 2007'):
        tag_dataset(voc, tag_file=str(voc / 'cls_labels.npy'))


def test_a_tag_vector_of_another_length_is_named(voc):
    np.save(voc / 'cls_labels.npy', {f'2007_{i:06d}': np.ones(7 if i == 1 else 20) for i in range(4)})
    with pytest.raises(ValueError, match=r'expected 20 tags in .* missing for 1: 2007_000001'):
        tag_dataset(voc, tag_file=str(voc / 'cls_labels.npy'))


def test_a_mask_with_an_id_outside_the_classes_is_named(voc):
    Image.fromarray(np.full((80, 96), 77, np.uint8)).save(voc / 'SegmentationClass/2007_000003.png')
    with pytest.raises(ValueError, match=r'a mask of ids 0..20 \(background, .* or 255 for .*000003.png \(\[77\]\)'):
        tag_dataset(voc)


class Malicious:
    def __reduce__(self):
        return print, ('this must not run',)


def test_a_tag_file_cannot_run_code(tmp_path, capsys):
    table = np.empty((), object)
    table[()] = {'a': Malicious()}
    np.save(tmp_path / 'tags.npy', table)
    with pytest.raises(ValueError, match=r'tags.npy.*builtin.*.print does not belong in a file of data'):
        load_tag_file(tmp_path / 'tags.npy')
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize('content', [b'', b'not an array', pickle.dumps({'a': 1})])
def test_a_file_that_is_no_array_is_refused_by_name(tmp_path, content):
    (tmp_path / 'tags.npy').write_bytes(content)
    with pytest.raises(ValueError, match=r'tags.npy.*: expected a dict from image id to array'):
        load_tag_file(tmp_path / 'tags.npy')


def test_a_tag_file_that_holds_no_dict_is_refused(tmp_path):
    np.save(tmp_path / 'tags.npy', np.zeros((3, 20)))
    with pytest.raises(ValueError, match='expected a dict from image id to array, got float64'):
        load_tag_file(tmp_path / 'tags.npy')


def test_a_missing_tag_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'expected a cls_labels.npy, got .*nowhere.npy'):
        load_tag_file(tmp_path / 'nowhere.npy')


def test_pseudo_masks_take_the_place_of_the_masks_with_their_ids_unmapped(voc, masks):
    dataset = PseudoMaskDataset(voc_config(voc, metainfo=dict(classes=ANIMALS)), masks, pipeline=LOAD)
    assert [np.unique(dataset[i]['gt_seg_map']).tolist() for i in range(4)] == [[0], [1], [2], [3]]


def test_a_missing_pseudo_mask_is_named_at_start(voc, masks, tmp_path):
    (tmp_path / 'masks/2007_000001.png').unlink()
    with pytest.raises(ValueError, match=r'expected a pseudo mask for each of 4 .* missing for 1: .*2007_000001.jpg'):
        PseudoMaskDataset(voc_config(voc, metainfo=dict(classes=ANIMALS)), masks)


def test_images_without_a_pseudo_mask_can_be_left_out(voc, masks, tmp_path):
    (tmp_path / 'masks/2007_000001.png').unlink()
    dataset = PseudoMaskDataset(voc_config(voc, metainfo=dict(classes=ANIMALS)), masks, drop_unmasked=True)
    assert [dataset[i]['sample_id'] for i in range(3)] == ['2007_000000', '2007_000002', '2007_000003']


def test_pseudo_masks_of_other_classes_are_refused(voc, masks):
    with pytest.raises(
        ValueError, match="manifest.json: expected the 21 classes .*id 1 is .*: expected 'aeroplane', got 'cat'"
    ):
        PseudoMaskDataset(voc_config(voc), masks)


def test_an_unfinished_folder_of_pseudo_masks_is_refused(voc, masks, tmp_path):
    (tmp_path / 'masks/manifest.json').unlink()
    with pytest.raises(FileNotFoundError, match='written when they are complete; run stage 1 first'):
        PseudoMaskDataset(voc_config(voc, metainfo=dict(classes=ANIMALS)), masks)


def test_a_data_set_without_background_is_refused(voc):
    with pytest.raises(ValueError, match='expected background as class 0'):
        tag_dataset(voc, inner=dict(metainfo=dict(classes=('cat', 'dog'))))


def test_the_types_resolve_from_a_config_that_imports_nothing(voc):
    built = DATASETS.build(dict(type='aream_mm.ImageTagDataset', dataset=voc_config(voc)))
    assert len(built) == 4


def test_the_packed_sample_carries_tags_and_id(voc):
    pipeline = [LOAD[0], dict(type='aream_mm.PackTagInputs')]
    packed = tag_dataset(voc, pipeline=pipeline)[1]
    assert packed['inputs'].shape == (3, 80, 96)
    assert packed['data_samples'].gt_score.shape == (20,)
    assert packed['data_samples'].sample_id == '2007_000001'


def test_mmseg_reads_back_a_palette_mask_as_written(tmp_path):
    ids = np.array([[0, 1, 20], [255, 7, 0]], np.uint8)
    mask = Image.fromarray(ids)
    mask.putpalette(np.random.default_rng(0).integers(0, 255, 768, dtype=np.uint8))
    mask.save(tmp_path / 'mask.png')
    info = dict(seg_map_path=str(tmp_path / 'mask.png'), seg_fields=[], label_map=None, reduce_zero_label=False)
    np.testing.assert_array_equal(LoadAnnotations()(info)['gt_seg_map'], ids)
