"""Options of the command line take effect wherever their key is used, or are refused; their values are not mangled."""

import argparse
import inspect
import random
import shutil
from pathlib import Path

import mmengine
import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from options import ARGUMENTS, MISSING, OptionAction, Options, find, leaves, load_config, read
from packaging.version import Version

CONFIGS = Path(__file__).parents[1] / 'configs'
RUNS = sorted(path for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts)
BUILT = [name for name in inspect.signature(Runner).parameters if name != 'cfg']
OWN, OWN_SEG, ANIMALS = (
    CONFIGS / name for name in ('own_photographs.py', 'seg/own_photographs.py', 'aream_dual_animals.py')
)
imports_in_configs = pytest.mark.skipif(
    Version(mmengine.__version__) < Version('0.10.8'), reason='this mmengine takes imports in a venv for lazy ones'
)
IMAGES, MASKS = 'train_dataloader.dataset.dataset', 'custom_hooks.1.dataloader.dataset'


@pytest.fixture(autouse=True)
def bases_of_mmseg_are_found_at_once(monkeypatch):
    """mmengine reads the lists of all models of mmseg for each of its bases, more than half a second."""

    def not_among_models(package, path):
        raise ValueError

    monkeypatch.setattr('mmengine.config.config._get_external_cfg_path', not_among_models)


def typed(*arguments):
    """As the tools read them."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument('--cfg-options', nargs='+', action=OptionAction)
    return parser.parse_args(['--cfg-options', *arguments]).cfg_options


def built(cfg):
    return {name: cfg[name] for name in BUILT if name in cfg}


def other(value):
    """Another value of its kind."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return 2 * value + 1
    return f'{value}, other' if isinstance(value, str) else [*value, *value, 1]


def settings(cfg, names):
    """Keys of all that has no keys itself, but for those below a name with dots, and their values."""
    for place, _ in leaves({name: cfg[name] for name in names}):
        while place and not isinstance(find(cfg, place[:-1]), dict | Config):  # an item of a list is not set alone
            place = place[:-1]
        if place and not any('.' in part for part in place):
            yield '.'.join(place), find(cfg, place)


@pytest.mark.parametrize('path', RUNS, ids=lambda path: path.stem)
def test_a_variable_of_any_config_acts_or_is_refused(path):
    plain = Config.fromfile(path)
    draw, names = random.Random(path.stem), [name for name in plain if name not in BUILT]
    for name in draw.sample(names, min(5, len(names))):
        key, value = draw.choice(list(settings(plain, [name])) or [(name, plain[name])])
        try:
            cfg = Options(plain, {key: other(value)}, ()).config()
        except ValueError as error:
            assert key in str(error)
        else:
            assert built(cfg) != built(plain), key


@pytest.mark.parametrize('path', RUNS, ids=lambda path: path.stem)
def test_a_nested_key_of_any_config_takes_its_value_and_a_misspelt_one_is_refused(path):
    plain = Config.fromfile(path)
    keys = {key: other(value) for key, value in settings(plain, built(plain)) if key not in ARGUMENTS}
    cfg = Options(plain, keys, ()).config() if keys else plain  # a table of other configs has none
    assert {key: find(cfg, key.split('.')) for key in keys} == keys
    draw = random.Random(path.stem)
    for key in draw.sample(sorted(keys), min(2, len(keys))):
        place = draw.randrange(len(key.split('.')))
        misspelt = '.'.join(part + 'e' * (i == place) for i, part in enumerate(key.split('.')))
        with pytest.raises(ValueError, match='got one that is not|cannot be read|expected the whole of'):
            Options(plain, {misspelt: keys[key]}, ()).config()


@pytest.mark.parametrize(
    'config, options, places',
    [
        (OWN, {'max_iters': 8}, {'train_cfg.max_iters': 8, 'train_cfg.val_interval': 8, 'custom_hooks.0.end': 2}),
        (
            OWN,
            {'classes': ('background', 'owl')},
            {'model.head.num_classes': 1, f'{IMAGES}.metainfo.classes.1': 'owl', 'custom_hooks.0.end': 65},
        ),
        (OWN, {'classes': ('owl', 'eagle')}, {'model.head.num_classes': 2, 'custom_hooks.0.end': 195}),
        (OWN, {'tag_file': '/t.csv'}, {'train_dataloader.dataset.tag_file': '/t.csv', f'{MASKS}.tag_file': '/t.csv'}),
        (OWN, {'photographs.data_prefix.img_path': 'x'}, {f'{IMAGES}.data_prefix.img_path': 'x'}),
        (OWN, {'train_pipeline.5.contrast': 0.7}, {'train_dataloader.dataset.pipeline.5.contrast': 0.7}),
        (OWN, {'model.backbone.architecture.depth': 6}, {'model.backbone.architecture.depth': 6}),
        (OWN, {'pseudo_masks.test_cfg.background': 0.3}, {'custom_hooks.1.test_cfg.background': 0.3}),
        (OWN_SEG, {'mask_dir': '/m'}, {'train_dataloader.dataset.mask_dir': '/m'}),
        (OWN_SEG, {'max_iters': 2, 'train_cfg.max_iters': 2}, {'train_cfg.max_iters': 2}),
        (ANIMALS, {'max_epochs': 3}, {'train_cfg.max_epochs': 3}),
        (ANIMALS, {'train_dataloader.drop_last': False}, {'train_dataloader.drop_last': False}),
        (ANIMALS, {'model.test_cfg.refine.type': 'aream_mm.PAR'}, {'model.test_cfg.refine.type': 'aream_mm.PAR'}),
        (
            ANIMALS,
            {'optim_wrapper.optimizer': {'_delete_': True, 'type': 'SGD'}},
            {'optim_wrapper.optimizer': {'type': 'SGD'}},
        ),
    ],
)
def test_options_act_wherever_their_key_is_used(config, options, places):
    cfg = load_config(config, options)
    values = cfg.to_dict()
    for place, value in places.items():
        found = values
        for part in place.split('.'):
            found = found[int(part) if part.isdigit() else part]
        assert found == value
    assert cfg.filename == str(config) and cfg.text == Config.fromfile(config).text


