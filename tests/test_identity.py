"""What a mask was made from, what is in masks, which classes a checkpoint has: compared before anything is trained."""

import json
import os
import shutil
import time

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image
from test_engine import hook_of, run_config
from test_photographs import LOAD_IF_ANY, tagged, told  # noqa: F401
from toy_own import CLASSES, IDS, NAMES, make_own, own_config
from toy_voc import ANIMALS, make_voc, voc_config, write_masks

from aream_mm.datasets import ImageTagDataset, MaskDataset, PhotographDataset, PseudoMaskDataset
from aream_mm.datasets.contents import SETTLED, contents, read_digest, read_mask
from aream_mm.engine.pseudo_masks import PseudoMaskHook
from aream_mm.masks import VOC_COLOURS

LOAD_ALL = [dict(type='LoadImageFromFile'), dict(type='mmseg.LoadAnnotations')]
NUMBERS = [f'2007_{i:06d}' for i in range(4)]
INNER = dict(metainfo=dict(classes=ANIMALS))


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A finished run of stage 1 with the data it was trained on, which the tests copy."""
    folder = tmp_path_factory.mktemp('trained')
    runner = Runner.from_cfg(run_config(make_voc(folder / 'voc'), folder / 'work'))
    runner.train()
    return folder, runner


@pytest.fixture
def run(trained, tmp_path):
    """A folder with a copy of the data, masks; and write(**settings): the names of those that are written."""
    folder, runner = trained
    shutil.copytree(folder / 'voc', tmp_path / 'voc', copy_function=shutil.copyfile)
    loader = json.loads(json.dumps(hook_of(runner).dataloader).replace(f'{folder}/voc', f'{tmp_path}/voc'))
    files = [tmp_path / f'out/{name}.png' for name in NUMBERS]

    def write(**settings):
        hook = PseudoMaskHook(loader, str(tmp_path / 'out'), test_cfg=settings)
        hook.before_train(runner)
        before = [file.stat().st_mtime_ns if file.exists() else 0 for file in files]
        hook.write(runner, 'some.pth')
        return [file.stem for file, old in zip(files, before, strict=True) if file.stat().st_mtime_ns != old]

    assert write() == NUMBERS
    return tmp_path, write


def correct_tags(root, name, *classes):
    tags = np.load(root / 'voc/cls_labels.npy', allow_pickle=True).item()
    tags[name] = np.isin(np.arange(20), [7, 9, 11, 12, 14, 16][: len(classes)]).astype(np.float32)
    np.save(root / 'voc/cls_labels.npy', tags)


def repaint(path):
    """Another image under the same name, in a file of the same size and time."""
    before, size = path.stat(), Image.open(path).size
    Image.new('RGB', size).save(path, quality=50)
    content = path.read_bytes()[: before.st_size]
    path.write_bytes(content + b' ' * (before.st_size - len(content)))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def stage_2(root, **options):
    options.setdefault('tag_file', str(root / 'voc/cls_labels.npy'))
    return PseudoMaskDataset(voc_config(root / 'voc', **INNER), str(root / 'out'), pipeline=LOAD_ALL, **options)


# What a mask was made from


def test_a_copy_of_data_and_masks_keeps_the_masks(run, trained, tmp_path):
    root, write = run
    assert write() == []
    for path in root.rglob('*.*'):
        os.utime(path)
    assert write() == []
    assert len(stage_2(root)) == 4


def test_corrected_tags_write_their_own_masks_anew(run):
    root, write = run
    correct_tags(root, NUMBERS[2], 'cat')
    assert write() == [NUMBERS[2]]
    assert set(np.unique(Image.open(root / f'out/{NUMBERS[2]}.png'))) <= {0, 1}


def test_a_corrected_photograph_writes_its_own_mask_anew(run):
    root, write = run
    repaint(root / f'voc/JPEGImages/{NUMBERS[1]}.jpg')
    assert write() == [NUMBERS[1]]


def test_settings_pipeline_network_and_method_write_all_masks_anew(run, trained, monkeypatch):
    root, write = run
    assert write(background=0.3) == NUMBERS
    cfg = trained[1].cfg
    with monkeypatch.context() as changed:
        changed.setitem(cfg.model.data_preprocessor, 'mean', [1, 2, 3])
        assert write(background=0.3) == NUMBERS
    assert write(background=0.3) == NUMBERS
    monkeypatch.setitem(cfg.model.backbone, 'pretrained', True)  # the checkpoint has the weights
    assert write(background=0.3) == []
    monkeypatch.setattr('aream_mm.engine.pseudo_masks.METHOD', 0)
    assert write(background=0.3) == NUMBERS


def test_stage_2_names_the_images_whose_tags_or_photographs_were_corrected_and_the_command(run):
    root, write = run
    correct_tags(root, NUMBERS[2], 'cat')
    repaint(root / f'voc/JPEGImages/{NUMBERS[0]}.jpg')
    message = (
        rf'2 of 4 were made from others: {NUMBERS[0]} \(another photograph\), {NUMBERS[2]} \(other tags\). This writes '
        r'them anew: python tools/test.py .*CONFIG some.pth --pseudo-masks'
    )
    with pytest.raises(ValueError, match=message):
        stage_2(root)
    write()
    assert len(stage_2(root)) == 4


def test_stage_2_names_masks_of_another_run(run):
    root, write = run
    shutil.copytree(root / 'out', root / 'first')
    write(background=0.3)
    shutil.copy(root / f'first/{NUMBERS[3]}.png', root / f'out/{NUMBERS[3]}.png')
    with pytest.raises(ValueError, match=rf'1 of 4 .*: {NUMBERS[3]} \(other weights or settings\)'):
        stage_2(root)
    assert write(background=0.3) == [NUMBERS[3]]


def test_stage_2_takes_masks_that_somebody_has_painted_and_says_so(run, told):  # noqa: F811
    root, _ = run
    path = root / f'out/{NUMBERS[1]}.png'
    Image.fromarray(np.asarray(Image.open(path))).save(path)
    assert len(stage_2(root)) == 4
    assert f'1 masks are not as they were written, but used: {NUMBERS[1]}' in told.text


def test_stage_2_misses_the_mask_of_a_tagged_image_even_where_others_may_lack_one(run):
    root, _ = run
    (root / f'out/{NUMBERS[1]}.png').unlink()
    with pytest.raises(ValueError, match=f'expected a pseudo mask for .*{NUMBERS[1]}.jpg'):
        stage_2(root, drop_unmasked=True)
    correct_tags(root, NUMBERS[1])
    assert len(stage_2(root, drop_unmasked=True)) == 3


# What is read once


def test_a_file_is_read_again_when_it_changes_in_any_way_and_not_before(tmp_path):
    path, reads = tmp_path / 'x.txt', []

    def read(path):
        reads.append(path)
        return open(path).read()

    path.write_text('one')
    time.sleep(2 * SETTLED)
    assert [contents(read, [path, path]) for _ in range(3)] == [['one', 'one']] * 3 and len(reads) == 1
    before = path.stat()
    path.write_text('two')
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as `cp -p` and `rsync -t` set it back
    assert contents(read, [path]) == ['two']
    path.unlink()
    other = tmp_path / 'y.txt'
    other.write_text('six')
    path.symlink_to(other)
    assert contents(read, [path]) == ['six']


def test_without_a_place_for_the_cache_everything_is_read(tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('x')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'file'))
    assert len(contents(read_digest, [tmp_path / 'file'])[0]) == 64
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    contents(read_digest, [tmp_path / 'file'])
    (database,) = (tmp_path / 'home').rglob('*.sqlite')
    database.write_bytes(b'no data base' * 1000)
    assert len(contents(read_digest, [tmp_path / 'file'])[0]) == 64


def test_ids_of_all_modes_are_those_that_mmseg_loads(tmp_path):
    ids = np.random.default_rng(0).choice([0, 1, 7, 254, 255], (9, 8)).astype(np.uint8)
    grey = Image.fromarray(ids)
    palette = grey.copy()
    palette.putpalette(list(range(255, -1, -1)) * 3)
    for name, mask in (('grey', grey), ('palette', palette), ('bits', Image.fromarray(ids > 7))):
        mask.save(tmp_path / f'{name}.png')
        info = dict(seg_map_path=str(tmp_path / f'{name}.png'), seg_fields=[], label_map=None, reduce_zero_label=False)
        loaded = LoadAnnotations()(info)['gt_seg_map']
        assert read_mask(tmp_path / f'{name}.png')['ids'] == np.unique(loaded).tolist()


# What is in masks


def paint(root, change):
    """Pass all true masks through a function of an array, file name by file name."""
    for i, path in enumerate(sorted((root / 'masks').rglob('*.png'))):
        change(np.asarray(Image.open(path)), i).save(path)


@pytest.fixture
def own(tmp_path):
    return make_own(tmp_path / 'own', num_masks=6)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda m, i: Image.fromarray(m * np.uint8(38)), r'ids 0..2 \(background, cat, dog\) or 255 .*\(\[38, 76\]\)'),
        (lambda m, i: Image.fromarray(np.full_like(m, 3 if i == 4 else 1)), r'missing for 1: .*\(\[3\]\)'),
        (lambda m, i: Image.fromarray(np.uint8(255 * (m > 0))), 'got masks with 0 and 255 alone in all of 6, as if'),
        (lambda m, i: Image.fromarray(np.uint8(255 * (m > 0) * (i > 2))), '0 and 255 alone in all of 6'),
        (lambda m, i: Image.fromarray(m).convert('RGB'), r'class ids .* missing for 6: .*png \(RGB\)'),
        (lambda m, i: Image.fromarray(m).convert('RGBA'), r'class ids .* missing for 6: .*png \(RGBA\)'),
        (lambda m, i: Image.fromarray(m.astype(np.uint16)), r'class ids .* missing for 6: .*png \(I;16\)'),
        (
            lambda m, i: Image.fromarray(m[:, : 90 + (i != 2)]),
            r'the size of the image .* missing for 6: .*png \(expected 96 × 80, got 91 × 80\)',
        ),
    ],
)
@pytest.mark.parametrize('stage', [1, 2])
def test_masks_that_hold_no_ids_of_the_classes_are_named_at_the_start(own, change, message, stage):
    paint(own, change)
    with pytest.raises(ValueError, match=message):
        if stage == 1:
            tagged(own, pipeline=LOAD_IF_ANY, test_mode=True)
        else:
            MaskDataset(own_config(own), pipeline=LOAD_ALL)


def edited(mask, indices, more=()):
    """As an editor writes a mask of VOC's colours with a palette of its own, ids at these indices; and more colours."""
    image = Image.fromarray(np.array([*indices, max(indices) + 1])[mask].astype(np.uint8))
    palette = np.full((max(indices) + 1, 3), 77, np.uint8)
    palette[indices] = np.uint8(VOC_COLOURS)[[0, 1, 2, 255]]
    image.putpalette(palette.tobytes() + bytes(more))
    return image


