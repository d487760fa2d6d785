"""Own photographs: what a folder holds, images of every sort, broken files, masks of new photographs."""

import importlib.util
import json
import runpy
import shutil
import struct
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import cv2
import export_masks
import import_masks
import mmcv
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.apis import inference_model
from mmseg.utils import get_palette
from mmseg.visualization import SegLocalVisualizer
from options import load_config
from PIL import ExifTags, Image, ImageOps
from PIL.PngImagePlugin import PngInfo
from tag_table import write_tag_table
from torch.utils.data import DataLoader
from toy_own import CLASSES, IDS, make_own, own_config
from toy_voc import write_masks

from aream_mm.checkpoint import load_fitting_checkpoint
from aream_mm.datasets import ImageTagDataset, MaskDataset, PhotographDataset, PseudoMaskDataset
from aream_mm.datasets.images import damage, read_header, webps_are_turned
from aream_mm.engine import PseudoMaskHook
from aream_mm.registry import DATASETS, MODELS

ROOT = Path(__file__).parents[1]
LOAD = [dict(type='LoadImageFromFile')]
LOAD_IF_ANY = [*LOAD, dict(type='aream_mm.LoadAnnotationsIfAny')]
LOAD_ALL = [*LOAD, dict(type='mmseg.LoadAnnotations')]


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    return make_own(tmp_path_factory.mktemp('drawn') / 'own')


@pytest.fixture
def own(drawn, tmp_path):
    """A folder of photographs, to be changed at will."""
    return Path(shutil.copytree(drawn, tmp_path / 'own'))


def build(root, **arguments) -> PhotographDataset:
    return DATASETS.build(own_config(root, **arguments))


def tagged(root, **arguments) -> ImageTagDataset:
    return ImageTagDataset(own_config(root, **arguments.pop('inner', {})), str(root / 'tags.csv'), **arguments)


def ids_of(dataset) -> list[str]:
    images = Path(dataset.data_prefix['img_path'])
    paths = [Path(dataset.get_data_info(i)['img_path']) for i in range(len(dataset))]
    return [path.relative_to(images).with_suffix('').as_posix() for path in paths]


# What a folder holds


def test_images_of_every_ending_and_depth_are_found_and_other_files_are_not(own):
    for name in ('notes.txt', 'film.mp4', '.hidden.jpg', '.thumbnails/1.jpg'):
        (own / 'images' / name).parent.mkdir(exist_ok=True)
        (own / 'images' / name).write_text('no image')
    assert ids_of(build(own)) == IDS


def test_files_that_are_left_out_are_counted_in_the_log(own, told):
    for name in ('a.heic', 'b.HEIC', 'notes.txt'):
        (own / 'images' / name).write_text('no image')
    build(own)
    assert '3 files are left out' in told.text and '.heic (2), .txt (1)' in told.text


def test_a_list_of_ids_picks_the_images_in_its_order(own):
    (own / 'list.txt').write_text('\ufeffsub/0\n\n5 \n', encoding='utf-8')
    assert ids_of(build(own, ann_file='list.txt')) == ['sub/0', '5']


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('1\n1.PNG\nsub/9\n', r'list.txt: expected ids of images .*, not so for 2: 1.PNG, sub/9'),
        ('1\nsub/0\n1\n', r'list.txt: expected each id once, not so for 1: 1'),
    ],
)
def test_a_list_with_other_or_repeated_ids_is_refused(own, content, message):
    (own / 'list.txt').write_text(content)
    with pytest.raises(ValueError, match=message):
        build(own, ann_file='list.txt')


def test_two_images_that_differ_in_their_endings_alone_are_named(own):
    Image.new('RGB', (4, 4)).save(own / 'images/sub/0.png')
    with pytest.raises(ValueError, match=r'got 2 that share theirs: sub/0.jpg, sub/0.png; rename or remove'):
        build(own)


def test_a_folder_without_images_or_no_folder_is_refused(own, tmp_path):
    (tmp_path / 'empty/images').mkdir(parents=True)
    (tmp_path / 'empty/images/notes.txt').write_text('x')
    with pytest.raises(ValueError, match=r'expected images .* got 1 other files: .txt \(1\)'):
        build(tmp_path / 'empty')
    with pytest.raises(FileNotFoundError, match=r"expected a folder of images, got '.*nowhere/images'"):
        build(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError, match=r"expected a list of ids, got '.*list.txt'"):
        build(own, ann_file='list.txt')


@pytest.mark.parametrize(
    'classes',
    [
        (),
        ('background',),
        ('background', 'cat', 'cat'),
        'background',
        ('background', 1),
        {'background', 'cat'},
        ('background', None),
    ],
)
def test_classes_that_are_no_different_names_are_refused(own, classes):
    with pytest.raises(ValueError, match='classes: expected two or more different names in quotes'):
        PhotographDataset(metainfo=dict(classes=classes), data_prefix=dict(img_path=str(own / 'images')))


@pytest.mark.parametrize('folder', [True, ['masks'], 1])
def test_folders_that_are_no_names_are_refused(own, folder):
    with pytest.raises(
        ValueError, match='true_masks of own.py.*: expected names of folders in quotes, got .*seg_map_path'
    ):
        PhotographDataset(dict(classes=CLASSES), dict(img_path='images', seg_map_path=folder), data_root=str(own))


