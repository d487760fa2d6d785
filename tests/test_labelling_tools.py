"""Tags from the exports of labelling tools: read as what they are, or refused by name."""

import json
import warnings
from functools import partial

import pytest
from tag_sources import read_tags

BOX = dict(x=1, y=1, width=5, height=5)


def labelme(*labels, image='a.jpg', **flags):
    shapes = [dict(label=label, points=[[1, 1], [2, 2]], shape_type='polygon') for label in labels]
    return dict(version='5.0', flags=flags, shapes=shapes, imagePath=image, imageData=None)


def test_labelme_gives_the_labels_of_shapes_and_the_flags_that_are_set(tmp_path):
    files = {
        'a': labelme('cat', 'cat', 'dog'),
        'sub/b': labelme(image=r'..\images\b.PNG', cat=False, bird=True),
        'sub/renamed': labelme('dog', '_background_', image='IMG_1.jpg'),
        'empty': labelme(image='empty.jpeg'),
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f'{name}.json').write_text(json.dumps(content))
    (tmp_path / 'a.jpg').write_bytes(b'')  # the images lie beside them
    kind, tags = read_tags(tmp_path)
    assert kind == 'LabelMe annotations'
    assert tags == {'a.jpg': ['cat', 'dog'], 'sub/b.PNG': ['bird'], 'sub/renamed': ['dog'], 'empty.jpeg': []}
    assert read_tags(tmp_path / 'a.json')[1] == {'a.jpg': ['cat', 'dog']}
    (tmp_path / 'sub/other.json').write_text('{"regions": {}}')
    with pytest.raises(ValueError, match=r'expected LabelMe annotations, .* sub/other.json \(no JSON with shapes'):
        read_tags(tmp_path)


def voc(name, path):
    place = f'<filename>{path[-8:]}</filename><path>{path}</path>'
    return f'<annotation>{place}<object><name>{name}</name></object></annotation>'


@pytest.mark.parametrize('form', ['json', 'xml'])
@pytest.mark.parametrize(
    ('file', 'path', 'expected'),
    [
        ('foto', r'..\images\A\foto.jpg', 'A/foto.jpg'),  # annotations of one folder, photographs of several
        ('x', '/images/B/photo.jpg', 'B/photo.jpg'),  # and under other names
        ('A/foto', 'foto.jpg', 'A/foto.jpg'),  # beside it, whatever else has the name
        ('A/only', 'foto.jpg', 'A/only.png'),  # a renamed file, refused where both may be meant
        ('none', 'none.gif', 'none.gif'),
    ],
)
def test_the_photograph_of_an_annotation_is_found_by_its_path(tmp_path, form, file, path, expected):
    for image in ('A/foto.jpg', 'B/photo.jpg', 'A/only.png', *(['foto.jpg'] if file == 'A/foto' else [])):
        (tmp_path / 'images' / image).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'images' / image).write_bytes(b'')
    annotation = (tmp_path / 'annotations' / file).with_suffix(f'.{form}')
    annotation.parent.mkdir(parents=True)
    annotation.write_text(voc('cat', path) if form == 'xml' else json.dumps(labelme('cat', image=path)))
    read = partial(read_tags, annotation.parents[file.count('/')], images=tmp_path / 'images')
    if file == 'A/only':
        with pytest.raises(ValueError, match='its own place is that of A/only.png, and the path in it that of A/foto'):
            read()
        (tmp_path / 'images/A/foto.jpg').unlink()
    assert read()[1] == {expected: ['cat']}
    assert read_tags(annotation.parents[file.count('/')])[1].keys() <= {file, f'{file}.jpg', f'{file}.gif'}


def test_two_annotations_of_one_photograph_are_refused(tmp_path):
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images/foto.jpg').write_bytes(b'')
    for name in ('a/foto', 'b/foto'):
        (tmp_path / name).parent.mkdir()
        (tmp_path / f'{name}.json').write_text(json.dumps(labelme('cat', image='foto.jpg')))
    (tmp_path / 'images').rename(tmp_path.parent / f'{tmp_path.name}_images')
    with pytest.raises(ValueError, match=r'one file for each photograph, not so for 2: a/foto.json \(foto.jpg\)'):
        read_tags(tmp_path, images=tmp_path.parent / f'{tmp_path.name}_images')


def result(kind, *names):
    shape = {} if kind == 'choices' else BOX
    return dict(type=kind, from_name='label', to_name='image', value={**shape, kind: list(names)})


def task(image, *annotations, cancelled=False):
    given = [dict(id=1, was_cancelled=cancelled, result=results) for results in annotations]
    return dict(id=7, data=dict(image=image), annotations=given, predictions=[])


