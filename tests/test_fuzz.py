"""Broken and hostile inputs: tests/proofs/fuzz.py in short, and each failure that it has found."""

import importlib.util
import io
import json
import os
import pickle
import struct
import sys
import tarfile
import zipfile
import zlib
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner, load_checkpoint
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image
from tag_sources import read_tags
from toy_coco import box, run_converter, write_annotations
from toy_own import CLASSES, make_own, own_config
from toy_voc import make_voc, voc_config, write_masks

from aream_mm.checkpoint import load_fitting_checkpoint, read_checkpoint
from aream_mm.datasets import ImageTagDataset, PhotographDataset, PseudoMaskDataset
from aream_mm.datasets.images import damage, find_images, open_image, read_header
from aream_mm.datasets.tags import load_tag_file
from aream_mm.registry import MODELS

ROOT = Path(__file__).parents[1]
HUB = dict(log_scalars={}, runtime_info={}, resumed_keys={})


def module_at(path: str):
    """A script of the repository, imported."""
    spec = importlib.util.spec_from_file_location(f'tested_{Path(path).stem}', ROOT / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def own(tmp_path):
    return make_own(tmp_path / 'own')


@pytest.fixture
def voc(tmp_path):
    return make_voc(tmp_path / 'voc')


def test_two_hundred_broken_inputs_load_or_are_refused_by_name():
    fuzz = module_at('tests/proofs/fuzz.py')
    cases = fuzz.cases_of(220)
    outcomes = fuzz.fuzz(cases, seed=0, limit=60, told=lambda: None)
    assert {name for name, _ in cases} == set(fuzz.KINDS)
    assert [(case, o.what, o.why) for case, o in zip(cases, outcomes, strict=True) if o.verdict == 'failed'] == []
    assert {o.verdict for o in outcomes} == {'loaded', 'refused'}


def test_the_fuzzer_sees_code_that_runs_a_name_that_is_missing_and_a_file_elsewhere(tmp_path):
    fuzz = module_at('tests/proofs/fuzz.py')
    wrong = {
        'code': lambda box: fuzz.CANARY.touch(),
        'elsewhere': lambda box: (box.parent / 'x').write_text('x'),
        'nameless': lambda box: json.loads('{'),
        'other': lambda box: {}['x'],
        'crash': lambda box: os.abort(),
        'hang': lambda box: os.read(os.pipe()[0], 1),
    }
    for name, enter in wrong.items():
        fuzz.KINDS[name] = lambda rng, box, enter=enter: fuzz.Case('', lambda: enter(box), ('bad',))
    outcomes = fuzz.fuzz([(name, 0) for name in wrong], seed=0, limit=2, told=lambda: None)
    expected = ['forbidden', 'forbidden', 'not named', 'KeyError', 'ended with', 'no end after 2 s']
    assert [o.verdict for o in outcomes] == ['failed'] * len(wrong)
    assert all(part in o.why for part, o in zip(expected, outcomes, strict=True)), outcomes


# Images


def test_a_pipe_in_the_place_of_an_image_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'x.jpg')
    assert read_header(str(tmp_path / 'x.jpg')) is None
    assert 'x.jpg' in damage(str(tmp_path / 'x.jpg'))
    os.mkfifo(tmp_path / 'tags.csv')
    with pytest.raises(FileNotFoundError, match='tags.csv'):
        read_tags(tmp_path / 'tags.csv')
    (tmp_path / 'Annotations').mkdir()
    (tmp_path / 'Annotations/good.xml').write_text('<annotation/>')
    os.mkfifo(tmp_path / 'Annotations/x.xml')
    with pytest.raises(ValueError, match='x.xml .no file'):
        read_tags(tmp_path / 'Annotations')


def test_a_format_that_pillow_starts_a_program_for_is_no_image(tmp_path):
    Image.new('L', (8, 8)).save(tmp_path / 'x.png', format='EPS')
    with pytest.raises(OSError, match='cannot identify'):
        open_image(tmp_path / 'x.png')