ORDERS = {  # the indices of background, cat, dog and what is ignored
    'reversed': [3, 2, 1, 0],
    'exchanged': [0, 2, 1, 3],
    'filled up': [1, 0, 2, 255],
    'far': [200, 7, 0, 9],
    'ignored at the first unused index': [0, 1, 2, 3],
}


@pytest.mark.parametrize('order', ORDERS)
@pytest.mark.parametrize('kind', ['measured', 'pseudo', 'true'])
def test_a_mask_whose_palette_an_editor_has_renumbered_is_read_by_its_colours(own, told, order, kind):  # noqa: F811
    ids = np.random.default_rng(0).integers(0, 4, (80, 96))
    meant = np.where(ids == 3, 255, ids)
    paint(own, lambda m, i: edited(ids, ORDERS[order]) if i == 2 else Image.fromarray(np.uint8(meant)))
    mask_dir = write_masks(own.parent / 'pseudo', IDS, CLASSES)
    if kind == 'pseudo':
        edited(ids, ORDERS[order]).save(own.parent / f'pseudo/{IDS[2]}.png')
        datasets = [PseudoMaskDataset(own_config(own), mask_dir, pipeline=LOAD_ALL)]
    elif kind == 'true':
        datasets = [
            PseudoMaskDataset(own_config(own), mask_dir, true_masks=True, pipeline=LOAD_ALL),
            tagged(own, pipeline=LOAD_IF_ANY, true_masks=True),
        ]
    else:
        datasets = [MaskDataset(own_config(own), pipeline=LOAD_ALL), tagged(own, pipeline=LOAD_IF_ANY, test_mode=True)]
    for dataset in datasets:
        (item,) = [item for item in dataset if item['sample_id'] == IDS[2]]
        np.testing.assert_array_equal(item['gt_seg_map'], meant)
    assert f'1 masks are read by their colours, which an editor has given other indices: {own.parent}' in told.text


