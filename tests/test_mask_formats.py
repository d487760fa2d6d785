"""Masks in the forms of labelling tools, and back: what another reader draws is the mask."""

import base64
import io
import json
import sys

import export_masks
import import_masks
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from scipy import ndimage

from aream_mm.datasets.contents import MADE_FROM
from aream_mm.masks import VOC_COLOURS, encode_mask

coco = pytest.importorskip('pycocotools.coco', reason="needs the extra 'export'")

CLASSES = ['background', 'Kätzchen', 'hot dog']
NAMES = ('a b/Übung 1.jpg', 'a b/tief/2.PNG', '3.x.jpeg', 'plain.webp')
FORMS = ('coco', 'yolo', 'labelme', 'cvat', 'voc')


def draw(kind, size):
    """Rings in rings, single pixels, parts at the border, others that meet at corners alone, and noise."""
    mask, random = np.zeros(size, np.uint8), np.random.default_rng(len(kind))
    height, width = size
    if kind == 'rings':
        for i, value in enumerate((1, 0, 2, 1, 0, 1)):
            mask[3 * i : height - 3 * i, 3 * i : width - 3 * i] = value
    elif kind == 'holes':
        mask[: height // 2] = 1
        for x in range(2, width - 4, 6):
            mask[3:7, x : x + 3] = x % 3
        mask[-3:, -4:], mask[height // 2 + 3, ::5] = 2, 1
    elif kind == 'corners':
        mask[np.indices(size).sum(axis=0) % 2 == 0] = 1
        mask[:, width // 2 :] = np.kron(random.integers(0, 3, (height, width)), np.ones((3, 3)))[
            :height, : (width + 1) // 2
        ]
    else:
        field = ndimage.gaussian_filter(random.normal(size=size), 2)
        mask[field > 0.05], mask[field < -0.1] = 1, 2
    return mask


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Photographs of unequal sizes and their pseudo masks."""
    kinds = ('rings', 'holes', 'corners', 'noise')
    for name, kind, size in zip(NAMES, kinds, ((48, 61), (40, 37), (33, 52), (70, 90)), strict=True):
        photograph, mask = tmp_path / 'images' / name, (tmp_path / 'masks' / name).with_suffix('.png')
        for file in (photograph, mask):
            file.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', size[::-1], 'grey').save(photograph)
        mask.write_bytes(encode_mask(draw(kind, size)))
    (tmp_path / 'masks/manifest.json').write_text(json.dumps(dict(classes=CLASSES)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def masks_of(folder):
    return {name: np.array(Image.open((folder / name).with_suffix('.png'))) for name in NAMES}


def export(form, *options, out='exported'):
    sys.argv = ['x', 'masks', '--to', form, '--out', out, '--images', 'images', *options]
    export_masks.main()


def bring_back(source, *options, out='back', classes=CLASSES):
    sys.argv = ['x', source, '--images', 'images', '--out', out, '--classes', *classes, *options]
    import_masks.main()


def source_of(form, out='exported'):
    return out + dict(coco='/annotations.json', cvat='/annotations.xml').get(form, '')


@pytest.mark.parametrize('options', [[], ['--instances']])
@pytest.mark.parametrize('form', FORMS)
def test_what_is_exported_comes_back_as_it_was(data, form, options, capsys):
    export(form, *options)
    told = capsys.readouterr().out
    assert 'Kätzchen' in told and ('not told apart' in told) == (not options and form != 'yolo')
    bring_back(source_of(form))
    before, after = masks_of(data / 'masks'), masks_of(data / 'back')
    for name in NAMES:
        assert np.array_equal(before[name], after[name]), name


def test_what_is_ignored_is_told_or_kept(data, capsys):
    file = data / 'masks/a b/tief/2.png'
    mask = np.array(Image.open(file))
    mask[5:15, 3:20] = 255
    file.write_bytes(encode_mask(mask))
    for form in FORMS:
        export(form, out=form)
        left_out = '1 masks ignore pixels, which are left out as background: a b/tief/2.PNG' in capsys.readouterr().out
        bring_back(source_of(form, form), out=f'{form}_back')
        after = np.array(Image.open(data / f'{form}_back/a b/tief/2.png'))
        assert left_out == (form in ('coco', 'yolo'))
        assert np.array_equal(after, np.where(mask == 255, 0, mask) if left_out else mask)


def test_cocos_own_reader_finds_the_classes_and_with_instances_their_parts(data):
    export('coco', out='classes')
    export('coco', '--instances', out='parts')
    before = masks_of(data / 'masks')
    for out in ('classes', 'parts'):
        reader = coco.COCO(f'{out}/annotations.json')
        for image in reader.loadImgs(reader.getImgIds()):
            for i, name in enumerate(CLASSES[1:], start=1):
                assert reader.loadCats(i)[0]['name'] == name
                plane = before[image['file_name']] == i
                found = reader.loadAnns(reader.getAnnIds(image['id'], i))
                assert len(found) == (ndimage.label(plane, np.ones((3, 3)))[1] if out == 'parts' else int(plane.any()))
                assert all(entry['iscrowd'] == (out == 'classes') for entry in found)
                drawn = sum((reader.annToMask(entry).astype(int) for entry in found), start=np.zeros(plane.shape, int))
                assert np.array_equal(drawn, plane)


def test_a_mask_of_labelme_a_polygon_of_cvat_and_uncompressed_codes_are_read(data):
    mask = np.zeros((48, 61), np.uint8)
    mask[10:20, 5:31] = 1
    square = [[5, 10], [31, 10], [31, 20], [5, 20]]
    points = ';'.join(f'{x},{y}' for x, y in square)
    (data / 'a.xml').write_text(
        '<annotations><image id="0" name="a b/Übung 1.jpg" width="61" height="48"><tag label="hot dog"/>'
        f'<polygon label="Kätzchen" points="{points}" z_order="1"/>'
        f'<polygon label="hot dog" points="{points}" z_order="0"/></image></annotations>'
    )
    runs = [0] + np.diff(np.flatnonzero(np.diff(mask.ravel(order='F'), prepend=2, append=2))).tolist()
    entries = [dict(segmentation=code) for code in ([sum(square, [])], dict(size=[48, 61], counts=runs[1:]))]
    for n, entry in enumerate(entries):
        image = dict(id=1, file_name='a b/Übung 1.jpg', width=61, height=48)
        content = dict(images=[image], categories=[dict(id=7, name='Kätzchen')])
        content['annotations'] = [dict(entry, id=1, image_id=1, category_id=7)]
        (data / f'{n}.json').write_text(json.dumps(content))
    for n, source in enumerate(('a.xml', '0.json', '1.json')):
        bring_back(source, out=f'back_{n}')
        assert np.array_equal(np.array(Image.open(data / f'back_{n}/a b/Übung 1.png')), mask), source


@pytest.mark.parametrize(('left', 'top'), [(-3, -2), (80, 60), (4, 5)])
def test_a_mask_whose_corner_is_outside_of_the_image_is_cut_at_its_edges(data, left, top):
    whole = np.zeros((170, 190), np.uint8)
    whole[50 + top : 70 + top, 50 + left : 90 + left] = 1
    expected = whole[50:120, 50:140]
    (data / 'a.xml').write_text(
        '<annotations><image id="0" name="plain.webp" width="90" height="70">'
        f'<mask label="Kätzchen" rle="0,800" left="{left}" top="{top}" width="40" height="20"/></image></annotations>'
    )
    (data / 'labelme').mkdir()
    content = io.BytesIO()
    Image.new('1', (40, 20), 1).save(content, 'PNG')
    shape = dict(label='Kätzchen', shape_type='mask', points=[[left, top], [left + 39, top + 19]])
    shape['mask'] = base64.b64encode(content.getvalue()).decode()
    content = dict(imagePath='plain.webp', imageHeight=70, imageWidth=90, shapes=[shape])
    (data / 'labelme/plain.json').write_text(json.dumps(content))
    for source in ('a.xml', 'labelme'):
        bring_back(source)
        assert np.array_equal(np.array(Image.open(data / 'back/plain.png')), expected), source
        (data / 'back/plain.png').unlink()


@pytest.mark.parametrize(
    'segmentation',
    [
        dict(size=[70, 90], counts=[100, 50]),  # pycocotools leaves what is behind the runs to whatever was in memory
        dict(size=[70, 90], counts=[6299, 2, -1]),
        dict(size=[70, 90], counts='T3b1'),  # the same as texts, 100 and 50
        dict(size=[70, 90], counts=''),
        [[5, 5, 30, 30, 7]],
        [[1e9, 5, 30, 30, 7, 7]],
    ],
)
def test_outlines_of_coco_that_pycocotools_would_misread_are_refused(data, segmentation):
    image = dict(id=1, file_name='plain.webp', width=90, height=70)
    entry = dict(image_id=1, category_id=0, segmentation=segmentation)
    content = dict(images=[image], categories=[dict(id=0, name=CLASSES[1])], annotations=[entry])
    (data / 'a.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match='plain.webp: annotation None of image 1: expected a segmentation'):
        bring_back('a.json')
    assert not (data / 'back').exists()


def renumber(file, *order):
    """What an editor makes of a mask in VOC's colours: ids at these indices of its palette."""
    mask = Image.fromarray(np.uint8(order)[np.array(Image.open(file))])
    mask.putpalette(np.uint8(VOC_COLOURS)[np.argsort(order)].tobytes())
    mask.save(file)


@pytest.mark.parametrize('form', FORMS)
def test_masks_with_renumbered_palettes_are_exported_by_their_colours(data, form):
    before = masks_of(data / 'masks')
    renumber(data / 'masks/a b/Übung 1.png', 1, 2, 0)
    renumber(data / 'masks/plain.png', 2, 0, 1)
    export(form)
    bring_back(source_of(form))
    assert all(np.array_equal(mask, before[name]) for name, mask in masks_of(data / 'back').items())
    mask = Image.open(data / 'masks/plain.png')
    mask.putpalette([*mask.getpalette()[:6], 1, 2, 3])
    mask.save(data / 'masks/plain.png')
    with pytest.raises(ValueError, match=r'not so for 1: plain.png \(the colour \(1, 2, 3\)\)'):
        export(form, out='again')


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'P'])
def test_masks_in_colours_as_a_painting_program_saves_them_are_brought_back(data, mode):
    before = masks_of(data / 'masks')
    (data / 'masks/manifest.json').unlink()
    before['plain.webp'][:9] = 255
    (data / 'masks/plain.png').write_bytes(encode_mask(before['plain.webp']))
    for name in NAMES:
        file = (data / 'masks' / name).with_suffix('.png')
        if mode == 'P':
            Image.open(file).convert('RGB').quantize(8).save(file)
        else:
            Image.open(file).convert(mode).save(file)
    bring_back('masks')
    assert all(np.array_equal(mask, before[name]) for name, mask in masks_of(data / 'back').items())
    Image.new('RGB', (90, 70), (128, 0, 1)).save(data / 'masks/plain.png')
    with pytest.raises(ValueError, match=r'plain.png: expected colours of the classes, got \(128, 0, 1\)'):
        bring_back('masks', out='again')


