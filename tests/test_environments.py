"""Whichever family of libraries is installed: what is missing is named, and a config may inherit from the package."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import mmengine.registry
import mmseg.registry
import pytest
import yaml
from mmengine.registry import DefaultScope, init_default_scope
from packaging.version import Version

import aream_mm.registry
from aream_mm import libraries

ROOT = Path(__file__).parents[1]
INDEX = yaml.safe_load((ROOT / 'configs/metafile.yml').read_text())


@pytest.mark.parametrize('module', libraries.OLDEST)
@pytest.mark.parametrize('versions', [['0.0.1'], ['{oldest}.dev0'], [], ['99', '{oldest}']])
def test_a_library_that_is_missing_too_old_or_there_twice_is_refused_by_name_and_version(module, versions):
    oldest = libraries.OLDEST[module]
    others = {f'of-{name}': version.format(oldest=oldest) for name, version in zip('ab', versions, strict=False)}
    got = ' and '.join(f'{name}=={version}' for name, version in others.items()) or 'none'
    with pytest.raises(ImportError, match=f'expected one {module} {oldest} or newer, got {got}.*pip install'):
        libraries.require({**libraries.find(), module: others})


@pytest.mark.parametrize('version', ['{oldest}', '{oldest}+cu121', '99.1.0rc1'])
def test_the_oldest_a_newer_and_a_local_build_are_taken(version):
    libraries.require({module: {module: version.format(oldest=oldest)} for module, oldest in libraries.OLDEST.items()})


def test_every_library_is_found_under_the_name_that_pip_knows():
    for names in libraries.find().values():
        ((name, found),) = names.items()
        assert found == version(name)


def test_importing_the_package_is_what_refuses():
    program = """if True:
        import importlib.metadata as metadata
        installed = metadata.version
        metadata.version = lambda name: '0.9.16' if name == 'timm' else installed(name)
        import aream_mm
    """
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, cwd=ROOT)
    assert 'ImportError: aream_mm: expected one timm 1.0.17 or newer, got timm==0.9.16. ' in done.stderr


def test_a_report_of_a_bug_has_the_version_of_every_library():
    command = [sys.executable, '-m', 'aream_mm.env']
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for names in libraries.find().values():
        assert all(f'{name}: {version(name)}' in printed for name in names)
    assert any(line.startswith('Python: 3.') for line in printed) and f'aream_mm: {aream_mm.__version__}' in printed


@pytest.mark.parametrize('kind', mmseg.registry.__all__)
def test_what_a_config_inherits_from_the_package_is_built_as_mmseg_builds_it(kind):
    """mmengine makes the package the scope of what comes from `aream_mm::`; what mmcv has too is still mmseg's."""
    init_default_scope('mmseg')
    theirs, root = getattr(mmseg.registry, kind), getattr(mmengine.registry, kind)
    theirs.import_from_location()
    with DefaultScope.overwrite_default_scope('aream_mm'), root.switch_scope_and_registry(None) as registry:
        assert registry.scope == 'aream_mm'
        for name in {*theirs.module_dict, *root.module_dict} - set(registry.module_dict):
            assert registry.get(name) is theirs.get(name), name
        for name, own in registry.module_dict.items():
            assert registry.get(name) is registry.get(f'aream_mm.{name}') is root.get(f'aream_mm.{name}') is own
        assert registry.get('NoSuchName') is None


def test_our_own_names_are_none_of_mmsegs():
    """So that a name without scope is the same whether a config inherits or is inherited."""
    for kind in mmseg.registry.__all__:
        theirs = getattr(mmseg.registry, kind)
        own = getattr(aream_mm.registry, kind, None)
        if own is not None:
            own.import_from_location(), theirs.import_from_location()
            assert not set(own.module_dict) & set(theirs.module_dict)


def test_every_config_is_listed_once_with_its_paper_and_a_result_has_its_figure():
    runs = {path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts}
    listed = [ROOT / 'configs' / Path(model['Config']).relative_to('configs/aream') for model in INDEX['Models']]
    papers = {paper['Name']: paper['Paper'] for paper in INDEX['Collections']}
    assert sorted(listed) == sorted(runs) and len({model['Name'] for model in INDEX['Models']}) == len(runs)
    assert all(papers[model['In Collection']]['URL'].startswith('https://') for model in INDEX['Models'])
    for model in INDEX['Models']:
        for result in model.get('Results', []):
            assert 0 < result['Metrics']['mIoU'] < 100


def test_the_second_environment_is_of_the_oldest_libraries_that_are_taken():
    lines = (ROOT / 'tests/openmmlab/requirements.txt').read_text().splitlines()
    pins = dict(line.split('==') for line in lines if '==' in line)
    names = dict(mmcv='mmcv-lite', mmseg='mmsegmentation')
    for module, oldest in libraries.OLDEST.items():
        assert pins[names.get(module, module)].startswith(oldest)
        assert Version(pins[names.get(module, module)]) >= Version(oldest)
