"""The tag table, the sources it is made from, and the data set that reads it."""

import csv
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
import tag_sources
from PIL import Image
from tag_sources import VOC_CLASSES, read_tags
from tag_table import write_tag_table
from toy_voc import ANIMALS, make_voc, voc_config

from aream_mm.datasets import ImageTagDataset
from aream_mm.datasets.tags import image_id, load_tag_file, read_tag_table

ROOT = Path(__file__).parents[1]
CONVERTER = ROOT / 'tools' / 'converters' / 'tags.py'
FIELDS_FILE = ROOT.parent / 'shared/data/VOCdevkit/VOC2012/cls_labels.npy'
CLASSES = ['Bär', 'fire truck', 'cat']
TABLE = {
    'Bär/Käse & Brot.jpg': ['Bär'],
    'cat/nested/a.b.jpg': ['cat'],
    'cat/über den Zaun.jpg': ['cat', 'fire truck', 'Bär'],
    'leer, wüst.jpg': [],
}


# Builders of sources: each writes `table` into `folder` and returns the path and the classes that it needs.


def write_voc(folder, table):
    for image, names in table.items():
        path = folder / 'Annotations' / Path(image).with_suffix('.xml')
        path.parent.mkdir(parents=True, exist_ok=True)
        objects = ''.join(f'<object><name> {name} </name><part><name>head</name></part></object>' for name in names)
        filename = Path(image).name.replace('&', '&amp;')
        path.write_text(f'<annotation><filename>{filename}</filename>{objects}</annotation>', encoding='utf-8')
    return folder / 'Annotations', None


def write_mask_files(folder, table):
    for image, names in table.items():
        path = folder / 'masks' / Path(image).with_suffix('.png')
        path.parent.mkdir(parents=True, exist_ok=True)
        mask = np.zeros((4, 5), np.uint8)
        mask[0], mask[1, : len(names)] = 255, [1 + CLASSES.index(name) for name in names]
        Image.fromarray(mask).save(path)
    return folder / 'masks', CLASSES


def write_coco(folder, table):
    ids = {name: 7 * i for i, name in enumerate(CLASSES)}
    annotations = [
        dict(image_id=i, category_id=ids[name], iscrowd=crowd)
        for i, names in enumerate(table.values())
        for name in names
        for crowd in (0, 1)
    ]
    images = [dict(id=i, file_name=image) for i, image in enumerate(table)]
    categories = [dict(id=i, name=name) for name, i in ids.items()]
    return write_json(folder / 'instances.json', dict(images=images, annotations=annotations, categories=categories))


def write_json(path, content):
    path.write_text(json.dumps(content), encoding='utf-8')
    return path, None


def write_json_by_image(folder, table):
    return write_json(folder / 'by_image.json', table)


def write_json_records(folder, table):
    records = [dict(file_name=image, labels=[f' {name}' for name in names]) for image, names in table.items()]
    return write_json(folder / 'records.json', records)


def write_json_lines(folder, table, name='records.jsonl'):
    lines = [json.dumps(dict(image=image, tags=names), ensure_ascii=False) for image, names in table.items()]
    (folder / name).write_text('\n'.join(lines) + '\n', encoding='utf-8')
    return folder / name, None


def write_json_lines_named_json(folder, table):
    return write_json_lines(folder, table, 'lines.json')


def write_rows(path, rows, delimiter, encoding):
    with path.open('w', encoding=encoding, newline='') as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path, None


def two_columns(table, separator):
    return [['image', 'tags'], *([image, separator.join(names)] for image, names in table.items())]


def write_csv(folder, table):
    """Tags joined by a quoted comma."""
    return write_rows(folder / 'comma.csv', two_columns(table, ', '), ',', 'utf-8')


def write_excel_csv(folder, table):
    """What 'CSV UTF-8' gives where the comma is the decimal point; the first cells hold commas unquoted."""
    return write_rows(folder / 'semicolon.csv', two_columns(table, ','), ';', 'utf-8-sig')


def write_excel_unicode_text(folder, table):
    """Several rows for one image, no header."""
    rows = [[image, name] for image, names in table.items() for name in names or ['']]
    return write_rows(folder / 'unicode.txt', rows, '\t', 'utf-16')


def write_tsv(folder, table):
    return write_rows(folder / 'bar.tsv', two_columns(table, '|'), '\t', 'utf-8')


def marks(present, absent):
    def write(folder, table):
        rows = [[image, *(present if name in names else absent for name in CLASSES)] for image, names in table.items()]
        rows.insert(0, ['Datei', *(f' {name} ' for name in CLASSES)])
        return write_rows(folder / f'marks_{present}.csv', rows, ';', 'utf-8')

    return write


def write_npy(folder, table):
    vectors = {image_id(image): np.isin(CLASSES, names).astype(np.float32) for image, names in table.items()}
    np.save(folder / 'cls_labels.npy', vectors)
    return folder / 'cls_labels.npy', CLASSES


def write_table(folder, table):
    write_tag_table(folder / 'tags.csv', table)
    return folder / 'tags.csv', None


SOURCES = {
    'voc': (write_voc, 'VOC annotations'),
    'masks': (write_mask_files, 'masks'),
    'coco': (write_coco, 'COCO instances'),
    'by image': (write_json_by_image, 'JSON of tags by image'),
    'records': (write_json_records, 'JSON records'),
    'lines': (write_json_lines, 'JSON records'),
    'lines as json': (write_json_lines_named_json, 'JSON records'),
    'comma': (write_csv, 'image and tags in two columns, with header, delimiter ,'),
    'excel': (write_excel_csv, 'image and tags in two columns, with header, delimiter ;'),
    'unicode text': (write_excel_unicode_text, 'image and tags in two columns, without header, delimiter tab'),
    'tsv': (write_tsv, 'image and tags in two columns, with header, delimiter tab'),
    '1': (marks('1', '0'), 'one column per class, delimiter ;'),
    'x': (marks('x', ''), 'one column per class, delimiter ;'),
    'true': (marks('TRUE', 'False'), 'one column per class, delimiter ;'),
    'yes': (marks('Yes', 'no'), 'one column per class, delimiter ;'),
    'npy': (write_npy, 'cls_labels.npy'),
    'table': (write_table, 'image and tags in two columns, with header, delimiter ,'),
}


