"""Images of more than 8 bits, of many bands and of many pages: seen as they are, or refused with the reason."""

import ast
import re
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.logging import MMLogger
from mmseg.utils import register_all_modules
from options import load_config
from PIL import Image
from toy_own import CLASSES

from aream_mm.datasets import ImageTagDataset
from aream_mm.datasets.images import measured_range, read_image, warn_once, why_unreadable
from aream_mm.registry import TRANSFORMS

ROOT = Path(__file__).parents[1]


def loading(value_range=None):
    return [dict(type='LoadImageFromFile', color_type=6), dict(type='aream_mm.ToEightBits', value_range=value_range)]


def tagged(folder, pipeline):
    inner = dict(
        type='aream_mm.PhotographDataset', metainfo=dict(classes=CLASSES), data_prefix=dict(img_path=str(folder))
    )
    names = [path.stem for path in folder.iterdir() if path.suffix != '.npy']
    np.save(folder / 'tags.npy', {name: np.eye(2)[i % 2] for i, name in enumerate(names)})
    return ImageTagDataset(inner, str(folder / 'tags.npy'), pipeline=pipeline)


@pytest.fixture
def grey():
    return np.random.default_rng(0).integers(0, 256, (40, 50))


DEPTHS = {
    '12 bits in 16, TIFF': ('.tif', lambda g: (g * 16).astype(np.uint16), (0, 4080)),
    '12 bits in 16, PNG': ('.png', lambda g: (g * 16).astype(np.uint16), (0, 4080)),
    '8 bits in 16': ('.tif', lambda g: g.astype(np.uint16), (0, 255)),
    'all of 16': ('.png', lambda g: (g * 257).astype(np.uint16), (0, 65535)),
    'colour of 16': ('.png', lambda g: np.dstack([g * 16] * 3).astype(np.uint16), (0, 4080)),
    'colour of 16, TIFF': ('.tif', lambda g: np.dstack([g * 16] * 3).astype(np.uint16), (0, 4080)),
    'float': ('.tif', lambda g: (g / 255 - 0.5).astype(np.float32), (-0.5, 0.5)),
}


@pytest.mark.parametrize('kind', DEPTHS)
def test_a_deep_image_is_refused_with_its_range_and_seen_whole_with_that(tmp_path, grey, kind):
    ending, deepen, expected = DEPTHS[kind]
    cv2.imwrite(str(tmp_path / f'a{ending}'), deepen(grey))
    for pipeline in ([dict(type='LoadImageFromFile')], loading(), []):
        with pytest.raises(
            ValueError, match=r'value_range, .* for 1 of 1 images that have more than 8 bits, .*a\..*set value_range'
        ):
            tagged(tmp_path, pipeline)
    told = measured_range([str(tmp_path / f'a{ending}')])
    measured = ast.literal_eval(re.search(r'value_range = (\(.*\)), which .* may be right$', told)[1])
    assert np.allclose(measured, expected, atol=0.01 * (expected[1] - expected[0]))
    image = tagged(tmp_path, loading(expected))[0]['img']
    assert image.dtype == np.uint8 and np.abs(image - grey[..., None]).max() <= 1
    assert (read_image(str(tmp_path / f'a{ending}'), expected) == image[..., ::-1]).all()