def test_the_palette_is_pascals_unless_given(own):
    config = dict(data_prefix=dict(img_path='images'), data_root=str(own))
    classes = ('background', *map(str, range(20)))
    assert PhotographDataset(dict(classes=classes), **config).metainfo['palette'] == get_palette('voc')
    given = [[1, 2, 3], [4, 5, 6]]
    assert PhotographDataset(dict(classes=classes[:2], palette=given), **config).metainfo['palette'] == given
    many = PhotographDataset(dict(classes=tuple(map(str, range(256)))), **config).metainfo['palette']
    assert len(set(map(tuple, many))) == 256


# Masks where there are some


def test_one_pipeline_serves_images_with_and_without_masks(own):
    dataset = tagged(own, pipeline=LOAD_IF_ANY, test_mode=True)
    shapes = {item['sample_id']: item['gt_seg_map'].shape for item in dataset if 'gt_seg_map' in item}
    assert shapes == {'1': (80, 96), 'sub/0': (80, 96)}


def test_no_mask_is_needed_at_all(own):
    for mask in (own / 'masks').rglob('*.png'):
        mask.unlink()
    assert not any('gt_seg_map' in item for item in tagged(own, pipeline=LOAD_IF_ANY, test_mode=True))


def test_a_training_info_names_no_mask_whatever_the_pipeline(own):
    dataset = tagged(own, pipeline=LOAD_IF_ANY)
    assert not any('seg_map_path' in item or 'gt_seg_map' in item for item in (dataset[i] for i in range(6)))


def test_masks_are_demanded_where_the_pipeline_reads_or_the_tags_need_them(own):
    with pytest.raises(ValueError, match=r'expected a mask for each of 6 images, missing for 4: .*3.webp'):
        tagged(own, pipeline=LOAD_ALL, test_mode=True)
    with pytest.raises(ValueError, match=r'expected a mask for each of 6 images, missing for 4: .*3.webp'):
        ImageTagDataset(own_config(own), pipeline=LOAD_IF_ANY)


@pytest.mark.parametrize(
    ('mask', 'message'),
    [
        (Image.new('L', (80, 96)), 'a mask of the size of the image'),
        (Image.new('RGB', (96, 80)), 'a mask of class ids'),
        (Image.new('I;16', (96, 80)), 'a mask of class ids'),
    ],
)
def test_an_optional_mask_that_does_not_fit_is_named_at_start(own, mask, message):
    mask.save(own / 'masks/sub/0.png')
    with pytest.raises(ValueError, match=rf'{message}.* missing for 1: .*masks/sub/0.png'):
        tagged(own, pipeline=LOAD_IF_ANY, test_mode=True)


def test_pseudo_masks_in_folders_take_their_place_beside_the_photographs(own, tmp_path):
    write_masks(tmp_path / 'pseudo', [], CLASSES)
    for i, sample_id in enumerate(IDS):
        (tmp_path / 'pseudo' / sample_id).parent.mkdir(parents=True, exist_ok=True)
        Image.new('L', (96, 80), i % 3).save(tmp_path / f'pseudo/{sample_id}.png')
    dataset = PseudoMaskDataset(own_config(own), str(tmp_path / 'pseudo'), pipeline=LOAD_ALL)
    assert [np.unique(dataset[i]['gt_seg_map']).tolist() for i in range(6)] == [[0], [1], [2], [0], [1], [2]]


def test_stage_2_is_measured_on_the_photographs_that_have_a_mask(own):
    with pytest.raises(ValueError, match=r'expected a mask for each of 6 images, missing for 4'):
        MaskDataset(own_config(own), pipeline=LOAD_ALL, test_mode=True)
    some = MaskDataset(own_config(own), drop_unmasked=True, pipeline=LOAD_ALL, test_mode=True)
    assert [some[i]['sample_id'] for i in range(len(some))] == ['1', 'sub/0']


def test_fewer_photographs_than_a_batch_fill_it(own):
    init_default_scope('mmseg')
    loader = load_config(ROOT / 'configs/own_photographs.py', dict(data_root=str(own))).train_dataloader
    loader.update(num_workers=0, persistent_workers=False)
    batch = next(iter(Runner.build_dataloader(loader)))
    assert len(batch['inputs']) == loader.batch_size > len(IDS)


# Images of every sort

RED, GREEN, BLUE, YELLOW = (200, 30, 40), (30, 180, 60), (40, 60, 220), (240, 240, 10)