@pytest.mark.parametrize(
    'config, options, words',
    [
        (OWN, {'drop_untagged': True}, 'train_dataloader.dataset.drop_untagged'),
        (OWN, {'aream.loss_weight': 0}, 'model.attention_loss.loss_weight'),
        (OWN, {'model.test_cfg.backgroud': 0.4}, 'such as model.test_cfg.background'),
        (OWN, {'model.attention_loss.loss_wieght': 0.4}, 'model.attention_loss.loss_weight'),
        (OWN, {'custom_hooks.9.end': 3}, 'cannot be read with the options custom_hooks.9.end'),
        (OWN, {'model.test_cfg.scales.0': 1}, 'expected the whole of model.test_cfg.scales'),
        (OWN, {'max_iters': 'many'}, 'cannot be read with the options max_iters: TypeError'),
        (OWN, {'resume': True}, 'as the argument --resume'),
        (
            OWN,
            {'custom_hooks': [{'type': 'aream_mm.WarmUpHook', 'edn': 3}]},
            'custom_hooks.0.edn: expected a setting that is known to act .*custom_hooks.0.end',
        ),
        (OWN_SEG, {'norm_cfg.type': 'GN'}, 'model.decode_head.norm_cfg.type'),
        (OWN, {'max_iter': 10}, 'max_iter: .* such as max_iters[,;]'),
        (OWN_SEG, {'dataroot': '/x'}, 'dataroot: .* such as data_root[,;]'),
        (OWN_SEG, {'train_dataloader': {'batchsize': 2}}, 'train_dataloader.batchsize: .* such as train_dataloader.ba'),
        (OWN_SEG, {'max_iters': 2, 'train_cfg.max_iters': 1}, 'max_iters: .* such as train_cfg.max_iters'),
        (OWN_SEG, {'model.decode_head.numclasses': 3}, 'such as model.decode_head.num_classes'),
        (OWN_SEG, {'pseudo_mask_dataloader.batch_size': 1}, 'such as '),  # of what tools/test.py alone reads
        (CONFIGS / 'affinity_net_animals.py', {'mask_dir': '/m'}, 'such as train_dataloader.dataset.mask_dir'),
        (ANIMALS, {'optim_wrapper.paramwise_cfg.custom_keys.backbone.cnn.lr_mult': 1}, 'such as '),
    ],
)
def test_options_without_effect_are_refused_with_keys_that_act(config, options, words):
    with pytest.raises(ValueError, match=words):
        load_config(config, options)


def test_a_setting_that_the_tool_reads_itself_is_taken():
    options = typed('pseudo_mask_dataloader.batch_size=1')
    assert load_config(OWN_SEG, options, ['pseudo_mask_dataloader']).pseudo_mask_dataloader.batch_size == 1


@pytest.mark.parametrize('number', range(5))
def test_a_path_is_taken_as_it_is_typed(number):
    draw = random.Random(number)
    text = '/' + ''.join(draw.choices(' ,=\'"äß[](){}.:;~#%$&@!*?+-_09aZ', k=30))
    for key in ('data_root', 'load_from', 'train_dataloader.dataset.tag_file', 'model.backbone.pretrained'):
        assert find(load_config(OWN, typed(f'{key}={text}')), key.split('.')) == text
    assert load_config(OWN, typed(f'data_root={text}')).train_dataloader.dataset.tag_file == f'{text}/tags.csv'


