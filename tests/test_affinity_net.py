"""AffinityNet and the random walk, against loops over pairs and dense matrices, and from training to masks."""

import json
import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from PIL import Image
from tag_table import write_tag_table
from torch.testing import assert_close
from toy_own import CLASSES, own_config

from aream_mm.engine import PseudoMaskHook
from aream_mm.models import affinity_net
from aream_mm.models.affinity_net import pair_sums, transition, walk
from aream_mm.models.segmentor import PlacedCAM, RawCAM
from aream_mm.registry import MODELS

PREPROCESSOR = dict(type='mmseg.SegDataPreProcessor', mean=[0] * 3, std=[255] * 3, bgr_to_rgb=True, seg_pad_val=255)
NET = dict(
    type='aream_mm.AffinityNet',
    data_preprocessor=dict(PREPROCESSOR, size=(96, 96)),
    backbone=dict(type='aream_mm.TimmCNN', name='test_convnext', out_indices=(0, 1, 2)),
    in_channels=(24, 32, 48),
    channels=(8, 8, 8),
)
RESNET = dict(  # of mmseg, dilated; it pads, and so takes images of any size
    backbone=dict(
        type='mmseg.ResNet',
        depth=18,
        base_channels=8,
        out_indices=(1, 2, 3),
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
    ),
    in_channels=(16, 32, 64),
)


def build_net(**changes):
    init_default_scope('mmseg')
    return MODELS.build({**NET, **changes})


def samples_of(masks):
    return [SegDataSample(gt_sem_seg=PixelData(data=mask[None])) for mask in masks]


# The loss


def pairs_of(height, width, radius):
    cells = [(y, x) for y in range(height) for x in range(width)]
    return [(a, b) for i, a in enumerate(cells) for b in cells[i + 1 :] if math.dist(a, b) < radius]


def loop_terms(features, labels, radius):
    """The values of each kind of pair, in a loop over all pairs of the batch."""
    kinds = [[], [], []]
    for feature, label in zip(features, labels, strict=True):
        for one, other in pairs_of(*label.shape, radius):
            first, second = int(label[one]), int(label[other])
            if 255 in (first, second):
                continue
            affinity = math.exp(-sum(abs(float(f[one]) - float(f[other])) for f in feature))
            if first != second:
                kinds[2].append(-math.log(1 - affinity / (1 + 1e-5)))
            else:
                kinds[int(first > 0)].append(-math.log(affinity))
    return kinds


@pytest.mark.parametrize(('size', 'radius'), [((6, 7), 3), ((6, 7), 5), ((2, 9), 5), ((3, 2), 2.5)])
def test_the_sums_are_those_of_a_loop_over_pairs(size, radius):
    features = torch.randn(2, 3, *size, dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 2, 255])[torch.randint(5, (2, *size))]
    sums, counts = pair_sums(features, labels, radius)
    kinds = loop_terms(features, labels, radius)
    assert counts.tolist() == [len(kind) for kind in kinds] and min(counts) > 0
    assert_close(sums, torch.tensor([sum(kind) for kind in kinds], dtype=torch.float64))


def test_the_loss_weighs_the_means_of_the_three_kinds():
    net, images = build_net(), torch.rand(2, 3, 40, 52)
    masks = torch.tensor([0, 1, 2, 255])[torch.randint(4, (2, 5, 7))]
    masks = masks.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)[..., :52]  # the cells, 8 × 8 pixels
    losses = net(images, samples_of(masks), mode='loss')
    with torch.no_grad():
        kinds = loop_terms(net(images), masks[:, ::8, ::8], 5)
    expected = dict(loss_background=1, loss_foreground=1, loss_negative=2)
    for (name, weight), kind in zip(expected.items(), kinds, strict=True):
        assert_close(losses[name].item(), weight * np.mean(kind), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('mask', 'kinds'),
    [
        (torch.full((32, 32), 255), []),
        (torch.zeros(32, 32, dtype=torch.long), ['loss_background']),
        (torch.full((32, 32), 2), ['loss_foreground']),
    ],
)
def test_a_kind_without_pairs_counts_zero_and_every_loss_has_a_gradient(mask, kinds):
    net = build_net()
    losses = net(torch.rand(1, 3, 32, 32), samples_of([mask]), mode='loss')
    assert [name for name, loss in losses.items() if loss > 0] == kinds
    total, _ = net.parse_losses(losses)
    total.backward()
    gradients = [weight.grad for weight in net.parameters()]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients) == bool(kinds)