def quarters(width: int = 48, height: int = 32) -> Image.Image:
    """Four colours, so that a turned, mirrored or discoloured image differs from it."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = RED, GREEN
    image[height // 2 :, : width // 2], image[height // 2 :, width // 2 :] = BLUE, YELLOW
    return Image.fromarray(image)


def rotated(image: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path, exif=exif, **({'lossless': True} if path.suffix == '.webp' else {}))


def sixteen_bits(image: Image.Image, path: Path) -> None:
    cv2.imwrite(str(path), np.asarray(image)[..., ::-1].astype(np.uint16) * 257)


def frames(image: Image.Image, path: Path) -> None:
    image.save(path, save_all=True, append_images=[ImageOps.invert(image)], quality=95)


TURNED = quarters().transpose(Image.Transpose.ROTATE_270)  # as EXIF's 6 is shown
GREY = quarters().convert('L')
SORTS = {
    'plain.jpg': (lambda p, path: p.save(path, quality=95), quarters()),
    'progressive.jpg': (lambda p, path: p.save(path, quality=95, progressive=True), quarters()),
    'cmyk.jpg': (lambda p, path: p.convert('CMYK').save(path, quality=95), quarters()),
    'cmyk.tif': (lambda p, path: p.convert('CMYK').save(path), quarters()),
    'grey.jpg': (lambda p, path: p.convert('L').save(path, quality=95), GREY),
    'grey.png': (lambda p, path: p.convert('L').save(path), GREY),
    'grey_alpha.png': (lambda p, path: p.convert('LA').save(path), GREY),
    'grey_16.png': (lambda p, path: cv2.imwrite(str(path), np.asarray(GREY).astype(np.uint16) * 257), GREY),
    'rgba.png': (lambda p, path: p.convert('RGBA').save(path), quarters()),
    'rgb_16.png': (sixteen_bits, quarters()),
    'rgb_16.tif': (sixteen_bits, quarters()),
    'palette.png': (lambda p, path: p.convert('P', palette=Image.Palette.ADAPTIVE).save(path), quarters()),
    'rotated.jpg': (rotated, TURNED),
    'rotated.png': (rotated, TURNED),
    'rotated.webp': (rotated, TURNED),
    'rotated.tif': (rotated, TURNED),
    'animated.png': (frames, quarters()),
    'animated.webp': (frames, quarters()),
    'gif_by_another_name.jpg': (lambda p, path: p.save(path, format='GIF'), quarters()),
    'two_pixels.png': (lambda p, path: quarters(2, 2).save(path), quarters(2, 2)),
    'eight_pixels.png': (lambda p, path: quarters(8, 8).save(path), quarters(8, 8)),
}


@pytest.mark.parametrize(('name', 'refused'), [('rotated.webp', True), ('plain.webp', False), ('rotated.jpg', False)])
def test_a_webp_that_opencv_would_not_turn_is_no_readable_image(tmp_path, monkeypatch, name, refused):
    monkeypatch.setattr('aream_mm.datasets.images.webps_are_turned', lambda: False)
    (rotated if 'rotated' in name else Image.Image.save)(quarters(), tmp_path / name)
    assert (read_header(tmp_path / name) is None) == refused


@pytest.mark.parametrize('name', SORTS)
def test_an_image_of_any_sort_is_loaded_as_it_is_shown(tmp_path, name):
    write, shown = SORTS[name]
    write(quarters(), tmp_path / name)
    if name.endswith('.webp') and 'rotated' in name and not webps_are_turned():
        assert read_header(tmp_path / name) is None
        pytest.skip('this version of OpenCV turns no WebP: refused')
    if name.startswith('gif') and mmcv.imread(str(tmp_path / name)) is None:
        pytest.skip('this version of OpenCV reads no GIF: refused when it is first read')
    config = dict(metainfo=dict(classes=CLASSES), data_prefix=dict(img_path=str(tmp_path)))
    np.save(tmp_path / 'tags.npy', {name.rsplit('.', 1)[0]: np.ones(2)})
    inner = dict(config, type='aream_mm.PhotographDataset')
    load = [dict(LOAD[0], color_type=6), dict(type='aream_mm.ToEightBits', value_range=(0, 65535))]
    dataset = ImageTagDataset(inner, str(tmp_path / 'tags.npy'), pipeline=load)
    image = dataset[0]['img'][..., ::-1].astype(int)
    assert image.shape == (shown.height, shown.width, 3)
    assert read_header(str(tmp_path / name)).size == shown.size
    difference = np.abs(image - np.asarray(shown.convert('RGB')).astype(int))
    assert difference.mean() < 6 and np.median(difference) < 3  # lossy files blur the edges


def test_the_smallest_images_pass_the_pipelines_of_both_stages(tmp_path):
    init_default_scope('mmseg')
    (tmp_path / 'images').mkdir()
    for side in (2, 8):
        quarters(side, side).save(tmp_path / f'images/{side}.png')
    np.save(tmp_path / 'tags.npy', {'2': np.ones(2), '8': np.ones(2)})
    first = load_config(ROOT / 'configs/own_photographs.py', dict(data_root=str(tmp_path)))
    second = load_config(ROOT / 'configs/seg/own_photographs.py', dict(data_root=str(tmp_path)))
    write_masks(tmp_path / 'pseudo', ['2', '8'], CLASSES, (2, 2))
    Image.new('L', (8, 8)).save(tmp_path / 'pseudo/8.png')
    second.train_dataloader.dataset.mask_dir = str(tmp_path / 'pseudo')
    configs = [first.train_dataloader, first.val_dataloader, first.custom_hooks[1].dataloader]
    for loader in configs:
        loader.dataset.tag_file = str(tmp_path / 'tags.npy')
    for loader in (*configs, second.train_dataloader):
        dataset = DATASETS.build(loader.dataset)
        assert all(min(dataset[i]['inputs'].shape[1:]) > 100 for i in range(2))


def test_an_image_of_a_single_row_or_column_is_refused_by_name_at_start(own):
    quarters(1, 9).save(own / 'images/column.png')
    with pytest.raises(ValueError, match=r'at least 2 × 2 pixels .* missing for 1: .*column.png'):
        tagged(own)


XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>"""


