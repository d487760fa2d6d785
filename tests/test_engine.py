"""The hooks on a small Runner: what is written, what is kept, and when AReAM takes part."""

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner, autocast
from mmseg.evaluation import IoUMetric
from PIL import Image
from toy_voc import ANIMALS, make_voc, voc_config

from aream_mm.datasets import PseudoMaskDataset
from aream_mm.engine.pseudo_masks import PseudoMaskHook
from aream_mm.engine.training import WarmUpHook
from aream_mm.files import write_atomically

LOAD = dict(type='LoadImageFromFile')
PACK = dict(type='aream_mm.PackTagInputs')
PAR = dict(type='aream_mm.PAR')


def run_config(root, work_dir, **changes):
    """A stage 1 run of two epochs of two iterations, the first of them warm-up."""
    metainfo = dict(metainfo=dict(classes=ANIMALS))
    tagged = dict(
        type='aream_mm.ImageTagDataset', dataset=voc_config(root, **metainfo), tag_file=f'{root}/cls_labels.npy'
    )
    resize = dict(type='Resize', scale=(64, 64))
    in_order = dict(type='DefaultSampler', shuffle=False, round_up=False)
    mask_loader = dict(
        batch_size=1, num_workers=0, sampler=in_order, dataset=dict(tagged, pipeline=[LOAD, PACK], test_mode=True)
    )
    vit = dict(embed_dim=24, depth=3, num_heads=3)
    cfg = dict(
        default_scope='mmseg',
        work_dir=str(work_dir),
        model=dict(
            type='aream_mm.CAMSegmentor',
            data_preprocessor=dict(
                type='SegDataPreProcessor', mean=[0] * 3, std=[255] * 3, bgr_to_rgb=True, size_divisor=1
            ),
            backbone=dict(
                type='aream_mm.AttentionViT',
                name='vit_tiny_patch16_224',
                img_size=64,
                num_class_tokens=6,
                architecture=vit,
            ),
            head=dict(type='aream_mm.CAMHead', num_classes=6, in_channels=24),
            attention_loss=dict(type='aream_mm.AReAMLoss', layer_index=1),
        ),
        train_dataloader=dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=True),
            dataset=dict(tagged, pipeline=[LOAD, resize, PACK]),
        ),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        custom_hooks=[
            dict(type='aream_mm.WarmUpHook', end=1),
            dict(type='aream_mm.PseudoMaskHook', dataloader=mask_loader, test_cfg=dict(refine=PAR)),
        ],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
        randomness=dict(seed=0),
        log_level='WARNING',
    )
    cfg = Config(cfg)
    cfg.merge_from_dict(changes)
    return cfg


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A finished run: its data root, work dir, model and the losses of every iteration."""
    folder = tmp_path_factory.mktemp('run')
    root = make_voc(folder / 'voc')
    runner = Runner.from_cfg(run_config(root, folder / 'work'))
    losses = []
    loss = runner.model.loss
    runner.model.loss = lambda *args: losses.append(loss(*args)) or losses[-1]
    runner.train()
    return root, folder / 'work', runner, losses


def test_the_loss_of_aream_starts_after_the_warm_up(finished):
    keys = [sorted(losses) for losses in finished[3]]
    assert keys[:2] == [['loss_class', 'loss_patch']] * 2
    assert keys[2:] == [['loss_aream', 'loss_class', 'loss_patch']] * 2


@pytest.mark.parametrize(('end', 'warned'), [(4, False), (5, True), (6, True)])
@pytest.mark.parametrize('by_epoch', [False, True])
def test_a_warm_up_that_outlasts_the_training_is_told(end, warned, by_epoch):
    told = []
    logger, model = SimpleNamespace(warning=told.append), SimpleNamespace(attention_loss=object())
    lengths = dict(max_epochs=5, max_iters=50) if by_epoch else dict(max_epochs=1, max_iters=5)
    WarmUpHook(end, by_epoch).before_train(SimpleNamespace(logger=logger, model=model, **lengths))
    assert [f'warm-up of {end} ' in text for text in told] == [True] * warned


def test_one_palette_mask_is_written_per_image_with_ids_of_its_tags(finished):
    root, work_dir, runner, _ = finished
    dataset = hook_of(runner).dataset
    files = sorted(path.name for path in (work_dir / 'pseudo_masks').iterdir())
    assert files == [f'2007_{i:06d}.png' for i in range(4)] + ['manifest.json']
    for i in range(4):
        mask = Image.open(work_dir / f'pseudo_masks/2007_{i:06d}.png')
        assert mask.mode == 'P' and mask.size == (96, 80)
        tags = dataset.get_data_info(i)['gt_score'].nonzero()[0] + 1
        assert set(np.unique(np.array(mask)).tolist()) <= {0, *tags.tolist()}
        assert mask.getpalette()[3 * 255 :] == [224, 224, 192]


def hook_of(runner):
    return next(hook for hook in runner.hooks if isinstance(hook, PseudoMaskHook))


def test_the_manifest_gives_the_miou_of_the_files(finished):
    root, work_dir, runner, _ = finished
    manifest = json.loads((work_dir / 'pseudo_masks/manifest.json').read_text())
    areas = []
    for i in range(4):
        truth = np.array(Image.open(root / f'SegmentationClass/2007_{i:06d}.png')).astype(np.int64)
        mapped = np.full_like(truth, 255)
        for new, old in enumerate([0, 8, 10, 12, 13, 15, 17]):
            mapped[truth == old] = new
        mask = np.array(Image.open(work_dir / f'pseudo_masks/2007_{i:06d}.png')).astype(np.int64)
        areas.append(IoUMetric.intersect_and_union(torch.from_numpy(mask), torch.from_numpy(mapped), 7, 255))
    intersect, union = (sum(area[k] for area in areas) for k in (0, 1))
    assert manifest['mIoU'] == pytest.approx(100 * np.nanmean((intersect / union).numpy()), abs=0.01)
    assert manifest['images'] == 4
    assert manifest['checkpoint'] == str(work_dir / 'epoch_2.pth')
    assert manifest['classes'] == list(ANIMALS)
    assert manifest['settings']['refine'] == PAR


def count_forward_passes(runner):
    calls = []
    predict = runner.model.predict
    runner.model.predict = lambda *batch, **settings: calls.append(1) or predict(*batch, **settings)
    return calls


def test_masks_of_the_same_weights_and_settings_are_kept(finished):
    _, work_dir, runner, _ = finished
    (work_dir / 'pseudo_masks/2007_000002.png').unlink()
    (work_dir / 'pseudo_masks/manifest.json').unlink()
    calls = count_forward_passes(runner)
    hook_of(runner).write(runner, 'some.pth')
    assert len(calls) == 1
    assert (work_dir / 'pseudo_masks/manifest.json').is_file()


def written_by(runner, folder, **settings):
    """The files of a hook with these settings over the data of the run's own."""
    hook = PseudoMaskHook({**hook_of(runner).dataloader, **settings.pop('dataloader', {})}, str(folder), **settings)
    hook.before_train(runner)
    hook.write(runner, 'some.pth')
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob('*.*')}