def test_an_image_of_a_single_cell_has_no_pair():
    losses = build_net(**RESNET).eval()(torch.rand(1, 3, 8, 8), samples_of([torch.ones(8, 8).long()]), mode='loss')
    assert sum(losses.values()) == 0


def test_equal_features_of_two_classes_have_a_finite_loss_and_gradient():
    features = torch.zeros(1, 2, 2, 2, requires_grad=True)
    sums, counts = pair_sums(features, torch.tensor([[[0, 0], [1, 1]]]), 2)
    assert_close(sums, torch.tensor([0, 0, 4 * -math.log(1 - 1 / (1 + 1e-5))]), rtol=1e-2, atol=0)
    sums.sum().backward()
    assert features.grad.isfinite().all()


def test_ignored_cells_get_no_gradient():
    features = torch.randn(1, 4, 6, 6, requires_grad=True)
    labels = torch.randint(3, (1, 6, 6))
    labels[0, 2:4, 1:5] = 255
    pair_sums(features, labels, 3)[0].sum().backward()
    moved = features.grad.abs().sum(dim=1) > 0
    assert torch.equal(moved, labels != 255)


def test_the_gradient_reaches_every_level_of_the_backbone():
    net = build_net()
    masks = torch.zeros(2, 48, 48).long()
    masks[:, 20:, 10:] = 1
    total, _ = net.parse_losses(net(torch.rand(2, 3, 48, 48), samples_of(masks), mode='loss'))
    total.backward()
    assert all(gradient.any() for gradient in (weight.grad for weight in net.backbone.parameters()))


def test_processes_that_divide_by_the_pairs_of_all_train_the_loss_of_all(monkeypatch):
    net, images = build_net(), torch.rand(2, 3, 48, 48)
    masks = torch.zeros(2, 48, 48).long()
    masks[1, 10:20] = 1  # the first image has background alone
    whole = net(images, samples_of(masks), mode='loss')
    pairs = pair_sums(net(images).detach(), masks[:, 4::8, 4::8], net.radius)[1]
    monkeypatch.setattr(affinity_net, 'all_reduce', lambda counts: counts.copy_(pairs))
    monkeypatch.setattr(affinity_net, 'get_world_size', lambda: 2)
    parts = [net(images[i : i + 1], samples_of(masks[i : i + 1]), mode='loss') for i in range(2)]
    for name, loss in whole.items():
        assert loss > 0
        assert_close((parts[0][name] + parts[1][name]) / 2, loss, rtol=1e-4, atol=1e-6)


def test_a_network_of_mmseg_serves_and_images_of_any_size_have_cells_of_eight_pixels():
    net = build_net(**RESNET).eval()
    for (height, width), cells in {(37, 81): (5, 11), (64, 64): (8, 8), (5, 3): (1, 1)}.items():
        assert net(torch.rand(1, 3, height, width)).shape == (1, 24, *cells)


def test_a_backbone_of_other_levels_is_explained():
    net = build_net(backbone=dict(NET['backbone'], out_indices=(1, 2)))
    with pytest.raises(ValueError, match='expected a backbone of 3 levels, as in_channels has them, got 2'):
        net(torch.rand(1, 3, 32, 32))


# The walk


def dense_transition(feature, radius, beta):
    height, width = feature.shape[-2:]
    matrix = torch.eye(height * width, dtype=torch.float64)
    for one, other in pairs_of(height, width, radius):
        distance = float((feature[:, one[0], one[1]] - feature[:, other[0], other[1]]).abs().sum())
        i, j = one[0] * width + one[1], other[0] * width + other[1]
        matrix[i, j] = matrix[j, i] = math.exp(-distance) ** beta
    return matrix / matrix.sum(dim=1, keepdim=True)