@pytest.mark.parametrize('orientation', [None, b'garbage', *range(10), 65535])
@pytest.mark.parametrize('xmp', [None, XMP])
@pytest.mark.parametrize('ending', ['jpg', 'png', 'webp'])
def test_an_image_has_the_size_that_it_is_loaded_in(tmp_path, ending, xmp, orientation):
    """XMP turns nothing, nor do EXIF data that are broken or have none of the eight orientations."""
    exif, path, options = Image.Exif(), tmp_path / f'x.{ending}', {}
    if isinstance(orientation, int):
        exif[ExifTags.Base.Orientation] = orientation
    if xmp and ending == 'png':
        options['pnginfo'] = PngInfo()
        options['pnginfo'].add_itxt('XML:com.adobe.xmp', xmp)
    elif xmp:
        options['xmp'] = xmp.encode()
    quarters().save(path, exif=orientation if isinstance(orientation, bytes) else exif, **options)
    if ending == 'webp' and orientation in range(2, 9) and not webps_are_turned():
        assert read_header(path) is None
    else:
        assert read_header(path).size == mmcv.imread(str(path)).shape[1::-1]


def test_the_header_of_a_png_is_read_without_its_data(tmp_path):
    Image.new('RGB', (64, 48)).save(tmp_path / 'cut.png')
    (tmp_path / 'cut.png').write_bytes((tmp_path / 'cut.png').read_bytes()[:60])
    assert read_header(str(tmp_path / 'cut.png')).size == (64, 48)


def bomb(path: Path, width: int = 20000, height: int = 20000) -> None:
    """A small PNG whose header says that it is large."""
    quarters().save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack('>II', width, height)
    content[29:33] = struct.pack('>I', zlib.crc32(bytes(content[12:29])))
    path.write_bytes(content)


@pytest.mark.parametrize(
    ('name', 'write'),
    [
        ('lab.tif', lambda path: quarters().convert('LAB').save(path)),
        ('pcx_by_another_name.png', lambda path: quarters().save(path, format='PCX')),
        ('heic_by_another_name.jpg', lambda path: path.write_bytes(b'\0\0\0\x18ftypheic\0\0\0\0mif1heic')),
        ('empty.jpg', lambda path: path.write_bytes(b'')),
        ('bomb.png', bomb),
    ],
)
def test_an_image_that_would_be_misread_is_refused_by_name_at_start(own, name, write):
    write(own / 'images' / name)
    with pytest.raises(ValueError, match=f'a readable file for each of 7 images, missing for 1: .*{name}'):
        tagged(own)


@pytest.mark.parametrize(('test_mode', 'size', 'warned'), [(True, 6000, 1), (True, 4000, 0), (False, 6000, 0)])
def test_the_largest_of_images_whose_predictions_need_much_memory_is_named(own, told, test_mode, size, warned):
    bomb(own / 'images/1.PNG', size, 4000)
    shutil.rmtree(own / 'masks')
    tagged(own, test_mode=test_mode)
    warnings = [text for record in told.records if 'GB of memory' in (text := record.getMessage())]
    assert len(warnings) == warned
    assert all('1.PNG has 6000 × 4000 pixels' in text and 'up to 2 GB' in text for text in warnings)


# Data that is broken behind a good header


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