def test_a_renumbered_mask_of_a_data_set_with_ids_of_its_own_is_read_by_its_colours(tmp_path):
    root = make_voc(tmp_path / 'voc')
    path = root / f'SegmentationClass/{NUMBERS[1]}.png'
    ids = np.random.default_rng(0).choice([0, 3, 8, 12, 255], (80, 96))  # background, bird, cat, dog
    image = Image.fromarray(np.uint8(np.searchsorted([0, 3, 8, 12, 255], ids)))
    image.putpalette(np.uint8(VOC_COLOURS)[[0, 3, 8, 12, 255]].tobytes())
    image.save(path)
    classes = [ANIMALS.index('cat'), ANIMALS.index('dog')]
    meant = np.select([ids == 0, ids == 8, ids == 12], [0, *classes], 255)
    np.testing.assert_array_equal(MaskDataset(voc_config(root, **INNER), pipeline=LOAD_ALL)[1]['gt_seg_map'], meant)
    tags = ImageTagDataset(voc_config(root, **INNER))[1]['gt_score']
    assert np.flatnonzero(tags).tolist() == [i - 1 for i in classes]


def test_a_mask_in_colours_of_its_classes_and_others_is_refused(own):
    """A soft brush leaves colours in between."""
    ids = np.random.default_rng(0).integers(0, 5, (80, 96))
    paint(own, lambda m, i: edited(ids, [1, 0, 2, 3], [60, 0, 0]) if i == 1 else Image.fromarray(m))
    message = rf'ids 0..2 \(background, cat, dog\) or 255 .* for 1: .*{IDS[1]}.png \(.*the colour \(60, 0, 0\).*\)'
    with pytest.raises(ValueError, match=message):
        MaskDataset(own_config(own), pipeline=LOAD_ALL)


