"""COCO 2014: one numbering of the classes everywhere, masks painted as stated, and anything else refused."""

import runpy
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from coco import CATEGORIES, MASK_IDS
from mmseg.datasets.transforms import LoadAnnotations
from options import load_config
from PIL import Image
from pycocotools import mask as coco_mask
from toy_coco import OFFICIAL, SIZE, box, make_coco, run_converter, run_lengths, write_annotations

from aream_mm.datasets import COCO2014Dataset, ImageTagDataset, MaskDataset

ROOT = Path(__file__).parents[1]
CLASSES = COCO2014Dataset.METAINFO['classes']
WIDTH, HEIGHT = SIZE


def coco_config(root, split='train2014', **arguments):
    prefix = dict(img_path=split, seg_map_path=f'masks/{split}')
    return dict(
        type='aream_mm.COCO2014Dataset',
        data_root=str(root),
        data_prefix=prefix,
        ann_file=f'{split}.txt',
        **arguments,
    )


def load_dataset(root, **arguments):
    config = coco_config(root, **arguments)
    config.pop('type')
    return COCO2014Dataset(**config)


def mask_path(root, i):
    return root / f'masks/train2014/COCO_train2014_{i:012d}.png'


def read_mask(root, i):
    info = dict(seg_map_path=str(mask_path(root, i)), seg_fields=[], label_map=None, reduce_zero_label=False)
    return LoadAnnotations()(info)['gt_seg_map']


@pytest.fixture
def coco(tmp_path, monkeypatch):
    return make_coco(tmp_path / 'coco', monkeypatch)


@pytest.fixture
def convert(tmp_path, monkeypatch):
    """convert(images, …): write the annotations of train2014, convert them and return the folder."""

    def run(images, **arguments):
        write_annotations(tmp_path, 'train2014', images, **arguments)
        run_converter(monkeypatch, tmp_path, '--splits', 'train2014')
        return tmp_path

    return run


def test_the_categories_are_the_official_ones_and_become_1_to_80_in_their_order():
    assert CATEGORIES == OFFICIAL
    assert list(MASK_IDS) == sorted(OFFICIAL)
    assert list(MASK_IDS.values()) == list(range(1, 81))
    assert len(CLASSES) == 81 and CLASSES[0] == 'background'
    assert [MASK_IDS[i] for i in (1, 11, 13, 25, 27, 90)] == [1, 11, 12, 24, 25, 80]
    assert (CLASSES[12], CLASSES[80]) == ('stop sign', 'toothbrush')


def test_the_palette_is_that_of_voc_and_tells_all_classes_apart():
    palette = COCO2014Dataset.METAINFO['palette']
    assert palette[:4] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert palette[20] == [0, 64, 128]
    assert len({tuple(colour) for colour in palette}) == 81