@pytest.fixture
def told(caplog):
    """What mmengine's logger, which does not propagate, is told."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def test_a_loop_over_a_data_set_ends(own):
    assert len(list(tagged(own, pipeline=LOAD))) == 6
    with pytest.raises(IndexError):
        tagged(own, pipeline=LOAD, unreadable='skip')[6]


@pytest.mark.parametrize('name', ['plain.jpg', 'progressive.jpg', 'grey.png', 'rgba.png', 'rgb_16.png', 'rotated.webp'])
def test_a_file_that_breaks_off_is_told_from_a_whole_one(tmp_path, name):
    write, _ = SORTS[name]
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    write(Image.fromarray(noise), tmp_path / name)
    assert damage(str(tmp_path / name)) is None
    cut(tmp_path / name)
    assert damage(str(tmp_path / name))


def test_a_jpeg_that_cv2_decodes_in_part_counts_as_broken(own, monkeypatch):
    cut(own / 'images/sub/0.jpg')
    monkeypatch.setattr('mmcv.imread', lambda path, flag: np.zeros((80, 96, 3), np.uint8))  # as older versions do
    assert 'truncated' in damage(str(own / 'images/sub/0.jpg'))


@pytest.mark.parametrize('arguments', [dict(), dict(test_mode=True), dict(test_mode=True, unreadable='skip')])
def test_a_broken_image_is_fatal_and_named(own, arguments):
    cut(own / 'images/sub/0.jpg')
    dataset = tagged(own, pipeline=LOAD, **arguments)
    with pytest.raises(ValueError, match=r'read to their end, got .*sub/0.jpg \(image file is truncated'):
        dataset[3]


def test_a_broken_pseudo_mask_is_fatal_and_named(own, tmp_path):
    write_masks(tmp_path / 'pseudo', ['1'], CLASSES)
    Image.fromarray(np.random.default_rng(0).integers(0, 3, (80, 96), np.uint8)).save(tmp_path / 'pseudo/1.png')
    cut(tmp_path / 'pseudo/1.png')
    with pytest.raises(ValueError, match=r'read to its end for each of 1 images, .*pseudo/1.png \('):
        PseudoMaskDataset(own_config(own), str(tmp_path / 'pseudo'), drop_unmasked=True, pipeline=LOAD_ALL)


def test_a_skipped_image_gives_way_to_the_next_and_is_logged_once(own, told):
    cut(own / 'images/sub/0.jpg')
    cut(own / 'images/sub/2.JPEG')
    dataset = tagged(own, pipeline=LOAD, unreadable='skip')
    for _ in range(2):
        assert [dataset[i]['sample_id'] for i in range(6)] == [*IDS[:3], IDS[5], IDS[5], IDS[5]]
    skipped = [record.getMessage() for record in told.records if 'skipping' in record.getMessage()]
    assert ['sub/0.jpg' in skipped[0], 'sub/2.JPEG' in skipped[1], len(skipped)] == [True, True, 2]
    assert '1 of 6 skipped so far' in skipped[0] and '2 of 6 skipped so far' in skipped[1]


def test_the_next_of_the_last_image_is_the_first(own):
    cut(own / 'images/sub/deep/4.tif')
    assert tagged(own, pipeline=LOAD, unreadable='skip')[5]['sample_id'] == IDS[0]


def test_workers_count_a_skipped_image_once_between_them(own):
    cut(own / 'images/sub/0.jpg')
    dataset = tagged(own, pipeline=[*LOAD, dict(type='Resize', scale=(8, 8))], unreadable='skip')
    loader = DataLoader(dataset, num_workers=2, sampler=[3, 3, 3, 3], collate_fn=pseudo_collate)
    assert {batch['sample_id'][0] for batch in loader} == {'sub/2'}
    assert int((dataset.state == 2).sum()) == 1


def test_a_subset_finds_the_state_of_its_own_images(own):
    cut(own / 'images/sub/0.jpg')
    dataset = tagged(own, pipeline=LOAD, test_mode=True)
    dataset[0]
    with pytest.raises(ValueError, match='sub/0.jpg'):
        dataset.get_subset([3, 0])[0]


def test_images_of_which_none_can_be_read_are_fatal(own):
    dataset = tagged(own, pipeline=LOAD, unreadable='skip')
    for path in (own / 'images').rglob('*.*'):
        cut(path)
    with pytest.raises(ValueError, match='none of 6 images can be read'):
        dataset[0]


def test_an_item_that_a_transform_drops_is_not_replaced_in_silence(own):
    with pytest.raises(ValueError, match=r'1.PNG: expected an item from the pipeline, got None'):
        tagged(own, pipeline=[lambda info: None])[0]


def test_another_way_with_unreadable_images_is_refused(own):
    with pytest.raises(ValueError, match="expected unreadable='raise' or 'skip', got 'ignore'"):
        tagged(own, unreadable='ignore')


# Checkpoints and settings that do not fit


def test_a_checkpoint_of_another_number_of_classes_is_refused(tmp_path):
    torch.save(dict(state_dict=torch.nn.Linear(3, 4).state_dict()), tmp_path / 'four.pth')
    with pytest.raises(ValueError, match=r'2 have another shape.*of None\): weight: expected \(5, 3\), got \(4, 3\)'):
        load_fitting_checkpoint(torch.nn.Linear(3, 5), str(tmp_path / 'four.pth'), strict=False)
    load_fitting_checkpoint(torch.nn.Linear(3, 4), str(tmp_path / 'four.pth'), strict=False)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    torch.save(dict(state_dict=torch.nn.Linear(3, 4).state_dict()), tmp_path / 'linear.pth')
    with pytest.raises(ValueError, match=r'such as 0.weight, got weight, bias'):
        load_fitting_checkpoint(torch.nn.Sequential(torch.nn.Linear(3, 4)), str(tmp_path / 'linear.pth'), strict=False)
    with pytest.raises(ValueError, match=r'(?s)linear.pth: expected a checkpoint of the model.*running_mean'):
        load_fitting_checkpoint(torch.nn.BatchNorm1d(4), save(tmp_path / 'linear.pth', weight=torch.ones(4)))


def save(path, **weights) -> str:
    torch.save(dict(state_dict=weights), path)
    return str(path)


def test_layers_that_the_pseudo_masks_ask_for_in_vain_are_named_before_training(toy_segmentor):
    hook = PseudoMaskHook(dataloader=dict(), out_dir='unused', test_cfg=dict(propagate_layers=(2, 6)))
    with pytest.raises(ValueError, match=r'propagate_layers: expected layers in 0..5, got \[6\]'):
        hook.before_train(SimpleNamespace(model=toy_segmentor, work_dir='unused'))


def test_the_summary_takes_the_photographs_that_have_a_mask(own):
    trivial_miou = runpy.run_path(str(ROOT / 'tools/analysis/summary.py'))['trivial_miou']
    dataset = dict(type='aream_mm.ImageTagDataset', dataset=own_config(own), tag_file=str(own / 'tags.csv'))
    masks = np.stack([np.array(Image.open(path)) for path in (own / 'masks').rglob('*.png')])
    found = trivial_miou(DATASETS.build(dict(dataset, test_mode=True)))
    expected = 100 * (masks == 0).mean() / len(np.unique(masks))
    assert len(masks) < len(IDS) and found['background everywhere'] == pytest.approx(expected, abs=0.01)


# Masks of new photographs


@pytest.fixture(scope='module')
def tool():
    """tools/predict.py."""
    spec = importlib.util.spec_from_file_location('predict', ROOT / 'tools/predict.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def trained(toy_config, tmp_path):
    """Config and checkpoint of a toy of stage 1, with weights that find something everywhere."""
    toy_config['head']['num_classes'] = toy_config['backbone']['num_class_tokens'] = 2
    toy_config.update(
        data_preprocessor=dict(type='SegDataPreProcessor', mean=[0] * 3, std=[255] * 3, bgr_to_rgb=True),
        test_cfg=dict(background=0.5, class_threshold=0.0),
    )
    resize = dict(type='Resize', scale=(64, 64), keep_ratio=True)
    pipeline = [*LOAD, resize, dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
    loader = dict(dataset=dict(pipeline=pipeline))
    config = dict(default_scope='mmseg', model=toy_config, test_dataloader=loader, test_pipeline=pipeline)
    Config(config).dump(tmp_path / 'config.py')
    torch.manual_seed(0)
    meta = dict(dataset_meta=dict(classes=CLASSES, palette=[[0, 0, 0], [128, 0, 0], [0, 128, 0]]))
    init_default_scope('mmseg')
    model = MODELS.build(toy_config)
    torch.save(dict(state_dict=model.state_dict(), meta=meta), tmp_path / 'checkpoint.pth')
    return str(tmp_path / 'config.py'), str(tmp_path / 'checkpoint.pth')


@pytest.fixture
def predict(tool, trained, monkeypatch):
    """predict(photographs, out, *options): run the tool, and return its exit code."""

    def run(photographs, out, *options):
        monkeypatch.setattr(sys, 'argv', ['predict.py', str(photographs), *trained, '--out', str(out), *options])
        with pytest.raises(SystemExit) as exit_:
            tool.main()
        return exit_.value.code

    return run


def test_every_photograph_of_a_folder_gets_a_mask_and_an_overlay_at_its_place(own, predict, tmp_path):
    rotated(quarters(), own / 'images/turned.jpg')
    quarters(1, 1).save(own / 'images/one.png')
    (own / 'images/notes.txt').write_text('no image')
    assert predict(own / 'images', tmp_path / 'out') == 0
    names = {*IDS, 'turned', 'one'}
    for folder, ending in (('masks', '.png'), ('overlays', '.jpg')):
        files = [path.relative_to(tmp_path / 'out' / folder) for path in (tmp_path / 'out' / folder).rglob('*.*')]
        assert (Path('manifest.json') in files) == (folder == 'masks')
        files = [path for path in files if path.name != 'manifest.json']
        assert {path.with_suffix('').as_posix() for path in files} == names
        assert {path.suffix for path in files} == {ending}
    for name, size in (('sub/deep/4', (96, 80)), ('turned', (32, 48)), ('one', (1, 1))):
        mask = Image.open(tmp_path / f'out/masks/{name}.png')
        assert (mask.mode, mask.size) == ('P', size)
        assert mask.getpalette()[3:6] == [128, 0, 0]
        assert Image.open(tmp_path / f'out/overlays/{name}.jpg').size == size


def test_a_mask_is_the_one_of_mmsegs_own_inference(own, predict, tool, trained, tmp_path):
    predict(own / 'images/1.PNG', tmp_path / 'out')
    cfg = load_config(trained[0])
    expected = inference_model(tool.load_model(cfg, trained[1]), str(own / 'images/1.PNG')).pred_sem_seg.data[0]
    mask = np.array(Image.open(tmp_path / 'out/masks/1.png'))
    assert len(np.unique(mask)) > 1
    np.testing.assert_array_equal(mask, expected.numpy())


@pytest.mark.parametrize('scale', [1, 0.5])
def test_masks_of_stage_2_are_refined_with_the_photograph_as_the_network_gets_it(own, tool, trained, predict, scale):
    """The network's images are 64 pixels high, the photograph has 80 rows of 96 pixels."""
    cfg, folder = Config.fromfile(trained[0]), own.parent
    head = dict(type='FCNHead', in_channels=32, in_index=0, channels=8, num_convs=1, num_classes=3)
    backbone = dict(type='aream_mm.TimmCNN', name='test_convnext', out_indices=(1,))
    preprocessor = cfg.model.data_preprocessor
    cfg.model = dict(
        type='aream_mm.RefinedEncoderDecoder', data_preprocessor=preprocessor, backbone=backbone, decode_head=head
    )
    cfg.model.test_cfg = dict(mode='whole', refine=dict(type='aream_mm.PAR', dilations=[1, 2]), refine_scale=scale)
    cfg.dump(trained[0])
    model = MODELS.build(cfg.model).eval()
    torch.nn.init.normal_(model.decode_head.conv_seg.weight, std=30)  # several classes
    torch.save(dict(state_dict=model.state_dict(), meta=torch.load(trained[1])['meta']), trained[1])
    predict(own / 'images/1.PNG', folder / 'out')
    mask = np.array(Image.open(folder / 'out/masks/1.png'))

    resize = lambda x, size: F.interpolate(x, size, mode='bilinear', align_corners=False)  # noqa: E731
    shown = Image.open(own / 'images/1.PNG').convert('RGB')
    size = (53, 64)
    image = torch.from_numpy(cv2.resize(np.array(shown), size[::-1])).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        planes = resize(model(image, mode='tensor'), size).softmax(dim=1)
    low = tuple(int(side * scale) for side in size)
    refined = resize(MODELS.build(cfg.model.test_cfg.refine)(resize(image, low), resize(planes, low)), size)
    unrefined, expected = (resize(x, (80, 96)).argmax(dim=1)[0].numpy() for x in (planes, refined))
    assert (mask == expected).mean() > 0.999 > (mask == unrefined).mean()


