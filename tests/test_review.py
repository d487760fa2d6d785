"""The review page, by keyboard in a real browser on 1,000 images, and what its marks do to tags and stage 2."""

import csv
import fcntl
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from copy import deepcopy
from itertools import count
from urllib.parse import unquote

import numpy as np
import pytest
import reviewed
import torch
from conftest import ROOT, TOY
from mmengine.config import Config
from mmengine.structures import PixelData
from options import load_config
from PIL import Image
from tag_table import write_tag_table
from toy_own import CLASSES, make_own, own_config

from aream_mm.datasets import ImageTagDataset, LoadImageArea, MaskDataset, PseudoMaskDataset, ResizedCrop
from aream_mm.datasets.contents import read_digest
from aream_mm.datasets.tags import read_tag_table
from aream_mm.registry import DATASETS, MODELS


def load_tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / f'tools/analysis/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


review = load_tool('review')

LOAD = [dict(type='LoadImageFromFile'), dict(type='mmseg.LoadAnnotations')]
LOAD_IF_ANY = [LOAD[0], dict(type='aream_mm.LoadAnnotationsIfAny')]
ODD = 'sub/ä #1 100%+?&'  # a name that a link has to quote


class Browser:
    """Headless Chromium by its debugging pipe: a NUL ends each message."""

    def __init__(self, program, folder):
        to_read, self.write = os.pipe()
        self.read, to_write = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 100) for end in (to_read, to_write)]
        os.close(to_read), os.close(to_write)

        def connect():
            os.dup2(ends[0], 3), os.dup2(ends[1], 4)

        flags = ['--headless', '--no-sandbox', '--disable-gpu', '--remote-debugging-pipe', f'--user-data-dir={folder}']
        self.process = subprocess.Popen(
            [program, *flags], preexec_fn=connect, pass_fds=(3, 4), stderr=subprocess.DEVNULL, start_new_session=True
        )
        os.close(ends[0]), os.close(ends[1])
        self.numbers, self.buffer, self.session = count(1), b'', {}
        target = self.call('Target.createTarget', url='about:blank')['targetId']
        self.session = dict(sessionId=self.call('Target.attachToTarget', targetId=target, flatten=True)['sessionId'])

    def call(self, method, **params):
        number = next(self.numbers)
        os.write(self.write, json.dumps(dict(id=number, method=method, params=params, **self.session)).encode() + b'\0')
        while True:
            while b'\0' not in self.buffer:
                part = os.read(self.read, 1 << 16)
                assert part, 'the browser has ended'
                self.buffer += part
            message, _, self.buffer = self.buffer.partition(b'\0')
            answer = json.loads(message)
            if answer.get('id') == number:
                assert 'error' not in answer, answer
                return answer['result']

    def value(self, expression):
        result = self.call('Runtime.evaluate', expression=expression, returnByValue=True, awaitPromise=True)
        assert 'exceptionDetails' not in result, result
        return result['result'].get('value')

    def open(self, page):
        self.call('Page.navigate', url=page.as_uri())
        self.wait_for("document.readyState === 'complete'")

    def wait_for(self, expression, seconds=60):
        end = time.monotonic() + seconds
        while not self.value(expression):
            assert time.monotonic() < end, expression
            time.sleep(0.05)

    def press(self, *keys):
        for key in keys:
            for kind in ('keyDown', 'keyUp'):
                self.call('Input.dispatchKeyEvent', type=kind, key=key)

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.write), os.close(self.read)


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    program = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    if program is None:
        pytest.skip('no Chromium on this machine (Debian: chromium)')
    folder = tmp_path_factory.mktemp('browser')
    browser = Browser(program, folder / 'profile')
    browser.downloads = folder
    browser.call('Browser.setDownloadBehavior', behavior='allow', downloadPath=str(folder))
    yield browser
    browser.close()


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    """A page of 1,000 images; the classes take turns, the third is that of the odd name."""
    out, classes = tmp_path_factory.mktemp('page'), ('background', 'cat', 'dög', '<b>"x,y"</b>')
    (out / 'pictures').mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (360, 480, 3), np.uint8)
    palette = np.full((256, 4), 200, np.uint8)
    size = review.write_small(out / 'pictures/first', noise // 4 + 64, noise[..., 0] % 4, palette)
    images = []
    for i in range(1000):
        for ending in ('jpg', 'png'):
            shutil.copy(out / f'pictures/first.{ending}', out / f'pictures/{i}.{ending}')
        image = ODD if i == 2 else f'{i:04}'
        images.append(
            dict(image=image, tags=[classes[1 + i % 3]], link='x', file=f'pictures/{i}', doubt=1 - i / 1000, size=size)
        )
        images[-1].update(photograph=f'{i:064x}', mask=f'{i:063x}f')
    review.write_page(out / 'index.html', images[::-1], classes[1:], palette[:3, :3])
    return out / 'index.html'


def test_a_thousand_images_are_marked_by_keyboard_and_saved(browser, page):
    browser.open(page)
    loaded = '[...document.images].filter((image) => image.naturalWidth).length'
    browser.wait_for(f'{loaded} > 1')
    assert browser.value('document.images.length') == 2000
    assert browser.value(loaded) < 400  # those near the window
    start = time.monotonic()
    browser.press('g', 'b', 'w', '1', '2', 'Enter', 'b', 'ArrowLeft', 'u')
    browser.press(*['ArrowRight'] * 20, 'g')
    assert time.monotonic() - start < 20  # 60 events; a page that is laid out anew for each takes minutes
    browser.press('s')
    end = time.monotonic() + 20
    while not (browser.downloads / 'review.csv').exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    rows = reviewed.read_review(browser.downloads / 'review.csv')
    assert [row['mark'] for row in rows.values()] == ['good', 'bad mask', 'wrong tag', 'good']
    assert list(rows) == ['0000', '0001', ODD, '0023']
    assert (rows[ODD]['tags'], rows[ODD]['right_tags']) == ('<b>"x,y"</b>', 'cat;dög;<b>"x,y"</b>')
    assert rows['0001']['photograph'] == f'{1:064x}' and rows['0001']['mask'] == f'{1:063x}f'


def test_marks_outlive_the_page_and_a_class_is_shown_alone(browser, page):
    browser.open(page)
    assert browser.value('document.querySelectorAll("article[data-mark=\'good\']").length') == 2
    shown = '[...document.querySelectorAll("article")].filter((card) => !card.hidden).length'
    for number, expected in ((2, 333), (0, 1000)):
        browser.value(f"filter.selectedIndex = {number}, filter.dispatchEvent(new Event('change')), 0")
        assert browser.value(shown) == expected
    browser.value("filter.selectedIndex = 2, filter.dispatchEvent(new Event('change')), 0")
    browser.press('ArrowRight')  # to the next of this class
    assert browser.value('entries[current].tags[0]') == 'dög' and browser.value('current') == 4
    assert browser.value('document.querySelectorAll("b").length') == 0  # a class's name is text


# The tools


@pytest.fixture
def own(tmp_path):
    """Photographs with tags and pseudo masks, one of an odd name."""
    root = make_own(tmp_path / 'own')
    (root / 'images/sub/2.JPEG').rename(root / f'images/{ODD}.jpeg')
    tags = {name: ['cat', 'dog'] for name in ('1.PNG', '3.webp', '5.Bmp', 'sub/0.jpg', 'sub/deep/4.tif')}
    write_tag_table(root / 'tags.csv', {**tags, f'{ODD}.jpeg': ['dog']})
    for i, name in enumerate([*tags, f'{ODD}.jpeg']):
        write_mask(root / 'pseudo' / name, i % 3)
    (root / 'pseudo/manifest.json').write_text(json.dumps(dict(classes=CLASSES)))
    return root


def write_mask(path, class_id, size=(96, 80)):
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = np.zeros(size[::-1], np.uint8)
    ids[20:60, 10:50] = class_id
    Image.fromarray(ids).save(path.with_suffix('.png'))


def configs(root):
    """A toy of stage 1 with its checkpoint, and what the tools read of stage 2."""
    model = deepcopy(TOY)
    model['backbone']['num_class_tokens'] = model['head']['num_classes'] = 2
    model['data_preprocessor'] = dict(type='SegDataPreProcessor', mean=[0] * 3, std=[255] * 3, bgr_to_rgb=True)
    loader = dict(
        dataset=dict(
            type='aream_mm.ImageTagDataset',
            dataset=own_config(root),
            tag_file=str(root / 'tags.csv'),
            pipeline=[dict(type='LoadImageFromFile'), dict(type='aream_mm.PackTagInputs')],
            test_mode=True,
        )
    )
    Config(dict(model=model, pseudo_mask_dataloader=loader, default_scope='mmseg')).dump(root / 'first.py')
    torch.save(dict(state_dict=MODELS.build(model).state_dict()), root / 'first.pth')
    second = dict(type='aream_mm.PseudoMaskDataset', dataset=own_config(root), mask_dir=str(root / 'pseudo'))
    second['tag_file'] = str(root / 'tags.csv')
    Config(dict(train_dataloader=dict(dataset=second), default_scope='mmseg')).dump(root / 'second.py')


def run(monkeypatch, tool, *arguments):
    monkeypatch.setattr(sys, 'argv', ['tool', *map(str, arguments)])
    tool.main()


def look(monkeypatch, root):
    configs(root)
    arguments = ('--masks', root / 'pseudo', '--checkpoint', root / 'first.pth', '--out', root / 'page')
    run(monkeypatch, review, root / 'first.py', *arguments)
    text = (root / 'page/index.html').read_text()
    return json.loads(text.partition('id="data">')[2].partition('</script>')[0])


def test_the_most_doubtful_masks_come_first_and_names_are_quoted(own, monkeypatch, capsys):
    for i, name in enumerate(('1', '3', 'sub/0')):
        write_mask(own / 'masks' / name, 1 + i % 2)
    data = look(monkeypatch, own)
    doubts = [image['doubt'] for image in data['entries']]
    assert doubts == sorted(doubts, reverse=True) and len(doubts) == 6
    assert 'On 3 true masks: rank correlation of IoU with 1 − doubt' in capsys.readouterr().out
    for image in data['entries']:
        linked = own / 'page' / unquote(image['link'])
        assert linked.resolve().with_suffix('') == own.resolve() / 'images' / image['image']
        assert (image['photograph'], image['mask']) == (
            read_digest(linked),
            read_digest(own / 'pseudo' / f'{image["image"]}.png'),
        )
        assert all((own / 'page' / f'{image["file"]}.{ending}').is_file() for ending in ('jpg', 'png'))
    with pytest.raises(SystemExit):  # an earlier review is not overwritten
        look(monkeypatch, own)


def test_a_mask_with_a_renumbered_palette_has_the_doubt_of_what_it_shows(own, monkeypatch):
    before = look(monkeypatch, own)['entries']
    for image in before:
        file = own / 'pseudo' / f'{image["image"]}.png'
        mask = Image.fromarray(2 - np.array(Image.open(file)))
        mask.putpalette([0, 128, 0, 128, 0, 0, 0, 0, 0])
        mask.save(file)
    shutil.rmtree(own / 'page')
    torch.manual_seed(0)  # of the weights, as at the start of a test
    after = look(monkeypatch, own)['entries']
    assert [image['doubt'] for image in after] == [image['doubt'] for image in before]


def test_doubt_is_what_mask_and_mirror_image_do_not_share(own):
    mask, other = np.zeros((2, 4, 5), np.uint8)
    mask[:2], other[1:3] = 1, 1
    mask[3] = 255
    assert review.mean_iou(mask, other, [1]) == pytest.approx(1 / 3)
    assert review.mean_iou(mask, other, [1, 2]) == pytest.approx(1 / 6)  # a tag without a pixel
    assert review.mean_iou(mask, other, []) == 1


def test_masks_of_one_bit_are_of_background_and_the_first_class(own, monkeypatch):
    write_mask(own / 'pseudo/1', 1)
    before = Image.open(own / 'pseudo/1.png')
    doubts = []
    for mask in (before, before.point(lambda i: 255 * i).convert('1')):
        mask.save(own / 'pseudo/1.png')
        torch.manual_seed(0)  # of the network
        doubts.append({image['image']: image['doubt'] for image in look(monkeypatch, own)['entries']})
        shutil.rmtree(own / 'page')
    assert doubts[0] == doubts[1]


def test_masks_that_do_not_fit_are_named_before_anything_is_written(own, monkeypatch):
    write_mask(own / 'pseudo/sub/0', 1, size=(50, 40))
    with pytest.raises(ValueError, match=r'a pseudo mask of the size of the image .*sub/0.png'):
        look(monkeypatch, own)
    assert not (own / 'page').exists()


def test_masks_are_not_compared_with_a_network_of_other_classes(own, monkeypatch):
    configs(own)
    meta = dict(dataset_meta=dict(classes=(CLASSES[0], *CLASSES[:0:-1])))
    torch.save(dict(torch.load(own / 'first.pth'), meta=meta), own / 'other.pth')
    arguments = ('--masks', own / 'pseudo', '--checkpoint', own / 'other.pth', '--out', own / 'page')
    with pytest.raises(ValueError, match=r"other.pth: .*id 1 .* expected 'cat', got 'dog'"):
        run(monkeypatch, review, own / 'first.py', *arguments)


def mark(root, changes=None, **marks):
    """A review.csv of marks by id, as the page saves it."""
    rows = []
    for image, given in {**marks, **(changes or {})}.items():
        photograph = next(root.glob(f'images/{image}.*'), None)
        digests = [read_digest(path) for path in (photograph, root / f'pseudo/{image}.png')] if photograph else '01'
        rows.append([image, *given, *digests])
    with open(root / 'review.csv', 'w', newline='') as file:
        csv.writer(file, lineterminator='\n').writerows([reviewed.HEADER, *rows])
    return root / 'review.csv'


def take_over(root, monkeypatch, path):
    configs(root)
    run(monkeypatch, reviewed, path, root / 'second.py')


def pseudo_masks(root, **options):
    return PseudoMaskDataset(
        own_config(root, **options.pop('inner', {})), str(root / 'pseudo'), pipeline=LOAD, **options
    )


def ids_of(dataset):
    return [dataset.get_data_info(i)['sample_id'] for i in range(len(dataset))]


def test_marks_correct_the_tags_and_leave_bad_masks_out(own, monkeypatch):
    before = (own / 'tags.csv').read_bytes()  # which the fixture has changed once
    marks = {'1': ('good', 'cat;dog', ''), ODD: ('wrong tag', 'dog', 'cat'), 'sub/0': ('bad mask', 'cat;dog', '')}
    path = mark(own, marks)
    for _ in range(2):  # the second time there is nothing to do
        take_over(own, monkeypatch, path)
        table = read_tag_table(own / 'tags.csv')
        assert table.pop(f'{ODD}.jpeg') == ['cat'] and all(tags == ['cat', 'dog'] for tags in table.values())
        assert (own / 'tags.csv.2').read_bytes() == before and not (own / 'tags.csv.3').exists()
    left_out = str(own / 'left_out.txt')
    assert ids_of(pseudo_masks(own, left_out=left_out)) == ['1', '3', '5', 'sub/deep/4']
    write_mask(own / 'pseudo/sub/0', 2)  # painted since
    assert ids_of(pseudo_masks(own, left_out=left_out)) == ['1', '3', '5', 'sub/0', 'sub/deep/4']
    lines = (own / 'left_out.txt').read_text().splitlines()
    both = [*lines, f'{read_digest(own / "pseudo/sub/0.png")}  sub/0']  # of two reviews, joined in either order
    for joined in (both, both[::-1]):
        (own / 'joined.txt').write_text('\n'.join(joined))
        assert ids_of(pseudo_masks(own, left_out=str(own / 'joined.txt'))) == ['1', '3', '5', 'sub/deep/4']
    take_over(own, monkeypatch, mark(own, {'3': ('bad mask', 'cat;dog', '')}))  # a second review adds to the first
    assert ids_of(pseudo_masks(own, left_out=left_out)) == ['1', '5', 'sub/0', 'sub/deep/4']


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
@pytest.mark.parametrize('delimiter', [',', ';', '\t'])
def test_a_review_that_a_spreadsheet_has_saved_again_is_the_same_review(own, monkeypatch, encoding, delimiter):
    path = mark(own, {'1': ('good', '', ''), ODD: ('wrong tag', 'dog', 'cat;dog'), '3': ('bad mask', 'cat;dog', '')})
    before = reviewed.read_review(path)
    with path.open(newline='') as file:
        rows = list(csv.reader(file))
    with path.open('w', newline='', encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    assert reviewed.read_review(path) == before
    take_over(own, monkeypatch, path)
    assert read_tag_table(own / 'tags.csv')[f'{ODD}.jpeg'] == ['cat', 'dog']
    assert (own / 'left_out.txt').read_text().count('\n') == 2


@pytest.mark.parametrize(
    ('marks', 'message'),
    [
        ({'elsewhere': ('good', '', '')}, 'expected images of .*images, not so for 1: elsewhere'),
        ({'1': ('Good', 'cat;dog', '')}, "expected marks among good, bad mask, wrong tag, .*1 \\('Good'"),
        ({'1': ('wrong tag', 'cat;dog', 'catt')}, "'catt'"),
        ({'1': ('wrong tag', 'cat;dog', 'dog;cat')}, 'right_tags other than the tags'),
        ({'1': ('wrong tag', 'cat', 'dog')}, 'the tags that were looked at in the review, .*1.PNG'),
        ({'1': ('good', 'cat;dog')}, '6 cells in a row'),
    ],
)
def test_a_review_that_does_not_fit_changes_nothing(own, monkeypatch, marks, message):
    before = (own / 'tags.csv').read_bytes()
    marks = {**marks, 'sub/0': ('bad mask', 'cat;dog', '')}
    with pytest.raises(ValueError, match=message):
        take_over(own, monkeypatch, mark(own, marks))
    assert (own / 'tags.csv').read_bytes() == before and not (own / 'left_out.txt').exists()


def test_a_review_of_other_photographs_of_the_same_names_is_refused(own, monkeypatch):
    path = mark(own, {'1': ('bad mask', 'cat;dog', '')})
    Image.new('RGB', (96, 80)).save(own / 'images/1.PNG')
    with pytest.raises(ValueError, match='photographs as they were when they were marked, not so for 1: 1'):
        take_over(own, monkeypatch, path)
    path.write_text('image,tags\n1.PNG,cat\n')
    with pytest.raises(ValueError, match="expected the header 'image,mark,.* got 'image,tags'"):
        take_over(own, monkeypatch, path)


@pytest.mark.parametrize('line', ['elsewhere', f'{"0" * 64}  elsewhere', '1', 'image,mark,tags'])
def test_a_list_of_other_images_is_refused(own, line):
    (own / 'left_out.txt').write_text(f'{line}\n')
    with pytest.raises(ValueError, match='a SHA-256, two blanks, and the id of an image'):
        pseudo_masks(own, left_out=str(own / 'left_out.txt'))


def test_bad_masks_are_listed_where_stage_2_looks_for_them(own, monkeypatch):
    path, listed = mark(own, {'3': ('bad mask', 'cat;dog', '')}), own / 'my_list.txt'
    configs(own)
    run(monkeypatch, reviewed, path, own / 'second.py', '--cfg-options', f'train_dataloader.dataset.left_out={listed}')
    assert '3' not in ids_of(pseudo_masks(own, left_out=str(listed)))
    assert not (own / 'left_out.txt').exists()


def test_bad_masks_alone_are_refused_and_true_masks_alone_are_learnt(own):
    masks = [path for path in (own / 'pseudo').rglob('*.png')]
    ids = [path.relative_to(own / 'pseudo').with_suffix('').as_posix() for path in masks]
    lines = [f'{read_digest(path)}  {sample_id}\n' for path, sample_id in zip(masks, ids, strict=True)]
    (own / 'left_out.txt').write_text(''.join(lines))
    shutil.rmtree(own / 'masks')
    with pytest.raises(ValueError, match='expected some masks that are not bad'):
        pseudo_masks(own, left_out=str(own / 'left_out.txt'))
    shutil.copytree(own / 'pseudo', own / 'masks')
    assert sorted(ids_of(pseudo_masks(own, true_masks=True))) == sorted(ids)


# True masks


def test_true_masks_take_the_place_of_pseudo_masks_and_are_not_measured_on(own, monkeypatch):
    shutil.rmtree(own / 'masks')
    write_mask(own / 'corrected/1', 2)
    write_mask(own / 'corrected' / ODD, 1)
    (own / 'left_out.txt').write_text(f'{read_digest(own / "pseudo/1.png")}  1\n')  # bad, and mended since
    inner = dict(own_config(own), data_prefix=dict(img_path='images', seg_map_path='corrected'))
    arguments = dict(left_out=str(own / 'left_out.txt'), pipeline=LOAD, true_masks=True)
    told = []
    monkeypatch.setattr('aream_mm.datasets.pseudo_masks.warn', told.append)
    dataset = PseudoMaskDataset(inner, str(own / 'pseudo'), **arguments)
    assert told[0].endswith('2 true masks are learnt; 0 of 1 bad masks are left out, 1 replaced by true ones')
    assert sorted(ids_of(dataset)) == sorted(['1', '3', '5', 'sub/0', ODD, 'sub/deep/4'])
    for i, sample_id in enumerate(ids_of(dataset)):
        folder = 'corrected' if sample_id in ('1', ODD) else 'pseudo'
        with Image.open(own / folder / f'{sample_id}.png') as mask:
            assert np.array_equal(dataset[i]['gt_seg_map'], mask)
    never = PseudoMaskDataset(inner, str(own / 'pseudo'), pipeline=LOAD)
    assert all('pseudo' in never.get_data_info(i)['seg_map_path'] for i in range(6))

    write_mask(own / 'masks/1', 1), write_mask(own / 'masks/3', 1)
    measured = dict(drop_unmasked=True, learnt='corrected', pipeline=LOAD, test_mode=True)
    assert ids_of(MaskDataset(own_config(own), **measured)) == ['3']
    (own / 'masks/3.png').unlink()
    with pytest.raises(ValueError, match='beside those in .*corrected, which stage 2 learns'):
        MaskDataset(own_config(own), **measured)


@pytest.mark.parametrize('stage', [1, 2])
@pytest.mark.parametrize(
    ('write', 'message'),
    [
        (
            lambda root: write_mask(root / 'masks/1', 1, (10, 10)),
            r'1.png \(expected 96 × 80, got 10 × 10\)',
        ),
        (lambda root: write_mask(root / 'masks/1', 7), r'of ids 0..2 .*masks/1.png \(\[7\]\)'),
        (lambda root: write_mask(root / 'masks/other', 1), 'masks named as their photographs are.* other.png'),
        (lambda root: shutil.rmtree(root / 'masks'), 'true_masks: expected masks of some images'),
    ],
)
def test_true_masks_that_do_not_fit_are_refused(own, stage, write, message):
    write(own)
    with pytest.raises(ValueError, match=message):
        if stage == 2:
            pseudo_masks(own, true_masks=True)
        else:
            ImageTagDataset(own_config(own), str(own / 'tags.csv'), true_masks=True, pipeline=LOAD_IF_ANY)


def test_the_switches_of_own_photographs_reach_both_stages(own):
    options = dict(data_root=str(own), true_masks='masks', left_out=str(own / 'left_out.txt'))
    (own / 'left_out.txt').write_text('')
    second = load_config(ROOT / 'configs/seg/own_photographs.py', options)
    options.pop('left_out')
    first = load_config(ROOT / 'configs/own_photographs.py', options)
    second.train_dataloader.dataset.mask_dir = str(own / 'pseudo')
    dataset = DATASETS.build(first.train_dataloader.dataset)
    masked = [i for i in range(6) if 'seg_map_path' in dataset.get_data_info(i)]
    assert [dataset.get_data_info(i)['sample_id'] for i in masked] == ['1', 'sub/0']
    for i in range(6):
        sample = dataset[i]['data_samples']
        assert ('gt_sem_seg' in sample) == ('seg_map_path' in sample) == (i in masked)
    assert sample.img_shape[:2] == (224, 224) and dataset[masked[0]]['data_samples'].gt_sem_seg.shape == (224, 224)
    assert sum('/masks/' in dataset.get_data_info(i)['seg_map_path'] for i in masked) == 2
    learnt = DATASETS.build(second.train_dataloader.dataset)
    assert sum('/masks/' in learnt.get_data_info(i)['seg_map_path'] for i in range(6)) == 2
    with pytest.raises(ValueError, match='which stage 2 learns'):
        DATASETS.build(second.test_dataloader.dataset)


def test_a_crop_takes_the_mask_with_it():
    ids = np.random.default_rng(0).integers(0, 3, (40, 60), np.uint8)
    crop = ResizedCrop(scale=32, interpolation='nearest')
    for _ in range(5):
        cropped = crop(dict(img=np.repeat(ids[..., None], 3, axis=2), gt_seg_map=ids))
        assert np.array_equal(cropped['img'][..., 0], cropped['gt_seg_map'])
    assert 'gt_seg_map' not in crop(dict(img=np.zeros((40, 60, 3), np.uint8)))


def test_a_true_mask_is_kept_where_the_area_of_the_image_is_loaded_too():
    mask = np.ones((4, 6), np.uint8)
    area = LoadImageArea()(dict(img_shape=(4, 6), seg_fields=[]))
    kept = LoadImageArea()(dict(img_shape=(4, 6), gt_seg_map=mask, seg_fields=['gt_seg_map']))
    assert not area['gt_seg_map'].any() and kept['gt_seg_map'] is mask and area['seg_fields'] == kept['seg_fields']


def test_true_masks_are_refused_where_a_transform_would_move_images_alone(own):
    write_mask(own / 'masks/1', 1)
    pipeline = [*LOAD_IF_ANY, dict(type='mmpretrain.RandomResizedCrop', scale=32)]
    with pytest.raises(ValueError, match=r"that move masks with their images, got \['RandomResizedCrop'\]"):
        ImageTagDataset(own_config(own), str(own / 'tags.csv'), true_masks=True, pipeline=pipeline)


def test_a_true_mask_is_the_label_of_the_attention_loss_of_its_image(toy_config, make_samples, monkeypatch):
    model, labels = MODELS.build(toy_config).eval(), []
    forward = model.attention_loss.forward
    monkeypatch.setattr(model.attention_loss, 'forward', lambda *given: labels.append(given[1]) or forward(*given))
    images, tags = torch.rand(3, 3, 64, 64), torch.tensor([[1.0, 0, 1, 0, 0]] * 3)
    plain = make_samples(tags)
    model.loss(images, plain)
    truth = torch.randint(0, 6, (64, 64))
    samples = make_samples(tags)
    for sample, named in zip(samples[:2], (True, False), strict=True):
        sample.gt_sem_seg = PixelData(data=truth.masked_fill(truth == 5, 255)[None])
        if named:  # the other is the area of `LoadImageArea`
            sample.set_metainfo(dict(seg_map_path='true.png'))
    model.loss(images, samples)[f'loss_{model.attention_loss.name}'].backward()
    before, after = labels
    assert torch.equal(after[0], truth.masked_fill(truth == 5, 255))
    assert torch.equal(after[1], before[1].masked_fill(truth == 5, 255))
    assert torch.equal(after[2], before[2])
