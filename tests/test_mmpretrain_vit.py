"""The converter of ViT weights: features stay what they are in timm, mmpretrain, mmseg and from stage 1 to stage 2."""

import runpy
import subprocess
import sys
from pathlib import Path

import mmpretrain.models  # noqa: F401 fills the registry
import pytest
import timm
import torch
from mmengine.runner import CheckpointLoader, save_checkpoint
from mmpretrain.registry import MODELS as MMPRETRAIN
from mmseg.models.backbones import VisionTransformer
from options import load_config
from test_fuzz import Code
from test_vit import scramble
from torch.testing import assert_close

from aream_mm.models import AttentionViT
from aream_mm.registry import MODELS

ROOT = Path(__file__).parents[1]
CONVERTER = ROOT / 'tools/converters/mmpretrain_vit.py'
SMALL = dict(embed_dim=24, depth=3, num_heads=3)
close = dict(rtol=1e-4, atol=5e-5)
NAMES = [
    'deit_tiny_patch16_224',
    'vit_small_patch14_dinov2',  # LayerScale
    'vit_base_patch16_clip_224',  # a norm in front of the layers
    'deit3_small_patch16_224',  # no position embedding on the class token
]
each_kind = pytest.mark.parametrize('name', NAMES)


def convert(src, dst, program):
    """What the command line does, without a process for each."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sys, 'argv', list(map(str, [CONVERTER, src, dst, '--to', program])))
        runpy.run_path(str(CONVERTER), run_name='__main__')


def timm_vit(name):
    patch = 14 if 'patch14' in name else 16
    return scramble(timm.create_model(name, num_classes=7, img_size=4 * patch, **SMALL)), patch


@each_kind
def test_mmpretrain_has_timms_features_and_the_way_back_timms_weights(name, tmp_path):
    theirs, patch = timm_vit(name)
    torch.save(theirs.state_dict(), tmp_path / 'timm.pth')
    convert(tmp_path / 'timm.pth', tmp_path / 'mmpretrain.pth', 'mmpretrain')
    arch = dict(embed_dims=24, num_layers=3, num_heads=3, feedforward_channels=96)
    clip = 'clip' in name
    norm = dict(type='LN', eps=theirs.norm.eps)
    options = dict(pre_norm=clip, layer_scale_init_value=1e-5 * ('ls1.gamma' in str(theirs.state_dict().keys())))
    config = dict(
        type='mmpretrain.VisionTransformer', arch=arch, img_size=4 * patch, patch_size=patch, out_type='raw', **options
    )
    vit = MMPRETRAIN.build(dict(config, norm_cfg=norm))
    vit.eval()  # returns nothing
    weights = CheckpointLoader.load_checkpoint(str(tmp_path / 'mmpretrain.pth'))['state_dict']
    vit.load_state_dict(weights)
    images = torch.rand(2, 3, 4 * patch, 4 * patch)
    with torch.no_grad():
        assert_close(vit(images)[0], theirs.forward_features(images), **close)

    save_checkpoint(dict(state_dict={f'backbone.{k}': v for k, v in weights.items()}), str(tmp_path / 'backbone.pth'))
    convert(tmp_path / 'backbone.pth', tmp_path / 'back.pth', 'timm')
    back = torch.load(tmp_path / 'back.pth', weights_only=True)['state_dict']
    own = {key: value for key, value in theirs.state_dict().items() if not key.startswith('head.')}
    assert back.keys() == own.keys()
    assert all(torch.equal(back[key], own[key]) for key in own.keys() - {'pos_embed'})
    assert torch.equal(back['pos_embed'][:, -16:], own['pos_embed'][:, -16:])


def test_attention_vit_reads_the_weights_of_mmpretrain(tmp_path):
    arch = dict(embed_dims=24, num_layers=3, num_heads=3, feedforward_channels=96)
    vit = MMPRETRAIN.build(
        dict(type='mmpretrain.VisionTransformer', arch=arch, img_size=64, out_type='raw', final_norm=False)
    )
    scramble(vit)
    save_checkpoint(dict(state_dict=vit.state_dict()), str(tmp_path / 'mmpretrain.pth'))
    convert(tmp_path / 'mmpretrain.pth', tmp_path / 'timm.pth', 'timm')
    path = str(tmp_path / 'timm.pth')
    ours = AttentionViT('deit_tiny_patch16_224', pretrained=path, img_size=64, architecture=SMALL).eval()
    ours.init_weights()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = vit(ours.normalize(images))[0]
        assert_close(ours(images).features.flatten(2).transpose(1, 2), expected[:, 1:], **close)


def mmseg_vit(name, patch, path):
    vit = VisionTransformer(
        img_size=4 * patch, patch_size=patch, embed_dims=24, num_layers=3, num_heads=3, pre_norm='clip' in name,
        patch_bias='clip' not in name, norm_cfg=dict(type='LN', eps=1e-5 if 'clip' in name else 1e-6),
        init_cfg=dict(type='Pretrained', checkpoint=str(path)),
    )  # fmt: skip
    vit.init_weights()
    vit.eval()
    return vit


@each_kind
def test_stage_2_starts_with_the_tokens_of_stage_1(name, tmp_path):
    patch = 14 if 'patch14' in name else 16
    backbone = dict(type='aream_mm.AttentionViT', name=name, img_size=4 * patch, architecture=SMALL)
    head = dict(type='aream_mm.CAMHead', num_classes=5, in_channels=24, token_channels=24)
    model = scramble(MODELS.build(dict(type='aream_mm.CAMSegmentor', backbone=backbone, head=head)))
    save_checkpoint(dict(state_dict=model.state_dict(), meta=dict(epoch=1)), str(tmp_path / 'stage_1.pth'))
    convert(tmp_path / 'stage_1.pth', tmp_path / 'vit.pth', 'mmseg')
    vit, images = mmseg_vit(name, patch, tmp_path / 'vit.pth'), torch.rand(2, 3, 4 * patch, 4 * patch)
    weights = CheckpointLoader.load_checkpoint(str(tmp_path / 'vit.pth'))['state_dict']
    assert vit.state_dict().keys() == weights.keys()
    with torch.no_grad():
        assert_close(vit(model.backbone.normalize(images))[0], model.backbone(images).features, **close)


def test_several_class_tokens_become_their_mean(tmp_path):
    ours = scramble(AttentionViT('deit_tiny_patch16_224', num_class_tokens=5, img_size=64, architecture=SMALL))
    torch.save({f'backbone.vit.{key}': value for key, value in ours.state_dict().items()}, tmp_path / 'dual.pth')
    convert(tmp_path / 'dual.pth', tmp_path / 'vit.pth', 'mmseg')
    vit = mmseg_vit('deit', 16, tmp_path / 'vit.pth')
    assert_close(vit.cls_token[0, 0] + vit.pos_embed[0, 0], (ours.class_tokens + ours.class_pos_embed)[0].mean(dim=0))
    assert torch.equal(vit.pos_embed[:, 1:], ours.pos_embed)


def test_the_position_embedding_of_an_oblong_grid_belongs_to_the_patches_alone(tmp_path):
    ours = scramble(AttentionViT('deit_tiny_patch16_224', img_size=(48, 80), architecture=SMALL))
    torch.save(ours.state_dict(), tmp_path / 'ours.pth')
    convert(tmp_path / 'ours.pth', tmp_path / 'vit.pth', 'timm')
    again = AttentionViT(
        'deit_tiny_patch16_224', img_size=(48, 80), architecture=SMALL, pretrained=str(tmp_path / 'vit.pth')
    )
    again.init_weights()
    for key, value in ours.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_a_file_of_code_is_refused_and_not_run(tmp_path):
    """In a process of its own: here, other tests have made mmengine's loading safe."""
    torch.save(dict(state_dict=Code(tmp_path / 'canary')), tmp_path / 'code.pth')
    command = [sys.executable, CONVERTER, tmp_path / 'code.pth', tmp_path / 'out.pth', '--to', 'timm']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and 'code.pth: expected a checkpoint of tensors' in done.stderr
    assert not (tmp_path / 'canary').exists() and not (tmp_path / 'out.pth').exists()