@pytest.mark.parametrize(('size', 'radius'), [((5, 8), 3), ((7, 6), 5), ((1, 4), 5), ((1, 1), 5)])
def test_sparse_equals_dense_and_rows_sum_to_one(size, radius):
    features = torch.rand(2, 3, *size, dtype=torch.float64) / 4
    planes = torch.rand(2, 4, *size, dtype=torch.float64)
    matrices = transition(features, radius, 3.0)
    dense = [dense_transition(feature, radius, 3.0) for feature in features]
    for matrix, expected in zip(matrices, dense, strict=True):
        assert_close(matrix.to_dense(), expected)
        assert_close(matrix.to_dense().sum(dim=1), torch.ones(math.prod(size), dtype=torch.float64))
    for steps in (0, 1, 7):
        walked = [torch.linalg.matrix_power(matrix, steps) @ p.flatten(1).T for matrix, p in zip(dense, planes)]  # noqa: B905
        assert_close(walk(planes, matrices, steps).flatten(2).transpose(1, 2), torch.stack(walked))


def test_one_step_over_equal_features_spreads_a_cell_over_the_disc_around_it():
    planes = torch.zeros(1, 1, 15, 15)
    planes[0, 0, 7, 7] = 1
    walked = walk(planes, transition(torch.zeros(1, 2, 15, 15), 5, 8.0), 1)[0, 0]
    y, x = torch.meshgrid(torch.arange(15) - 7, torch.arange(15) - 7, indexing='ij')
    assert torch.equal(walked > 0, y**2 + x**2 < 25)
    assert_close(walked[7, 7], torch.tensor(1 / 69))  # cells in the disc


def test_a_long_walk_ends_in_one_value_for_each_region_and_regions_do_not_mix():
    features, planes = torch.zeros(1, 2, 8, 10), torch.rand(1, 3, 8, 10)
    features[..., 4:] = 100
    (matrix,) = transition(features, 5, 8.0)
    walked = walk(planes, [matrix], 2000)
    number = (matrix.to_dense() > 0).sum(dim=1).view(8, 10)  # a cell weighs as many as it has neighbours
    for region in (slice(0, 4), slice(4, 10)):
        weighed = planes[..., region] * number[:, region]
        mean = weighed.sum(dim=(-2, -1)) / number[:, region].sum()
        assert_close(walked[..., region], mean[..., None, None].expand(-1, -1, *walked[..., region].shape[-2:]))


# The refiner


@pytest.fixture
def make_walk(tmp_path):
    """make_walk(net config changes, walk arguments): a RandomWalk with random weights, read from a file."""

    def make(net=(), **arguments):
        net, checkpoint = {**NET, **dict(net)}, str(tmp_path / 'affinity_net.pth')
        torch.save(dict(state_dict=build_net(**net).state_dict()), checkpoint)
        return MODELS.build({**dict(type='aream_mm.RandomWalk', net=net, checkpoint=checkpoint), **arguments}).eval()

    return make


@pytest.mark.parametrize('size', [(40, 56), (37, 53), (5, 3)])
def test_planes_of_any_size_keep_their_sum_and_their_zeros(make_walk, size):
    planes = torch.rand(2, 4, *size).softmax(dim=1)
    planes[1] = torch.cat([planes[1, :3].softmax(dim=0), torch.zeros(1, *size)])
    walked = make_walk(RESNET)(torch.rand(2, 3, *size), planes)
    assert walked.shape == planes.shape
    assert_close(walked.sum(dim=1), torch.ones(2, *size), rtol=1e-4, atol=0)
    assert not walked[1, 3].any() and walked.min() >= 0


def test_no_steps_change_nothing_but_the_resolution(make_walk):
    images, blocks = torch.rand(1, 3, 32, 48), torch.rand(1, 2, 4, 6)
    walked = make_walk(steps=0)(images, blocks.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3))
    expected = torch.nn.functional.interpolate(blocks, (32, 48), mode='bilinear', align_corners=False)
    assert_close(walked, expected)
    planes = torch.rand(1, 2, 1, 1).expand(-1, -1, 32, 48)
    assert_close(make_walk()(images, planes), planes)


