"""The converters of VOC: what the check finds, what it builds from the SBD, and what the evaluation server gets."""

import gc
import re
import runpy
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import voc
import voc_submission
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmseg.datasets import PascalVOCDataset
from options import load_config
from PIL import Image
from scipy.io import loadmat, savemat
from toy_voc import make_voc

from aream_mm.masks import VOC_COLOURS

ROOT = Path(__file__).parents[1]
CONFIGS, CONVERTERS = ROOT / 'configs', ROOT / 'tools' / 'converters'
LISTS = 'ImageSets/Segmentation'
ONLY_IN_SBD = ['2008_000000', '2008_000001', '2008_000002']


@pytest.fixture(scope='module', autouse=True)
def quick_garbage_collection():
    """mmengine's data sets collect garbage when they are built, half a second of it where torch is loaded."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope='module')
def sound_root(tmp_path_factory):
    """A VOC folder with four images in train and trainaug and two in val: 2007_000000 to 2007_000005."""
    return make_voc(tmp_path_factory.mktemp('sound') / 'VOC2012')


@pytest.fixture(scope='module')
def sound(sound_root):
    """What the check says of it."""
    return voc.Check(sound_root)


@pytest.fixture
def root(sound_root, tmp_path):
    """A copy of that folder, to be damaged."""
    return Path(shutil.copytree(sound_root, tmp_path / 'VOC2012'))


@pytest.fixture
def sbd(root, tmp_path):
    """An SBD release over one image of train, one of val and three of `root` that VOC has no mask of."""
    dataset = tmp_path / 'benchmark_RELEASE' / 'dataset'
    (dataset / 'cls').mkdir(parents=True)
    for i, name in enumerate(['2007_000000', '2007_000005', *ONLY_IN_SBD]):
        ids = np.random.default_rng(i).integers(0, 21, (80, 96), np.uint8)
        categories = np.arange(20, dtype=np.uint8)[:, None]
        struct = dict(Segmentation=ids, CategoriesPresent=categories)
        savemat(dataset / 'cls' / f'{name}.mat', dict(GTcls=struct), do_compression=True)
        if name in ONLY_IN_SBD:
            Image.new('RGB', (96, 80), (40 * i, 90, 90)).save(root / 'JPEGImages' / f'{name}.jpg')
    (dataset / 'train.txt').write_text('2007_000005\n2008_000002\n2008_000000\n')
    (dataset / 'val.txt').write_text('2007_000000\n2008_000001\n')
    (root / LISTS / 'trainaug.txt').unlink()
    return tmp_path / 'benchmark_RELEASE'


def change_list(name, change):
    def damage(root):
        path = root / LISTS / f'{name}.txt'
        path.write_text(change(path.read_text()))

    return damage


def cut(path):
    return lambda root: (root / path).write_bytes((root / path).read_bytes()[:300])


def remove(path):
    return lambda root: (root / path).unlink()


def save_mask(path, ids):
    return lambda root: Image.fromarray(np.array(ids)).save(root / path)


def save_tags(tags):
    return lambda root: np.save(root / 'cls_labels.npy', tags)


FULL = np.zeros((80, 96), np.uint8)
TAGS = {f'2007_{i:06d}': np.ones(20) for i in range(6)}
STAGE_1, CAMS, STAGE_2, VAL = 'aream_.* trains$', 'measures its CAMs', 'trains on pseudo masks', 'measured on `val`'
FINDINGS = {  # what is done to the folder → item, found, remedy, and what cannot be done any more
    'no list': (
        remove(f'{LISTS}/trainaug.txt'),
        ('trainaug.txt', 'missing', '--sbd benchmark_RELEASE'),
        [STAGE_1, STAGE_2],
    ),
    'no list of VOC': (remove(f'{LISTS}/val.txt'), ('val.txt', 'missing', 'VOCtrainval_11-May-2012.tar'), [VAL]),
    'an empty list': (change_list('train', lambda _: ''), ('empty', '1: train', 'VOCtrainval'), [CAMS]),
    'paths in a list': (
        change_list('trainaug', lambda ids: ids + '/JPEGImages/2007_000001.jpg /Aug/2007_000001.png\n'),
        ('lines that are no id', "1: '/JPEGImages/2007_000001.jpg /Aug/2007_000001.png'", 'an id such as 2007_000032'),
        [STAGE_1, STAGE_2],
    ),
    'a blank line': (
        change_list('val', lambda ids: ids + '\n'),
        ('lines that are no id', "1: ''", 'an id such as 2007_000032'),
        [VAL],
    ),
    'an id twice': (
        change_list('trainaug', lambda ids: ids + '2007_000002\n'),
        ('ids listed twice', '1: 2007_000002', 'remove the repetitions'),
        [STAGE_1, STAGE_2],
    ),
    'images of val among those of trainaug': (
        change_list('trainaug', lambda ids: ids + '2007_000005\n2007_000004\n'),
        ('ids of val.txt', '2: 2007_000005, 2007_000004', 'remove it; .*--sbd'),
        [STAGE_1, STAGE_2],
    ),
    'more ids than VOC has': (
        change_list('train', lambda ids: ids + ''.join(f'2009_{i:06d}\n' for i in range(1461))),
        ('train.txt', '1465 ids', 'VOCtrainval_11-May-2012.tar'),
        [CAMS],
    ),
    'no image': (
        remove('JPEGImages/2007_000005.jpg'),
        ('ids without a readable image', '1: 2007_000005', 'VOCtrainval_11-May-2012.tar'),
        [VAL],
    ),
    'a broken image': (
        lambda root: (root / 'JPEGImages/2007_000001.jpg').write_bytes(b'no image'),
        ('ids without a readable image', '1: 2007_000001', 'VOCtrainval_11-May-2012.tar'),
        [STAGE_1, CAMS, STAGE_2],
    ),
    'no mask': (
        remove('SegmentationClass/2007_000002.png'),
        ('ids without a readable mask', '1: 2007_000002', 'VOCtrainval_11-May-2012.tar'),
        [CAMS],
    ),
    'a broken mask': (
        cut('SegmentationClass/2007_000004.png'),
        ('ids without a readable mask', '1: 2007_000004', 'VOCtrainval_11-May-2012.tar'),
        [VAL],
    ),
    'a mask of another size': (
        save_mask('SegmentationClass/2007_000004.png', FULL[:70]),
        ('masks of another size than their image', r'1: 2007_000004 \(96x70, not 96x80\)', 'VOCtrainval'),
        [VAL],
    ),
    'a mask with other ids': (
        save_mask('SegmentationClass/2007_000003.png', FULL + np.uint8(21)),
        ('masks with more than the ids 0..20 and 255', r'1: 2007_000003 \(21\)', 'VOCtrainval'),
        [CAMS],
    ),
    'a mask of colours': (
        save_mask('SegmentationClass/2007_000003.png', np.stack(3 * [FULL], -1)),
        ('masks with more than the ids 0..20 and 255', r'1: 2007_000003 \(colours\)', 'VOCtrainval'),
        [CAMS],
    ),
    'no tags': (
        remove('cls_labels.npy'),
        ('tag file', 'missing', 'cls_labels.npy, or python tools/converters/tags.py .*/Annotations .*/tags.csv'),
        [STAGE_1, CAMS],
    ),
    'ids that have no entry in the tag file': (
        save_tags(dict(list(TAGS.items())[:3])),
        ('tags', 'expected an entry in .*cls_labels.npy for each of 4 .*missing for 1: 2007_000003', 'tags.py'),
        [STAGE_1, CAMS],
    ),
    'ids without a tag': (
        save_tags(dict.fromkeys(TAGS, np.zeros(20))),
        ('tags', 'at least one of the tags .*missing for 4: 2007_000000', 'tags.py'),
        [STAGE_1, CAMS],
    ),
    'no tag file at all': (
        save_tags(np.ones(3)),
        ('tags', 'cls_labels.npy.*expected a dict', 'tags.py'),
        [STAGE_1, CAMS],
    ),
}


def impossible(check):
    return {use for use, obstacles in check.uses().items() if obstacles}


@pytest.mark.parametrize('case', FINDINGS)
def test_the_check_names_what_is_wrong_and_what_it_is_needed_for(sound, root, case):
    damage, (item, found, remedy), uses = FINDINGS[case]
    damage(root)
    check = voc.Check(root)
    rows = [row for row in {*check.rows()} - {*sound.rows()} if row.item.strip() == item]
    assert rows and all(re.search(found, row.found) and re.search(remedy, row.remedy) for row in rows), rows
    spoilt = impossible(check) - impossible(sound)
    assert all(any(re.search(use, one) for one in spoilt) for use in uses), spoilt


def test_a_part_of_voc_is_fine_and_said_to_be_one(sound):
    rows = {row.item: row for row in sound.rows()}
    assert rows['trainaug.txt'] == ('trainaug.txt', '4 ids (a part of it)', '10582 ids', '')
    assert [rows[f'{name}.txt'].expected for name in ('train', 'val', 'trainval', 'aug', 'test')] == [
        *('1464 ids', '1449 ids', '2913 ids', '9118 ids', '1456 ids')
    ]
    assert not any(re.search(use, one) for use in (STAGE_1, CAMS, STAGE_2, VAL) for one in impossible(sound))
    assert rows['test.txt'].remedy == "from VOC2012test.tar, the evaluation server's"


def run(module, monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', [module.__file__, *map(str, arguments)])
    module.main()


def test_the_exit_code_tells_whether_stage_1_can_train(root, monkeypatch, capsys):
    with pytest.raises(SystemExit, match='0'):
        run(voc, monkeypatch, root)
    told = capsys.readouterr().out
    assert re.search(r'\| item +\| found +\| expected +\| remedy', told)
    assert 'aream_vit_animals.py) trains: yes' in told
    (root / 'cls_labels.npy').unlink()
    with pytest.raises(SystemExit, match='1'):
        run(voc, monkeypatch, root)
    told = capsys.readouterr().out
    assert 'tools/converters/tags.py' in told
    assert 'aream_vit_animals.py) trains: no; trainaug.txt: tags' in told


def test_a_folder_that_is_not_there_is_named(root, monkeypatch):
    with pytest.raises(FileNotFoundError, match='nowhere: expected the folder VOC2012'):
        run(voc, monkeypatch, root / 'nowhere')


def test_the_build_and_the_check_of_what_it_made_are_one_command(root, sbd, monkeypatch, capsys):
    save_tags(TAGS | {name: np.ones(20) for name in ONLY_IN_SBD})(root)
    with pytest.raises(SystemExit, match='0'):
        run(voc, monkeypatch, root, '--sbd', sbd)
    assert 'tags from masks (tag_file=None): yes' in capsys.readouterr().out


def test_the_palette_is_the_one_mmseg_knows_with_vocs_borders():
    palette = np.array(VOC_COLOURS)
    assert palette[:21].tolist() == PascalVOCDataset.METAINFO['palette']
    assert palette[255].tolist() == [224, 224, 192]
    assert len(np.unique(palette, axis=0)) == 256


def test_the_masks_built_are_those_of_the_sbd_where_voc_has_none_and_else_vocs(root, sbd):
    voc.build_train_aug(root, sbd)
    built = sorted(path.stem for path in (root / 'SegmentationClassAug').iterdir())
    assert built == sorted([f'2007_{i:06d}' for i in range(6)] + ONLY_IN_SBD)
    for name in built:
        mask = root / 'SegmentationClassAug' / f'{name}.png'
        if name in ONLY_IN_SBD:
            struct = loadmat(sbd / 'dataset/cls' / f'{name}.mat', struct_as_record=False, squeeze_me=True)['GTcls']
            read = Image.open(mask)
            assert read.mode == 'P' and read.getpalette('RGB') == sum(VOC_COLOURS, [])
            for x in range(96):
                for y in range(80):
                    assert read.getpixel((x, y)) == struct.Segmentation[y][x]
        else:
            assert mask.read_bytes() == (root / 'SegmentationClass' / mask.name).read_bytes()


@pytest.mark.parametrize('folder', ['.', '..', 'dataset'])
def test_the_lists_built_are_vocs_and_the_sbds_without_val(root, sbd, folder):
    voc.build_train_aug(root, sbd / folder)
    read = {name: (root / LISTS / f'{name}.txt').read_text().split() for name in ('val', 'aug', 'trainaug')}
    assert read['aug'] == ONLY_IN_SBD
    assert read['trainaug'] == [f'2007_{i:06d}' for i in range(4)] + ONLY_IN_SBD
    assert not {*read['trainaug']} & {*read['val']}


def test_a_build_goes_on_where_it_was(root, sbd, capsys):
    broken = sbd / 'dataset/cls/2008_000001.mat'
    content = broken.read_bytes()
    broken.write_bytes(content[:150])
    with pytest.raises(ValueError, match=r'1 masks of the SBD .*\n.*2008_000001.mat: expected a .mat file with GTcls'):
        voc.build_train_aug(root, sbd)
    folder = root / 'SegmentationClassAug'
    assert len(list(folder.iterdir())) == 8 and not (root / LISTS / 'trainaug.txt').exists()
    broken.write_bytes(content)
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    capsys.readouterr()
    voc.build_train_aug(root, sbd)
    assert 'SegmentationClassAug: 1 of 9 masks to write' in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name in times} == times
    assert len(list(folder.iterdir())) == 9 and (root / LISTS / 'trainaug.txt').exists()
    voc.build_train_aug(root, sbd)
    assert 'SegmentationClassAug: 0 of 9 masks to write' in capsys.readouterr().out


def test_a_mask_of_the_sbd_with_other_ids_is_refused(root, sbd):
    ids = np.full((80, 96), 33, np.uint8)
    savemat(sbd / 'dataset/cls/2008_000001.mat', dict(GTcls=dict(Segmentation=ids)))
    with pytest.raises(
        ValueError, match=r'2008_000001.mat: expected uint8 ids 0..20 or 255 .*got uint8 \(80, 96\) \[33\]'
    ):
        voc.build_train_aug(root, sbd)


@pytest.mark.parametrize(
    ('missing', 'error', 'message'),
    [
        ('VOC2012/ImageSets/Segmentation/train.txt', FileNotFoundError, 'train.txt: expected a list'),
        ('VOC2012/SegmentationClass/2007_000004.png', ValueError, r'each of 9 ids, missing for 1: .*2007_000004.png'),
        (
            'benchmark_RELEASE/dataset/cls/2008_000002.mat',
            ValueError,
            r'each of 9 ids, missing for 1: .*2008_000002.mat',
        ),
        ('benchmark_RELEASE/dataset/val.txt', FileNotFoundError, r"train.txt and val.txt of the SBD, .*\['val.txt'\]"),
    ],
)
def test_a_build_is_refused_before_it_writes_anything(root, sbd, missing, error, message):
    (root.parent / missing).unlink()
    with pytest.raises(error, match=message):
        voc.build_train_aug(root, sbd)
    assert not (root / 'SegmentationClassAug').exists()


def test_a_folder_that_is_not_the_sbd_is_refused(root, tmp_path):
    with pytest.raises(FileNotFoundError, match='expected the SBD as benchmark.tgz unpacks'):
        voc.build_train_aug(root, tmp_path / 'elsewhere')


def test_a_list_with_other_ids_is_not_written_over(root, sbd):
    (root / LISTS / 'trainaug.txt').write_text('2007_000000\n2009_000000\n')
    message = r'trainaug.txt: expected the 7 ids .*got 2, of which 1 are not among them'
    with pytest.raises(ValueError, match=message):
        voc.build_train_aug(root, sbd)
    assert (root / LISTS / 'trainaug.txt').read_text() == '2007_000000\n2009_000000\n'


def test_the_check_looks_at_the_masks_that_were_built_too(root, sbd):
    voc.build_train_aug(root, sbd)
    rows = {row.item: row for row in voc.Check(root).rows()}
    assert rows['SegmentationClassAug'].found == '7 files' and rows['trainaug.txt'].found == '7 ids (a part of it)'
    save_mask('SegmentationClassAug/2008_000001.png', FULL[:, :90])(root)
    check = voc.Check(root)
    (row,) = {row for row in check.rows() if 'another size' in row.item}
    assert row.found == '1: 2008_000001 (90x80, not 96x80)' and row.remedy.startswith('remove it; unpack benchmark.tgz')
    assert 'trainaug.txt: masks of another size than their image' in str(check.uses())


def test_stage_1_takes_tags_from_the_masks_that_were_built(root, sbd):
    voc.build_train_aug(root, sbd)
    cfg = load_config(CONFIGS / 'aream_vit_entropy_voc.py', dict(data_root=str(root)))
    hooks = {hook.type: hook for hook in cfg.custom_hooks}
    for dataset in (cfg.train_dataloader.dataset, hooks['aream_mm.LayerEntropyHook'].dataloader.dataset):
        built = DATASETS.build(dict(dataset, tag_file=None))
        tags = {info['sample_id']: info['gt_score'] for info in map(built.get_data_info, range(len(built)))}
        ids = np.array(Image.open(root / 'SegmentationClassAug/2008_000001.png'))
        assert len(tags) == 7 and tags['2008_000001'].nonzero()[0].tolist() == [i - 1 for i in range(1, 21) if i in ids]


def test_pseudo_masks_are_measured_on_vocs_own_masks(root, sbd):
    voc.build_train_aug(root, sbd)
    save_tags(TAGS | {name: np.ones(20) for name in ONLY_IN_SBD})(root)
    cfg = load_config(CONFIGS / 'aream_vit_voc.py', dict(data_root=str(root)))
    built = DATASETS.build(cfg.custom_hooks[1].dataloader.dataset)
    infos = [built.get_data_info(i) for i in range(len(built))]
    assert len(infos) == 7
    masks = [Path(info['seg_map_path']) for info in infos if 'seg_map_path' in info]
    assert masks == [root / 'SegmentationClass' / f'2007_{i:06d}.png' for i in range(4)]


@pytest.fixture
def predictions(root, tmp_path):
    """The list `test` over two images, and predictions as mmseg writes them: grey PNGs of ids."""
    (root / LISTS / 'test.txt').write_text('2007_000005\n2007_000004\n')
    folder = tmp_path / 'predictions'
    folder.mkdir()
    for i in (4, 5):
        ids = np.random.default_rng(i).integers(0, 21, (80, 96), np.uint8)
        Image.fromarray(ids).save(folder / f'2007_{i:06d}.png')
    return folder


def test_the_archive_holds_the_predictions_in_vocs_colours_under_the_servers_names(
    root, predictions, tmp_path, monkeypatch
):
    out = tmp_path / 'submission.tar'
    run(voc_submission, monkeypatch, predictions, root, out)
    with tarfile.open(out) as archive:
        names = ['2007_000005.png', '2007_000004.png']
        assert archive.getnames() == [f'results/VOC2012/Segmentation/comp6_test_cls/{name}' for name in names]
        for name, member in zip(names, archive.getmembers(), strict=True):
            mask = Image.open(archive.extractfile(member))
            assert (mask.mode, mask.size, mask.format) == ('P', (96, 80), 'PNG')
            assert mask.getpalette('RGB') == sum(VOC_COLOURS, [])
            np.testing.assert_array_equal(np.array(mask), np.array(Image.open(predictions / name)))
    assert not list(tmp_path.glob('*.tmp'))


@pytest.mark.parametrize('name', ['submission.tar.gz', 'submission', 'nowhere/submission.tar', 'folder.tar'])
def test_an_archive_that_cannot_be_written_is_refused_before_the_predictions_are_read(
    root, predictions, tmp_path, name, monkeypatch, capsys
):
    (tmp_path / 'folder.tar').mkdir()
    monkeypatch.setattr(voc_submission, 'pack', lambda *_: pytest.fail('packed'))
    with pytest.raises(SystemExit):
        run(voc_submission, monkeypatch, predictions, root, tmp_path / name)
    assert 'out: expected the name of a file that ends in .tar' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (
            lambda p: (p / '2007_000004.png').unlink(),
            r'each of the 2 ids of .*test.txt alone, missing 1: 2007_000004.png',
        ),
        (lambda p: Image.new('L', (9, 9)).save(p / '2007_000001.png'), r'alone, not among these 1: 2007_000001.png'),
        (lambda p: save_mask('2007_000005.png', FULL.T)(p), r'000005.png: expected 96x80 pixels .*got 80x96'),
        (lambda p: save_mask('2007_000004.png', FULL + np.uint8(255))(p), r'000004.png: expected ids 0..20, got 255'),
        (
            lambda p: save_mask('2007_000004.png', np.stack(3 * [FULL], -1))(p),
            r'000004.png: expected class ids, .*80, 96, 3',
        ),
        (lambda p: (p / '2007_000004.png').write_bytes(b'no image'), r'000004.png: expected a PNG, got none'),
        (lambda p: (p.parent / 'VOC2012/JPEGImages/2007_000004.jpg').unlink(), r'2007_000004.jpg: expected an image'),
        (lambda p: (p.parent / 'VOC2012' / LISTS / 'test.txt').unlink(), r'test.txt: expected a list'),
        (lambda p: p.rename(p.parent / 'elsewhere'), r'expected the folder that tools/test.py --out wrote'),
    ],
)
def test_a_wrong_submission_is_refused_by_name(root, predictions, tmp_path, spoil, message):
    spoil(predictions)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        voc_submission.pack(predictions, root, tmp_path / 'submission.tar', 'test')
    assert not list(tmp_path.glob('submission.tar*'))


@pytest.fixture(scope='module')
def stage_2(tmp_path_factory):
    """A config of stage 2 and a checkpoint with random weights."""
    folder, path = tmp_path_factory.mktemp('stage_2'), CONFIGS / 'seg/deeplabv3plus_lite0_voc.py'
    cfg = load_config(path)
    init_default_scope('mmseg')
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict(), meta={}), folder / 'checkpoint.pth')
    return [path, folder / 'checkpoint.pth', '--work-dir', folder / 'work']


ON_TEST = ['test_evaluator.format_only=True', f'test_dataloader.dataset.dataset.ann_file={LISTS}/test.txt']


def run_test_tool(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['test.py', *map(str, arguments)])
    runpy.run_path(str(ROOT / 'tools/test.py'), run_name='__main__')


def test_stage_2_predicts_the_test_list_without_masks_and_the_archive_takes_it(
    stage_2, root, predictions, tmp_path, monkeypatch
):
    for path in [*(root / 'SegmentationClass').iterdir(), *predictions.iterdir()]:
        path.unlink()
    options = [f'data_root={root}', *ON_TEST, 'test_dataloader.num_workers=0']
    options += ['test_dataloader.persistent_workers=False']
    run_test_tool(monkeypatch, *stage_2, '--tta', '--out', predictions, '--cfg-options', *options)
    assert voc_submission.pack(predictions, root, tmp_path / 'submission.tar', 'test') == 2


def test_without_tta_no_mask_is_loaded_either(root, predictions):
    cfg = load_config(CONFIGS / 'seg/deeplabv3plus_r50_voc.py', dict(data_root=str(root)))
    init_default_scope('mmseg')
    without_masks = runpy.run_path(str(ROOT / 'tools/test.py'))['without_masks']
    data = cfg.test_dataloader.dataset
    data.dataset.ann_file = f'{LISTS}/test.txt'
    for path in (root / 'SegmentationClass').iterdir():
        path.unlink()
    with pytest.raises(ValueError, match='expected a mask for each of 2 images'):
        DATASETS.build(data)
    packed = pseudo_collate([DATASETS.build(dict(data, pipeline=without_masks(data['pipeline'])))[0]])
    assert packed['inputs'][0].ndim == 3 and 'gt_sem_seg' not in packed['data_samples'][0]


@pytest.mark.parametrize('option', ['--out', '--show-dir'])
def test_predictions_do_not_overwrite_masks_nor_images(stage_2, root, option, monkeypatch):
    files = {path: path.read_bytes() for path in (root / 'SegmentationClass').iterdir()}
    with pytest.raises(SystemExit):
        run_test_tool(
            *(monkeypatch, *stage_2, option, root / 'SegmentationClass', '--cfg-options', f'data_root={root}'),
            *('test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False'),
        )
    assert {path: path.read_bytes() for path in (root / 'SegmentationClass').iterdir()} == files


def test_predicting_without_masks_needs_a_folder_for_the_predictions(stage_2, root, predictions, monkeypatch):
    with pytest.raises(ValueError, match='format_only: expected --out FOLDER for the predictions, got none'):
        run_test_tool(monkeypatch, *stage_2, '--cfg-options', f'data_root={root}', *ON_TEST)
