"""The wheel in a folder that has nothing of the repository: configs to inherit, and tools to run on them."""

import json
import subprocess
import sys
from email.parser import Parser
from pathlib import Path

import pytest
import wheel_project
from mmengine.config import Config

ROOT = Path(__file__).parents[1]
SOME = ('aream_vit_voc.py', 'aream_vit_animals_walk.py', 'demo/aream_demo.py', 'seg/segmenter_vit-s_voc.py')


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """The folder into which pip has installed the wheel."""
    folder = tmp_path_factory.mktemp('wheel')
    pip = [sys.executable, '-m', 'pip', '--quiet', '--no-input', 'install', '--no-deps']
    subprocess.run([*pip, '--target', folder, wheel_project.build_wheel(folder)], check=True)
    return folder


def test_the_wheel_holds_every_config_and_tool_and_asks_for_neither_family_of_libraries(site):
    inside = site / 'aream_mm/.mim'
    for folder, name in (('configs', 'configs/aream'), ('tools', 'tools')):
        files = [path for path in (ROOT / folder).rglob('*') if path.is_file() and '__pycache__' not in path.parts]
        for path in files:
            assert (inside / name / path.relative_to(ROOT / folder)).read_bytes() == path.read_bytes()
    (metadata,) = site.glob('aream_mm-*.dist-info/METADATA')
    needed = Parser().parsestr(metadata.read_text()).get_all('Requires-Dist')
    assert any(line.startswith('timm>=1.0.17') for line in needed)
    assert not [line for line in needed if line.startswith(('mm', 'onedl')) and 'extra' not in line]


def test_a_config_is_inherited_and_found_by_its_name_in_the_package(site, tmp_path):
    program = f"""if True:
        import json, sys
        import aream_mm
        from mmengine.config import Config
        from mmengine.hub import get_config
        texts = {{}}
        for name in {SOME!r}:
            config = f'aream_mm::aream/{{name}}'
            open('own.py', 'w').write(f'_base_ = {{config!r}}')
            texts[name] = [get_config(config).to_dict(), Config.fromfile('own.py').to_dict()]
        json.dump([aream_mm.__file__, texts], sys.stdout)
    """
    file, found = json.loads(wheel_project.run(tmp_path, site, '-c', program, errors=None))
    assert Path(file).is_relative_to(site)

    def without_scope(value):
        if isinstance(value, dict):
            return {key: without_scope(item) for key, item in value.items() if key != '_scope_'}
        return [without_scope(item) for item in value] if isinstance(value, list) else value

    for name in SOME:
        expected = json.loads(json.dumps(Config.fromfile(ROOT / 'configs' / name).to_dict()))
        assert [without_scope(value) for value in found[name]] == [without_scope(expected)] * 2


def test_a_project_of_ones_own_inherits_a_config_and_brings_its_data_set(site, tmp_path):
    project = wheel_project.make_project(tmp_path / 'project')
    wheel_project.train_stage_1(project, site)
    masks = project / 'work_dirs/stage_1/pseudo_masks'
    assert len(list(masks.glob('*.png'))) == wheel_project.NUM_TRAIN
    assert json.loads((masks / 'manifest.json').read_text())['classes'][1:] == [
        'fish',
        'boat',
        'beetle',
        'mushroom',
        'ball',
    ]
    wheel_project.train_stage_2(project, site)
    wheel_project.predict(project, site)
    assert len(list((project / 'predicted/masks').glob('*.png'))) == len(list((project / 'data/images').iterdir()))


def test_a_tool_that_does_not_exist_is_answered_with_those_that_do(site, tmp_path):
    command = [sys.executable, '-m', 'aream_mm', 'trian']
    done = subprocess.run(command, cwd=tmp_path, env=wheel_project.environment(site), capture_output=True, text=True)
    assert done.returncode == 1 and "got ['trian']" in done.stderr
    assert all(name in done.stderr for name in ('train', 'predict', 'converters/tags'))