def test_unreadable_photographs_are_named_at_the_end_and_stop_no_other(own, predict, tmp_path, capsys):
    cut(own / 'images/sub/0.jpg')
    (own / 'images/3.webp').write_bytes(b'no image')
    Image.new('RGB', (2000, 1)).save(own / 'images/thin.png')
    assert predict(own / 'images', tmp_path / 'out') == 1
    told = capsys.readouterr().out
    assert '4 of 7 photographs' in told
    named = [line.split(' (')[0] for line in told.splitlines() if line.startswith('not read')]
    assert named == [f'not read: {own}/images/{name}' for name in ('3.webp', 'sub/0.jpg', 'thin.png')]
    assert len(list((tmp_path / 'out/masks').rglob('*.png'))) == 4


@pytest.mark.parametrize(
    ('classes', 'got'),
    [(('background', 'dog', 'cat'), "id 1 .* 'dog', got 'cat'"), (CLASSES[:2], "id 2 .* None, got 'd")],
)
def test_photographs_are_not_predicted_with_other_classes_than_those_of_the_checkpoint(
    own, predict, trained, classes, got
):
    cfg = Config.fromfile(trained[0])
    cfg.test_dataloader.dataset.dataset = dict(own_config(own), metainfo=dict(classes=classes))
    cfg.dump(trained[0])
    with pytest.raises(ValueError, match=f'checkpoint.pth: expected the {len(classes)} classes .*{got}'):
        predict(own / 'images', own.parent / 'out')