@pytest.mark.parametrize('points', ['nan,10;31,10;31,20', '5,10;1e9,10;31,20', '5,10;31,10;31'])
def test_outlines_of_cvat_that_pycocotools_would_misread_are_refused(data, points):
    shape = f'<polygon label="hot dog" points="{points}"/>'
    (data / 'a.xml').write_text(
        f'<annotations><image id="0" name="plain.webp" width="90" height="70">{shape}</image></annotations>'
    )
    with pytest.raises(ValueError, match='plain.webp: annotation hot dog of image 0: expected a segmentation'):
        bring_back('a.xml')


@pytest.mark.parametrize('share', [0.9, 1.0])
def test_outlines_in_shares_of_width_and_height_are_refused_where_pixels_are_meant(data, share):
    square = [[0, 0], [share, 0], [share, share], [0, share]]
    content = dict(images=[dict(id=1, file_name='plain.webp', width=90, height=70)])
    content['categories'] = [dict(id=0, name=CLASSES[1])]
    content['annotations'] = [dict(image_id=1, category_id=0, segmentation=[sum(square, [])])]
    (data / 'a.json').write_text(json.dumps(content))
    shape = dict(label=CLASSES[1], points=square, shape_type='polygon')
    content = dict(imagePath='plain.webp', imageHeight=70, imageWidth=90, shapes=[shape])
    (data / 'ann').mkdir()
    (data / 'ann/plain.json').write_text(json.dumps(content))
    for source in ('a.json', 'ann'):
        with pytest.raises(ValueError, match=r'plain.webp \(shapes outside of the image, or in shares of its sides'):
            bring_back(source)