@pytest.mark.parametrize('source', SOURCES)
def test_every_source_gives_the_same_table(source, tmp_path):
    write, expected_kind = SOURCES[source]
    kind, tags = read_tags(*write(tmp_path, TABLE))
    write_tag_table(tmp_path / 'out/tags.csv', tags)
    read = read_tag_table(tmp_path / 'out/tags.csv')
    without_endings = source in ('masks', 'npy')
    assert kind == expected_kind
    assert read == {image_id(i) if without_endings else i: sorted(names) for i, names in TABLE.items()}
    vectors = load_tag_file(tmp_path / 'out/tags.csv', CLASSES)
    assert {image: vector.tolist() for image, vector in vectors.items()} == {
        'Bär/Käse & Brot': [1, 0, 0],
        'cat/nested/a.b': [0, 0, 1],
        'cat/über den Zaun': [1, 1, 1],
        'leer, wüst': [0, 0, 0],
    }


def test_folders_named_after_classes_give_the_table_of_their_images(tmp_path):
    files = ['cat/nested/a.b.jpg', 'cat/x.JPG', 'Bär/Käse & Brot.jpg', 'Bär/x.png', 'fire truck /x.jpg']
    for file in [*files, 'cat/.hidden.jpg', '.hidden/x.jpg', '__MACOSX/cat/._x.jpg', 'new/.keep', 'README.txt']:
        (tmp_path / 'images' / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'images' / file).touch()
    kind, tags = read_tags(tmp_path / 'images', CLASSES)
    assert kind == 'folders of images, named after the classes'
    assert tags == {file: [file.split('/')[0].strip()] for file in files}


def test_files_in_class_folders_that_are_no_images_are_told_of(tmp_path):
    for file in ('cat/a.jpg', 'cat/b.heic', 'cat/film.mpg'):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    with pytest.warns(UserWarning, match='left out 2 files that are no images: cat/b.heic, cat/film.mpg'):
        assert read_tags(tmp_path)[1] == {'cat/a.jpg': ['cat']}


def test_difficult_objects_are_kept_unless_told_otherwise(tmp_path):
    item = '<object><name>{}</name><difficult>{}</difficult></object>'
    (tmp_path / 'a.xml').write_text(f'<annotation>{item.format("cat", 1)}{item.format("dog", 0)}</annotation>')
    (tmp_path / 'b.xml').write_text(f'<annotation>{item.format("cat", 1)}</annotation>')
    assert read_tags(tmp_path)[1] == {'a': ['cat', 'dog'], 'b': ['cat']}
    assert read_tags(tmp_path, skip_difficult=True)[1] == {'a': ['dog'], 'b': []}


@pytest.mark.parametrize('filename', ['other.jpg', '../../a.jpg', 'a', 'a.heic', '', 'C:\\images\\a.jpg'])
def test_an_annotation_belongs_to_the_image_of_its_own_name(tmp_path, filename):
    (tmp_path / 'a.xml').write_text(f'<annotation><filename>{filename}</filename></annotation>')
    expected = 'a.jpg' if filename.endswith(('/a.jpg', '\\a.jpg')) else 'a'
    assert read_tags(tmp_path)[1] == {expected: []}


