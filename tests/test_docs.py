"""What README, the pages in docs and the heads of configs say is so: see pages.py for what is looked at."""

import ast
import runpy
import shlex
import sqlite3
import sys

import pytest
from draw_demo import draw_demo
from mmengine.config.utils import MODULE2PACKAGE
from pages import CONFIGS, ROOT, Clone, claims, docstring_of_tool, head_of_config
from toy_own import make_own
from wheel_project import COMMON, STAGE_1

from aream_mm.checkpoint import read_checkpoint
from aream_mm.datasets.tags import read_tag_table

PAGES = sorted([*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md')])
CODE, ENDINGS = ('aream_mm', 'benchmarks', 'configs', 'tools'), ('.py', '.sh', '.txt', '.yml')
TOOLS = sorted((ROOT / 'tools').rglob('*.py'))


@pytest.fixture(scope='module', autouse=True)
def configs_of_the_package(tmp_path_factory):
    """Lays configs where `aream_mm::aream/…` looks for them, as installing does, and finds mmseg's at once."""

    def not_among_models(package, path):
        raise ValueError

    package = tmp_path_factory.mktemp('package') / 'package_of_configs'
    (package / '.mim/configs').mkdir(parents=True)
    (package / '.mim/configs/aream').symlink_to(ROOT / 'configs')
    for name in ('__init__.py', 'version.py'):
        (package / name).touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(package.parent)
        patch.setitem(MODULE2PACKAGE, 'aream_mm', 'package_of_configs.version')
        patch.setattr('mmengine.config.config._get_external_cfg_path', not_among_models)
        yield


def problems(tmp_path, text, where=ROOT / 'README.md'):
    page = claims(text)
    return list(Clone(tmp_path, page).problems(page, where))


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.name)
def test_what_a_page_says_is_so(page, tmp_path):
    found = problems(tmp_path, page.read_text('utf-8'), page)
    assert not found, '\n'.join(found)


@pytest.mark.parametrize('kind', ['heads of configs', 'docstrings of tools'])
def test_commands_in_what_begins_a_file_are_taken(kind, tmp_path):
    read, files = (head_of_config, CONFIGS) if kind == 'heads of configs' else (docstring_of_tool, TOOLS)
    clone, found = Clone(tmp_path), []
    for file in files:
        found += clone.problems(claims(read(file)), file)
    assert not found, '\n'.join(found)


def test_files_that_name_a_page_name_one_that_is_there():
    found = []
    for file in [
        ROOT / 'Makefile',
        *(path for top in CODE for path in (ROOT / top).rglob('*') if path.suffix in ENDINGS),
    ]:
        words = [word.strip('`"\'().,:;[]') for word in file.read_text('utf-8').split()]
        pages = {word.partition('#')[0] for word in words if word.startswith('docs/') and '.md' in word}
        found += [f'{file}: {page}' for page in pages if not (ROOT / page).exists()]
    assert not found


def test_every_config_has_one_row_of_its_table():
    names = [path.relative_to(ROOT / 'configs').as_posix() for path in CONFIGS]
    first = [line.split('|')[1] for line in (ROOT / 'docs/configs.md').read_text('utf-8').splitlines() if '|' in line]
    listed = [name.strip('` ') for cell in first for name in cell.split(',') if '`' in name]
    assert sorted(listed) == sorted(names)


def test_a_config_that_was_not_measured_is_called_so_in_its_head_and_in_the_table():
    rows = [line.split('|') for line in (ROOT / 'docs/configs.md').read_text('utf-8').splitlines() if '.py`' in line]
    for _, names, _, measured, _ in rows:
        for name in names.split(','):
            head = ' '.join(head_of_config(ROOT / 'configs' / name.strip('` ')).split())
            unmeasured = 'not measured' in head or 'not been measured' in head
            assert unmeasured == measured.strip().startswith(('not measured', 'a short training only')), name


def test_a_room_imports_only_from_those_before_it():
    rooms = ('datasets', 'models', 'evaluation', 'engine')
    for number, room in enumerate(rooms):
        for file in (ROOT / 'aream_mm' / room).glob('*.py'):
            for node in ast.walk(ast.parse(file.read_text('utf-8'))):
                names = [node.module or ''] if isinstance(node, ast.ImportFrom) else []
                names += [each.name for each in node.names] if isinstance(node, ast.Import) else []
                assert not [
                    name for name in names if name.startswith(tuple(f'aream_mm.{r}' for r in rooms[number + 1 :]))
                ]


def test_converters_of_the_readme_run_on_toy_data(tmp_path, monkeypatch, toy_folders):
    clone = Clone(tmp_path)
    monkeypatch.chdir(clone.folder)
    (clone.folder / 'data/VOCdevkit').mkdir(parents=True)
    (clone.folder / 'data/VOCdevkit/VOC2012').symlink_to(toy_folders['voc'])
    (clone.folder / 'my_tags.csv').write_text('photograph,cat,dog\ncats/1.jpg,1,0\nstreet.jpg,0,0\n')
    for claim in claims((ROOT / 'README.md').read_text('utf-8')):
        if claim.kind == 'command' and claim.text.startswith('python tools/converters/'):
            _, script, *arguments = shlex.split(claim.text, comments=True)
            run(monkeypatch, ROOT / script, *arguments)
    assert read_tag_table('data/own/tags.csv') == {'cats/1.jpg': ['cat'], 'street.jpg': []}


# What is broken is found


COMMAND = '    python tools/train.py configs/aream_vit_voc.py'
SNIPPET = '```python\n{}\n```'


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('    python tools/trian.py configs/aream_vit_voc.py', 'expected a file of the repository, got tools/trian.py'),
        ('    python tools/train.py configs/aream_vti_voc.py', 'configs/aream_vti_voc.py'),
        (f'{COMMAND} --resum', 'unrecognized arguments: --resum'),
        (f'```\n{COMMAND.strip()} \\\n  --launcher ssh\n```', 'invalid choice'),
        (f'{COMMAND} --cfg-options max_epoch=3', 'max_epoch: expected a setting that is known to act'),
        (f'{COMMAND} --cfg-options model.test_cfg.backgrund=0.4', 'model.test_cfg.backgrund'),
        ('Use `--cfg-options model.backbone.pretraned=FILE`.', 'model.backbone.pretraned'),
        ('Set `train_dataloader.dataset.unredable=skip`.', 'train_dataloader.dataset.unredable'),
        ('Run `python tools/test.py configs/aream_vit_voc.py` now.', 'required: checkpoint'),
        (
            '    python tools/test.py configs/aream_vit_voc.py work_dirs/aream_vit_voc/epoch_61.pth',
            'such as epoch_60.pth',
        ),
        ('    python tools/test.py configs/aream_vit_voc.py work_dirs/aream_vit/epoch_60.pth', 'a config writes'),
        ("    python tools/experiment.py configs/experiment_animals.py --stage-2 'with AReAM'", 'expected rows of'),
        ('    python -m aream_mm tain stage_1.py', 'expected a script, got tools/tain.py'),
        ('    make dmo', 'dmo'),
        ('Run `make tset`.', 'tset'),
        ('    tools/dist_train.sh CONFIG eight', 'expected a number'),
        ('    tools/dist_test.sh CONFIG 8', 'usage'),
        ('    tools/dist_train.sh CONFIG 8 --amq', 'unrecognized'),
        ("    pip install -e '.[coca]'", 'expected extras'),
        ('    pip install torch==2.14.0', 'expected torch=='),
        ('    rm -rf /', 'expected a command of ours'),
        ('See `docs/nothing.md`, `seg/nothing.py`.', 'docs/nothing.md'),
        ('See `nothing_voc.py`.', 'nothing_voc.py'),
        ('See `aream_mm.models.Refinery`.', 'aream_mm.models.Refinery'),
        ('[x](docs/nothing.md)', 'expected a file, got docs/nothing.md'),
        ('[x](docs/speed.md#the-net)', 'expected a heading of speed.md'),
        ('![x](docs/nothing.png)', 'docs/nothing.png'),
        (SNIPPET.format('model = dict(type='), 'never closed'),
        (SNIPPET.format("x = dict(type='aream_mm.AReAMLose', layer_index=7)"), 'AReAMLose'),
        (SNIPPET.format("x = dict(type='aream_mm.AReAMLoss', layer_idx=7)"), "got ['layer_idx']"),
        (SNIPPET.format('from aream_mm.models import Refinery'), 'Refinery'),
    ],
)
def test_a_page_with_something_broken_is_told_of(text, words, tmp_path):
    (problem, *others) = problems(tmp_path, f'# A page\n\nA sentence:\n\n{text}\n')
    assert words in problem and problem.startswith('README.md, line ') and len(others) <= 1