def test_predictions_are_not_written_where_true_masks_are_looked_for(own, predict, trained):
    shutil.rmtree(own / 'masks')
    cfg = Config.fromfile(trained[0])
    cfg.test_dataloader.dataset.dataset = own_config(own)
    cfg.dump(trained[0])
    shutil.copytree(own / 'images', own.parent / 'new')
    for photographs in (own / 'images', own.parent / 'new'):
        with pytest.raises(ValueError, match='--out: expected a folder whose masks are not taken for true ones'):
            predict(photographs, own)
    assert not (own / 'masks').exists() and predict(own / 'images', own / 'out') == 0


def test_results_inside_the_folder_are_not_taken_for_photographs(own, predict):
    for _ in range(2):
        assert predict(own / 'images', own / 'images/out') == 0
    assert len(list((own / 'images/out/masks').rglob('*.png'))) == len(IDS)


def test_results_of_another_run_are_never_left_among_those_of_this_one(own, predict, trained, tmp_path, capsys):
    out, read = tmp_path / 'out', lambda: {p: p.read_bytes() for p in (tmp_path / 'out').rglob('*.*')}
    assert predict(own / 'images', out) == 0
    first, stamps = read(), {path: path.stat().st_mtime_ns for path in out.rglob('*.png')}
    (out / 'masks/1.png').unlink()  # as where a run was killed
    (out / 'overlays/3.jpg').unlink()
    assert predict(own / 'images', out) == 0
    assert '6 of 6 photographs' in (told := capsys.readouterr().out) and '4 of them as they were there' in told
    assert read() == first
    assert {path.stem for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp} == {'1', '3'}

    checkpoint = torch.load(trained[1])
    weights = {key: value.flip(0) for key, value in checkpoint['state_dict'].items()}
    torch.save(dict(checkpoint, state_dict=weights), trained[1])
    cut(own / 'images/sub/0.jpg')  # the one that cannot be read has no mask then, rather than that of before
    assert predict(own / 'images', out) == 1
    second = read()
    assert first.keys() - second.keys() == {out / 'masks/sub/0.png', out / 'overlays/sub/0.jpg'}
    made = [json.loads(Image.open(path).info['aream_mm'])['made_by'] for path in out.rglob('*.png')]
    assert set(made) == {json.loads(second[out / 'masks/manifest.json'])['identity']}
    assert any(first[path] != second[path] for path in second if path.suffix == '.jpg')

    def refused(named, *options):
        before = read()
        with pytest.raises(ValueError, match=f'nothing but what this tool makes .*, not so for {named}'):
            predict(*options)
        assert read() == before

    assert predict(own / 'images/1.PNG', out) == 0  # others by the same network stay
    assert {path: content for path, content in read().items() if path.suffix != '.json'} == {
        path: content for path, content in second.items() if path.suffix != '.json'
    }
    torch.save(checkpoint, trained[1])
    refused(r'8: .*masks/3.png', own / 'images/1.PNG', out)
    Image.new('P', (96, 80)).save(out / 'masks/3.png')  # corrected by hand
    refused(r'1: .*masks/3.png', own / 'images', out)