@pytest.mark.parametrize('dtype', [bool, np.uint8, np.uint16])
def test_masks_of_any_depth_and_of_a_palette_give_their_ids(tmp_path, dtype):
    ids = np.array([[0, 1, 1], [0, 0, 1]]).astype(dtype)
    Image.fromarray(ids).save(tmp_path / 'a.png')
    indexed = Image.fromarray(ids.astype(np.uint8))
    indexed.putpalette([255 - i // 3 for i in range(768)])
    indexed.save(tmp_path / 'b.png')
    assert read_tags(tmp_path, CLASSES)[1] == {'a': ['Bär'], 'b': ['Bär']}


def test_masks_read_in_parallel_are_those_read_in_turn(tmp_path, monkeypatch):
    folder, classes = write_mask_files(tmp_path, {f'{i}.jpg': CLASSES[: i % 4] for i in range(40)})
    in_turn = read_tags(folder, classes)
    monkeypatch.setattr(tag_sources, 'PARALLEL_FROM', 1)
    monkeypatch.setattr(os, 'cpu_count', lambda: 2)
    assert read_tags(folder, classes) == in_turn
    assert list(in_turn[1].values()).count(CLASSES) == 10


def test_paths_of_windows_get_forward_slashes(tmp_path):
    source, _ = write_json(tmp_path / 'tags.json', {'cats\\a.jpg': ['cat'], './cats//b.jpg ': ['cat']})
    assert list(read_tags(source)[1]) == ['cats/a.jpg', 'cats/b.jpg']


@pytest.mark.parametrize(
    ('text', 'kind', 'tags'),
    [
        ('a.jpg,cat;dog\nb.jpg,', 'without header', {'a.jpg': ['cat', 'dog'], 'b.jpg': []}),
        ('a.jpg,\nb.jpg,cat', 'without header', {'a.jpg': [], 'b.jpg': ['cat']}),
        ('a, b.jpg;cat\nc.jpg;cat,dog', 'without header', {'a, b.jpg': ['cat'], 'c.jpg': ['cat', 'dog']}),
        ('2007_1,cat;dog\n2007_2,dog', 'without header', {'2007_1': ['cat', 'dog'], '2007_2': ['dog']}),
        ('Datei;Inhalt\na.jpg;cat\n\n;\nb.jpg', 'with header', {'a.jpg': ['cat'], 'b.jpg': []}),
        ('"file"\t"labels"\n"a"\t"cat, ; dog |cat"\n', 'with header', {'a': ['cat', 'dog']}),
        ('image,label\na,1\nb,0', 'with header', {'a': ['1'], 'b': ['0']}),
        ('id,cat\na,1\nb,0', 'one column per class', {'a': ['cat'], 'b': []}),
        ('image,cat,dog,,\na,1,0,,\nb\na,0,1', 'one column per class', {'a': ['cat', 'dog'], 'b': []}),
        ('image\tcat, small\tdog\na\tX\t\n', 'one column per class', {'a': ['cat, small']}),
        # A title above the header
        ('Pets\nimage;tags\na.jpg;cat', 'with header', {'a.jpg': ['cat']}),
        ('Pets, in May;\n;\nDatei;Inhalt\na.jpg;cat\nb.jpg;', 'with header', {'a.jpg': ['cat'], 'b.jpg': []}),
        ('Pets, in May\nimage;tags\n1;cat\n2;dog', 'with header', {'1': ['cat'], '2': ['dog']}),
        ('Pets;;\nby me;;\nimage;cat;dog\na;1;0', 'one column per class', {'a': ['cat']}),
        ('Pets;;\nInhalt;Bild\ncat;a.jpg\n;b.jpg', 'with header', {'a.jpg': ['cat'], 'b.jpg': []}),
        ('2007_1,\n2007_2,dog', 'without header', {'2007_1': [], '2007_2': ['dog']}),
        # Excel's first line
        ('sep=;\nimage;tags\na;cat,dog', 'with header', {'a': ['cat', 'dog']}),
        ('sep=,\na.jpg,cat;dog\nb.jpg,', 'without header', {'a.jpg': ['cat', 'dog'], 'b.jpg': []}),
        ('"sep=|"\nimage|tags\na|cat', 'delimiter |', {'a': ['cat']}),
        ('SEP=;;\nimage;cat;dog\na;1;0', 'one column per class', {'a': ['cat']}),
        # Columns in another order
        ('tags,image\ncat;dog,a.jpg\n,b.jpg', 'with header', {'a.jpg': ['cat', 'dog'], 'b.jpg': []}),
        ('Inhalt;Datei\ncat;a.jpg\ndog;b.jpg', 'with header', {'a.jpg': ['cat'], 'b.jpg': ['dog']}),
        ('cat;dog,a.jpg\ndog,b.jpg', 'without header', {'a.jpg': ['cat', 'dog'], 'b.jpg': ['dog']}),
        ('tags,image\ncat,1\ndog,2', 'with header', {'1': ['cat'], '2': ['dog']}),
        ('image,tags,preview\na.jpg,cat,1.png\nb,dog,2.png', 'with header', {'a.jpg': ['cat'], 'b': ['dog']}),
        ('cat,dog,image\n1,0,a.jpg\n,1,b.jpg', 'one column per class', {'a.jpg': ['cat'], 'b.jpg': ['dog']}),
    ],
)
def test_delimiter_header_and_layout_are_found(tmp_path, text, kind, tags):
    (tmp_path / 'tags.csv').write_text(text)
    found, read = read_tags(tmp_path / 'tags.csv')
    assert kind in found
    assert read == tags


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
@pytest.mark.parametrize('line_end', ['\n', '\r\n', '\r'])
def test_encodings_and_line_ends_of_spreadsheets_are_read(tmp_path, encoding, line_end):
    text = line_end.join(['Bild;tags', '"Käse;Brot.jpg";"Bär,cat"', 'b.jpg;"cat"', ''])
    (tmp_path / 'tags.csv').write_bytes(text.encode(encoding))
    assert read_tags(tmp_path / 'tags.csv')[1] == {'Käse;Brot.jpg': ['Bär', 'cat'], 'b.jpg': ['cat']}


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        (
            'a.csv',
            'image,cat,dog\na,1,0\nb,0,perhaps\nc,2,0',
            r"not so for 2: row 3, column 'dog': 'perhaps', row 4, co",
        ),
        ('a.csv', 'image,cat,cat\na,1,0', 'class name of its own at the head .* not so for 2: column 2, column 3'),
        ('a.csv', 'image,cat,,dog\na,1,0,0', 'class name of its own at the head .* not so for 1: column 3'),
        ('a.csv', 'image,tags\na.jpg,cat,dog', r'expected 2 cells in each row, not so for 1: row 2 \(3 cells\)'),
        ('a.csv', 'image,tags\n,cat\n,dog', 'an image in the first cell of each row, not so for 2: row 2, row 3'),
        ('a.csv', 'a.jpg,cat,dog\nb.jpg,cat,dog', 'expected a header that names the class of each of 3 columns'),
        ('a.csv', '2007_1,1,0\n2007_2,0,1', 'expected a header that names the class of each of 3 columns'),
        ('a.csv', 'Pets;2026\nimage;tags\na.jpg;cat', r"one header such as .* 2: row 1 \('Pets'\), row 2 \('image'\)"),
        ('a.csv', 'sep=;\nimage;tags\n;cat', 'an image in the first cell of each row, not so for 1: row 3'),
        ('a.csv', 'image,tags\na,"cat\nb,dog', 'expected a CSV file, got unexpected end of data in line 3'),
        ('a.csv', 'image\na.jpg', 'expected two or more columns'),
        ('a.csv', '\n , \n', 'expected two or more columns'),
        ('a.csv', 'image,tags\nKäse,cat'.encode('cp1252'), 'expected UTF-8, or UTF-16 with a byte order mark'),
        ('a.csv', 'image,tags\nKäse,cat'.encode('utf-16-le'), 'expected UTF-8, or UTF-16 with a byte order mark'),
        ('a.json', '{"a.jpg": ["cat"], "a.jpg": []}', 'each key of an object once, not so for 1: a.jpg'),
        ('a.json', '{"a.jpg": "cat", "b.jpg": [1]}', "a list of tags for each file, not so for 2: 'a.jpg': 'cat', 'b"),
        (
            'a.json',
            '[{"image": "a", "file": "b", "tags": []}]',
            'one of image, file, file_name .*, not so for 1: record 1',
        ),
        ('a.json', '[{"image": "a", "tags": []}, 3, {"image": "a"}]', 'not so for 2: record 2 3, record 3 {'),
        ('a.json', '"cat"', 'expected one of the following, got JSON with a str'),
        ('a.json', '{"a": [', 'expected JSON, got Expecting value'),
        ('a.json', '{"image": "a", "tags": []}\n{]', 'expected JSON in line 2'),
        ('a.jsonl', '{"image": "a", "tags": [" "]}', 'not so for 1: record 1'),
        ('a.xlsx', 'PK', r'expected one of the following, got a .xlsx file\n.*VOC annotations'),
        ('tags', 'x', 'expected one of the following, got a nameless file'),
    ],
)
def test_a_malformed_file_is_refused_by_name(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=f'{re.escape(str(tmp_path / name))}.*{message}'):
        read_tags(tmp_path / name)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(images=[{'id': 1}]), r'id and file_name in each of the images, not so for 1: images\[0\]'),
        (dict(images={}), r'id and file_name in each of the images, not so for 1: images\[0\]'),
        (dict(categories=[dict(id=5, name=None)]), r'id and name in each of the categories, .* 1: categories\[0\]'),
        (
            dict(annotations=[dict(image_id=1)]),
            r'image_id and category_id in each of the annotations, .*annotations\[0\]',
        ),
        (dict(images=[dict(id=1, file_name='a')] * 2), 'id of its own for each of the images, .* 1: 2 with id 1'),
        (dict(categories=[dict(id=5, name='c')] * 3), 'id of its own for each of the categories, .* 1: 3 with id 5'),
        (dict(categories=[]), r'entry for the category_id .* not so for 2: annotations\[0\] \(category_id 5\), annot'),
        (dict(images=[]), r'entry for the image_id .* not so for 2: annotations\[0\] \(image_id 1\), annotations\[1\]'),
    ],
)
def test_malformed_coco_is_refused_by_key_and_place(tmp_path, change, message):
    content = dict(
        images=[dict(id=1, file_name='a.jpg')],
        annotations=[dict(image_id=1, category_id=5)] * 2,
        categories=[dict(id=5, name='cat')],
    )
    assert read_tags(write_json(tmp_path / 'good.json', content)[0])[1] == {'a.jpg': ['cat']}
    with pytest.raises(ValueError, match=f'coco.json: .*{message}'):
        read_tags(write_json(tmp_path / 'coco.json', content | change)[0])