@pytest.mark.parametrize(
    'text, old, value',
    [
        ('3', 1, 3),
        ('1e-3', 1, 1e-3),
        ('2012', 'data/own', '2012'),
        ('0,4', 'data/own', '0,4'),
        ("'a b'", 'data/own', 'a b'),
        ('None', 'data/own', None),
        ('no', 'data/own', 'no'),
        ('no', True, False),
        ('true', MISSING, True),
        ('a b.pth', True, 'a b.pth'),
        ('a,b c', ['x'], ['a', 'b c']),
        ('1,2', (3, 4), (1, 2)),
        ('0.45,0.65', MISSING, [0.45, 0.65]),
        ('0.45,0.65', None, [0.45, 0.65]),
        ('a,b', MISSING, 'a,b'),
        ('[a, b c]', None, ['a', 'b c']),
        ('(3000,3000)', (1, 1), (3000, 3000)),
        ("{'a': [1, 'b']}", {}, {'a': [1, 'b']}),
        ('', 'data/own', ''),
        ('a=b', 'data/own', 'a=b'),
    ],
)
def test_a_text_is_read_as_what_it_replaces(text, old, value):
    assert read(text, old) == value and type(read(text, old)) is type(value)


@pytest.mark.parametrize(
    'text, old', [('0,001', 1e-3), ('many', 3), ('[a, (b, c)]', [1]), ('{a: 1}', None), ('a', {'b': 1})]
)
def test_texts_that_can_not_be_meant_are_refused(text, old):
    with pytest.raises(ValueError, match='expected a number|expected a dict|expected a literal'):
        read(text, old)


def test_a_value_that_the_shell_has_split_is_refused():
    with pytest.raises(argparse.ArgumentError, match="quoted if it has blanks, got 'data/own'"):
        typed('data_root=/my', 'data/own')


@pytest.mark.parametrize('by_option', [True, False])
def test_a_tilde_is_the_home_folder(by_option, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', '/people/me')
    configs = shutil.copytree(CONFIGS, tmp_path / 'configs')
    base = configs / '_base_/datasets/own.py'
    if not by_option:
        base.write_text(base.read_text().replace("'data/own'", "'~/photos'"))
    cfg = load_config(configs / OWN.name, typed('data_root=~/photos') if by_option else None)
    assert cfg.train_dataloader.dataset.tag_file == cfg.custom_hooks[1].dataloader.dataset.tag_file
    assert cfg.train_dataloader.dataset.tag_file == '/people/me/photos/tags.csv'


@pytest.mark.parametrize(
    ('line', 'words'),
    [
        ('max_iters = 5', 'max_iters: .* --cfg-options max_iters='),
        ("true_masks: str = 'masks'", 'true_masks: .* nothing reads'),
        ("data_root, mine = 'photographs', 1", 'data_root: .* nothing reads'),
        ('train_dataloder = dict(batch_size=2)', 'train_dataloder: .* there is train_dataloader'),
        ('train_dataloader = dict(batch_size=2)', None),
        ('max_iters = 5\ntrain_cfg = dict(max_iters=max_iters)', None),
        ('tta_pipeline = []', None),
        ('max_iter = 5', 'max_iter: .* there is max_iters'),
        ('mine = 1', None),
    ],
)
def test_a_variable_of_a_base_that_is_set_without_effect_is_refused(line, words, tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(f"_base_ = ['{OWN}']\n{line}\n")
    if words:
        with pytest.raises(ValueError, match=words):
            load_config(path)
    else:
        load_config(path)


@imports_in_configs
def test_a_path_that_is_an_object_of_pathlib_stays_one(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', '/people/me')
    text = "from pathlib import Path\nroot = Path('~/a')\nload_from = root / 'b'\n"
    (tmp_path / 'config.py').write_text(text)
    assert load_config(tmp_path / 'config.py').load_from == Path('/people/me/a/b')
    assert load_config(tmp_path / 'config.py', typed('root=2012')).load_from == Path('2012/b')


@imports_in_configs
def test_however_a_file_sets_a_variable_its_option_wins(tmp_path):
    (tmp_path / 'base.json').write_text('{"log_level": "INFO"}')
    (tmp_path / 'base.py').write_text("""
import os
root, epochs = '{{ fileDirname }}', 1
if epochs:
    root: str = os.path.join(root, 'a')
    root += 'b'
def of(root):
    root = root + '/c'
    return root
folders = [of(path) for path in ('x', root) for epochs in [5]]
""")
    (tmp_path / 'config.py').write_text("""
_base_ = ['base' + end for end in ('.json', '.py')]
load_from = [*_base_.folders, _base_.root, _base_.epochs, '{{fileDirname}}', {{_base_.epochs}}]
""")
    here = str(tmp_path)
    assert load_config(tmp_path / 'config.py').load_from == ['x/c', f'{here}/ab/c', f'{here}/ab', 1, here, 1]
    cfg = load_config(tmp_path / 'config.py', typed('root=r', 'log_level=ERROR'))
    assert cfg.load_from == ['x/c', 'r/c', 'r', 1, here, 1] and cfg.log_level == 'ERROR'
    assert load_config(tmp_path / 'config.py', typed('epochs=3')).load_from[-3:] == [3, here, 3]
