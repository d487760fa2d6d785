"""Both stages through the commands a user types, on a few small images."""

import base64
import csv
import io
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from demo_scenes import CLASSES
from draw_demo import draw_demo
from mmengine.config import Config
from mmseg.apis import MMSegInferencer
from options import load_config
from PIL import Image
from tag_table import write_tag_table
from toy_own import IDS, NAMES, make_own

from aream_mm.checkpoint import read_checkpoint
from aream_mm.models.aream import AReAMLoss

ROOT = Path(__file__).parents[1]
SEED, SEG = 'configs/demo/aream_demo.py', 'configs/demo/deeplabv3plus_demo.py'
BASELINE = 'configs/demo/no_aream_demo.py'


def run(*arguments):
    """Run a tool of the repository and return what it printed; its errors are shown."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.fixture(scope='module')
def two_stages(tmp_path_factory):
    """Work folder of a two-stage run of the demo configs, cut down to eight images and random weights."""
    folder = tmp_path_factory.mktemp('two_stages')
    draw_demo(folder / 'drawn', num_train=8, num_val=4, size=64)
    common = [f'data_root={folder}/drawn', 'train_dataloader.batch_size=4', 'train_dataloader.num_workers=0']
    common += ['train_dataloader.persistent_workers=False', 'test_dataloader.num_workers=0']
    common += ['test_dataloader.persistent_workers=False', 'train_cfg.max_iters=4']
    random = ['model.backbone.cnn.pretrained=False', 'model.backbone.vit.stem.pretrained=False']
    seed = [*random, 'default_hooks.checkpoint.interval=2', 'default_hooks.logger.interval=1']
    seed += ['val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False', 'train_cfg.val_interval=4']
    baseline = [*seed, f'load_from={folder}/seed/iter_2.pth']
    seed += ['custom_hooks.0.end=2', 'custom_hooks.1.dataloader.num_workers=0']
    seg = ['model.backbone.pretrained=False', f'train_dataloader.dataset.mask_dir={folder}/seed/pseudo_masks']
    options = dict(seed=[*common, *seed], baseline=[*common, *baseline], seg=[*common, *seg])
    run('tools/train.py', SEED, '--work-dir', folder / 'seed', '--cfg-options', *options['seed'])
    arguments = ['--work-dir', folder / 'baseline', '--resume', '--cfg-options', *options['baseline']]
    (folder / 'baseline.log').write_text(run('tools/train.py', BASELINE, *arguments))
    run('tools/train.py', SEG, '--work-dir', folder / 'seg', '--cfg-options', *options['seg'])
    return folder, options


def test_stage_1_writes_masks_and_stage_2_trains_on_them(two_stages):
    folder, _ = two_stages
    assert len(list((folder / 'seed/pseudo_masks').glob('*.png'))) == 8
    assert json.loads((folder / 'seed/pseudo_masks/manifest.json').read_text())['images'] == 8
    assert (folder / 'seg/iter_4.pth').is_file()


def test_testing_stage_1_writes_masks_when_asked_and_keeps_those_that_are_there(two_stages):
    folder, options = two_stages
    (folder / 'seed/pseudo_masks/00003.png').unlink()
    arguments = ['tools/test.py', SEED, folder / 'seed/iter_4.pth', '--work-dir', folder / 'seed']
    quiet = run(*arguments, '--cfg-options', *options['seed'])
    assert 'mIoU' in quiet and not (folder / 'seed/pseudo_masks/00003.png').exists()
    told = run(*arguments, '--pseudo-masks', '--cfg-options', *options['seed'])
    assert 'Pseudo masks: 1 of 8 to write' in told and (folder / 'seed/pseudo_masks/00003.png').is_file()


def test_testing_stage_1_draws_the_threshold_curve_and_has_no_predictions_to_write(two_stages):
    folder, options = two_stages
    arguments = ['tools/test.py', SEED, folder / 'seed/iter_4.pth', '--work-dir', folder / 'seed_test']
    told = run(*arguments, '--cfg-options', *options['seed'])
    assert 'cam/mIoU_mask_free' in told and 'multi-label/mAP' in told
    assert len(list((folder / 'seed_test').rglob('threshold_curve_test.png'))) == 1
    command = [sys.executable, *map(str, arguments), '--out', str(folder / 'out')]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and '--out: expected a config with an IoUMetric' in done.stderr


def test_the_affinity_profile_compares_two_checkpoints_on_a_page_and_in_a_table(two_stages):
    folder, options = two_stages
    checkpoints = [folder / 'seed/iter_2.pth', '--vs', folder / 'seed/iter_4.pth']
    arguments = ['--out', folder / 'profile', '--num-images', 3, '--examples', 2, '--cfg-options', *options['seed']]
    told = run('tools/analysis/affinity_profile.py', SEED, *checkpoints, *arguments)
    assert str(folder / 'profile/affinity_profile.html') in told
    rows = list(csv.DictReader((folder / 'profile/affinity_profile.csv').open()))
    names = ['none', *(f'layer {i}' for i in range(6)), 'shallow mean', 'deep mean', 'all mean']
    assert [row['affinity'] for row in rows] == 2 * names
    assert [row['checkpoint'] for row in rows] == ['iter_2.pth'] * 10 + ['iter_4.pth'] * 10
    assert all(0 <= float(row['mIoU']) <= 100 for row in rows)
    command = ['tools/analysis/affinity_profile.py', SEED, checkpoints[0], '--vs', folder / 'iter_9.pth', *arguments]
    done = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True)
    assert 'iter_9.pth: expected a checkpoint, got no file' in done.stderr and '3 images' not in done.stdout
    page = (folder / 'profile/affinity_profile.html').read_text()
    pictures = re.findall('data:image/png;base64,([^"]*)', page)
    assert [np.array(Image.open(io.BytesIO(base64.b64decode(text)))).std() > 10 for text in pictures] == [True, True]
    assert f'{float(rows[1]["mIoU"]):.4g} → {float(rows[11]["mIoU"]):.4g}' in page


def test_testing_stage_2_writes_its_predictions(two_stages):
    folder, options = two_stages
    out = folder / 'predictions'
    arguments = ['--work-dir', folder / 'seg_test', '--out', out, '--show-dir', folder / 'painted']
    run('tools/test.py', SEG, folder / 'seg/iter_4.pth', *arguments, '--cfg-options', *options['seg'])
    assert [path.name for path in sorted(out.iterdir())] == [f'{i:05d}.png' for i in range(8, 12)]
    assert len(list((folder / 'painted').rglob('*.png'))) == 4


def test_a_run_resumes_after_its_last_checkpoint(two_stages):
    folder, options = two_stages
    longer = [*options['seed'], 'train_cfg.max_iters=6', 'train_cfg.val_interval=6']
    told = run('tools/train.py', SEED, '--work-dir', folder / 'seed', '--resume', '--cfg-options', *longer)
    assert '6 steps in batches of 4, 4 of them are done' in told
    assert 'Iter(train) [4/' not in told and (folder / 'seed/iter_6.pth').is_file()
    assert 'Nothing is left' not in told
    told = run('tools/train.py', SEED, '--work-dir', folder / 'seed', '--resume', '--cfg-options', *longer)
    assert 'Nothing is left to train, as all 6 steps are done; raise train_cfg.max_iters to go on' in told


@pytest.mark.parametrize('tool', ['test', 'train'])
def test_a_checkpoint_of_a_part_of_the_network_is_not_measured_nor_resumed(two_stages, tool):
    folder, options = two_stages
    loaded = read_checkpoint(str(folder / 'seg/iter_4.pth'))
    weights = {key: value for key, value in loaded['state_dict'].items() if not key.startswith('decode_head.conv_seg')}
    torch.save(dict(loaded, state_dict=weights), folder / 'part.pth')
    command = [sys.executable, f'tools/{tool}.py', SEG, *([folder / 'part.pth'] if tool == 'test' else ['--resume'])]
    command += ['--work-dir', folder / f'part_{tool}', '--cfg-options', *options['seg']]
    command += [f'load_from={folder}/part.pth'] if tool == 'train' else []
    done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and 'part.pth: expected a checkpoint of the model in the config' in done.stderr
    assert 'decode_head.conv_seg.weight' in done.stderr


def test_the_baseline_goes_on_from_the_warm_up_without_aream(two_stages):
    folder, _ = two_stages
    told = (folder / 'baseline.log').read_text()
    assert '4 steps in batches of 4, 2 of them are done' in told and 'Iter(train) [2/' not in told
    assert 'loss_class' in told and 'loss_aream' not in told
    weights = [read_checkpoint(str(folder / run / 'iter_4.pth'))['state_dict'] for run in ('seed', 'baseline')]
    assert weights[0].keys() == weights[1].keys()
    changed = {key for key in weights[0] if not torch.equal(weights[0][key], weights[1][key])}
    # The gradient of AReAM reaches the transformer and what it looks at alone; its mirror images, which are seen in
    # training mode, move the statistics of the CNN.
    assert 'backbone.vit.blocks.5.attn.qkv.weight' in changed
    learnt = {key for key in changed if not key.endswith(('running_mean', 'running_var', 'num_batches_tracked'))}
    assert not any(key.startswith(('backbone.cnn.', 'head.class_map.')) for key in learnt)


def test_the_summary_gives_every_step_a_number_and_draws_them(two_stages):
    folder, options = two_stages
    out, others = folder / 'summary', [folder / 'one/masks', folder / 'other/masks', folder / 'third/one/masks']
    for number, other in enumerate(others):
        other.mkdir(parents=True)
        for i in range(8):
            Image.new('L' if number else '1', (64, 64)).save(other / f'{i:05d}.png')
        (other / 'manifest.json').write_text(json.dumps(dict(mIoU=12.34 + number, ignored=None)))
    told = run(
        *('tools/analysis/summary.py', SEED, SEG, '--seed-work-dir', folder / 'seed', '--seg-work-dir', folder / 'seg'),
        *('--baseline', BASELINE, '--baseline-work-dir', folder / 'baseline', '--masks', *others),
        *('--out', out, '--rows', 2, '--stage-2-options', options['seg'][-1], '--cfg-options', options['seed'][0]),
        *('test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False'),
    )
    rows = json.loads((out / 'summary.json').read_text())
    assert rows['one/masks (all that have a truth)'] == 12.34
    assert rows['other/masks (all that have a truth)'] == 13.34
    assert rows[f'{others[2]} (all that have a truth)'] == 14.34  # which ends as another one does
    assert len(rows) == 10 and all(0 <= value <= 100 for value in rows.values())
    assert rows['the same, at the best threshold'] >= rows['CAM masks (stage 1 test data)']
    assert str(out / 'summary.png') in told
    assert np.array(Image.open(out / 'summary.png')).std() > 10


def test_the_summary_of_other_masks_needs_none_of_stage_1(two_stages):
    folder, options = two_stages
    mask_dir = 'train_dataloader.dataset.mask_dir'
    (folder / 'third/masks').mkdir(parents=True)
    for i in range(8):
        Image.new('L', (64, 64)).save(folder / f'third/masks/{i:05d}.png')
    command = ['tools/analysis/summary.py', SEED, SEG, '--seed-work-dir', folder / 'seed', '--rows', 1]
    command += ['--seg-work-dir', folder / 'seg', '--out', folder / 'of_others', '--masks', folder / 'third/masks']
    command += ['--cfg-options', options['seed'][0], 'test_dataloader.num_workers=0']
    command += ['test_dataloader.persistent_workers=False', '--stage-2-options', f'{mask_dir}={folder}/gone']
    done = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and f'expected {folder}/third/masks/manifest.json' in done.stderr
    (folder / 'third/masks/manifest.json').write_text(json.dumps(dict(mIoU=12.34, ignored=None)))
    run(*command)
    rows = json.loads((folder / 'of_others/summary.json').read_text())
    assert rows['third/masks (all that have a truth)'] == 12.34
    assert not any('pseudo masks' in row for row in rows)


def test_the_affinity_profile_of_stage_2_is_refused(two_stages):
    folder, options = two_stages
    command = ['tools/analysis/affinity_profile.py', SEG, folder / 'seg/iter_4.pth', '--cfg-options', *options['seg']]
    done = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and 'expected one of stage 1, whose network makes CAMs, got a Refined' in done.stderr


def test_the_summary_tells_runs_of_one_config_apart_and_measures_no_part_of_a_network(two_stages):
    folder, options = two_stages
    command = ['tools/analysis/summary.py', SEED, SEG, '--seed-work-dir', folder / 'seed', '--out', folder / 'again']
    command += ['--rows', 1, '--baseline', SEED, '--stage-2-options', options['seg'][-1], '--cfg-options']
    command += [*options['seed'][:1], 'test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False']
    run(*command, '--seg-work-dir', folder / 'seg', '--baseline-work-dir', folder / 'baseline')
    rows = json.loads((folder / 'again/summary.json').read_text())
    assert f'aream_demo in {folder}/baseline, at the best threshold' in rows
    loaded = read_checkpoint(str(folder / 'seg/iter_4.pth'))
    weights = {key: value for key, value in loaded['state_dict'].items() if not key.startswith('decode_head.conv_seg')}
    (folder / 'half').mkdir()
    torch.save(dict(loaded, state_dict=weights), folder / 'half/iter_4.pth')
    (folder / 'half/last_checkpoint').write_text(str(folder / 'half/iter_4.pth'))
    for seg, baseline, message in (
        ('seg', 'seed', 'of another checkpoint than'),
        ('half', 'baseline', 'half/iter_4.pth: expected a checkpoint of the model in the config'),
    ):
        arguments = [*command, '--seg-work-dir', folder / seg, '--baseline-work-dir', folder / baseline]
        done = subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode != 0 and message in done.stderr


@pytest.mark.parametrize('stage', ['seed', 'seg'])
def test_mmsegs_inferencer_takes_the_checkpoint_of_either_stage(two_stages, stage):
    folder, options = two_stages
    cfg: Config = load_config(ROOT / (SEED if stage == 'seed' else SEG))
    cfg.visualizer.save_dir = str(folder / 'vis')
    cfg.dump(folder / f'{stage}.py')
    inferencer = MMSegInferencer(str(folder / f'{stage}.py'), str(folder / f'{stage}/iter_4.pth'))
    inferencer.show_progress = False
    photograph = str(folder / 'drawn/images/00009.jpg')
    result = inferencer(photograph, out_dir=str(folder / f'inferred_{stage}'))
    assert result['predictions'].shape == (64, 64)
    assert (folder / f'inferred_{stage}/vis/00009.jpg').is_file()


def test_testing_stage_2_writes_refined_masks_of_the_tags_when_asked(two_stages):
    folder, options = two_stages
    refine = ['model.test_cfg.refine.type=aream_mm.PAR', 'pseudo_mask_dataloader.num_workers=0']
    arguments = ['tools/test.py', SEG, folder / 'seg/iter_4.pth', '--work-dir', folder / 'seg_masks', '--pseudo-masks']
    told = run(*arguments, '--cfg-options', *options['seg'], *refine)
    assert 'Pseudo masks: 8 of 8 to write' in told
    manifest = json.loads((folder / 'seg_masks/pseudo_masks/manifest.json').read_text())
    assert manifest['settings']['refine']['type'] == 'aream_mm.PAR' and manifest['images'] == 8
    rows = csv.reader((folder / 'drawn/tags.csv').read_text().splitlines())
    tags = {name.removesuffix('.jpg'): {CLASSES.index(tag) for tag in names.split(';')} for name, names in [*rows][1:]}
    for path in (folder / 'seg_masks/pseudo_masks').glob('*.png'):
        assert set(np.unique(Image.open(path)).tolist()) <= {0, *tags[path.stem]}


def test_pseudo_masks_are_refused_where_they_cannot_be_written(two_stages, tmp_path):
    folder, options = two_stages
    cfg = load_config(ROOT / SEG, dict(data_root=f'{folder}/drawn'))  # which the command's options do not change then
    cfg.pop('pseudo_mask_dataloader')
    cfg.dump(tmp_path / 'without.py')
    for config, arguments, message in (
        (tmp_path / 'without.py', [], 'a pseudo_mask_dataloader, got neither'),
        (SEG, ['--tta'], 'without test-time augmentation, got RefinedTTAModel'),
    ):
        command = [sys.executable, 'tools/test.py', config, folder / 'seg/iter_4.pth', '--work-dir', tmp_path]
        command += ['--pseudo-masks', *arguments, '--cfg-options', *options['seg']]
        done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode != 0 and message in done.stderr


TINY = """
_base_ = 'own_photographs.py'
model = dict(
    backbone=dict(_delete_=True, type='aream_mm.AttentionViT', name='vit_tiny_patch16_224', img_size=64,
                  architecture=dict(depth=3, embed_dim=24, num_heads=3)),
    head=dict(in_channels=24, token_channels=24),
    attention_loss=dict(layer_index=1),
    test_cfg=dict(propagate_layers=(2,), scales=(1.0,)),
)
train_dataloader = dict(batch_size=6, num_workers=0, persistent_workers=False)
val_dataloader = test_dataloader = dict(num_workers=0, persistent_workers=False)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
"""


def test_stage_1_learns_true_masks_to_its_end_and_when_it_is_resumed(tmp_path, monkeypatch):
    """The true masks of two of six images hold a class that no image is tagged with, and no CAM can have."""
    own, configs = make_own(tmp_path / 'own'), shutil.copytree(ROOT / 'configs', tmp_path / 'configs')
    write_tag_table(own / 'tags.csv', {name: ['dog'] for name in NAMES})
    for path in (own / 'masks').rglob('*.png'):
        Image.new('L', (96, 80), 1).save(path)
    base = configs / '_base_/datasets/own.py'
    lines = base.read_text().replace('true_masks = None', "true_masks = 'masks'")
    base.write_text(lines.replace("data_root = 'data/own'", f'data_root = {str(own)!r}'))
    (configs / 'tiny.py').write_text(TINY)
    batches, forward = [], AReAMLoss.forward

    def recorded(loss, attended, masks):
        batches.append([mask.unique().tolist() for mask in masks])
        return forward(loss, attended, masks)

    monkeypatch.setattr(AReAMLoss, 'forward', recorded)
    for steps, resume in ((2, []), (4, ['--resume'])):
        if resume:  # in a copy of the work dir
            shutil.copytree(tmp_path / 'first', tmp_path / 'run')
            (tmp_path / 'first/iter_2.pth').write_text('of another run meanwhile')
        arguments = ['train.py', str(configs / 'tiny.py'), '--work-dir', str(tmp_path / ('run' if resume else 'first'))]
        options = [f'train_cfg.max_iters={steps}', f'train_cfg.val_interval={steps}', 'custom_hooks.0.end=1']
        options += ['custom_hooks.1.dataloader.num_workers=0']
        monkeypatch.setattr(sys, 'argv', [*arguments, *resume, '--cfg-options', *options])
        runpy.run_path(str(ROOT / 'tools/train.py'), run_name='__main__')
    *_, log = sorted((tmp_path / 'run').rglob('*.log'))
    assert '4 steps in batches of 6, 2 of them are done' in log.read_text()
    assert 'begun with, and stays what it is after 2 of 4' in log.read_text()
    assert '2 of 2 masks hold classes without a tag: 1 (cat), sub/0 (cat)' in log.read_text()
    assert len(batches) == 3  # the first step is classification alone
    for labels in batches:
        assert labels.count([1]) == 2 and all(label == [1] or 1 not in label for label in labels)
    masks = {path.relative_to(tmp_path / 'run/pseudo_masks') for path in (tmp_path / 'run/pseudo_masks').rglob('*.png')}
    assert masks == {Path(f'{sample_id}.png') for sample_id in IDS}
    manifest = json.loads((tmp_path / 'run/pseudo_masks/manifest.json').read_text())
    assert manifest['images'] == 6 and manifest['checkpoint'].endswith('iter_4.pth')

    base.write_text(base.read_text().replace("true_masks = 'masks'", 'true_masks = None'))
    for name in ('images/{}.PNG', 'masks/{}.png'):
        (own / name.format('1')).rename(own / name.format('renamed'))
    write_tag_table(own / 'tags.csv', {name.replace('1.PNG', 'renamed.PNG'): ['dog'] for name in NAMES})
    options = [
        f'load_from={tmp_path}/run/iter_4.pth',
        'train_cfg.max_iters=2',
        'train_cfg.val_interval=2',
        *options[2:],
    ]
    train = ['train.py', str(configs / 'tiny.py'), '--work-dir', str(tmp_path / 'on'), '--cfg-options', *options]
    test = ['test.py', str(configs / 'tiny.py'), str(tmp_path / 'on/iter_2.pth'), '--work-dir', str(tmp_path / 't')]
    for arguments in (train, test):
        monkeypatch.setattr(sys, 'argv', arguments)
        runpy.run_path(str(ROOT / 'tools' / arguments[0]), run_name='__main__')
    learnt = 'The network has learnt 2 of the 2 true masks that it is measured on, and is better on them than on others'
    for folder, names in (('run', '1, sub/0'), ('on', 'renamed, sub/0'), ('t', 'renamed, sub/0')):
        for log in (tmp_path / folder).rglob('*.log'):
            assert f'{learnt}: {names}' in log.read_text()
