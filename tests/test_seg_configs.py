"""Every config of stage 2 trains, bears crops of which all is ignored, predicts, and averages over sizes at test."""

from pathlib import Path

import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from options import load_config
from toy_coco import make_coco
from toy_own import make_own
from toy_voc import make_voc, write_masks

CONFIGS = Path(__file__).parents[1] / 'configs' / 'seg'
RUNS = sorted(path.stem for path in CONFIGS.glob('*.py'))
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Folders that stand for VOC, for COCO and for somebody's own photographs, of 96 × 80 pixels."""
    folder = tmp_path_factory.mktemp('data')
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_coco(folder / 'coco', monkeypatch)
    return dict(voc=make_voc(folder / 'voc'), coco=folder / 'coco', own=make_own(folder / 'own'))


def small(stem, data, folder):
    """The config over toy data and masks that are there, with crops and test images of three patches."""
    kind = 'own' if stem.startswith('own') else 'coco' if stem.endswith('_coco') else 'voc'
    cfg = load_config(CONFIGS / f'{stem}.py', dict(data_root=str(data[kind])))
    init_default_scope(cfg.default_scope)
    images = DATASETS.build(cfg.train_dataloader.dataset.dataset)
    root = Path(images.data_prefix['img_path'])
    paths = [Path(images.get_data_info(i)['img_path']) for i in range(len(images))]
    names = [path.relative_to(root).with_suffix('').as_posix() for path in paths]
    cfg.train_dataloader.dataset.mask_dir = write_masks(folder / 'masks', names, images.metainfo['classes'])
    side = 3 * cfg.model.data_preprocessor.get('test_cfg', dict(size_divisor=16))['size_divisor']
    cfg.model.data_preprocessor.size = (side, side)
    for step in (*cfg.train_dataloader.dataset.pipeline, *cfg.test_dataloader.dataset.pipeline):
        if step.type == 'RandomCrop':
            step.crop_size = (side, side)
        elif 'Resize' in step.type:
            step.scale = (2 * side, side)
    return cfg


def gradients_of(model, batch):
    """The loss, and all gradients in one vector."""
    model.zero_grad()
    total, _ = model.parse_losses(model(**batch, mode='loss'))
    total.backward()
    return total.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize('stem', RUNS)
def test_a_config_trains_and_bears_ignored_crops_and_predicts(stem, data, tmp_path):
    cfg = small(stem, data, tmp_path)
    model = MODELS.build(cfg.model)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    batch = model.data_preprocessor(pseudo_collate([dataset[1], dataset[2]]), training=True)
    loss, gradients = gradients_of(model, batch)
    assert 0 < loss < float('inf') and gradients.isfinite().all() and gradients.any()
    for sample in batch['data_samples']:
        sample.gt_sem_seg.data.fill_(255)
    loss, gradients = gradients_of(model, batch)
    assert loss == 0 and not gradients.any()
    tests = DATASETS.build(cfg.test_dataloader.dataset)
    model.eval()
    with torch.no_grad():
        (result,) = model.test_step(pseudo_collate([tests[0]]))
    assert result.pred_sem_seg.data.shape[-2:] == (80, 96)
    assert len(result.seg_logits.data) == len(dataset.metainfo['classes']) == model.out_channels


@pytest.mark.parametrize('path', [*CONFIGS.glob('*.py'), CONFIGS.parent / 'demo/deeplabv3plus_demo.py'], ids=str)
def test_the_images_that_a_config_writes_masks_of_are_those_it_is_trained_on(path):
    cfg = load_config(path)
    trained, written = cfg.train_dataloader.dataset, cfg.pseudo_mask_dataloader.dataset
    assert {**trained.dataset, 'data_prefix': None} == {**written.dataset, 'data_prefix': None}
    assert written.tag_file.startswith(f'{cfg.data_root}/') and written.test_mode
    assert written.get('drop_untagged', False) == trained.get('drop_unmasked', False)
    sizes = [
        [step for step in steps if step.type == 'Resize']
        for steps in (written.pipeline, cfg.test_dataloader.dataset.pipeline)
    ]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize('stem', RUNS)
def test_a_config_averages_its_losses_over_what_is_not_ignored(stem):
    model = load_config(CONFIGS / f'{stem}.py').model
    heads = [head for head in (model.decode_head, model.get('auxiliary_head')) if head]
    assert all(head.loss_decode.avg_non_ignore for head in heads)


@pytest.mark.parametrize('stem', RUNS)
def test_a_config_makes_checkpoints_that_are_safe_and_a_schedule_that_ends_with_the_training(stem):
    cfg = load_config(CONFIGS / f'{stem}.py')
    assert cfg.default_hooks.checkpoint.type == 'aream_mm.SafeCheckpointHook'
    assert cfg.default_hooks.checkpoint.by_epoch is False
    assert {'aream_mm.RandomStateHook', 'aream_mm.InvalidLossHook'} < {hook.type for hook in cfg.default_hooks.values()}
    last = cfg.param_scheduler[-1] if isinstance(cfg.param_scheduler, list) else cfg.param_scheduler
    assert last.get('end', cfg.train_cfg.max_iters) == cfg.train_cfg.max_iters


@pytest.mark.parametrize('stem', RUNS)
def test_test_time_augmentation_has_six_scales_and_the_mirror_images(stem, data, tmp_path):
    cfg = small(stem, data, tmp_path)
    packed = DATASETS.build(dict(cfg.test_dataloader.dataset, pipeline=cfg.tta_pipeline))[0]
    widths = [image.shape[-1] for image in packed['inputs']]
    assert widths == [width for ratio in SCALES for width in [pytest.approx(ratio * widths[4], abs=1)] * 2]
    assert [sample.get('flip', False) for sample in packed['data_samples']] == 6 * [False, True]
    assert cfg.tta_model.type == 'aream_mm.RefinedTTAModel' and cfg.model.type == 'aream_mm.RefinedEncoderDecoder'


def test_a_vit_is_averaged_over_padded_images_at_every_scale(data, tmp_path):
    cfg = small('upernet_dinov2-s_voc', data, tmp_path)
    model = MODELS.build(dict(cfg.tta_model, module=cfg.model)).eval()
    packed = DATASETS.build(dict(cfg.test_dataloader.dataset, pipeline=cfg.tta_pipeline))[0]
    with torch.no_grad():
        (result,) = model.test_step(pseudo_collate([packed]))
    assert result.pred_sem_seg.data.shape[-2:] == (80, 96)


def test_weights_of_a_vit_that_lack_some_are_refused(tmp_path):
    backbone = dict(
        type='aream_mm.TimmCNN',
        name='vit_tiny_patch16_224',
        out_indices=(1,),
        architecture=dict(img_size=64, depth=2, embed_dim=24, num_heads=3, dynamic_img_size=True),
    )
    vit = MODELS.build(backbone)
    weights = {key.removeprefix('model.'): value for key, value in vit.cnn.state_dict().items()}
    torch.save(weights, tmp_path / 'whole.pth')
    weights.pop('blocks.1.attn.qkv.weight')
    torch.save(weights, tmp_path / 'part.pth')
    other = MODELS.build(dict(backbone, pretrained=str(tmp_path / 'whole.pth')))
    other.init_weights()
    assert all(torch.equal(value, vit.state_dict()[key]) for key, value in other.state_dict().items())
    with pytest.raises(ValueError, match='part.pth: expected weights of .*1 lack'):
        MODELS.build(dict(backbone, pretrained=str(tmp_path / 'part.pth'))).init_weights()