def test_bad_annotations_are_named_together(tmp_path):
    for name, text in dict(
        a='<annotation/>', b='<annotation>', c='<svg/>', d='<annotation><object/></annotation>',
        e='<?xml version="1.0" encoding="klingon"?><annotation/>',
    ).items():  # fmt: skip
        (tmp_path / f'{name}.xml').write_text(text)
    expected = (
        r'not so for 4: b.xml \(no element.*, c.xml \(<svg> instead.*, d.xml \(an <object> .*, e.xml \(unknown enc'
    )
    with pytest.raises(ValueError, match=expected):
        read_tags(tmp_path)


def test_bad_masks_are_named_together(tmp_path):
    Image.new('L', (4, 4), 3).save(tmp_path / 'a.png')
    Image.new('L', (4, 4), 4).save(tmp_path / 'b.png')
    Image.new('RGB', (4, 4)).save(tmp_path / 'c.png')
    Image.effect_noise((64, 64), 1).save(tmp_path / 'd.png')
    (tmp_path / 'd.png').write_bytes((tmp_path / 'd.png').read_bytes()[:999])
    expected = (
        r'ids 0..3 or 255, not so for 3: b.png \(ids 4\), c.png \(the channels RGB\), d.png \(image file is trunc'
    )
    with pytest.raises(ValueError, match=expected):
        read_tags(tmp_path, CLASSES)
    with pytest.raises(ValueError, match='expected --classes for the ids of masks'):
        read_tags(tmp_path)


@pytest.mark.parametrize(
    'files', [[], ['a.jpg', 'a.png'], ['a.jpg', 'cat/a.jpg'], ['Lists/a.txt', 'cat/a.jpg'], ['cat/']]
)
def test_a_folder_that_fits_nothing_is_refused_with_what_is_understood(tmp_path, files):
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).mkdir() if file.endswith('/') else (tmp_path / file).touch()
    with pytest.raises(ValueError, match=r'(?s)expected one of the following, got .*folder of masks .*COCO instances'):
        read_tags(tmp_path)


def test_a_source_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'expected a file or folder, got .*nowhere'):
        read_tags(tmp_path / 'nowhere')


def test_only_voc_annotations_know_difficult_objects(tmp_path):
    with pytest.raises(ValueError, match='expected VOC annotations, which know difficult objects, got JSON of tags'):
        read_tags(*write_json_by_image(tmp_path, TABLE), skip_difficult=True)


@pytest.mark.parametrize('source', sorted(SOURCES.keys() - {'masks', 'npy'}))
def test_tags_outside_the_given_classes_are_refused_in_every_source(tmp_path, source):
    path, _ = SOURCES[source][0](tmp_path, TABLE)
    message = (
        r"expected tags among 'cat', not so for 2: 'Bär' \(images: 2, first 'Bär/Käse & Brot.jpg'\), 'fire truck' \(i"
    )
    with pytest.raises(ValueError, match=message):
        read_tags(path, ['cat'])