FOREIGN = {
    'VOC, filled up with black': np.uint8([*VOC_COLOURS[:3], *[[0, 0, 0]] * 253]),
    'greys': np.uint8([[i] * 3 for i in range(256)]),
    'greys, the other way round': np.uint8([[255 - i] * 3 for i in range(256)]),
    'random': np.random.default_rng(0).integers(0, 256, (256, 3)).astype(np.uint8),
    'bright, filled up with black': np.uint8([[0, 0, 0], [255, 0, 0], [0, 255, 0], *[[0, 0, 0]] * 253]),
}


@pytest.mark.parametrize('palette', FOREIGN)
@pytest.mark.parametrize(
    'own_palette', [None, [[0, 0, 0], [0, 128, 0], [128, 0, 0]], [[9, 9, 9], [1, 2, 3], [1, 2, 3]]]
)
def test_indices_are_ids_with_every_palette_that_says_nothing_else(own, told, palette, own_palette):  # noqa: F811
    """A data set may have VOC's colours in another order, and its masks be those of import_masks.py, in VOC's."""
    mask = np.random.default_rng(0).choice([0, 1, 2, 255], (80, 96)).astype(np.uint8)
    image = Image.fromarray(mask)
    image.putpalette(FOREIGN[palette].tobytes())
    paint(own, lambda m, i: image if i % 2 else Image.fromarray(mask))
    inner = own_config(own)
    if own_palette:
        inner['metainfo'] = dict(classes=CLASSES, palette=own_palette)
    for item in MaskDataset(inner, pipeline=LOAD_ALL):
        np.testing.assert_array_equal(item['gt_seg_map'], mask)
    assert 'by their colours' not in told.text