def test_a_shape_without_a_pixel_is_left_out_by_name(data, capsys):
    export('cvat')
    path = data / 'exported/annotations.xml'
    outside = '<polygon label="hot dog" points="95,5;99,5;99,9"/>'
    before, name, rest = path.read_text().partition('name="plain.webp"')
    path.write_text(f'{before}{name}{rest.replace(">", f">{outside}", 1)}')
    bring_back(source_of('cvat'))
    assert '1 shapes without a pixel of their image are left out: hot dog in plain.webp' in capsys.readouterr().out
    assert np.array_equal(masks_of(data / 'back')['plain.webp'], masks_of(data / 'masks')['plain.webp'])


@pytest.mark.parametrize('form', FORMS)
def test_masks_of_one_bit_are_of_background_and_the_first_class(data, form):
    file = data / 'masks/plain.png'
    mask = np.array(Image.open(file)) == 1
    Image.fromarray(mask).save(file)
    export(form)
    bring_back(source_of(form))
    assert np.array_equal(np.array(Image.open(data / 'back/plain.png')), mask)


def test_without_background_every_id_is_a_class_and_pixels_without_a_shape_are_ignored(data, capsys):
    (data / 'masks/manifest.json').write_text(json.dumps(dict(classes=['sky', 'Kätzchen', 'hot dog'])))
    for form in FORMS:
        export(form, out=form)
        bring_back(source_of(form, form), out=f'{form}_back', classes=['sky', 'Kätzchen', 'hot dog'])
        for name, mask in masks_of(data / 'masks').items():
            assert np.array_equal(mask, masks_of(data / f'{form}_back')[name]), (form, name)
    content = json.loads((data / 'coco/annotations.json').read_text())
    content['annotations'] = [entry for entry in content['annotations'] if entry['category_id']]
    (data / 'coco/annotations.json').write_text(json.dumps(content))
    bring_back(source_of('coco', 'coco'), out='less', classes=['sky', 'Kätzchen', 'hot dog'])
    before, after = masks_of(data / 'masks')[NAMES[0]], masks_of(data / 'less')[NAMES[0]]
    assert np.array_equal(after, np.where(before == 0, 255, before))