def test_a_header_that_pillow_raises_for_is_no_image(tmp_path):
    image = io.BytesIO()
    Image.new('RGB', (8, 8)).save(image, format='PNG')
    content = b'zTXtk\0\0' + zlib.compress(b'x' * 10**7)
    chunk = struct.pack('>I', len(content) - 4) + content + struct.pack('>I', zlib.crc32(content))
    (tmp_path / 'x.png').write_bytes(image.getvalue()[:33] + chunk + image.getvalue()[33:])
    assert read_header(str(tmp_path / 'x.png')) is None


def test_damage_without_a_text_is_damage(tmp_path, monkeypatch):
    Image.new('RGB', (8, 8)).save(tmp_path / 'x.png')

    def fail(path, flag):
        raise MemoryError

    monkeypatch.setattr('mmcv.imread', fail)
    assert damage(str(tmp_path / 'x.png')) == 'MemoryError'


def test_links_that_lead_in_a_circle_are_named(own):
    (own / 'images/sub/up').symlink_to('..')
    with pytest.raises(ValueError, match='expected each folder once, got .*images and .*images/sub/up'):
        find_images(own / 'images')


def test_a_linked_folder_is_read_and_a_link_that_leads_nowhere_is_an_image_that_cannot_be(own, tmp_path):
    Path(own / 'images/sub').rename(tmp_path / 'elsewhere')
    (own / 'images/sub').symlink_to(tmp_path / 'elsewhere')
    assert 'sub/deep/4.tif' in find_images(own / 'images')[0]
    (own / 'images/gone.jpg').symlink_to('nowhere')
    with pytest.raises(ValueError, match='expected a readable file .* missing for 1: .*gone.jpg'):
        ImageTagDataset(own_config(own), str(own / 'tags.csv'))


# Masks


def bomb(path: Path) -> None:
    """A PNG of 100,000 × 100,000 pixels that has no data."""
    chunks = ((b'IHDR', struct.pack('>IIBBBBB', 10**5, 10**5, 8, 0, 0, 0, 0)), (b'IDAT', zlib.compress(b'')))
    content = b'\x89PNG\r\n\x1a\n'
    for name, data in chunks:
        content += struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))
    path.write_bytes(content)


def test_a_mask_that_is_a_bomb_is_named(tmp_path):
    bomb(tmp_path / 'x.png')
    with pytest.raises(ValueError, match='x.png .Image size .* exceeds'):
        read_tags(tmp_path, ['cat'])
    assert module_at('tools/converters/voc.py').read_mask(tmp_path / 'x.png') is None


def test_a_broken_mask_that_tags_are_made_from_is_named(voc):
    path = voc / 'SegmentationClass/2007_000001.png'
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match='a mask that can be read to its end for .*2007_000001.png'):
        ImageTagDataset(voc_config(voc))


@pytest.mark.parametrize('content', [b'{', b'[]', b'3', b'{}', b'\xff', b'[' * 100_000])
def test_a_broken_manifest_is_named(voc, tmp_path, content):
    folder = Path(write_masks(tmp_path / 'masks', [], CLASSES))
    (folder / 'manifest.json').write_bytes(content)
    with pytest.raises(ValueError, match='manifest.json: expected JSON with the classes'):
        PseudoMaskDataset(voc_config(voc), str(folder), pipeline=[LoadAnnotations()])


# Lists and tables


@pytest.mark.parametrize('name', ['../secret', '/somewhere/secret'])
def test_an_id_that_leads_out_of_the_folder_is_refused(voc, name):
    Image.new('RGB', (8, 8)).save(voc / 'secret.jpg')
    (voc / 'ImageSets/Segmentation/train.txt').write_text(f'2007_000000\n{name}\n')
    with pytest.raises(ValueError, match='train.txt: expected a file below .* missing for 1: .*secret.jpg'):
        ImageTagDataset(voc_config(voc), str(voc / 'cls_labels.npy'))