def test_voc_layouts_are_looked_at_too(tmp_path):
    root = make_voc(tmp_path / 'voc')
    Image.new('L', (96, 80), 21).save(root / f'SegmentationClass/{NUMBERS[2]}.png')
    with pytest.raises(
        ValueError, match=rf'ids 0..20 \(background, aero.*missing for 1: .*{NUMBERS[2]}.png \(\[21\]\)'
    ):
        MaskDataset(voc_config(root, **INNER), pipeline=LOAD_ALL)
    (root / f'SegmentationClass/{NUMBERS[2]}.png').unlink()
    looked_for = rf'{NUMBERS[2]}.jpg \(looked for .*SegmentationClass/{NUMBERS[2]}.png\)'
    with pytest.raises(ValueError, match=f'expected a mask .*{looked_for}'):
        MaskDataset(voc_config(root, **INNER), pipeline=LOAD_ALL)


@pytest.mark.parametrize('stage', [1, 2])
def test_true_masks_that_contradict_the_tags_are_named(own, told, stage):  # noqa: F811
    """All images are tagged with dog, which the masks hold at the left; then one holds cat instead, and one 255."""

    mask_dir = write_masks(own.parent / 'pseudo', IDS, CLASSES)

    def build():
        if stage == 1:
            return tagged(own, pipeline=LOAD_IF_ANY, test_mode=True)
        inner = dict(own_config(own), data_prefix=dict(img_path='images', seg_map_path='masks'))
        return PseudoMaskDataset(inner, mask_dir, str(own / 'tags.csv'), true_masks=True, pipeline=LOAD_ALL)

    paint(own, lambda m, i: Image.fromarray(np.uint8(2 * (np.indices(m.shape)[1] < 40))))
    rows = '\n'.join(f'{name},dog' for name in NAMES)
    (own / 'tags.csv').write_text(f'image,tags\n{rows}\n')
    build()
    assert not [r for r in told.records if 'a tag' in r.getMessage()]
    paint(own, lambda m, i: Image.fromarray({1: m // 2, 2: m // 2 * 255}.get(i, m)))
    build()
    assert f'{own / "tags.csv"}: 1 of 6 masks hold classes without a tag: {IDS[1]} (cat)' in told.text
    assert f'2 of 6 masks have no pixel of a tag: {IDS[1]} (dog), {IDS[2]} (dog)' in told.text


@pytest.mark.parametrize('name', ['1_mask.png', '1.PNG', 'one.png', 'sub/deep/1.png', '1.jpg', '1.tif'])
def test_masks_that_match_no_photograph_are_named_with_the_name_that_was_looked_for(own, name):
    for path in (own / 'masks').rglob('*.png'):
        if path.relative_to(own / 'masks').as_posix() != '1.png':
            path.unlink()
    Image.open(own / 'masks/1.png').save(own / 'masks/x.png')
    (own / 'masks/1.png').unlink()
    (own / 'masks/x.png').rename(own / 'masks' / name)
    with pytest.raises(ValueError, match=rf'masks named as .*, not so for 1: {name} \(looked for .*png\)'):
        PhotographDataset(**{key: value for key, value in own_config(own).items() if key != 'type'})


def test_masks_of_photographs_that_a_list_leaves_out_are_no_strangers(own):
    (own / 'list.txt').write_text('1\n')
    assert len(tagged(own, inner=dict(ann_file='list.txt'))) == 1


# Classes of checkpoints


@pytest.fixture
def swapped():
    classes = list(ANIMALS)
    classes[2], classes[4] = classes[4], classes[2]
    return dict(classes=classes)


@pytest.mark.parametrize('resume', [True, False])
def test_a_run_does_not_begin_from_the_classes_of_another(trained, swapped, tmp_path, resume):
    folder, _ = trained
    cfg = run_config(folder / 'voc', tmp_path, load_from=str(folder / 'work/epoch_2.pth'), resume=resume)
    cfg.default_hooks.checkpoint = dict(type='aream_mm.SafeCheckpointHook', interval=1)
    cfg.train_cfg.max_epochs = 3
    cfg.custom_hooks = cfg.custom_hooks[:1]
    cfg.train_dataloader.dataset.dataset.metainfo = swapped
    message = "epoch_2.pth: expected the 7 classes .*got 7, of which id 2 is .*: expected 'horse', got 'cow'"
    with pytest.raises(ValueError, match=message):
        Runner.from_cfg(cfg).train()


def test_masks_are_not_written_with_the_classes_of_another_run(trained, swapped, tmp_path):
    folder, _ = trained
    cfg = run_config(folder / 'voc', tmp_path)
    cfg.custom_hooks[1].dataloader.dataset.dataset.metainfo = swapped
    with pytest.raises(ValueError, match="PseudoMaskHook: dataloader: expected the 7 .*: expected 'cow', got 'horse'"):
        Runner.from_cfg(cfg).train()


def test_weights_without_classes_pass(trained, tmp_path):
    folder, runner = trained
    torch.save(dict(state_dict=runner.model.state_dict()), tmp_path / 'converted.pth')
    cfg = run_config(folder / 'voc', tmp_path / 'work', load_from=str(tmp_path / 'converted.pth'))
    cfg.default_hooks.checkpoint = dict(type='aream_mm.SafeCheckpointHook', interval=1)
    cfg.train_cfg.max_epochs = 1
    cfg.custom_hooks = cfg.custom_hooks[:1]
    Runner.from_cfg(cfg).train()


def test_255_classes_are_taken_exactly_and_256_refused(tmp_path):
    root = make_own(tmp_path / 'own', num_masks=0)
    names = ['background', *(f'class {i}' for i in range(1, 256))]
    rows = '\n'.join(f'{name},class {i};class 254' for i, name in enumerate(NAMES, start=1))
    (root / 'tags.csv').write_text(f'image,tags\n{rows}\n')
    (root / 'masks').mkdir()
    mask = np.random.default_rng(0).integers(0, 256, (80, 96)).astype(np.uint8)
    for id_ in IDS:
        (root / f'masks/{id_}.png').parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(root / f'masks/{id_}.png')
    inner = dict(own_config(root), metainfo=dict(classes=names[:255]))
    dataset = MaskDataset(inner, pipeline=LOAD_ALL)
    np.testing.assert_array_equal(dataset[0]['gt_seg_map'], mask)
    from_masks = ImageTagDataset(inner)
    assert from_masks[0]['gt_score'].shape == (254,) and from_masks[0]['gt_score'].all()
    assert ImageTagDataset(inner, tag_file=str(root / 'tags.csv'))[0]['gt_score'][253] == 1
    inner['metainfo'] = dict(classes=names)
    with pytest.raises(ValueError, match='at most 255 classes, since masks have 8 bits and 255 is ignored, got 256'):
        ImageTagDataset(inner, tag_file=str(root / 'tags.csv'))


def test_more_classes_than_colours_are_refused_for_their_number(tmp_path):
    root = make_own(tmp_path / 'own', num_masks=0)
    inner = dict(own_config(root), metainfo=dict(classes=['background', *map(str, range(300))]))
    with pytest.raises(ValueError, match='at most 255 classes'):
        MaskDataset(inner)


def test_classes_of_the_validation_are_those_of_the_training(trained, swapped, tmp_path):
    folder, _ = trained
    cfg = run_config(folder / 'voc', tmp_path)
    cfg.default_hooks.checkpoint = dict(type='aream_mm.SafeCheckpointHook', interval=1)
    cfg.val_dataloader = cfg.custom_hooks[1].dataloader.copy()
    cfg.val_dataloader.dataset.dataset.metainfo = swapped
    cfg.update(val_cfg=dict(), val_evaluator=dict(type='aream_mm.AveragePrecision'), custom_hooks=[])
    with pytest.raises(ValueError, match="val_dataloader: expected the 7 .*: expected 'cow', got 'horse'"):
        Runner.from_cfg(cfg).train()