def test_vectors_without_known_classes_are_refused(tmp_path):
    np.save(tmp_path / 'a.npy', {'a': np.ones(20), 'b': np.ones(3)})
    with pytest.raises(
        ValueError, match=r'expected --classes, or vectors of the 20 classes of VOC, got \(3,\), \(20,\)'
    ):
        read_tags(tmp_path / 'a.npy')
    with pytest.raises(ValueError, match=r'expected 3 tags in each vector of .*a.npy, missing for 1: a$'):
        read_tags(tmp_path / 'a.npy', CLASSES)
    np.save(tmp_path / 'a.npy', {'a': np.ones(3), 'b': np.array([0, 0.5, 1])})
    with pytest.raises(ValueError, match='a.npy: expected 0 or 1 for each class, not so for 1: b'):
        read_tags(tmp_path / 'a.npy', CLASSES)
    np.save(tmp_path / 'a.npy', {'a': ['cat', 'dog']})
    with pytest.raises(ValueError, match=r"a.npy'?: expected a dict from image id to array, got could not convert"):
        read_tags(tmp_path / 'a.npy', CLASSES)


def test_vocs_classes_are_in_alphabetical_order():
    """So the classes that are found need no order of their own for VOC."""
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES)


# The table


def test_a_written_table_is_read_back_sorted(tmp_path):
    rng = np.random.default_rng(0)
    names = ['cat', 'a "b"', 'one, two', 'x|y', '=1+1', 'Ünïcode', "it's"]
    images = ['b.jpg', 'a,b.jpg', '"q".jpg', ' space .jpg', 'ä.png', 'a/b/c', '#1', 'a;b']
    tags = {image: rng.permutation(names)[: rng.integers(0, 7)].tolist() for image in images}
    write_tag_table(tmp_path / 'tags.csv', tags)
    assert list(read_tag_table(tmp_path / 'tags.csv').items()) == [(i, sorted(tags[i])) for i in sorted(images)]
    assert os.listdir(tmp_path) == ['tags.csv']


def test_the_table_is_the_documented_text(tmp_path):
    write_tag_table(tmp_path / 'tags.csv', {'b/ä.jpg': ['dog', 'cat', 'dog'], 'a, b': [], 'a': ['cat']})
    assert (tmp_path / 'tags.csv').read_bytes().decode() == 'image,tags\na,cat\n"a, b",\nb/ä.jpg,cat;dog\n'


def test_a_table_edited_by_hand_may_have_spaces_empty_lines_and_a_byte_order_mark(tmp_path):
    (tmp_path / 'tags.csv').write_bytes('\ufeffimage,tags\r\na, cat ; dog;\r\n\r\nb,\r\n'.encode())
    assert read_tag_table(tmp_path / 'tags.csv') == {'a': ['cat', 'dog'], 'b': []}


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('', "expected the header 'image,tags', got ''; tools/converters/tags.py makes such a table"),
        ('image;tags\na;cat', "expected the header 'image,tags', got 'image;tags'"),
        ('image,tags\na\nb,cat,dog\n,cat', r"an image and its tags in each row, not so for 3: row 2 \['a'\], row 3"),
        ('image,tags\na,cat\nb,\na,cat', r'one row for each image, not so for 1: a \(2 rows\)'),
        ('image,tags\na.jpg,cat\na.png,dog\n', 'differ in their ending alone, not so for 1: a.jpg and a.png'),
        ('image,tags\na,cat\na.JPG,\n', 'differ in their ending alone, not so for 1: a and a.JPG'),
        ('image,tags\na,"cat\n', 'expected a CSV file in UTF-8, got unexpected end of data'),
        ('image,tags\nä,cat'.encode('cp1252'), "expected a CSV file in UTF-8, got 'utf-8' codec"),
    ],
)
def test_a_malformed_table_is_refused_by_name(tmp_path, content, message):
    (tmp_path / 'tags.csv').write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=f'tags.csv: .*{message}'):
        load_tag_file(tmp_path / 'tags.csv', ['cat', 'dog'])


@pytest.mark.parametrize(
    ('tags', 'message'),
    [
        ({'a': ['cat;dog', ' cat', '', 'a\nb', 'ok']}, "names of one line .* for 4: '', ' cat', 'a.nb', 'cat;dog"),
        ({'a': ['background']}, 'tags without background, which is in every image'),
        ({'a\nb': [], '': [], 'K\udce4se': [], 'ok': []}, 'image names of one line in UTF-8, not so for 3: '),
        ({'a.jpg': ['cat'], 'a.png': []}, 'ending alone, not so for 1: a.jpg and a.png'),
        ({normalize('NFC', 'ä'): ['cat'], normalize('NFD', 'ä'): []}, 'ending alone, not so for 1'),
    ],
)  # fmt: skip
def test_what_a_table_cannot_hold_is_not_written(tmp_path, tags, message):
    with pytest.raises(ValueError, match=f'tags.csv: expected .*{message}'):
        write_tag_table(tmp_path / 'tags.csv', tags)
    assert os.listdir(tmp_path) == []


def test_endings_with_equal_tags_are_one_image(tmp_path):
    write_tag_table(tmp_path / 'tags.csv', {'a.jpg': ['cat', 'dog'], 'a.png': ['dog', 'cat']})
    assert load_tag_file(tmp_path / 'tags.csv', ['cat', 'dog'])['a'].tolist() == [1, 1]


def test_only_the_ending_of_an_image_is_left_out_of_an_id():
    names = ['a/b.c.jpg', 'a/b.c', 'a.JPEG', '2007_000063', 'IMG.2007', '../../x.png', '.jpg']
    assert [image_id(name) for name in names] == ['a/b.c', 'a/b.c', 'a', '2007_000063', 'IMG.2007', '../../x', '.jpg']


def test_unknown_tags_of_a_table_are_refused_with_the_first_and_their_number(tmp_path):
    write_tag_table(tmp_path / 'tags.csv', {'a': ['cat', *'qrstuvw'], 'b': ['q']})
    with pytest.raises(
        ValueError, match=r"tags.csv: expected .* 7: 'q' \(images: 2, first 'a'\), 'r' .*, 'u' [^)]*\), …$"
    ):
        load_tag_file(tmp_path / 'tags.csv', ['background', 'cat'])