def test_batches_of_one_size_give_what_single_images_give(finished, tmp_path):
    runner = finished[2]
    calls = count_forward_passes(runner)
    single = written_by(runner, tmp_path / 'single')
    assert len(calls) == 4
    batched = written_by(runner, tmp_path / 'batched', dataloader=dict(batch_size=3))
    assert len(calls) == 6
    single.pop('manifest.json'), batched.pop('manifest.json')
    for name, content in single.items():
        alone, together = (np.array(Image.open(io.BytesIO(c))) for c in (content, batched[name]))
        assert (alone != together).mean() < 0.001  # the last bit of a CAM depends on the size of the batch


def test_a_batch_is_done_again_as_a_whole(finished, tmp_path):
    runner = finished[2]
    first = written_by(runner, tmp_path / 'masks', dataloader=dict(batch_size=2))
    (tmp_path / 'masks/2007_000002.png').unlink()
    calls = count_forward_passes(runner)
    assert written_by(runner, tmp_path / 'masks', dataloader=dict(batch_size=2)) == first
    assert len(calls) == 1


@pytest.mark.parametrize('fp16', [False, True])
@torch.no_grad()
def test_masks_are_those_of_the_predictions_in_the_precision_asked_for(finished, tmp_path, fp16):
    runner, loader = finished[2], hook_of(finished[2]).dataloader
    files = written_by(runner, tmp_path / 'out', fp16=fp16)
    with autocast(enabled=fp16):
        predictions = [sample for batch in runner.build_dataloader(loader) for sample in runner.model.test_step(batch)]
    for prediction in predictions:
        mask = np.array(Image.open(io.BytesIO(files[f'{prediction.sample_id}.png'])))
        assert (mask == prediction.pred_sem_seg.data[0].numpy()).all()


def test_an_error_while_writing_ends_the_run(finished, tmp_path, monkeypatch):
    def full(path, content):
        if path.name == '2007_000001.png':
            raise OSError(28, 'No space left on device', str(path))
        write_atomically(path, content)

    monkeypatch.setattr('aream_mm.engine.pseudo_masks.write_atomically', full)
    with pytest.raises(OSError, match='No space left on device.*2007_000001.png'):
        written_by(finished[2], tmp_path / 'masks')
    assert not (tmp_path / 'masks/manifest.json').exists()