# The examples of extending.md


def run(monkeypatch, script, *arguments):
    monkeypatch.setattr(sys, 'argv', [str(script), *arguments])
    try:
        runpy.run_path(str(script), run_name='__main__')
    except SystemExit as end:
        assert not end.code


@pytest.fixture
def example(request, tmp_path, monkeypatch):
    """The folder of a section of extending.md, with toy data, in which its config has been trained for two steps."""
    page = claims((ROOT / 'docs/extending.md').read_text('utf-8'))
    folder = Clone(tmp_path, page).sections[request.param]
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    if request.param == 'A data set':
        draw_demo(folder / 'data', num_train=4, num_val=2, size=64)
    else:
        make_own(folder / 'data/own')
    if request.param == 'Tags from elsewhere':
        store_tags(folder / 'data/own')
        run(monkeypatch, folder / 'archive.py')
    small = ['model.test_cfg.scales=(0.125,)', 'custom_hooks.1.test_cfg.refine_scale=0.1', 'train_cfg.val_begin=9']
    options = [each for each in STAGE_1.split() if request.param != 'A backbone' or not each.startswith('model')]
    if request.param == 'A loss on the attention':
        options[options.index('model.attention_loss.layer_index=1')] = 'model.attention_loss.layers=(1, 2)'
    run(monkeypatch, ROOT / 'tools/train.py', 'stage_1.py', '--cfg-options', *COMMON.split(), *options, *small)
    return folder