@pytest.mark.parametrize('form', ['coco', 'yolo', 'labelme', 'cvat', 'voc'])
def test_masks_of_new_photographs_are_exported_and_come_back(own, predict, tmp_path, form, monkeypatch):
    pytest.importorskip('pycocotools', reason="needs the extra 'export'")
    masks = tmp_path / 'out/masks'
    assert predict(own / 'images', tmp_path / 'out') == 0
    monkeypatch.setattr(sys, 'argv', ['x', str(masks), '--to', form, '--out', str(tmp_path / form)])
    export_masks.main()
    source = dict(coco='annotations.json', cvat='annotations.xml').get(form, '')
    arguments = ['--images', own / 'images', '--out', tmp_path / 'back', '--classes', *CLASSES]
    monkeypatch.setattr(sys, 'argv', ['x', str(tmp_path / form / source), *map(str, arguments)])
    import_masks.main()
    for path in masks.rglob('*.png'):
        before, back = np.array(Image.open(path)), tmp_path / 'back' / path.relative_to(masks)
        assert np.array_equal(np.array(Image.open(back)), before) if back.exists() else not before.any()
    assert len(list((tmp_path / 'back').rglob('*.png'))) > 1
    Image.new('RGB', (96, 80)).save(own / 'images/1.PNG')
    monkeypatch.setattr(sys, 'argv', ['x', str(masks), '--to', form, '--out', str(tmp_path / 'again')])
    with pytest.raises(ValueError, match=r'made from the photographs in .*/images, not so for 1: 1.png'):
        export_masks.main()


def test_photographs_whose_masks_would_be_one_are_refused(own, predict, tmp_path):
    Image.new('RGB', (4, 4)).save(own / 'images/sub/0.png')
    with pytest.raises(ValueError, match=r'share theirs: sub/0.jpg, sub/0.png'):
        predict(own / 'images', tmp_path / 'out')


def test_a_pipeline_that_does_not_bound_the_size_is_refused_for_a_large_photograph(own, predict, tmp_path):
    Image.new('RGB', (2000, 1500)).save(own / 'images/large.png')
    options = ['--cfg-options', 'test_dataloader.dataset.pipeline.1.scale=(3000,3000)']
    with pytest.raises(ValueError, match=r'large.png: expected a test pipeline .* got 3000 × 2250; add a Resize'):
        predict(own / 'images/large.png', tmp_path / 'out', *options)


def test_a_checkpoint_without_classes_cannot_paint(own, predict, trained, tmp_path):
    checkpoint = torch.load(trained[1])
    torch.save(dict(checkpoint, meta={}), trained[1])
    with pytest.raises(ValueError, match='expected a checkpoint with classes and palette'):
        predict(own / 'images', tmp_path / 'out')


def test_the_argmax_by_classes_equals_that_of_all_planes_at_once(tool):
    logits = torch.randn(5, 7, 9)
    expected = F.interpolate(logits[None], (40, 33), mode='bilinear', align_corners=False)[0].argmax(dim=0)
    torch.testing.assert_close(tool.upsampled_argmax(logits, (40, 33)).long(), expected)
    assert tool.upsampled_argmax(torch.zeros(3, 2, 2), (4, 4)).max() == 0


def test_names_stand_where_mmseg_puts_them(tool):
    ours, mmsegs = tool.OverlayVisualizer(), SegLocalVisualizer()
    for seed in range(20):
        mask = (np.random.default_rng(seed).random((12, 17)) < 0.3).astype(np.uint8)
        np.testing.assert_array_equal(ours._get_center_loc(mask), mmsegs._get_center_loc(mask))


def test_without_background_tags_and_ids_start_at_the_first_class(own):
    """The same masks, read as of three classes without background: id 0 is a tag as well."""
    classes = ('grass', 'cat', 'dog')
    inner = dict(own_config(own, ann_file='masked.txt'), metainfo=dict(classes=classes))
    (own / 'masked.txt').write_text('1\nsub/0\n')
    dataset = ImageTagDataset(inner, pipeline=LOAD_ALL, test_mode=True)
    for i in range(2):
        item = dataset[i]
        assert item['gt_score'].tolist() == np.isin(range(3), item['gt_seg_map']).tolist()
        assert item['gt_score'][0] == 1
    write_tag_table(own / 'land.csv', {'1.PNG': ['grass', 'dog'], 'sub/0.jpg': ['cat']})
    from_table = ImageTagDataset(inner, str(own / 'land.csv'))
    assert [from_table[i]['gt_score'].tolist() for i in range(2)] == [[1, 0, 1], [0, 1, 0]]


def test_background_anywhere_but_first_is_refused(own):
    inner = dict(own_config(own), metainfo=dict(classes=('cat', 'background')))
    with pytest.raises(ValueError, match='expected background as class 0, got classes'):
        ImageTagDataset(inner, str(own / 'tags.csv'))


@pytest.mark.parametrize('name', ['Background', 'backgroud', '_background_', 'back ground', ' background'])
def test_a_background_that_is_spelt_otherwise_is_no_class(own, name):
    with pytest.raises(ValueError, match="'background', spelt so, or none"):
        DATASETS.build(dict(own_config(own), metainfo=dict(classes=(name, 'cat', 'dog'))))
