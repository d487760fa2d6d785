"""Rows of the tag table whose photograph is not there, and photographs that have two names."""

import shutil

import pytest
from PIL import Image
from toy_own import make_own, own_config

from aream_mm.datasets import ImageTagDataset


@pytest.fixture
def own(tmp_path):
    return make_own(tmp_path / 'own')


def tagged(own, **arguments):
    return ImageTagDataset(own_config(own, **arguments), str(own / 'tags.csv'))


def add_rows(own, *rows):
    (own / 'tags.csv').write_text((own / 'tags.csv').read_text() + ''.join(f'{row},cat\n' for row in rows))


def test_rows_without_a_photograph_are_counted_and_the_first_named_before_training(own):
    add_rows(own, *(f'lost/a{i}.jpg' for i in range(9)))
    message = r'tags.csv: expected an image \(.*\) for each of 15 entries, missing for 9: lost/a0, lost/a1, lost/a2, '
    message += r'lost/a3, lost/a4, …; add or convert them in .*images, remove the entries, or name a list of the images'
    with pytest.raises(ValueError, match=message):
        tagged(own)


@pytest.mark.parametrize('name', ['iphone.heic', 'saved.jfif', 'drawn.svg', 'moving.gif', 'notes.pdf', 'sub/new.AVIF'])
def test_a_row_whose_photograph_has_an_unreadable_format_says_what_is_there(own, name):
    (own / 'images' / name).write_bytes(b'no image that is read')
    add_rows(own, name)
    with pytest.raises(ValueError, match=rf'missing for 1: .* \(there is {name}\); add or convert them'):
        tagged(own)


@pytest.mark.parametrize('row', ['SUB/0.jpg', '0.jpg', 'images/sub/0.jpg', r'images\sub\0.jpg', '/people/me/0.png'])
def test_a_row_of_another_case_or_folder_names_the_photograph_that_is_meant(own, row):
    add_rows(own, row)
    with pytest.raises(ValueError, match=r'missing for 1: .* \(there is sub/0.jpg\)'):
        tagged(own)


def test_a_list_of_ids_says_which_rows_are_meant(own):
    add_rows(own, 'lost.jpg')
    (own / 'list.txt').write_text('sub/0\n1\n3\n')
    assert len(tagged(own, ann_file='list.txt')) == 3


@pytest.mark.parametrize(('old', 'new'), [('sub/0.jpg', 'sub/0.JPG'), ('1.PNG', '1.jpg'), ('sub/2.JPEG', 'Sub/2.jpeg')])
def test_a_photograph_under_two_names_that_differ_in_case_or_ending_is_named(own, old, new):
    (own / 'images' / new).parent.mkdir(exist_ok=True)
    shutil.copy(own / 'images' / old, own / 'images' / new)
    with pytest.raises(ValueError, match='different names, ending and case apart, got 2 that share theirs') as error:
        tagged(own)
    assert old in str(error.value) and new in str(error.value)


@pytest.mark.parametrize(
    ('row', 'message'),
    [('1.PNG', r'one row for each image, .* 1.PNG \(2 rows\)'), ('1.jpg', 'the same tags for images')],
)
def test_two_rows_of_one_photograph_are_named(own, row, message):
    add_rows(own, row)
    with pytest.raises(ValueError, match=message):
        tagged(own)


def test_an_image_over_the_limit_of_pixels_is_named_with_the_reason(own, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    with pytest.raises(ValueError, match=r'a readable file .* missing for 6: .*1.PNG \(Image size .* exceeds limit of'):
        tagged(own)