@pytest.mark.parametrize(('name', 'classes'), [('tags.txt', ['cat']), ('tags.csv', None)])
def test_a_tag_file_of_another_kind_or_without_classes_is_refused(tmp_path, name, classes):
    with pytest.raises(ValueError, match=f'{name}.*expected a .csv with the classes, or a .npy'):
        load_tag_file(tmp_path / name, classes)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'expected a tags.csv, got .*nowhere.csv'):
        load_tag_file(tmp_path / 'nowhere.csv', ['cat'])


# The data set


@pytest.fixture(scope='module')
def voc(tmp_path_factory):
    root = make_voc(tmp_path_factory.mktemp('tags') / 'voc')
    write_tag_table(root / 'tags.csv', read_tags(root / 'cls_labels.npy')[1])
    return root


def tags_of(dataset):
    return np.stack([dataset.get_data_info(i)['gt_score'] for i in range(len(dataset))])


@pytest.mark.parametrize('metainfo', [None, dict(classes=ANIMALS), dict(classes=ANIMALS[:1] + ANIMALS[:2:-1])])
def test_a_data_set_has_the_same_tags_from_the_table_as_from_the_array(voc, metainfo):
    inner = voc_config(voc, metainfo=metainfo)
    from_table, from_array = (
        tags_of(ImageTagDataset(inner, str(voc / file), drop_untagged=True)) for file in ('tags.csv', 'cls_labels.npy')
    )
    np.testing.assert_array_equal(from_table, from_array)
    assert from_table.dtype == np.float32 and from_table.any()


def test_a_tag_outside_the_classes_is_refused_and_one_outside_a_subset_is_not_used(voc, tmp_path):
    table = read_tag_table(voc / 'tags.csv')
    table = {image: [*names, 'sofa'] for image, names in table.items()}
    write_tag_table(tmp_path / 'tags.csv', table)
    subset = ImageTagDataset(voc_config(voc, metainfo=dict(classes=ANIMALS)), str(tmp_path / 'tags.csv'))
    np.testing.assert_array_equal(
        tags_of(subset), [[name in table[f'2007_{i:06d}'] for name in ANIMALS[1:]] for i in range(4)]
    )
    write_tag_table(tmp_path / 'tags.csv', table | {'elsewhere': ['unicorn']})
    with pytest.raises(ValueError, match=r"tags.csv: .* not so for 1: 'unicorn' \(images: 1, first 'elsewhere'\)"):
        ImageTagDataset(voc_config(voc, metainfo=dict(classes=ANIMALS)), str(tmp_path / 'tags.csv'))


def plain_config(folder, images, classes):
    """mmseg's data set without classes of its own, over empty images."""
    for image in images:
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (4, 4)).save(folder / image)
    metainfo = dict(classes=('background', *classes))
    return dict(type='mmseg.BaseSegDataset', data_prefix=dict(img_path=str(folder)), metainfo=metainfo)


def test_a_data_set_without_classes_of_its_own_has_those_of_its_config(tmp_path):
    write_tag_table(tmp_path / 'tags.csv', TABLE)
    inner = plain_config(tmp_path / 'images', TABLE, CLASSES)
    dataset = ImageTagDataset(inner, str(tmp_path / 'tags.csv'), drop_untagged=True)
    found = {dataset[i]['sample_id']: dataset[i]['gt_score'].tolist() for i in range(len(dataset))}
    assert found == {'Bär/Käse & Brot': [1, 0, 0], 'cat/nested/a.b': [0, 0, 1], 'cat/über den Zaun': [1, 1, 1]}
    np.save(tmp_path / 'cls_labels.npy', {**found, 'leer, wüst': [0, 0, 0]})
    from_array = ImageTagDataset(inner, str(tmp_path / 'cls_labels.npy'), drop_untagged=True)
    np.testing.assert_array_equal(tags_of(dataset), tags_of(from_array))
    with pytest.raises(ValueError, match=r"tags.csv: expected tags among 'cat', not so for 2: 'Bär' \(images: 2"):
        ImageTagDataset(plain_config(tmp_path / 'images', TABLE, ['cat']), str(tmp_path / 'tags.csv'))


@pytest.mark.parametrize(('on_disk', 'elsewhere'), [('NFC', 'NFD'), ('NFD', 'NFC')])
def test_an_umlaut_is_one_whichever_way_it_is_encoded(tmp_path, on_disk, elsewhere):
    """macOS stores file names with two characters for it, spreadsheets and configs have one."""
    image, in_file = (normalize(form, 'Bär/Kätzchen.jpg') for form in (on_disk, elsewhere))
    inner = plain_config(tmp_path / 'images', [image], ['Bär'])
    write_tag_table(tmp_path / 'tags.csv', {in_file: ['Bär']})
    np.save(tmp_path / 'tags.npy', {in_file[:-4]: np.ones(1)})
    for file in ('tags.csv', 'tags.npy'):
        assert tags_of(ImageTagDataset(inner, str(tmp_path / file))).tolist() == [[1]]
    assert list(read_tags(tmp_path / 'images', ['Bär'])[1]) == [image]


@pytest.mark.parametrize(
    'text',
    [
        'image;tags;Ort\na.jpg;cat, dog;Bonn\nb.jpg;;Köln\n',
        'Ort,Tags,Image\nBonn,cat;dog,a.jpg\n"Köln, Dom",,b.jpg\n',
        'id,image,date,label\n1,a.jpg,1.5.,cat|dog\n2,b.jpg,,\n',
    ],
)
def test_columns_beside_image_and_tags_are_left_out_by_name(tmp_path, text):
    (tmp_path / 'more.csv').write_text(text, encoding='utf-8')
    kind, tags = read_tags(tmp_path / 'more.csv')
    assert {image: sorted(names) for image, names in tags.items()} == {'a.jpg': ['cat', 'dog'], 'b.jpg': []}
    others = {cell.strip() for cell in text.splitlines()[0].replace(';', ',').split(',')}
    others -= {'image', 'Image', 'tags', 'Tags', 'label'}
    assert all(name in kind for name in others) and 'left out' in kind