def test_images_of_a_batch_and_their_planes_are_independent(make_walk):
    refiner, images, planes = make_walk(), torch.rand(3, 3, 24, 40), torch.rand(3, 4, 24, 40)
    assert_close(refiner(images[1:2], planes[1:2, 2:3]), refiner(images, planes)[1:2, 2:3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('bgr_to_rgb', [True, False])
def test_the_network_sees_images_as_in_training(make_walk, bgr_to_rgb):
    preprocessor = dict(PREPROCESSOR, mean=[120, 110, 100], std=[60, 50, 40], bgr_to_rgb=bgr_to_rgb)
    refiner, seen = make_walk(dict(data_preprocessor=preprocessor)), []
    loaded = torch.randint(256, (3, 16, 24), dtype=torch.uint8)  # BGR, as a pipeline loads it
    trained_on = refiner.net.data_preprocessor(dict(inputs=[loaded]))['inputs']
    refiner.net.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    refiner(loaded[None].flip(1) / 255, torch.rand(1, 2, 16, 24))
    assert_close(seen[0], trained_on, rtol=0, atol=1e-4)


def test_a_walk_that_is_moved_takes_its_preprocessor_along(make_walk, monkeypatch):
    monkeypatch.setattr(affinity_net, 'transition', lambda f, *_: [torch.eye(24, device=f.device)])  # values are needed
    monkeypatch.setattr(torch, 'autocast', lambda *_, **__: nullcontext())  # which knows no such device
    walked = make_walk().to('meta')(torch.rand(1, 3, 32, 48, device='meta'), torch.rand(1, 2, 32, 48, device='meta'))
    assert walked.device.type == 'meta'


def test_a_checkpoint_that_is_missing_or_of_another_net_is_named_and_so_is_another_network(make_walk, tmp_path):
    with pytest.raises(FileNotFoundError, match='nothing.pth: expected a checkpoint, got no file'):
        make_walk(checkpoint=str(tmp_path / 'nothing.pth'))
    torch.save(dict(state_dict=build_net(channels=(8, 8, 9)).state_dict()), tmp_path / 'other.pth')
    with pytest.raises(ValueError, match='other.pth: expected the weights of the model in the config'):
        make_walk(checkpoint=str(tmp_path / 'other.pth'))
    with pytest.raises(ValueError, match='RandomWalk: expected an AffinityNet as net, got TimmCNN'):
        MODELS.build(dict(type='aream_mm.RandomWalk', net=NET['backbone'], checkpoint='unread.pth'))


@pytest.mark.parametrize('arguments', [dict(beta=0), dict(steps=-1)])
def test_numbers_out_of_range_are_refused(make_walk, arguments):
    with pytest.raises(ValueError, match='RandomWalk.(beta: expected a number above 0|steps: expected a whole number)'):
        make_walk(**arguments)


# From training to masks

COLOURS = np.array([(60, 60, 60), (220, 60, 40), (40, 80, 220)])
SIDE, IMAGES = 96, 8


def draw_rectangles(root):
    """Images of a red cat or a blue dog, a rectangle in noise, with masks; and masks whose borders are doubtful."""
    rng, tags = np.random.default_rng(0), {}
    for folder in ('images', 'masks', 'band'):
        (root / folder).mkdir(parents=True)
    for i in range(IMAGES):
        (top, left), (height, width), c = rng.integers(8, 32, 2), rng.integers(32, 56, 2), 1 + i % 2
        mask, band = np.zeros((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE), np.uint8)
        mask[top : top + height, left : left + width] = c
        band[top - 6 : top + height + 6, left - 6 : left + width + 6] = 255
        band[top + 6 : top + height - 6, left + 6 : left + width - 6] = c
        image = np.clip(COLOURS[mask] + rng.normal(0, 12, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
        for folder, array in (('images', image), ('masks', mask), ('band', band)):
            Image.fromarray(array).save(root / folder / f'{i}.png')
        tags[f'{i}.png'] = [CLASSES[c]]
    write_tag_table(root / 'tags.csv', tags)
    (root / 'band/manifest.json').write_text(json.dumps(dict(classes=list(CLASSES))))


def run_config(root, **changes):
    """AffinityNet on the doubtful masks."""
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    masks = dict(type='aream_mm.PseudoMaskDataset', dataset=own_config(root), mask_dir=str(root / 'band'))
    return Config(
        dict(
            default_scope='mmseg',
            work_dir=str(root / 'affinity_net'),
            model=NET,
            train_dataloader=dict(
                batch_size=4,
                num_workers=0,
                sampler=dict(type='InfiniteSampler', shuffle=True),
                dataset=dict(masks, pipeline=[*load, dict(type='RandomFlip', prob=0.5), dict(type='PackSegInputs')]),
            ),
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=3e-3)),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=60),
            default_hooks=dict(checkpoint=dict(type='aream_mm.SafeCheckpointHook', by_epoch=False, interval=60)),
            custom_hooks=[dict(type='aream_mm.InvalidLossHook')],
            randomness=dict(seed=0),
            log_level='WARNING',
            **changes,
        )
    )


def poor_cam(images, *_, **__):
    """In place of a trained network: CAMs of 16 pixels a side that know a third of each rectangle, by its colour."""
    colours = torch.tensor(COLOURS[1:] / 255, dtype=torch.float32).view(1, 2, 3, 1, 1)
    is_class = ((images[:, None] - colours).abs().amax(dim=2) < 0.25).float()  # (B, 2, H, W)
    cells = torch.nn.functional.avg_pool2d(is_class, 16)
    generator = torch.Generator().manual_seed(0)
    cells = cells * (torch.rand(cells.shape, generator=generator) < 1 / 3)
    size = tuple(images.shape[-2:])
    return RawCAM([PlacedCAM(cells, size, size)], cells, is_class.amax(dim=(2, 3)))


def test_a_trained_walk_repairs_masks_and_other_weights_write_them_anew(tmp_path, toy_config):
    draw_rectangles(tmp_path)
    runner = Runner.from_cfg(run_config(tmp_path))
    losses, loss = [], runner.model.loss
    runner.model.loss = lambda *args: losses.append(loss(*args)) or losses[-1]
    runner.train()
    assert set(losses[0]) == {'loss_background', 'loss_foreground', 'loss_negative'}
    assert sum(losses[-1].values()) < sum(losses[0].values()) / 2

    toy_config['head']['num_classes'] = toy_config['backbone']['num_class_tokens'] = 2
    toy_config['data_preprocessor'] = dict(PREPROCESSOR, size_divisor=1)
    segmentor = MODELS.build(toy_config)
    segmentor.raw_cam = poor_cam
    before = set(segmentor.state_dict())
    runner.model = segmentor
    tagged = dict(type='aream_mm.ImageTagDataset', dataset=own_config(tmp_path), tag_file=str(tmp_path / 'tags.csv'))
    load = [dict(type='LoadImageFromFile'), dict(type='aream_mm.PackTagInputs')]
    loader = dict(
        batch_size=4,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
        dataset=dict(tagged, pipeline=load, test_mode=True),
    )
    checkpoint = tmp_path / 'affinity_net/iter_60.pth'
    refine = dict(type='aream_mm.RandomWalk', net=NET, checkpoint=str(checkpoint))

    def write(name, **test_cfg):
        hook = PseudoMaskHook(loader, str(tmp_path / name), test_cfg=test_cfg)
        hook.before_train(runner)
        hook.write(runner, 'some.pth')
        return json.loads((tmp_path / name / 'manifest.json').read_text())

    plain = write('plain', background=0.2)
    walked = write('walked', background=0.2, refine=refine)
    assert walked['mIoU'] > plain['mIoU'] + 10
    assert set(segmentor.state_dict()) == before  # the refiner's weights stay outside

    doubtful = write('doubtful', band=(0.15, 0.25), refine=refine)
    assert 0 < doubtful['ignored'] < 50 and doubtful['mIoU'] > walked['mIoU'] - 10

    weights = torch.load(checkpoint, weights_only=False)
    weights['state_dict']['projection.weight'] *= 0
    torch.save(weights, checkpoint)
    other = write('walked', background=0.2, refine=refine)
    assert other['weights'] != walked['weights'] and other['mIoU'] < walked['mIoU']