def test_a_mask_of_voc_in_which_nothing_is_drawn_is_no_true_mask(data, capsys):
    export('voc')
    Image.new('RGB', (90, 70)).save(data / 'exported/SegmentationClass/plain.png')
    bring_back('exported')
    assert '1 images without a shape are left out: plain.png' in capsys.readouterr().out
    assert len(list((data / 'back').rglob('*.png'))) == 3


def test_nothing_is_overwritten_and_images_without_a_shape_are_left_out(data, capsys):
    export('coco')
    with pytest.raises(SystemExit):
        export('coco')
    assert 'expected the name of a new folder' in capsys.readouterr().err
    content = json.loads((data / 'exported/annotations.json').read_text())
    content['annotations'] = [entry for entry in content['annotations'] if entry['image_id'] != 1]
    (data / 'exported/annotations.json').write_text(json.dumps(content))
    bring_back(source_of('coco'))
    assert '1 images without a shape are left out: 3.x.jpeg' in capsys.readouterr().out
    assert not (data / 'back/3.x.png').exists()
    bring_back(source_of('coco'))  # the same masks may stay
    other = data / 'back/plain.png'
    other.write_bytes(encode_mask(np.zeros((70, 90), np.uint8)))
    with pytest.raises(ValueError, match='remove what is to be replaced.*, not so for 1: back/plain.png'):
        bring_back(source_of('coco'))


@pytest.mark.parametrize(
    ('name', 'change', 'message'),
    [
        (
            'plain.png',
            np.zeros((90, 70), np.uint8),
            r'plain.png \(expected 90 × 70, got 70 × 90\)',
        ),
        ('plain.png', np.full((70, 90), 3, np.uint8), r'masks of ids 0..2 and 255.*plain.png \(ids \[3\]\)'),
        ('strange.png', np.zeros((70, 90), np.uint8), 'a photograph in images for each mask.*strange.png'),
        ('plain.png', np.zeros((70, 90, 3), np.uint8), r'masks of class ids .*plain.png \(RGB\)'),
        ('plain.PNG', np.zeros((70, 90), np.uint8), r'end in .png, not so for 1: plain.PNG'),
        ('plain.tif', np.zeros((70, 90), np.uint8), r'end in .png, not so for 1: plain.tif'),
    ],
)
def test_masks_that_are_no_photographs_are_refused(data, name, change, message):
    (data / 'masks' / name).unlink(missing_ok=True)
    if change is not None:
        Image.fromarray(change).save(data / 'masks' / name)
    with pytest.raises(ValueError, match=message):
        export('voc')
    assert not (data / 'exported').exists()