def test_a_class_named_as_tags_are_has_a_column_of_marks(tmp_path):
    (tmp_path / 'marks.csv').write_text('image,class,dog\na.jpg,1,0\nb.jpg,0,1\n')
    kind, tags = read_tags(tmp_path / 'marks.csv')
    assert kind.startswith('one column per class') and {k: list(v) for k, v in tags.items()} == {
        'a.jpg': ['class'],
        'b.jpg': ['dog'],
    }


def test_an_image_without_a_row_is_named(tmp_path):
    inner = plain_config(tmp_path / 'images', ['a.jpg', 'b.jpg'], ['cat'])
    write_tag_table(tmp_path / 'tags.csv', {'a.jpg': ['cat']})
    with pytest.raises(ValueError, match=r'expected an entry in .*tags.csv for each of 2 images, missing for 1: b'):
        ImageTagDataset(inner, str(tmp_path / 'tags.csv'))


opened: list[str] | None = None


def note_opened(event, arguments):
    if opened is not None and event in ('open', 'os.rename', 'os.remove', 'os.mkdir', 'os.listdir', 'os.scandir'):
        opened.extend(map(str, arguments[: 2 if event == 'os.rename' else 1]))


sys.addaudithook(note_opened)


@pytest.mark.parametrize('source', ['records', 'coco', 'excel', 'npy'])
def test_names_of_images_are_never_opened(tmp_path, monkeypatch, source):
    """Reading, writing and looking up touch the source, the table and the listed images alone."""
    global opened
    hostile = ['../../x.jpg', '/etc/passwd', '..', '../outside/y', '~/z.jpg', '|ls', 'a/../../../b.png']
    inner = plain_config(tmp_path / 'in/images', ['a.jpg'], CLASSES)
    path, classes = SOURCES[source][0](tmp_path / 'in', {'a.jpg': ['cat']} | dict.fromkeys(hostile, ['cat']))
    table = tmp_path / 'in/table.csv'
    opened = []
    try:
        write_tag_table(table, read_tags(path, classes)[1])
        vectors = load_tag_file(table, CLASSES)
        with pytest.raises(ValueError, match='missing for 7'):
            ImageTagDataset(inner, str(table))
        touched = opened
    finally:
        opened = None
    assert vectors.keys() == {'a', *map(image_id, hostile)}
    assert str(table) in touched and str(path) in touched
    folder = tmp_path / 'in'
    images = [folder / 'images', folder / 'images/a.jpg']
    assert set(touched) <= set(map(str, [folder, path, table, f'{table}.tmp', *images]))
    assert [entry.name for entry in tmp_path.iterdir()] == ['in']


# The command


def convert(monkeypatch, *arguments):
    """Run the tool in this process."""
    monkeypatch.setattr(sys, 'argv', [str(CONVERTER), *map(str, arguments)])
    runpy.run_path(str(CONVERTER), run_name='__main__')


def test_the_command_writes_table_and_chart_and_prints_a_summary(tmp_path):
    source, _ = write_mask_files(tmp_path, TABLE)
    (tmp_path / 'classes.txt').write_text('\ufeffbackground\nBär\n\n fire truck \ncat\nunicorn\n', encoding='utf-8')
    command = [sys.executable, CONVERTER, source, tmp_path / 'new/tags.csv', '--classes-file', tmp_path / 'classes.txt']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed = done.stdout
    assert f'Source: {source}, taken for masks\n' in printed
    assert 'Images: 4; tags per image: mean 1.25, at most 3' in printed
    expected = ['Bär 2 50.0', 'fire truck 1 25.0', 'cat 2 50.0', 'unicorn 0 0.0']
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in printed.splitlines() if line.startswith('|')]
    assert [' '.join(row) for row in rows] == ['class images %', *expected]
    assert 'Images without tags: 1: leer, wüst\nClasses never seen: 1: unicorn\n' in printed
    assert read_tag_table(tmp_path / 'new/tags.csv') == {image_id(i): sorted(names) for i, names in TABLE.items()}
    assert sorted(os.listdir(tmp_path / 'new')) == ['tags.csv', 'tags.png']
    with Image.open(tmp_path / 'new/tags.png') as chart:
        assert len(chart.convert('RGB').getcolors(2**20)) > 10


def test_the_command_lists_the_classes_it_finds_in_alphabetical_order(tmp_path, monkeypatch, capsys):
    table = {f'{i}.jpg': names for i, names in enumerate([['$b$ _', 'c'], ['a'], [], [], []] * 3)}
    source, _ = write_voc(tmp_path, table)
    convert(monkeypatch, source, tmp_path / 'tags.csv')
    printed = capsys.readouterr().out
    assert 'taken for VOC annotations' in printed
    assert re.findall(r'^\| (\S+.*?) +\|', printed, re.MULTILINE) == ['class', '$b$ _', 'a', 'c']
    assert 'Images without tags: 9: 12.jpg, 13.jpg, 14.jpg, 2.jpg, 3.jpg, …' in printed


def test_the_chart_has_a_bar_as_long_as_each_class_is_frequent(tmp_path, monkeypatch):
    source, _ = write_json(tmp_path / 'a.json', {str(i): ['a'] if i % 4 else ['a', 'b'] for i in range(400)})
    convert(monkeypatch, source, tmp_path / 'tags.csv')
    chart = np.array(Image.open(tmp_path / 'tags.png').convert('RGB'))
    lengths = (chart == (31, 119, 180)).all(-1).sum(1)  # matplotlib's first colour
    assert sorted(set((lengths[lengths > 9] / lengths.max()).round(1).tolist())) in ([0.2, 1], [0.3, 1])