@pytest.mark.parametrize(('content', 'message'), [(b'', 'expected images, got none'), (b'\xff\xfe', 'in UTF-8')])
def test_a_list_without_ids_or_of_another_encoding_is_named(voc, own, content, message):
    (voc / 'ImageSets/Segmentation/train.txt').write_bytes(content)
    with pytest.raises(ValueError, match=f'train.txt: .*{message}'):
        ImageTagDataset(voc_config(voc), str(voc / 'cls_labels.npy'))
    (own / 'list.txt').write_bytes(b'\xff')
    with pytest.raises(ValueError, match='list.txt: expected a text in UTF-8'):
        PhotographDataset(**{key: v for key, v in own_config(own, ann_file='list.txt').items() if key != 'type'})


@pytest.mark.parametrize('name', ['x.json', 'x.jsonl'])
def test_json_that_is_too_deep_is_named(tmp_path, name):
    (tmp_path / name).write_text('[' * 100_000)
    with pytest.raises(ValueError, match=name):
        read_tags(tmp_path / name)


def test_the_chart_of_thousands_of_classes_shows_the_most_frequent(tmp_path):
    tags = module_at('tools/converters/tags.py')
    tags.BARS = 3
    many = tags.draw({'x' * 1000 + str(i): i + 1 for i in range(2000)})
    assert Image.open(io.BytesIO(many)).height < 1000