def test_every_official_id_comes_back_from_the_mask_with_its_name(convert):
    corners = {category: (8 * (i % 12), 8 * (i // 12)) for i, category in enumerate(OFFICIAL)}
    instances = [dict(category_id=c, segmentation=box(x, y, x + 7, y + 7)) for c, (x, y) in corners.items()]
    root = convert([instances])
    mask = read_mask(root, 1)
    for category, (x, y) in corners.items():
        assert (mask[y : y + 7, x : x + 7] == MASK_IDS[category]).all()
        assert CLASSES[mask[y, x]] == OFFICIAL[category]
    table = (root / 'tags_train2014.csv').read_text(encoding='utf-8')
    assert table == f'image,tags\nCOCO_train2014_000000000001.jpg,{";".join(sorted(CLASSES[1:]))}\n'


def rasterise(boxes):
    """Pixel by pixel: the category of the smallest box (the last of equals) around it, 255 in a crowd, else 0."""
    mask = np.zeros((HEIGHT, WIDTH), int)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            around = [b for b in boxes if b[2] <= x < b[4] and b[3] <= y < b[5]]
            things = [(x1 - x0) * (y1 - y0) for _, crowd, x0, y0, x1, y1 in around if not crowd]
            if things:
                category = [b[0] for b in around if not b[1] and (b[4] - b[2]) * (b[5] - b[3]) == min(things)][-1]
                mask[y, x] = sorted(OFFICIAL).index(category) + 1
            elif around:
                mask[y, x] = 255
    return mask


def test_masks_equal_a_slow_rasteriser_for_overlapping_boxes_and_crowds(convert):
    random = np.random.default_rng(0)
    scenes = []
    for _ in range(6):
        boxes = []
        for _ in range(7):
            x0, y0 = random.integers(0, (WIDTH - 30, HEIGHT - 30)).tolist()
            x1, y1 = (int(start + random.integers(4, 30)) for start in (x0, y0))
            boxes.append((int(random.choice(list(OFFICIAL))), bool(random.random() < 0.3), x0, y0, x1, y1))
        boxes.append((44, False, *boxes[0][2:]))  # the same box again: the later one is on top
        scenes.append(boxes)
    images = []
    for boxes in scenes:
        instances = []
        for n, (category, crowd, x0, y0, x1, y1) in enumerate(boxes):
            region = np.zeros((HEIGHT, WIDTH), bool)
            region[y0:y1, x0:x1] = True
            segmentation = run_lengths(region) if crowd else box(x0, y0, x1, y1)
            if n == 0 and not crowd:
                segmentation = coco_mask.encode(np.asfortranarray(region.astype(np.uint8)))
                segmentation['counts'] = segmentation['counts'].decode()
            instances.append(dict(category_id=category, segmentation=segmentation, iscrowd=int(crowd)))
        images.append(instances)
    root = convert(images)
    seen = Counter()
    for i, boxes in enumerate(scenes, start=1):
        np.testing.assert_array_equal(read_mask(root, i), rasterise(boxes))
        seen.update(np.unique(read_mask(root, i)).tolist())
    assert seen[255] and seen[0] and len(seen) > 10


def test_polygons_of_one_instance_are_united_and_those_that_enclose_nothing_skipped(convert):
    parts = [[3, 3, 9, 9], *box(10, 10, 20, 20), *box(40, 10, 50, 20)]
    root = convert([[dict(category_id=17, segmentation=parts)], [dict(category_id=18, segmentation=[])]])
    expected = np.zeros((HEIGHT, WIDTH), int)
    expected[10:20, 10:20] = expected[10:20, 40:50] = CLASSES.index('cat')
    np.testing.assert_array_equal(read_mask(root, 1), expected)
    assert not read_mask(root, 2).any()
    assert (root / 'tags_train2014.csv').read_text().endswith('2.jpg,dog\n')


def test_lists_and_tag_tables_name_every_image_in_order(coco):
    rows = [f'COCO_train2014_{i:012d}.jpg,person;stop sign;toothbrush\n' for i in range(1, 5)]
    expected = ''.join(['image,tags\n', *rows, 'COCO_train2014_000000000005.jpg,\n'])
    assert (coco / 'tags_train2014.csv').read_bytes() == expected.encode()
    assert (coco / 'train2014.txt').read_text().split() == [f'COCO_train2014_{i:012d}' for i in range(1, 6)]
    assert len((coco / 'val2014.txt').read_text().split()) == 3


def test_a_mask_is_a_palette_image_and_crowds_are_ignored(coco):
    with Image.open(mask_path(coco, 1)) as mask:
        assert mask.mode == 'P' and mask.size == SIZE
        assert mask.convert('RGB').getpixel((10, 10)) == tuple(COCO2014Dataset.METAINFO['palette'][12])
    ids = read_mask(coco, 1)
    assert ids[75, 90] == 255  # the crowd alone
    assert ids[65, 70] == 80  # the crowd behind a toothbrush
    assert not read_mask(coco, 5).any()


def test_a_second_run_keeps_whole_masks_and_completes_the_rest(coco, monkeypatch, capsys):
    contents = {i: mask_path(coco, i).read_bytes() for i in range(1, 6)}
    times = {i: mask_path(coco, i).stat().st_mtime_ns for i in range(1, 6)}
    mask_path(coco, 2).unlink()
    mask_path(coco, 3).write_bytes(contents[3][:-20])
    mask_path(coco, 4).write_bytes(b'')
    run_converter(monkeypatch, coco, '--splits', 'train2014')
    assert '3 of 5 masks to write' in capsys.readouterr().out
    assert {i: mask_path(coco, i).read_bytes() for i in range(1, 6)} == contents
    assert {i for i in times if mask_path(coco, i).stat().st_mtime_ns == times[i]} == {1, 5}
    assert not list(coco.rglob('*.tmp'))


def test_masks_of_other_annotations_are_painted_again(coco, convert, monkeypatch):
    path = coco / 'annotations/instances_train2014.json'
    path.write_text(path.read_text().replace('"category_id": 90', '"category_id": 89'))
    run_converter(monkeypatch, coco, '--splits', 'train2014')
    assert set(np.unique(read_mask(coco, 1))) == {0, 12, CLASSES.index('hair drier'), 255}


def test_masks_of_another_program_are_not_overwritten(coco, monkeypatch):
    Image.new('P', SIZE, 90).save(mask_path(coco, 2))
    content = mask_path(coco, 2).read_bytes()
    message = r'masks/train2014: expected a folder for the masks of this tool alone.* got 1 otherwise: .*0002.png'
    with pytest.raises(ValueError, match=message):
        run_converter(monkeypatch, coco)
    assert mask_path(coco, 2).read_bytes() == content


CONTIGUOUS = {i: name for i, name in enumerate(OFFICIAL.values(), start=1)}
WITH_GAPS_FILLED = {**OFFICIAL, 12: 'street sign'}
RENAMED = {**OFFICIAL, 4: 'motorbike'}


@pytest.mark.parametrize(
    'categories, message',
    [
        (
            CONTIGUOUS,
            "got 78 otherwise: id 12 is 'stop sign' instead of 'left out'; id 13 is 'parking meter'",
        ),
        (WITH_GAPS_FILLED, "got 1 otherwise: id 12 is 'street sign' instead of 'left out'$"),
        (RENAMED, "got 1 otherwise: id 4 is 'motorbike' instead of 'motorcycle'$"),
        ({}, "got 80 otherwise: id 1 is 'missing' instead of 'person'; .*; …$"),
    ],
)
def test_categories_other_than_the_official_ones_are_refused(convert, categories, message):
    with pytest.raises(ValueError, match=f"instances_train2014.json: expected COCO's official 80 .* {message}"):
        convert([[]], categories=categories)


@pytest.mark.parametrize(
    'instance, message',
    [
        (dict(category_id=12), r'got 1 otherwise: annotation 0 is of image 1, category 12'),
        (dict(category_id=1, image_id=7), r'got 1 otherwise: annotation 0 is of image 7, category 1'),
        (dict(category_id=1, segmentation=dict(size=[3, 3], counts=[9])), r'annotation 0 of image 1: .*size \[3, 3\]'),
        (
            dict(category_id=1, segmentation=dict(size=[80, 96], counts=[9])),
            r'annotation 0 of image 1: .*up to 9 pixels',
        ),
        (dict(category_id=1, segmentation=[[1, 2, 3, 4, 5, 6, 7]]), r'annotation 0 of image 1: .*of 7 coordinates'),
        (dict(category_id=1), r"annotation 0 of image 1: .*KeyError\('segmentation'\)"),
    ],
)
def test_an_annotation_that_cannot_be_painted_is_named(convert, instance, message):
    with pytest.raises(ValueError, match=message):
        convert([[instance]])


@pytest.mark.parametrize('content', ['{"images": [', '{"images": [], "annotations": []}'])
def test_a_file_that_holds_no_instances_is_named(tmp_path, monkeypatch, content):
    path = write_annotations(tmp_path, 'train2014', [])
    path.write_text(content)
    with pytest.raises(ValueError, match='instances_train2014.json: expected COCO'):
        run_converter(monkeypatch, tmp_path, '--splits', 'train2014')


def test_a_missing_annotation_file_is_named_before_anything_is_written(tmp_path, monkeypatch):
    write_annotations(tmp_path, 'train2014', [[]])
    with pytest.raises(FileNotFoundError, match=r'missing: .*instances_val2014.json'):
        run_converter(monkeypatch, tmp_path)
    assert not (tmp_path / 'masks').exists()


def test_without_pycocotools_the_command_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pycocotools', None)
    with pytest.raises(SystemExit, match=r"pip install '.\[coco\]'"):
        runpy.run_path(str(ROOT / 'tools/converters/coco.py'))


def renumber(root, table):
    """Pass the ids of all masks of train2014 through a table of 256."""
    for i in range(1, 6):
        Image.fromarray(np.uint8(table)[read_mask(root, i)]).save(mask_path(root, i))


def table_of(change):
    return [0, *(change(i) for i in range(1, 81)), *[255] * 175]


def load_masks(root):
    return MaskDataset(coco_config(root), pipeline=[dict(type='mmseg.LoadAnnotations')])


def test_masks_with_the_91_official_ids_are_refused_at_the_start(coco):
    renumber(coco, table_of(lambda mask_id: list(OFFICIAL)[mask_id - 1]))
    message = (
        r'ids 0..80 \(background, person, .*\) or 255, as `python tools/converters/coco.py .*coco` writes them .*'
        r'0000001.png \(\[90\]\)'
    )
    with pytest.raises(ValueError, match=message):
        load_masks(coco)


def test_masks_that_count_the_classes_from_0_are_refused_at_the_start(coco):
    renumber(coco, [255, *range(80), *[255] * 175])
    with pytest.raises(ValueError, match='0..80 .* got masks with 255 and no 0 in 5 of 5, as if the classes'):
        load_masks(coco)


def test_a_crowd_that_fills_an_image_is_no_reason_to_refuse(coco):
    Image.new('P', SIZE, 255).save(mask_path(coco, 3))
    assert len(load_masks(coco)) == 5


def test_images_without_masks_are_a_data_set_too(coco):
    for i in range(1, 6):
        mask_path(coco, i).unlink()
    assert len(load_dataset(coco)) == 5
    assert len(load_dataset(coco, metainfo=dict(classes=('background', 'cat')))) == 5


def test_a_missing_list_names_the_converter(coco):
    (coco / 'train2014.txt').unlink()
    with pytest.raises(FileNotFoundError, match=r'train2014.txt, which `python tools/converters/coco.py .*` writes'):
        load_dataset(coco)


LOAD = [dict(type='LoadImageFromFile'), dict(type='mmseg.LoadAnnotations')]


def test_masks_give_tags_and_untagged_images_are_left_out(coco):
    dataset = ImageTagDataset(coco_config(coco), drop_untagged=True, pipeline=LOAD, test_mode=True)
    assert [dataset[i]['sample_id'] for i in range(len(dataset))] == [f'COCO_train2014_{i:012d}' for i in range(1, 5)]
    assert dataset[0]['gt_score'].shape == (80,)
    assert [CLASSES[1 + i] for i in dataset[0]['gt_score'].nonzero()[0]] == ['stop sign', 'toothbrush']
    assert set(np.unique(dataset[0]['gt_seg_map'])) == {0, 12, 80, 255}


def test_the_tag_table_adds_the_tags_of_crowds(coco):
    dataset = ImageTagDataset(coco_config(coco), tag_file=str(coco / 'tags_train2014.csv'), drop_untagged=True)
    assert len(dataset) == 4
    assert [CLASSES[1 + i] for i in dataset[0]['gt_score'].nonzero()[0]] == ['person', 'stop sign', 'toothbrush']


def test_a_subset_of_classes_keeps_its_names(coco):
    inner = coco_config(coco, metainfo=dict(classes=('background', 'toothbrush')))
    dataset = ImageTagDataset(inner, drop_untagged=True, pipeline=LOAD, test_mode=True)
    assert set(np.unique(dataset[0]['gt_seg_map'])) == {0, 1, 255}
    assert dataset.metainfo['palette'] == [[0, 0, 0], COCO2014Dataset.METAINFO['palette'][80]]


@pytest.mark.parametrize('name', ['aream_vit_coco', 'aream_dual_coco', 'seg/deeplabv3plus_r50_coco'])
def test_data_root_moves_every_path_of_the_configs(name):
    cfg = load_config(ROOT / 'configs' / f'{name}.py', dict(data_root='/elsewhere/coco14'))
    assert 'data/' not in cfg.pretty_text and 'VOC' not in cfg.pretty_text
    assert cfg.val_dataloader.dataset.get('dataset', cfg.val_dataloader.dataset).data_root == '/elsewhere/coco14'
    assert cfg.get('tag_file', '/elsewhere/coco14/tags_train2014.csv') == '/elsewhere/coco14/tags_train2014.csv'


def test_several_processes_write_what_one_writes(tmp_path, monkeypatch, capsys):
    write_annotations(tmp_path, 'train2014', [[dict(category_id=1, segmentation=box(2, 2, 9, 9))]] * 40)
    run_converter(monkeypatch, tmp_path, '--splits', 'train2014', '--workers', 2)
    assert '40 images, 0 of them without tags' in capsys.readouterr().out
    assert all(read_mask(tmp_path, i)[5, 5] == 1 for i in range(1, 41))