def test_masks_that_are_painted_with_255_give_no_table(tmp_path, monkeypatch):
    (tmp_path / 'masks').mkdir()
    for i in range(3):
        Image.new('L', (4, 4), 255 * (i > 0)).save(tmp_path / f'masks/{i}.png')
    with pytest.raises(ValueError, match='got no class in any of 3; objects that are painted with 255'):
        convert(monkeypatch, tmp_path / 'masks', tmp_path / 'tags.csv', '--classes', 'cat')
    assert not (tmp_path / 'tags.csv').exists()


@pytest.mark.parametrize('arguments', [['--classes', 'background', ' cat', 'dog'], ['--classes', 'cat', 'dog ']])
def test_background_before_the_classes_of_masks_changes_nothing(tmp_path, monkeypatch, arguments):
    (tmp_path / 'masks').mkdir()
    Image.new('L', (4, 4), 2).save(tmp_path / 'masks/a.png')
    convert(monkeypatch, tmp_path / 'masks', tmp_path / 'tags.csv', *arguments)
    assert read_tag_table(tmp_path / 'tags.csv') == {'a': ['dog']}


@pytest.mark.parametrize(('named', 'first'), [('water', 0), ('background water', 1), ('mud water', 0)])
def test_masks_are_counted_from_0_where_own_has_the_same_classes_without_background(
    tmp_path, monkeypatch, named, first
):
    classes = ['water', 'forest'] if named != 'mud water' else ['mud', 'water', 'forest']
    monkeypatch.setattr('labelling_tools.OWN', own := tmp_path / 'own.py')
    own.write_text(
        (ROOT / 'configs/_base_/datasets/own.py').read_text().replace("'background', 'cat', 'dog'", str(classes)[1:-1])
    )
    (tmp_path / 'masks').mkdir()
    for i in range(len(classes) + first):
        Image.new('L', (4, 4), i).save(tmp_path / f'masks/{i}.png')
    convert(monkeypatch, tmp_path / 'masks', tmp_path / 'tags.csv', '--classes', *named.split(), 'forest')
    expected = [[name] for name in classes]
    assert list(read_tag_table(tmp_path / 'tags.csv').values()) == [[]] * first + expected
    Image.new('L', (4, 4), len(classes) + first).save(tmp_path / 'masks/more.png')
    with pytest.raises(ValueError, match=f'ids 0..{len(classes) - 1 + first} or 255'):
        convert(monkeypatch, tmp_path / 'masks', tmp_path / 'tags.csv', '--classes', *named.split(), 'forest')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['tags.txt'], 'expected a name that ends in .csv, got'),
        (['source.csv'], 'expected a name outside of the source, got'),
        (['tags.csv', '--classes', 'cat', '--classes-file', 'x'], 'not allowed with argument'),
    ],
)
def test_the_command_refuses_arguments_that_make_no_sense(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'source.csv').write_text('image,tags\na,cat\n')
    with pytest.raises(SystemExit):
        convert(monkeypatch, 'source.csv', *arguments)
    assert message in capsys.readouterr().err
    assert (tmp_path / 'source.csv').read_text() == 'image,tags\na,cat\n'


@pytest.mark.parametrize(
    ('text', 'classes', 'message'),
    [
        ('{}', [], 'source.json: taken for JSON of tags by image; expected at least one image, got none'),
        ('{"a": ["cat"]}', ['--classes', 'dog'], "source.json: expected tags among 'dog', not so for 1: 'cat'"),
        ('{"a": ["cat"]}', ['--classes', 'cat', ' cat'], '--classes: expected each class once, not so for 1: cat'),
        ('{"a": ["cat"]}', ['--classes', 'background'], '--classes: expected names of classes, got'),
        ('{"a": ["background"]}', [], 'expected tags without background'),
    ],
)
def test_the_command_refuses_bad_classes_and_empty_sources(tmp_path, monkeypatch, text, classes, message):
    (tmp_path / 'source.json').write_text(text)
    with pytest.raises(ValueError, match=message):
        convert(monkeypatch, tmp_path / 'source.json', tmp_path / 'tags.csv', *classes)
    assert os.listdir(tmp_path) == ['source.json']


@pytest.mark.skipif(not FIELDS_FILE.is_file(), reason=f'no tag file at {FIELDS_FILE}')
def test_the_fields_tag_file_survives_the_conversion(tmp_path, monkeypatch, capsys):
    convert(monkeypatch, FIELDS_FILE, tmp_path / 'tags.csv')
    before, after = load_tag_file(FIELDS_FILE, VOC_CLASSES), load_tag_file(tmp_path / 'tags.csv', VOC_CLASSES)
    assert 'Images: 12031' in capsys.readouterr().out
    assert before.keys() == after.keys()
    np.testing.assert_array_equal(np.stack(list(before.values())), np.stack([after[image] for image in before]))


def test_a_table_that_is_there_is_kept_and_no_other_file_is_replaced(tmp_path, monkeypatch, capsys):
    old, new = {'a.jpg': ['cat']}, {'a.jpg': ['dog']}
    for tags in (old, old, new, old):
        write_tag_table(tmp_path / 'tags.csv', tags)
    kept = [read_tag_table(tmp_path / f'tags.csv{end}') for end in ('.1', '.2', '')]
    assert kept == [old, new, old] and not (tmp_path / 'tags.csv.3').exists()
    assert f'what was there is now {tmp_path}/tags.csv.2' in capsys.readouterr().out
    (tmp_path / 'mine.csv').write_text('file;cat\na.jpg;1\n')
    command = [sys.executable, CONVERTER, tmp_path / 'tags.csv', tmp_path / 'mine.csv']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and 'out: expected a new name or a tag table' in done.stderr
    assert (tmp_path / 'mine.csv').read_text() == 'file;cat\na.jpg;1\n'


def test_images_among_the_tags_are_refused(tmp_path):
    (tmp_path / 'tags.csv').write_text('image,tags\na,cat\ndog,b.jpg\n')
    with pytest.raises(ValueError, match=r"no images as tags.*row 3 \('b.jpg'\)"):
        read_tags(tmp_path / 'tags.csv')
