"""Stage 2 as an ONNX file: what onnxruntime answers is what PyTorch does, whatever the size of the photograph."""

import json
import sys

import export_onnx
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from options import load_config
from PIL import Image
from predict import load_model
from test_seg_configs import CONFIGS
from toy_own import CLASSES, make_own

for library in ('onnx', 'onnxscript', 'onnxruntime'):
    onnxruntime = pytest.importorskip(library, reason="needs the extra 'export'")


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Data, and the config and checkpoint of stage 2 on photographs, whose weights tell the classes apart."""
    data = make_own(tmp_path_factory.mktemp('data mit Übung'))
    cfg = load_config(CONFIGS / 'own_photographs.py', dict(data_root=str(data)))
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.decode_head.conv_seg.weight.data.mul_(100)
    palette = [[0, 0, 0], [255, 0, 0], [0, 255, 0]]
    meta = dict(dataset_meta=dict(classes=CLASSES, palette=palette))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), data / 'iter_1.pth')
    return data


def run(monkeypatch, data, *arguments):
    config, out = CONFIGS / 'own_photographs.py', data / 'out.onnx'
    out.unlink(missing_ok=True)
    options = ['--cfg-options', f'data_root={data}']
    monkeypatch.setattr(
        sys, 'argv', ['export_onnx.py', str(config), f'{data}/iter_1.pth', str(out), *options, *arguments]
    )
    export_onnx.main()
    return out


def test_the_file_answers_as_pytorch_for_photographs_of_any_size(checkpoint, monkeypatch, capsys, tmp_path):
    file = run(monkeypatch, checkpoint)
    assert 'probabilities differ by at most' in capsys.readouterr().out
    session = onnxruntime.InferenceSession(file)
    meta = session.get_modelmeta().custom_metadata_map
    assert json.loads(meta['classes']) == list(CLASSES) and 'value_range' not in meta
    assert json.loads(meta['palette']) == [[0, 0, 0], [255, 0, 0], [0, 255, 0]]
    cfg = load_config(CONFIGS / 'own_photographs.py', dict(data_root=str(checkpoint)))
    model = load_model(cfg, str(checkpoint / 'iter_1.pth')).cpu()
    from mmengine.dataset import Compose, pseudo_collate

    pipeline = Compose(export_onnx.steps_of(cfg)[0])
    random = np.random.default_rng(0)
    for width, height in ((96, 80), (61, 143), (700, 333)):
        blocks = random.integers(0, 255, (7, 5, 3)).astype(np.uint8)
        image = Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC)
        image.save(tmp_path / 'a.png')
        with torch.no_grad():
            (result,) = model.test_step(pseudo_collate([pipeline(dict(img_path=str(tmp_path / 'a.png')))]))
        mask, probabilities = session.run(None, dict(photograph=np.asarray(image)))
        expected = result.seg_logits.data.softmax(dim=0).numpy()
        assert mask.shape == (height, width) and mask.dtype == np.uint8
        assert np.array_equal(mask, probabilities.argmax(axis=0))
        assert np.abs(probabilities - expected).max() < 0.05
        assert (mask != expected.argmax(axis=0)).mean() < 0.005
        assert len(np.unique(mask)) > 1


def test_the_file_tells_how_values_of_more_than_8_bits_become_bytes(checkpoint, monkeypatch, capsys, tmp_path):
    values = np.random.default_rng(0).integers(0, 4096, (64, 64)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / 'deep.png')
    options = ['--photograph', str(tmp_path / 'deep.png'), '--cfg-options', 'value_range=(0,4095)']
    file = run(monkeypatch, checkpoint, *options)
    assert 'to be scaled first, 0 to 0 and 4095 to 255; ' in capsys.readouterr().out
    meta = onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map
    assert json.loads(meta['value_range']) == [0, 4095]


def test_a_pool_is_torchs_adaptive_average():
    for size, shape in ((3, (10, 7)), ((2, 5), (6, 11)), (6, (4, 9))):
        x = torch.rand(2, 3, *shape)
        assert torch.allclose(export_onnx.Pool(size)(x), torch.nn.AdaptiveAvgPool2d(size)(x), atol=1e-6)


def test_what_cannot_be_exported_is_refused_by_name(checkpoint, monkeypatch, capsys):
    with pytest.raises(ValueError, match='model.test_cfg.refine: expected None'):
        run(monkeypatch, checkpoint, '--cfg-options', 'model.test_cfg.refine.type=aream_mm.PAR')
    monkeypatch.setattr(torch.onnx, 'export', lambda *a, **k: 1 / 0)
    with pytest.raises(ValueError, match='expected a network that can be exported, got TimmCNN and DepthwiseSeparable'):
        run(monkeypatch, checkpoint)
    with pytest.raises(ValueError, match='expected one Resize with scale and keep_ratio=True'):
        export_onnx.steps_of(load_config(CONFIGS / 'own_photographs.py', {'small_test_pipeline.1.keep_ratio': False}))
    assert not (checkpoint / 'out.onnx').exists()


def test_another_ending_or_a_file_that_is_there_is_refused(checkpoint, monkeypatch, capsys):
    for out in ('out.pth', 'iter_1.pth'):
        monkeypatch.setattr(sys, 'argv', ['x', str(CONFIGS / 'own_photographs.py'), 'a.pth', str(checkpoint / out)])
        with pytest.raises(SystemExit):
            export_onnx.main()
        assert 'expected the name of a new file that ends in .onnx' in capsys.readouterr().err