def test_masks_of_other_weights_are_written_anew(finished):
    _, work_dir, runner, _ = finished
    calls = count_forward_passes(runner)
    before = json.loads((work_dir / 'pseudo_masks/manifest.json').read_text())['weights']
    with torch.no_grad():
        runner.model.head.class_map.bias += 0.1
    hook_of(runner).write(runner, 'some.pth')
    assert len(calls) == 4
    assert json.loads((work_dir / 'pseudo_masks/manifest.json').read_text())['weights'] != before


def test_the_models_own_settings_return_after_writing(finished):
    assert finished[2].model.test_cfg.refine is None


def test_a_stage_1_run_resumes_where_it_was_and_out_of_the_warm_up(finished, tmp_path):
    root, work_dir, _, _ = finished
    cfg = run_config(root, tmp_path, **{'train_cfg.max_epochs': 3, 'load_from': str(work_dir / 'epoch_2.pth')})
    cfg.resume = True
    runner = Runner.from_cfg(cfg)
    losses = []
    loss = runner.model.loss
    runner.model.loss = lambda *args: losses.append(loss(*args)) or losses[-1]
    runner.train()
    assert runner.epoch == 3
    assert [sorted(loss) for loss in losses] == [['loss_aream', 'loss_class', 'loss_patch']] * 2
    assert runner.optim_wrapper.state_dict()['state'][0]['step'] == 6


def test_settings_that_do_not_exist_stop_the_run_before_training(finished, tmp_path):
    cfg = run_config(finished[0], tmp_path)
    cfg.custom_hooks[1].test_cfg = dict(backgruond=0.5)
    with pytest.raises(TypeError, match='backgruond'):
        Runner.from_cfg(cfg).train()


def test_an_image_missing_from_the_mask_loader_stops_the_run_before_training(finished, tmp_path):
    cfg = run_config(finished[0], tmp_path)
    cfg.custom_hooks[1].dataloader.dataset.dataset.ann_file = 'ImageSets/Segmentation/more.txt'
    (finished[0] / 'ImageSets/Segmentation/more.txt').write_text('2007_000000\n2099_000000\n')
    with pytest.raises(ValueError, match=r'missing for 1: .*2099_000000.jpg'):
        Runner.from_cfg(cfg).train()
    assert not list(tmp_path.glob('*.pth'))


def land_config(root, work_dir):
    """The run over the drawn images as land whose every pixel belongs to a class, what was background to one more."""
    classes = tuple('land' if name == 'background' else name for name in ANIMALS)
    cfg = run_config(root, work_dir)
    cfg.model.merge(dict(test_cfg=dict(background=None), train_cfg=dict(low=None, high=None)))
    cfg.model.backbone.num_class_tokens = cfg.model.head.num_classes = len(classes)
    inner = dict(
        type='mmseg.BaseSegDataset',
        metainfo=dict(classes=classes),
        data_root=str(root),
        data_prefix=dict(img_path='JPEGImages', seg_map_path='land'),
        ann_file='ImageSets/Segmentation/train.txt',
    )
    for loader in (cfg.train_dataloader, cfg.custom_hooks[1].dataloader):
        loader.dataset.dataset, loader.dataset.tag_file = inner, None
    return cfg, inner


def test_images_without_background_become_masks_of_their_classes_alone(finished, tmp_path):
    root = finished[0]
    (root / 'land').mkdir()
    for i in range(4):
        mask = np.array(Image.open(root / f'SegmentationClass/2007_{i:06d}.png'))
        Image.fromarray(np.uint8(np.searchsorted([0, 8, 10, 12, 13, 15, 17], mask % 255))).save(
            root / f'land/2007_{i:06d}.png'
        )
    cfg, inner = land_config(root, tmp_path)
    runner = Runner.from_cfg(cfg)
    runner.train()
    manifest = json.loads((tmp_path / 'pseudo_masks/manifest.json').read_text())
    assert manifest['classes'][0] == 'land' and 0 < manifest['mIoU'] <= 100
    dataset, covered = hook_of(runner).dataset, set()
    for i in range(4):
        ids = np.unique(Image.open(tmp_path / f'pseudo_masks/2007_{i:06d}.png')).tolist()
        assert set(ids) <= set(dataset.get_data_info(i)['gt_score'].nonzero()[0].tolist())
        covered |= set(ids)
    assert 0 in covered and len(covered) > 1
    stage_2 = PseudoMaskDataset(inner, str(tmp_path / 'pseudo_masks'), pipeline=[LOAD, dict(type='LoadAnnotations')])
    assert set(np.unique(stage_2[0]['gt_seg_map'])) <= set(range(7))


def test_a_data_set_without_background_for_a_model_with_one_is_refused_before_training(finished, tmp_path):
    cfg, _ = land_config(finished[0], tmp_path)
    cfg.model.merge(dict(test_cfg=dict(background=0.4), head=dict(num_classes=6), backbone=dict(num_class_tokens=6)))
    with pytest.raises(ValueError, match=r'expected a data set of 7 classes, with background'):
        Runner.from_cfg(cfg).train()