def store_tags(folder):
    """The tags of a folder in a database in place of its table, and a photograph without any."""
    table = read_tag_table(folder / 'tags.csv')
    (folder / 'tags.csv').unlink()
    with sqlite3.connect(folder / 'archive.sqlite') as database:
        database.execute('CREATE TABLE photographs (path)')
        database.execute('CREATE TABLE labels (path, name)')
        database.executemany('INSERT INTO photographs VALUES (?)', [(image,) for image in table])
        first, *others = table
        pairs = [(image, name) for image in others for name in table[image]]
        database.executemany('INSERT INTO labels VALUES (?, ?)', pairs)


@pytest.mark.parametrize(
    ('example', 'trained', 'images'),
    [
        ('A backbone', 'backbone.layers.3.qkv.weight', 6),
        ('A loss on the attention', 'head.class_map.weight', 6),
        ('A refiner', 'head.class_map.weight', 6),
        ('Tags from elsewhere', 'head.class_map.weight', 6),
        ('A data set', 'head.class_map.weight', 4),
    ],
    indirect=['example'],
)
def test_an_example_of_extending_trains_as_it_is_printed_and_writes_masks(example, trained, images):
    assert trained in read_checkpoint(str(example / 'work_dirs/stage_1/iter_2.pth'))['state_dict']
    assert len(list((example / 'work_dirs/stage_1/pseudo_masks').rglob('*.png'))) == images
    (log,) = example.rglob('*.log')
    assert ('loss_leak:' in log.read_text()) == (example / 'leak.py').exists()
    if (example / 'archive.py').exists():
        assert sorted(map(len, read_tag_table(example / 'data/own/tags.csv').values())) == [0, 1, 1, 1, 2, 2]