def test_label_studio_gives_choices_and_labels_of_every_kind(tmp_path):
    tasks = [
        task('/data/upload/1/0a1b2c3d-photo.jpg', [result('choices', 'cat', 'dog')]),
        task(
            '/data/local-files/?d=sub/deep/b%20c.png', [result('rectanglelabels', 'cat'), result('brushlabels', 'bird')]
        ),
        task('https://host/images/d.jpg?token=1', [result('polygonlabels', 'dog')], [result('choices', 'dog')]),
        task('s3://bucket/e.webp', []),
        task('/data/upload/1/77-nobody.jpg'),
    ]
    (tmp_path / 'tasks.json').write_text(json.dumps(tasks))
    with pytest.warns(UserWarning, match='left out 1 images that nobody has annotated: nobody.jpg'):
        kind, tags = read_tags(tmp_path / 'tasks.json')
    assert kind == 'JSON of Label Studio'
    assert tags == {'photo.jpg': ['cat', 'dog'], 'sub/deep/b c.png': ['cat', 'bird'], 'd.jpg': ['dog'], 'e.webp': []}


@pytest.mark.parametrize(
    ('bad', 'reason'),
    [
        (
            task('/data/upload/1/1-a.jpg', [result('choices', 'cat')], [result('choices', 'dog')]),
            'annotators who differ',
        ),
        (dict(task('a.jpg', []), data=dict(text='words')), '0 images in its data'),
        (task('a.jpg', [dict(value=dict(text=['words']))]), 'no choices or labels'),
    ],
)
def test_label_studio_is_refused_with_the_record(tmp_path, bad, reason):
    (tmp_path / 'tasks.json').write_text(json.dumps([task('b.jpg', [result('choices', 'cat')]), bad]))
    with pytest.raises(ValueError, match=f'tasks.json: .* not so for 1: record 2 .*{reason}'):
        read_tags(tmp_path / 'tasks.json')


RECORDS = [
    dict(image='/data/upload/1/0a1b-photo.jpg', id=1, choice=dict(choices=['cat', 'dog']), annotator=1, lead_time=2.5),
    dict(image='/data/upload/1/77-other.jpg', id=2, choice='cat', annotator=1, lead_time=2.5),
    dict(image='/data/upload/1/78-boxes.jpg', id=3, choice=[dict(BOX, rectanglelabels=['dog'])], annotator=2),
    dict(image='/data/upload/1/79-none.jpg', id=4, annotator=2),
]


@pytest.mark.parametrize('ending', ['json', 'csv'])
def test_label_studios_short_forms_are_read_alike(tmp_path, ending):
    path = tmp_path / f'export.{ending}'
    if ending == 'json':
        path.write_text(json.dumps(RECORDS))
    else:
        keys = ('image', 'id', 'choice', 'annotator', 'lead_time')
        cells = [
            [v if isinstance(v := record.get(key, ''), str) else json.dumps(v) for key in keys] for record in RECORDS
        ]
        quoted = [','.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in cells]
        path.write_text('\n'.join([','.join(keys), *quoted]))
    assert read_tags(path)[1] == {
        'photo.jpg': ['cat', 'dog'],
        'other.jpg': ['cat'],
        'boxes.jpg': ['dog'],
        'none.jpg': [],
    }


def test_two_columns_that_may_be_tags_are_refused_by_name(tmp_path):
    record = dict(RECORDS[0], caption='a cat in the sun')
    (tmp_path / 'export.json').write_text(json.dumps([record]))
    with pytest.raises(ValueError, match=r"record 1 .*tags in \['choice', 'caption'\]; expected one of each"):
        read_tags(tmp_path / 'export.json')


CVAT = """<?xml version="1.0"?><annotations><version>1.1</version><meta/>
<image id="0" name="sub/a.jpg" width="9" height="9"><tag label="cat" source="manual"/><box label="dog" xtl="1"/></image>
<image id="1" name="b.png"><polygon label=" dog " points="1,1"/><mask label="dog"/></image>
<image id="2" name="none.jpg"/></annotations>"""


@pytest.mark.parametrize('where', ['export.xml', 'export/annotations.xml'])
def test_cvat_gives_tags_and_the_labels_of_shapes(tmp_path, where):
    (tmp_path / 'export').mkdir()
    (tmp_path / where).write_text(CVAT)
    source = tmp_path / where.split('/')[0]
    assert read_tags(source) == ('CVAT for images', {'sub/a.jpg': ['cat', 'dog'], 'b.png': ['dog'], 'none.jpg': []})


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('<annotations><track label="cat"/></annotations>', 'expected an export "CVAT for images 1.1", got the tracks'),
        ('<svg/>', 'expected an export "CVAT for images 1.1", got <svg> without an <image>'),
        ('<annotations><image', 'expected the XML of CVAT, got'),
        (CVAT.replace('label="cat" ', ''), 'a label for each tag and shape, not so for 1: <tag> of image 1'),
        (CVAT.replace('name="b.png"', ''), 'a name for each <image>, not so for 1: image 2'),
    ],
)
def test_other_xml_is_refused_with_what_was_expected(tmp_path, content, message):
    (tmp_path / 'x.xml').write_text(content)
    with pytest.raises(ValueError, match=f'x.xml: expected .*{message.removeprefix("expected ")}'):
        read_tags(tmp_path / 'x.xml')