def test_images_of_8_bits_are_loaded_as_mmcv_loads_them_whatever_the_range(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    for mode in ('L', 'RGB', 'P', '1', 'RGBA'):
        Image.fromarray(image).convert(mode).save(tmp_path / f'{mode}.png')
    files, steps = list(tmp_path.iterdir()), [TRANSFORMS.build(step) for step in loading((3, 9))]
    for file in files:
        results = dict(img_path=str(file))
        for step in steps:
            results = step(results)
        assert (results['img'] == cv2.imread(str(file))).all()


def test_a_faint_image_among_others_is_named_before_training_and_when_it_is_loaded(tmp_path, grey, caplog):
    for name, factor in (('a', 16), ('b', 16), ('faint', 1)):
        cv2.imwrite(str(tmp_path / f'{name}.tif'), (grey * factor).astype(np.uint16))
    with pytest.raises(
        ValueError, match=r'value_range = \(0, 40\d\d\), which .* may be right; dark with it would be [^,]*faint.tif\.'
    ):
        tagged(tmp_path, loading())
    dataset = tagged(tmp_path, loading((0, 4080)))
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    warn_once.cache_clear()
    for _ in range(2):
        list(dataset)
    logger.removeHandler(caplog.handler)
    told = [record.getMessage() for record in caplog.records if 'it is dark' in record.getMessage()]
    assert len(told) == 1 and 'faint.tif' in told[0]


@pytest.mark.parametrize('value_range', [4095, (0,), (9, 3), (0, '4095'), '0, 4095', (0, True), (0, float('nan'))])
def test_a_range_that_is_none_is_refused(value_range):
    with pytest.raises(ValueError, match='value_range: expected .low, high. with low < high, or None, got'):
        TRANSFORMS.build(dict(type='aream_mm.ToEightBits', value_range=value_range))


def test_one_line_of_own_py_sets_the_range_of_every_pipeline(tmp_path):
    register_all_modules()
    text = (ROOT / 'configs/_base_/datasets/own.py').read_text()
    (tmp_path / '_base_').mkdir()
    for folder in ('_base_/models', '_base_/datasets', 'seg'):
        (tmp_path / folder).symlink_to(ROOT / 'configs' / folder) if folder != '_base_/datasets' else None
    datasets = tmp_path / '_base_/datasets'
    datasets.mkdir()
    for file in (ROOT / 'configs/_base_/datasets').glob('*.py'):
        (datasets / file.name).write_text(file.read_text())
    assert text.count('\nvalue_range = None\n') == 1
    (datasets / 'own.py').write_text(text.replace('\nvalue_range = None\n', '\nvalue_range = (0, 4095)\n'))

    def steps(value):
        """Every list in a config that begins with a step of loading."""
        if isinstance(value, dict):
            return [found for item in value.values() for found in steps(item)]
        if not isinstance(value, list | tuple):
            return []
        if value and isinstance(value[0], dict) and value[0].get('type') == 'LoadImageFromFile':
            return [value]
        return [found for item in value for found in steps(item)]

    for name, number in (('own_tags', 6), ('own_pseudo', 3)):
        config = load_config(datasets / f'{name}.py')
        loaders = {key: value for key, value in config.items() if key.endswith(('loader', 'profile', 'masks'))}
        pipelines = [*steps(loaders), *([config.tta_pipeline] if 'tta_pipeline' in config else [])]
        assert len(pipelines) >= number
        for pipeline in pipelines:
            assert pipeline[0].color_type == 6 and pipeline[1].value_range == (0, 4095)


def tiff(path: Path, bands: int, bits: int, pages: int = 1, size: int = 4) -> None:
    """A TIFF of zeros, written by hand: bands and pages as no library here writes them."""
    strip = bytes(size * size * bands * bits // 8)
    content = struct.pack('<2sHI', b'II', 42, 8)
    for page in range(pages):
        start = len(content)
        end = start + 2 + 10 * 12 + 4
        many = struct.pack(f'<{bands}H', *[bits] * bands)
        tags = [(256, 3, 1, size), (257, 3, 1, size), (258, 3, bands, end if bands > 2 else bits), (259, 3, 1, 1)]
        tags += [(262, 3, 1, 1), (273, 4, 1, end + len(many)), (277, 3, 1, bands), (278, 3, 1, size)]
        tags += [(279, 4, 1, len(strip)), (284, 3, 1, 1)]
        content += struct.pack('<H', len(tags)) + b''.join(struct.pack('<HHII', *tag) for tag in tags)
        after = end + len(many) + len(strip)
        content += struct.pack('<I', after if page + 1 < pages else 0) + many + strip
    path.write_bytes(content)


@pytest.mark.parametrize(
    ('bands', 'bits', 'pages', 'reason'),
    [
        (5, 8, 1, 'expected a TIFF of grey or colour'),
        (13, 16, 1, 'expected a TIFF of grey or colour'),
        (3, 32, 1, 'expected a TIFF of grey or colour of 8 or 16 bits'),
        (1, 8, 7, 'a stack of 7 pages; save the one that is meant'),
        (1, 16, 2, 'a stack of 2 pages; save the one that is meant'),
    ],
)
def test_an_image_of_many_bands_or_pages_is_refused_with_the_reason(tmp_path, bands, bits, pages, reason):
    tiff(tmp_path / 'one.tif', 1, 8)
    tiff(tmp_path / 'many.tif', bands, bits, pages)
    assert why_unreadable(tmp_path / 'one.tif') is None
    with pytest.raises(ValueError, match=f'a readable file for each of 2 .* missing for 1: .*many.tif .*{reason}'):
        tagged(tmp_path, [])


def test_a_tiff_with_its_own_thumbnail_is_one_image(tmp_path):
    whole = Image.new('RGB', (64, 48))
    whole.save(tmp_path / 'a.tif', save_all=True, append_images=[whole.resize((16, 12))])
    assert why_unreadable(tmp_path / 'a.tif') is None


def test_an_array_of_16_bits_needs_the_range_too(grey):
    (convert,) = [TRANSFORMS.build(step) for step in loading()[1:]]
    with pytest.raises(ValueError, match='an array: expected a value_range for values of uint16, got None'):
        convert(dict(img=grey.astype(np.uint16)))


def test_the_images_of_a_huge_folder_are_measured_in_seconds(tmp_path, grey):
    cv2.imwrite(str(tmp_path / 'a.tif'), (grey * 16).astype(np.uint16))
    assert measured_range([str(tmp_path / 'a.tif')] * 5000) == measured_range([str(tmp_path / 'a.tif')])


def test_a_deep_image_that_breaks_off_is_named_and_not_measured(tmp_path, grey):
    cv2.imwrite(str(tmp_path / 'a.png'), (grey * 16).astype(np.uint16))
    (tmp_path / 'a.png').write_bytes((tmp_path / 'a.png').read_bytes()[:60])
    with pytest.raises(ValueError, match=r'such as .*a.png, got None: none of them can be read'):
        tagged(tmp_path, loading())