@pytest.mark.parametrize('name', ['CD4:CD8', '#1'])
def test_names_that_a_labelmap_cannot_hold_are_refused(data, name):
    (data / 'masks/manifest.json').write_text(json.dumps(dict(classes=['background', name, 'cat'])))
    with pytest.raises(ValueError, match=f'exported: expected names of classes without .*not so for 1: {name}'):
        export('voc')
    assert not (data / 'exported').exists()
    export('coco')
    bring_back(source_of('coco'), classes=['background', name, 'cat'])
    assert np.array_equal(masks_of(data / 'back')['plain.webp'], masks_of(data / 'masks')['plain.webp'])


def test_lines_of_yolo_may_be_blank_and_end_as_on_windows(data):
    export('yolo')
    for file in (data / 'exported/labels').rglob('*.txt'):
        file.write_bytes(b'\xef\xbb\xbf\r\n' + file.read_bytes().replace(b'\n', b'\r\n\r\n') + b'\r\n\r\n')
    bring_back('exported')
    for name, mask in masks_of(data / 'masks').items():
        assert np.array_equal(masks_of(data / 'back')[name], mask)


@pytest.mark.parametrize('content', ['{', '[]', '{}', '{"classes": 3}'])
def test_a_manifest_without_classes_is_named(data, content):
    (data / 'masks/manifest.json').write_text(content)
    with pytest.raises(ValueError, match='masks/manifest.json: expected JSON with the classes of the masks'):
        export('voc')


def test_true_masks_have_the_classes_of_own_and_masks_that_are_not_complete_are_no_true_ones(data, capsys):
    (data / 'masks/manifest.json').unlink()
    export('coco')
    told = capsys.readouterr().out
    assert 'no manifest, so taken for true masks' in told and 'cat (4), dog (4)' in told
    bring_back(source_of('coco'), classes=['background', 'cat', 'dog'])
    bring_back(source_of('coco'), classes=['cat', 'dog'])  # the same, as the background of own.py goes without saying
    for name, mask in masks_of(data / 'masks').items():
        assert np.array_equal(masks_of(data / 'back')[name], mask)
    text = PngInfo()
    text.add_text(MADE_FROM, '{"photograph": "of the network that made it"}')
    (data / 'masks/plain.png').write_bytes(encode_mask(np.zeros((70, 90), np.uint8), pnginfo=text))
    with pytest.raises(FileNotFoundError, match='expected masks/manifest.json'):
        export('coco', out='again')


@pytest.mark.parametrize(
    ('file', 'old', 'new', 'message'),
    [
        ('coco/annotations.json', '"plain.webp"', '"plane.webp"', r'plane.webp \(no photograph\)'),
        ('coco/annotations.json', '"width": 90', '"width": 80', r'\(expected 90 × 70, got 80 × 70\)'),
        ('coco/annotations.json', '"size": [70, 90]', '"size": [90, 70]', r'\(shape: expected 90 × 70, got 70 × 90\)'),
        ('coco/annotations.json', '"height": 70', '"high": 70', "plain.webp: .*'height'"),
        ('coco/annotations.json', '"name": "hot dog"', '"name": "cold dog"', 'classes cold dog'),
        ('coco/annotations.json', '"segmentation"', '"segments"', 'polygons or masks, got annotation 1 without'),
        ('cvat/annotations.xml', '<mask', '<box', '3.x.jpeg: expected polygons or masks, got <box>'),
        ('cvat/annotations.xml', 'rle="', 'rle="9, ', 'reshape'),
        ('cvat/annotations.xml', 'label="hot dog"', 'label="cold dog"', 'classes cold dog'),
        ('labelme/plain.json', '"polygon"', '"rectangle"', 'plain.json: expected polygons or masks, got a rectangle'),
        ('labelme/plain.json', '"points"', '"point"', 'plain.json: .*points'),
        ('labelme/plain.json', '{"version"', '{', 'plain.json: Expecting'),
        ('labelme/plain.json', '"imageWidth": 90', '"imageWidth": 91', r'\(expected 90 × 70, got 91 × 70\)'),
        ('yolo/data.yaml', '["Kätzchen", "hot dog"]', '["Kätzchen", "dog"]', 'classes dog'),
        ('yolo/labels/plain.txt', '0 ', '0 0.5 0.5 0.1 0.1\n0 ', 'plain.txt: expected polygons or masks, got a box'),
        ('yolo/labels/plain.txt', '0 ', '7 ', "plain.txt: expected the number of one of 2 classes.*got '7 "),
        ('yolo/labels/plain.txt', '0 ', '-1 ', "plain.txt: expected the number of one of 2 classes.*got '-1 "),
        ('yolo/labels/plain.txt', '0 ', '0 nan nan ', "plain.txt: expected .*shares of width and height, got '0 nan"),
        ('yolo/labels/plain.txt', '0 ', '0 30 5 ', "plain.txt: expected .*shares of width and height, got '0 30 5"),
        ('yolo/labels/plain.txt', '0 ', '0 0.5 ', 'plain.txt: cannot reshape'),
        ('voc/labelmap.txt', 'hot dog:0,128,0', 'hot dog:128,0,0', 'a colour of its own for each class, .* Kätzchen'),
        ('voc/labelmap.txt', 'hot dog:0,128,0', 'hot dog:0,128,1', 'colours of labelmap.txt'),
    ],
)
def test_what_is_not_of_these_photographs_and_classes_is_refused_and_nothing_is_written(data, file, old, new, message):
    form, path = file.partition('/')[0], data / file
    export(form, out=form)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=message):
        bring_back(source_of(form, out=form))
    assert not (data / 'back').exists()