@pytest.mark.parametrize('lost', ['pos_embed', 'blocks.0.mlp.fc1.weight'])
def test_a_vit_that_lacks_weights_is_refused_by_name(lost, tmp_path, capsys):
    weights = timm_vit('deit_tiny_patch16_224')[0].state_dict()
    torch.save({key: value for key, value in weights.items() if key != lost}, tmp_path / 'part.pth')
    with pytest.raises(SystemExit):
        convert(tmp_path / 'part.pth', tmp_path / 'out.pth', 'mmseg')
    assert f"part.pth: expected a ViT with a class token, missing: ['{lost}']" in capsys.readouterr().err


@pytest.mark.parametrize(
    ('name', 'options', 'message'),
    [
        ('vit_small_patch14_reg4_dinov2', {}, "got ['reg_token'"),
        ('vit_base_patch16_siglip_224', {}, 'expected a ViT with a class token'),
        ('vit_tiny_patch16_224', dict(qk_norm=True), "got ['blocks.0.attn.q_norm.weight'"),
        ('vit_giant_patch14_dinov2', {}, 'expected an MLP of two plain layers, got shapes (128, 24) and (24, 64)'),
        ('test_resnet', None, 'expected one ViT in the weights, got 0'),
    ],
)
def test_weights_without_a_counterpart_are_refused_by_name(name, options, message, tmp_path, capsys):
    arguments = {} if options is None else SMALL | options
    torch.save(timm.create_model(name, **arguments).state_dict(), tmp_path / 'other.pth')
    with pytest.raises(SystemExit):
        convert(tmp_path / 'other.pth', tmp_path / 'out.pth', 'mmseg')
    told = capsys.readouterr().err
    assert 'other.pth: ' in told and message in told and not (tmp_path / 'out.pth').exists()


def test_the_config_of_stage_2_names_the_file_and_fits_the_weights_of_stage_1():
    cfg = load_config(ROOT / 'configs/seg/segmenter_deit-s_voc.py')
    stage_1 = load_config(ROOT / 'configs/aream_vit_voc.py')
    assert cfg.model.pretrained == 'work_dirs/aream_vit_voc/vit.pth'
    ours = AttentionViT(stage_1.model.backbone.name)
    assert_close(torch.tensor(cfg.model.data_preprocessor.mean) / 255, ours.normalize.mean.flatten())
    assert_close(torch.tensor(cfg.model.data_preprocessor.std) / 255, ours.normalize.std.flatten())
    backbone = dict(cfg.model.backbone)
    assert backbone.pop('type') == 'VisionTransformer'
    vit = VisionTransformer(**backbone)
    assert vit.patch_embed.projection.bias is not None
    assert len(vit.layers) == ours.num_layers and vit.layers[0].ln1.eps == ours.blocks[0].norm1.eps