class Code:
    """Pickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_a_tag_file_with_a_broken_header_or_of_code_is_named_and_not_run(tmp_path):
    path = tmp_path / 'x.npy'
    header = b"{'descr': '|O', 'shape': ((((((((,".ljust(117) + b'\n'
    path.write_bytes(b'\x93NUMPY\1\0' + struct.pack('<H', len(header)) + header)
    with pytest.raises(ValueError, match='x.npy.: expected a dict'):
        load_tag_file(path)
    np.save(path, {'a': Code(tmp_path / 'canary')})
    with pytest.raises(ValueError, match='x.npy.: expected a dict .*does not belong in a file of data'):
        load_tag_file(path)
    assert not (tmp_path / 'canary').exists()


def test_tags_that_are_no_tags_are_named(tmp_path):
    np.save(tmp_path / 'x.npy', {'good': np.array([0, 1]), 'bad': np.array([np.nan, 1])})
    with pytest.raises(ValueError, match='x.npy: expected 0 or 1 for each class, not so for 1: bad'):
        load_tag_file(tmp_path / 'x.npy', CLASSES)


# Converters


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(file_name='../../x.jpg'), 'expected file names such as .*got 1 otherwise: .*x.jpg'),
        (dict(file_name='/etc/x.jpg'), 'expected file names such as .*got 1 otherwise: .*x.jpg'),
        (dict(file_name=None), 'expected images with id, file_name, width, height; got 1 otherwise'),
        (dict(id='1'), 'expected images with id, file_name, width, height; got 1 otherwise'),
        (dict(id=2), 'expected a id of its own|expected annotations of the images|an id of its own'),
        (dict(width=10**9), 'expected images of 1 to 67108864 pixels; got 1 otherwise: 1000000000 × 80'),
        (dict(width=0), 'expected images of 1 to'),
    ],
)
def test_hostile_coco_images_are_refused_and_nothing_is_written(tmp_path, monkeypatch, change, message):
    path = write_annotations(tmp_path, 'train2014', [[dict(category_id=1, segmentation=box(1, 1, 9, 9))], []])
    content = json.loads(path.read_text())
    next(image for image in content['images'] if image['id'] == 1).update(change)
    path.write_text(json.dumps(content))
    before = set(tmp_path.rglob('*'))
    with pytest.raises(ValueError, match=f'instances_train2014.json: .*({message})'):
        run_converter(monkeypatch, tmp_path, '--splits', 'train2014')
    assert set(tmp_path.rglob('*')) == before


@pytest.mark.parametrize(
    ('segmentation', 'message'),
    [
        ([[1, 2, 3]], 'a polygon of 3 coordinates'),
        ([[2, 2, 9, 1e308, 9, 9]], 'a coordinate of 1e.308'),
        ([[2, 2, 9, float('nan'), 9, 9]], 'a coordinate of nan'),
        (dict(counts=[-5, 80 * 96 + 5], size=[80, 96]), 'the shortest of -5'),
    ],
)
def test_a_region_that_cannot_be_painted_is_named_with_its_mask(tmp_path, monkeypatch, segmentation, message):
    write_annotations(tmp_path, 'train2014', [[dict(category_id=1, segmentation=segmentation)]])
    mask = 'masks/train2014/COCO_train2014_000000000001.png'
    with pytest.raises(ValueError, match=f'{mask}: annotation 0 of image 1: .*{message}'):
        run_converter(monkeypatch, tmp_path, '--splits', 'train2014')


@pytest.fixture
def sbd(voc):
    folder = voc.parent / 'sbd'
    (folder / 'cls').mkdir(parents=True)
    (folder / 'train.txt').write_text('new\n')
    (folder / 'val.txt').write_text('')
    (voc / 'ImageSets/Segmentation/trainaug.txt').unlink()
    (folder / 'cls/new.mat').write_bytes(b'x')
    return folder


def test_ids_of_the_sbd_that_lead_elsewhere_are_refused(voc, sbd):
    (sbd / 'train.txt').write_text('new\n../../x\n')
    with pytest.raises(ValueError, match=r"sbd: expected ids such as .*, got 1: '\.\./\.\./x'"):
        module_at('tools/converters/voc.py').build_train_aug(voc, sbd)


def test_a_file_of_the_sbd_that_ends_the_process_is_named(voc, sbd, monkeypatch):
    tool = module_at('tools/converters/voc.py')
    monkeypatch.setattr(tool, 'loadmat', lambda path: os.abort())
    with pytest.raises(ValueError, match='got such as end the process: 1: .*cls/new.mat'):
        tool.build_train_aug(voc, sbd)


# Checkpoints


def saved(path: Path, **content) -> str:
    torch.save(content, path)
    return str(path)


@pytest.fixture
def linear():
    return torch.nn.Linear(2, 2)


def test_what_mmengine_writes_is_read_with_its_logs_and_numbers(tmp_path, linear):
    scalars = {'loss': HistoryBuffer([1.0, 3.0], [1, 1])}
    hub = dict(log_scalars=scalars, runtime_info=dict(loss=np.float64(2)), resumed_keys={})
    path = saved(tmp_path / 'x.pth', state_dict=linear.state_dict(), message_hub=hub, meta=dict(epoch=1, iter=2))
    loaded = load_fitting_checkpoint(linear, path, resume=True, strict=False)['message_hub']
    assert loaded['log_scalars']['loss'].statistics('mean') == 2
    assert loaded['runtime_info'] == dict(loss=2)


def test_arrays_that_numpy_1_has_written_are_read(tmp_path):
    new = saved(tmp_path / 'new.pth', state_dict={}, loss=np.float32(2), array=np.arange(3))
    with zipfile.ZipFile(new) as source, zipfile.ZipFile(tmp_path / 'old.pth', 'w') as target:
        for name in source.namelist():
            target.writestr(name, source.read(name).replace(b'cnumpy._core.', b'cnumpy.core.'))
    for name in ('new.pth', 'old.pth'):
        loaded = read_checkpoint(str(tmp_path / name))
        assert (loaded['loss'], loaded['array'].tolist()) == (2, [0, 1, 2])
    assert b'cnumpy.core.' in (tmp_path / 'old.pth').read_bytes()


def test_no_code_in_a_checkpoint_is_run_by_our_loading_or_by_mmengines(tmp_path, linear):
    canary = tmp_path / 'canary'
    for name, place in (('a', dict(meta=dict(x=Code(canary)))), ('b', dict(optimizer=Code(canary)))):
        path = saved(tmp_path / f'{name}.pth', state_dict=linear.state_dict(), **place)
        for load in (load_fitting_checkpoint, load_checkpoint):
            with pytest.raises(ValueError, match=rf'{name}.pth: expected a checkpoint of tensors'):
                load(linear, path)
    (tmp_path / 'c.pth').write_bytes(pickle.dumps(Code(canary)))
    with pytest.raises(ValueError, match='c.pth: expected a checkpoint of tensors'):
        read_checkpoint(str(tmp_path / 'c.pth'))
    assert not canary.exists()


def test_no_code_in_a_checkpoint_from_an_address_is_run(tmp_path, monkeypatch, linear):
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    (tmp_path / 'web').mkdir()
    saved(tmp_path / 'web/good.pth', state_dict=linear.state_dict())
    saved(tmp_path / 'web/bad.pth', state_dict=linear.state_dict(), x=Code(tmp_path / 'canary'))
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / 'web')
    with ThreadingHTTPServer(('localhost', 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f'http://localhost:{server.server_port}'
        load_fitting_checkpoint(linear, f'{address}/good.pth', strict=False)
        with pytest.raises(ValueError, match='bad.pth: expected a checkpoint of tensors'):
            load_checkpoint(linear, f'{address}/bad.pth')
        with pytest.raises(ValueError, match='none.pth: expected a checkpoint .*404'):
            read_checkpoint(f'{address}/none.pth')
        server.shutdown()
    assert not (tmp_path / 'canary').exists()


def test_a_checkpoint_gets_hold_of_no_other_attributes_than_those_of_the_logs(tmp_path):
    class Attribute:
        def __reduce__(self):
            return getattr, (HistoryBuffer, '__init__')

    with pytest.raises(ValueError, match='x.pth: .*does not belong in a file of data'):
        read_checkpoint(saved(tmp_path / 'x.pth', x=Attribute()))


def test_a_checkpoint_changes_no_class_or_function(tmp_path):
    state = pickle.dumps((None, dict(current=1)), 2)[2:-1]
    (tmp_path / 'x.pth').write_bytes(b'\x80\x02cmmengine.logging.history_buffer\nHistoryBuffer\n' + state + b'b.')
    with pytest.raises(ValueError, match='x.pth: .*a state of <class .type.> does not belong in a file of data'):
        read_checkpoint(str(tmp_path / 'x.pth'))
    assert callable(HistoryBuffer.current)


def test_archives_that_torch_would_unpack_or_give_to_an_interpreter_are_refused(tmp_path):
    (tmp_path / 'storages').write_bytes(b'x')
    with tarfile.open(tmp_path / 'tar.pth', 'w') as archive:
        archive.add(tmp_path / 'storages', 'storages')
    with zipfile.ZipFile(tmp_path / 'script.pth', 'w') as archive:
        for name in ('data.pkl', 'constants.pkl', 'version'):
            archive.writestr(f'script/{name}', b'3')
    for name, what in (('tar', 'an archive'), ('script', 'TorchScript archive')):
        with pytest.raises(ValueError, match=f'{name}.pth: expected a checkpoint of tensors.*{what}'):
            read_checkpoint(str(tmp_path / f'{name}.pth'))


@pytest.mark.parametrize('new_format', [True, False])
def test_data_of_all_sorts_is_read(tmp_path, new_format):
    tensors = dict(a=torch.ones(2, dtype=torch.bfloat16), b=torch.nn.Parameter(torch.ones(1)), c=torch.ones(3)[1:])
    others = dict(size=torch.Size([1]), dtype=torch.float16, device=torch.device('cpu'), set={1}, bytes=b'x')
    counts = dict(milestones=Counter([1, 2]), truth=np.bool_(True), numbers=np.arange(3.0))
    if new_format:
        tensors['d'] = torch.ones(2, dtype=getattr(torch, 'uint16', torch.int16))  # torch 2.1 has none
    torch.save(dict(tensors | others | counts), tmp_path / 'x.pth', _use_new_zipfile_serialization=new_format)
    loaded = read_checkpoint(str(tmp_path / 'x.pth'))
    for key, value in tensors.items():
        assert torch.equal(loaded[key], value) and loaded[key].dtype == value.dtype
    assert {key: loaded[key] for key in others} == others
    assert loaded['milestones'] == counts['milestones'] and loaded['truth'] and loaded['numbers'].tolist() == [0, 1, 2]


def test_the_config_in_a_checkpoint_is_not_run_when_a_run_resumes(tmp_path, own, linear):
    canary = tmp_path / 'canary'
    meta = dict(epoch=1, iter=1, config=f'open({str(canary)!r}, "w")')
    path = saved(tmp_path / 'x.pth', state_dict=linear.state_dict(), meta=meta, message_hub=HUB)
    assert 'config' not in read_checkpoint(path)['meta']
    runner = Runner(
        torch.nn.Sequential(),
        str(tmp_path / 'work_dir'),
        train_dataloader=dict(dataset=own_config(own), sampler=dict(type='DefaultSampler'), batch_size=1),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_scope='mmseg',
        experiment_name='resumes',
    )
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.resume(path, resume_optimizer=False, resume_param_scheduler=False, map_location='cpu')
    assert runner.iter == 1
    assert not canary.exists()


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (dict(state_dict=None), 'expected a dict as state_dict, got NoneType'),
        (dict(state_dict={}, meta=[1]), 'expected a dict as meta, got list'),
        (dict(state_dict={'weight': 3}), 'expected tensors, 1 are none: weight'),
        (dict(state_dict={3: torch.ones(1)}), 'expected weights of the model'),
        (dict(state_dict={'bias': torch.tensor([1, torch.nan])}), 'expected numbers as weights, 1 tensors hold NaN'),
        (dict(state_dict={'bias': torch.ones(2)}), 'expected a checkpoint to resume from'),
        (dict(state_dict={'bias': torch.ones(2)}, meta=dict(epoch='x', iter=1), message_hub=HUB), 'got {.epoch.: .x'),
        (
            dict(
                state_dict={'bias': torch.ones(2)}, meta=dict(epoch=1, iter=1), message_hub={**HUB, 'log_scalars': [1]}
            ),
            r"missing: \['log_scalars'\]",
        ),
    ],
)
def test_a_checkpoint_with_something_else_in_its_place_is_named(tmp_path, linear, content, message):
    with pytest.raises(ValueError, match=rf'x.pth: .*{message}'):
        load_fitting_checkpoint(linear, saved(tmp_path / 'x.pth', **content), resume=True, strict=False)


@pytest.mark.parametrize('content', [b'', b'no checkpoint', b'PK\3\4'])
def test_a_file_that_is_no_checkpoint_is_named_by_every_tool(tmp_path, monkeypatch, content):
    (tmp_path / 'x.pth').write_bytes(content)
    monkeypatch.setattr(sys, 'argv', ['authors_checkpoint.py', str(tmp_path / 'x.pth'), str(tmp_path / 'out.pth')])
    with pytest.raises(ValueError, match='x.pth: expected a checkpoint of tensors'):
        module_at('tools/converters/authors_checkpoint.py').main()
    with pytest.raises(FileNotFoundError, match='nowhere.pth: expected a checkpoint, got no file'):
        read_checkpoint(str(tmp_path / 'nowhere.pth'))


def test_a_checkpoint_of_another_program_than_the_authors_is_named(tmp_path, monkeypatch):
    path = saved(tmp_path / 'x.pth', model={'head.weight': torch.ones(3)})
    monkeypatch.setattr(sys, 'argv', ['authors_checkpoint.py', path, str(tmp_path / 'out.pth')])
    with pytest.raises(ValueError, match='x.pth: expected a MCTformer-V2 checkpoint'):
        module_at('tools/converters/authors_checkpoint.py').main()


def test_a_checkpoint_whose_classes_have_another_order_is_not_loaded(toy_config, converted_checkpoint, tmp_path):
    meta, file = dict(dataset_meta=dict(classes=list('abcde'))), str(tmp_path / 'other.pth')
    torch.save(dict(torch.load(converted_checkpoint), meta=meta), file)
    model = MODELS.build(toy_config)
    with pytest.raises(ValueError, match="other.pth: .*id 0 .* expected 'b', got 'a'"):
        load_fitting_checkpoint(model, file, classes=list('bacde'))
    assert load_fitting_checkpoint(model, file, classes=list('abcde'))['meta'] == meta