@pytest.mark.parametrize('splits', [('',), ('train', 'valid', 'test')])
def test_roboflows_classification_keeps_the_splits_in_the_paths(tmp_path, splits):
    for i, split in enumerate(splits):
        (tmp_path / split).mkdir(exist_ok=True)
        table = f'filename, cat, dog, Unlabeled\n{i}_jpg.rf.0a1b.jpg, 1, 1, 0\nnone{i}.jpg, 0, 0, 1\n'
        (tmp_path / split / '_classes.csv').write_text(table)
        (tmp_path / split / f'{i}_jpg.rf.0a1b.jpg').write_bytes(b'')
    prefixes = [f'{split}/' if split else '' for split in splits]
    expected = {f'{prefix}{i}_jpg.rf.0a1b.jpg': ['cat', 'dog'] for i, prefix in enumerate(prefixes)}
    expected |= {f'{prefix}none{i}.jpg': [] for i, prefix in enumerate(prefixes)}
    assert read_tags(tmp_path) == ("Roboflow's export", expected)


def test_roboflows_coco_is_read_without_its_root_category(tmp_path):
    for split in ('train', 'valid'):
        (tmp_path / split).mkdir()
        content = dict(
            images=[dict(id=0, file_name='a.jpg'), dict(id=1, file_name='b.jpg')],
            categories=[
                dict(id=0, name='animals', supercategory='none'),
                dict(id=1, name='cat', supercategory='animals'),
            ],
            annotations=[dict(id=0, image_id=0, category_id=1, bbox=[0, 0, 1, 1])],
        )
        (tmp_path / split / '_annotations.coco.json').write_text(json.dumps(content))
    names = {'a.jpg': ['cat'], 'b.jpg': []}
    assert read_tags(tmp_path)[1] == {f'{s}/{image}': tags for s in ('train', 'valid') for image, tags in names.items()}


@pytest.mark.parametrize('names', [('train', 'valid'), ('Train', 'Val', 'TEST'), ('training', 'testing'), ('test',)])
def test_splits_do_not_become_classes(tmp_path, names):
    for split in names:
        for name in ('cat', 'dog'):
            (tmp_path / split / name / 'deep').mkdir(parents=True)
            (tmp_path / split / name / 'deep/1.jpg').write_bytes(b'')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        kind, tags = read_tags(tmp_path)
    assert tags == {f'{split}/{name}/deep/1.jpg': [name] for split in names for name in ('cat', 'dog')}
    assert names[0] in kind


def test_a_split_without_classes_is_left_out_and_one_beside_classes_refused(tmp_path):
    for path in ('train/cat/1.jpg', 'test/1.jpg'):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_bytes(b'')
    with pytest.warns(UserWarning, match='left out test, which'):
        assert read_tags(tmp_path)[1] == {'train/cat/1.jpg': ['cat']}
    (tmp_path / 'dog').mkdir()
    (tmp_path / 'dog/1.jpg').write_bytes(b'')
    with pytest.raises(ValueError, match='or of classes, and not both, not so for 1: dog'):
        read_tags(tmp_path)


def test_a_class_that_is_called_train_stays_one(tmp_path):
    for name in ('train', 'aeroplane'):
        (tmp_path / name).mkdir()
        (tmp_path / name / '1.jpg').write_bytes(b'')
    assert read_tags(tmp_path)[1] == {'aeroplane/1.jpg': ['aeroplane'], 'train/1.jpg': ['train']}


LISTS = {
    "['cat', 'dog']": ['cat', 'dog'],
    '["cat", "dog\'s"]': ['cat', "dog's"],
    "['cat' 'dog']": ['cat', 'dog'],  # NumPy's
    "('cat',)": ['cat'],
    "{'cat'}": ['cat'],
    '[cat, dog]': ['cat', 'dog'],
    '[]': [],
    'cat;dog': ['cat', 'dog'],
}


@pytest.mark.parametrize('cell', LISTS)
def test_a_list_as_text_in_a_cell_is_a_list(tmp_path, cell):
    quoted = cell.replace('"', '""')
    (tmp_path / 'x.csv').write_text(f'image,tags\na.jpg,"{quoted}"\nb.jpg,cow\n')
    assert read_tags(tmp_path / 'x.csv')[1] == {'a.jpg': LISTS[cell], 'b.jpg': ['cow']}


@pytest.mark.parametrize(
    'table', [',image,tags\n0,a.jpg,cat\n1,b.jpg,\n', ',image,cat,dog\n0,a.jpg,1.0,0.0\n1,b.jpg,0.0,0.0\n']
)
def test_the_index_that_pandas_writes_is_no_image(tmp_path, table):
    (tmp_path / 'x.csv').write_text(table)
    assert read_tags(tmp_path / 'x.csv')[1] == {'a.jpg': ['cat'], 'b.jpg': []}
