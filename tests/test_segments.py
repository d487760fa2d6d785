"""SegmentVote: segments from a folder or made of the image, and which class each of them takes."""

import json

import numpy as np
import pytest
import torch
from mmseg.structures import SegDataSample
from PIL import Image
from torch.testing import assert_close

from aream_mm.engine.pseudo_masks import fingerprint
from aream_mm.models import SegmentVote
from aream_mm.registry import MODELS

pytest.importorskip('skimage', reason='segments are made by scikit-image')
coder = pytest.importorskip('pycocotools.mask', reason="SAM's masks are run-length codes of pycocotools")
SIZE = (12, 16)


def planes_of(mask, classes=3):
    """Planes (1, K, H, W) whose argmax is the mask."""
    return torch.nn.functional.one_hot(torch.as_tensor(mask).long(), classes).permute(2, 0, 1)[None] * 0.4 + 0.2


def sample(sample_id='a/Übung 1', size=SIZE):
    return SegDataSample(metainfo=dict(sample_id=sample_id, ori_shape=size, img_path=f'images/{sample_id}.jpg'))


def box(top, bottom, left, right, size=SIZE):
    mask = np.zeros(size, np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def write_sam(folder, masks, quality=None, name='a/Übung 1', whole=True):
    """As SAM's generator of automatic masks writes them, with the image or without."""
    entries = []
    for mask, (iou, stability) in zip(masks, quality or [(1.0, 1.0)] * len(masks), strict=True):
        code = coder.encode(np.asfortranarray(mask))
        code = dict(size=code['size'], counts=code['counts'].decode())
        entries.append(dict(segmentation=code, area=int(mask.sum()), predicted_iou=iou, stability_score=stability))
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    content = dict(image=dict(file_name='b.jpg'), annotations=entries) if whole else entries
    (folder / f'{name}.json').write_text(json.dumps(content))
    return SegmentVote(folder=str(folder))


def refined(refiner, planes, samples=None):
    return refiner(torch.rand(len(planes), 3, *planes.shape[2:]), planes, samples or [sample()])


def test_a_segment_takes_the_share_of_each_class_and_pixels_of_none_keep_their_planes(tmp_path):
    random = np.random.default_rng(0)
    numbers, mask = random.integers(0, 400, SIZE) // 40, random.integers(0, 3, SIZE)
    (tmp_path / 'a').mkdir()
    Image.fromarray(numbers.astype(np.uint16)).save(tmp_path / 'a/Übung 1.png')
    planes = planes_of(mask)
    answer = refined(SegmentVote(folder=str(tmp_path)), planes)[0]
    for y, x in np.ndindex(SIZE):
        same = mask[numbers == numbers[y, x]]
        expected = planes[0, :, y, x]
        if numbers[y, x]:
            expected = torch.tensor([(same == n).mean() for n in range(3)], dtype=torch.float32)
        assert_close(answer[:, y, x], expected)


def test_an_object_takes_its_parts_and_keeps_them_from_the_background(tmp_path):
    """Of a cat (1) the mask has 3/4; the ear that it lacks is a segment too, and so is the whole image."""
    mask = box(2, 8, 2, 10)
    mask[2:5, 2:6] = 0
    vote = write_sam(tmp_path, [box(2, 8, 2, 10), box(2, 5, 2, 6), box(0, 12, 0, 16)])
    assert np.array_equal(refined(vote, planes_of(mask)).argmax(dim=1)[0], box(2, 8, 2, 10))


@pytest.mark.parametrize('whole', [True, False])
def test_of_objects_that_overlap_the_clearest_decides(tmp_path, whole):
    """A rider (2) on a horse (1): both together are a segment, mostly horse."""
    mask = box(4, 12, 0, 16) + 2 * box(0, 4, 4, 8)
    vote = write_sam(tmp_path, [box(0, 4, 4, 8), box(4, 12, 0, 16) | box(0, 4, 4, 8)], whole=whole)
    assert np.array_equal(refined(vote, planes_of(mask)).argmax(dim=1)[0], mask)


def test_where_objects_are_as_clear_the_better_segment_decides(tmp_path):
    mask = box(0, 6, 0, 16) + 2 * box(6, 12, 0, 16)
    for quality, where in (([(0.9, 0.9), (0.9, 0.8)], 8), ([(0.8, 0.9), (0.9, 0.9)], 4)):
        vote = write_sam(tmp_path, [box(0, 8, 0, 16), box(4, 12, 0, 16)], quality)
        answer = refined(vote, planes_of(mask)).argmax(dim=1)[0]
        assert (answer[:where] == 1).all() and (answer[where:] == 2).all()


def test_without_background_the_first_class_is_one_as_the_others(tmp_path):
    mask = box(0, 12, 8, 16)  # classes 0 and 1; a segment of the left half and one of the image but for a column
    write_sam(tmp_path, [box(0, 12, 0, 8), box(0, 12, 1, 16)])
    answers = [
        refined(SegmentVote(folder=str(tmp_path), background=background), planes_of(mask)).argmax(dim=1)[0]
        for background in (True, False)
    ]
    assert (answers[0][:, 1:] == 1).all() and np.array_equal(answers[1], mask)


def test_segments_of_the_photograph_serve_at_any_resolution(tmp_path):
    vote = write_sam(tmp_path, [box(0, 12, 0, 8), box(0, 12, 8, 16)])
    mask = np.zeros((6, 8), int)
    mask[1:, 1:5] = 1
    expected = np.zeros((6, 8), int)
    expected[:, :4] = 1
    assert np.array_equal(refined(vote, planes_of(mask)).argmax(dim=1)[0], expected)


@pytest.mark.parametrize('options', [dict(method='slic', n_segments=4), dict(method='felzenszwalb', scale=100)])
def test_segments_are_made_of_the_image_and_follow_its_colours(options):
    mask = box(0, 24, 0, 16, (24, 32)).astype(int)
    image = torch.as_tensor(mask, dtype=torch.float32).expand(1, 3, -1, -1)
    doubtful = mask.copy()
    doubtful[:4, :4], doubtful[20:, 28:] = 0, 1
    answer = SegmentVote(**options)(image, planes_of(doubtful)).argmax(dim=1)[0]
    assert np.array_equal(answer, mask)


def test_other_segments_make_other_masks(tmp_path):
    """What a pseudo mask is made from tells the weights, and these files are some."""
    digests = [fingerprint(write_sam(tmp_path, [box(0, end, 0, 8)])) for end in (3, 4, 3)]
    assert digests[0] == digests[2] != digests[1]


def test_what_is_no_file_of_the_image_is_refused_by_name(tmp_path):
    vote = write_sam(tmp_path, [box(0, 3, 0, 8)])
    planes = planes_of(box(0, 3, 0, 8))
    with pytest.raises(ValueError, match=r'Übung 1.json: .*images/a/Übung 1.jpg.*\(12, 16\).*the image has \(16, 12\)'):
        refined(vote, planes, [sample(size=(16, 12))])
    with pytest.raises(ValueError, match='b.png: expected segments of images/b.jpg, got .*no file'):
        refined(vote, planes, [sample('b')])
    with pytest.raises(ValueError, match='whole images of a data set, got some without a sample_id'):
        vote(torch.rand(1, 3, *SIZE), planes)
    for text in ('[1]', '{}', 'x', '[{"segmentation": {"size": [12, 16], "counts": "0"}}]', '[{"predicted_iou": 1}]'):
        (tmp_path / 'c.json').write_text(text)
        with pytest.raises(ValueError, match='c.json: expected segments of images/c.jpg, got'):
            refined(vote, planes, [sample('c')])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(folder='nowhere'), "SegmentVote.folder: expected a folder, .*'nowhere'"),
        (dict(folder='.', n_segments=3), 'SegmentVote.folder: expected a folder, and no method or options'),
        (dict(folder='.', method='slic'), 'SegmentVote.folder: expected a folder, and no method or options'),
        (dict(method='watershed'), "SegmentVote.method: expected 'felzenszwalb' or 'slic', got 'watershed'"),
        (dict(n_segment=3), 'n_segment'),
        (dict(method='felzenszwalb', n_segments=3), 'n_segments'),
    ],
)
def test_settings_are_refused_when_it_is_built(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((TypeError, ValueError), match=message):
        SegmentVote(**options)


def test_labels_of_training_are_not_refined_by_files_of_whole_images(tmp_path, toy_config):
    refiner = dict(type='aream_mm.SegmentVote', folder=str(tmp_path))
    with pytest.raises(ValueError, match='refiner: expected one that does not read which images it gets'):
        MODELS.build(dict(toy_config, refiner=refiner))


def test_the_segmentor_says_which_images_they_are(tmp_path, build_toy, golden, make_samples):
    samples = make_samples(golden['labels'])
    size = tuple(golden['denormalized'].shape[2:])
    numbers = 1 + np.arange(size[0])[:, None] // 8 * 100 + np.arange(size[1]) // 8
    for i, one in enumerate(samples):
        one.set_metainfo(dict(sample_id=f'{i}', img_path=f'{i}.jpg', ori_shape=size, img_shape=size))
        Image.fromarray(numbers.astype(np.uint16)).save(tmp_path / f'{i}.png')
    model = build_toy(test_cfg=dict(refine=dict(type='aream_mm.SegmentVote', folder=str(tmp_path)), refine_scale=1.0))
    with torch.no_grad():
        for result in model.predict(golden['denormalized'], samples):
            mask = result.pred_sem_seg.data[0].numpy()
            assert all(len(np.unique(mask[numbers == n])) == 1 for n in np.unique(numbers))