@pytest.mark.parametrize(
    ('classes', 'message'),
    [
        (['background', 'dog', 'cat'], 'background, cat, dog; got background, dog, cat'),
        (['dog', 'cat'], 'background, cat, dog; got dog, cat'),
        (['background', 'cat', 'cat'], 'expected different names'),
    ],
)
def test_masks_beside_the_photographs_of_own_have_the_ids_that_own_gives(data, capsys, classes, message):
    (data / 'masks/manifest.json').write_text(json.dumps(dict(classes=['background', 'cat', 'dog'])))
    export('coco')
    with pytest.raises(SystemExit):
        bring_back(source_of('coco'), out='data/own/masks', classes=classes)
    assert message in capsys.readouterr().err and not (data / 'data').exists()
    bring_back(source_of('coco'), out='data/own/corrected', classes=['cat', 'dog'])
    assert set(np.unique(Image.open(data / 'data/own/corrected/plain.png'))) == {0, 1, 2}


def test_a_photograph_that_a_source_has_twice_is_refused(data):
    export('cvat')
    path = data / 'exported/annotations.xml'
    text = path.read_text()
    image = text[text.index('<image') : text.index('</image>') + len('</image>')]
    path.write_text(text.replace(image, image + image))
    with pytest.raises(ValueError, match='twice'):
        bring_back(source_of('cvat'))
    assert not (data / 'back').exists()


def test_a_source_that_is_none_of_these_is_refused(data):
    for source in ('images', 'nowhere', 'masks/manifest.json'):
        with pytest.raises(ValueError, match=f'{source}: .*expected'):
            bring_back(source)


def test_a_labelme_file_of_two_photographs_is_refused_and_its_path_finds_one_elsewhere(data):
    for folder in ('images', 'images/A'):
        (data / folder).mkdir(exist_ok=True)
        Image.new('RGB', (6, 4)).save(data / folder / 'foto.jpg')
    Image.new('RGB', (6, 4)).save(data / 'images/A/other.jpg')
    shape = dict(label=CLASSES[1], points=[[0, 0], [3, 0], [3, 2]], shape_type='polygon')
    content = dict(shapes=[shape], imageHeight=4, imageWidth=6)
    (data / 'ann').mkdir()
    (data / 'ann/other.json').write_text(json.dumps(dict(content, imagePath='..\\images\\A\\other.jpg')))
    bring_back('ann')
    assert [path.relative_to(data / 'back').as_posix() for path in (data / 'back').rglob('*.png')] == ['A/other.png']
    (data / 'ann/foto.json').write_text(json.dumps(dict(content, imagePath='../images/A/foto.jpg')))
    with pytest.raises(ValueError, match='foto.json: expected one photograph, but its own place is that of foto.jpg'):
        bring_back('ann', out='again')
    outside = dict(content, imagePath='foto.jpg', shapes=[dict(shape, points=[[50, 50], [60, 50], [60, 60]])])
    (data / 'ann/foto.json').write_text(json.dumps(outside))
    with pytest.raises(ValueError, match='shapes outside of the image'):
        bring_back('ann', out='again')
    assert not (data / 'again').exists()
