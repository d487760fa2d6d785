"""What pages say that can be looked at: commands, options, snippets of Python, paths, links. See test_docs.py."""

import argparse
import ast
import os
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import options
import pytest
from markdown_it import MarkdownIt
from mmengine.config import Config
from options import OptionAction, load_config
from PIL import Image
from signatures import registered

if sys.version_info < (3, 11):
    import tomli as tomllib
else:
    import tomllib

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)
# What stands for whatever a reader has.
PLACEHOLDERS = {
    'CONFIG': 'configs/aream_vit_animals.py',
    'CHECKPOINT': 'work_dirs/aream_vit_animals/epoch_4.pth',
    'ANOTHER_CHECKPOINT': 'work_dirs/aream_vit_animals/epoch_3.pth',
    'SEG_CONFIG': 'configs/seg/deeplabv3plus_lite0_animals.py',
    'SEG_CHECKPOINT': 'work_dirs/deeplabv3plus_lite0_animals/iter_1000.pth',
}
COMMANDS = ('python ', 'make ', 'pip ', 'mim ')  # which begin so in a sentence too
PROGRAMS = ('cd', 'cp', 'git', 'ln', 'mkdir', 'source', 'tensorboard')  # not ours: nothing is known of their arguments
LOADED = (PLACEHOLDERS['CONFIG'], PLACEHOLDERS['SEG_CONFIG'], 'configs/own_photographs.py', 'configs/aream_vit_voc.py')
TOP = {path.name for path in ROOT.iterdir() if path.name[0] != '.'} - {'data', 'work_dirs', 'build', 'dist'}


class Problem(Exception):
    """What a page says and is not so."""


class Claim(NamedTuple):
    """kind: 'command', 'python', 'code' in a sentence, or 'link'; name: of the file that a snippet is, if any."""

    kind: str
    text: str
    line: int
    section: str = ''
    name: str = ''


def claims(text: str) -> list[Claim]:
    """All of a page in Markdown. Blocks that are indented or fenced without a language hold commands."""
    found, section, name = [], '', ''
    tokens = MarkdownIt('commonmark').enable('table').parse(text)
    for token, before in zip(tokens, [None, *tokens], strict=False):
        line = (token.map or [0])[0] + 1
        if token.type == 'inline':
            if before.type == 'heading_open':
                section = token.content
            children = token.children
            named = len(children) == 2 and children[0].type == 'code_inline' and children[1].content == ':'
            name = children[0].content if named else ''
            found += [Claim('code', child.content, line, section) for child in children if child.type == 'code_inline']
            addresses = [child.attrGet('href') or child.attrGet('src') for child in children]
            found += [Claim('link', address, line, section) for address in addresses if address]
        elif token.type == 'code_block' or token.type == 'fence' and token.info in ('', 'bash'):
            found += [Claim('command', each, line, section) for each in commands(token.content.splitlines())]
        elif token.type == 'fence' and token.info == 'python':
            found.append(Claim('python', token.content, line, section, name))
    return found


def commands(lines: Iterable[str]) -> Iterator[str]:
    """Each on one line, without comments: a command goes on after a backslash, and within quotes."""
    command = ''
    for line in lines:
        command = f'{command} {line.strip()}'.strip()
        if command.endswith('\\'):
            command = command[:-1]
            continue
        try:
            words = shlex.split(command, comments=True)
        except ValueError:  # a quote is open
            continue
        if words:
            yield command
        command = ''
    if command:
        raise Problem(f'expected the end of a command, got {command}')


def anchors(text: str) -> set[str]:
    """Of the headings, as GitHub makes them."""
    tokens = MarkdownIt('commonmark').parse(text)
    headings = [
        token.content for token, before in zip(tokens[1:], tokens, strict=False) if before.type == 'heading_open'
    ]
    return {''.join(c for c in each.lower() if c.isalnum() or c in '-_ ').replace(' ', '-') for each in headings}


def head_of_config(path: Path) -> str:
    """The comment a config begins with, as a page."""
    lines = []
    for line in path.read_text('utf-8').splitlines():
        if not line.startswith('#'):
            break
        lines.append(f' {line[1:]}' if line.startswith('#   ') else line[1:].strip())  # a command has four blanks then
    return '\n'.join(lines)


def docstring_of_tool(path: Path) -> str:
    """Its commands, as a page."""
    lines = (ast.get_docstring(ast.parse(path.read_text('utf-8'))) or '').splitlines()
    first = [number for number, line in enumerate(lines) if line.strip().startswith('python ')]
    return '\n'.join(f'```\n{next(commands(lines[number:]))}\n```' for number in first)


@cache
def plain_config(path: str) -> Config:
    return load_config(path)


@cache
def writers() -> dict[str, Config]:
    """Each config by the name of its work dir."""
    loaded = {path: plain_config(str(path)) for path in CONFIGS}
    return {Path(cfg.get('work_dir') or path.stem).name: cfg for path, cfg in loaded.items()}


class Reached(BaseException):
    """A tool has read its arguments, and its config with their options."""


class Clone:
    """A folder like a clone, in which nothing that is written matters, and in it what a page has of files.

    Args:
        folder: an empty one.
        page: claims of the page, whose named snippets of Python are laid into a folder per section.
    """

    def __init__(self, folder: Path, page: list[Claim] = ()) -> None:
        self.folder = folder
        for name in TOP:
            (folder / name).symlink_to(ROOT / name)
        image = folder / 'NEW_PHOTOGRAPHS/a.jpg'
        image.parent.mkdir()
        Image.new('RGB', (8, 8)).save(image)
        programs = folder / 'programs'
        programs.mkdir()
        for name in ('torchrun', 'srun'):  # what the launch scripts call
            (programs / name).write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
            (programs / name).chmod(0o755)
        self.sections, self.classes = {}, set()
        for claim in page:
            if claim.kind == 'python' and claim.name:
                self.sections.setdefault(claim.section, folder / f'section_{len(self.sections)}').mkdir(exist_ok=True)
                (self.sections[claim.section] / claim.name).write_text(claim.text)
                if not (link := self.sections[claim.section] / image.parent.name).exists():
                    link.symlink_to(image.parent)
                self.classes |= {
                    node.name for node in ast.walk(ast.parse(claim.text)) if isinstance(node, ast.ClassDef)
                }

    def problems(self, page: list[Claim], where: Path) -> Iterator[str]:
        """What of the claims of the page, which lies at `where`, is not so."""
        for claim in page:
            try:
                if claim.kind == 'link':
                    check_link(claim.text, where)
                elif claim.kind == 'python':
                    self.check_python(claim)
                elif claim.kind == 'command' or claim.text.startswith(COMMANDS):
                    self.check_command(claim)
                elif claim.text.startswith('tools/') and ' ' in claim.text:
                    self.check_command(claim)
                else:
                    self.check_code(claim)
            except Exception as problem:
                yield f'{where.name}, line {claim.line}: {claim.text.strip()[:100]!r}: {problem}'

    def check_command(self, claim: Claim) -> None:
        words = [PLACEHOLDERS.get(word, word) for word in shlex.split(claim.text, comments=True)]
        given = {}
        while '=' in words[0]:
            name, _, given[name] = words.pop(0).partition('=')
        program, *arguments = words
        for word in arguments:
            require_file(word, self.folder, {path.name for path in self.files()})
        program = 'python' if program in ('.venv/bin/python', 'python3') else program
        if program == 'python' and arguments[0] == '-m':
            module, *arguments = arguments[1:]
            if module == 'aream_mm' and arguments:
                self.check_tool(f'tools/{arguments[0]}.py', arguments[1:], claim.section)
            else:
                import_module(module)
        elif program == 'python':
            self.check_tool(arguments[0], arguments[1:], claim.section)
        elif program.startswith('tools/'):
            self.check_script(program, arguments, given)
        elif program == 'make':
            done = subprocess.run(['make', '-n', *arguments], cwd=self.folder, capture_output=True, text=True)
            if done.returncode:
                raise Problem(done.stderr)
        elif program == 'pip':
            check_pip(arguments)
        elif program == 'mim':
            expected = {path.name for path in CONFIGS} | {path.name for path in self.files()}
            if arguments[:2] != ['train', 'aream_mm'] or arguments[2] not in expected:
                raise Problem(f'expected mim train aream_mm and a config, got {arguments}')
        elif program not in PROGRAMS:
            raise Problem(f'expected a command of ours or of {PROGRAMS}, got {program!r}')

    def files(self) -> list[Path]:
        return [path for folder in self.sections.values() for path in folder.iterdir()]

    def folder_of(self, section: str, name: str) -> Path:
        """Where a command is run: in that of its section, or else in the first that has the file, or in the clone."""
        folders = [self.sections[section]] if section in self.sections else [*self.sections.values()]
        return next((folder for folder in folders if (folder / name).exists()), self.folder)

    def check_script(self, script: str, arguments: list[str], given: dict[str, str]) -> None:
        """What a launch script hands to a tool is fit for it."""
        path = f'{self.folder}/programs:{os.environ["PATH"]}'
        command = [self.folder / script, *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env={**os.environ, **given, 'PATH': path}, capture_output=True, text=True
        )
        if done.returncode:
            raise Problem(done.stderr)
        words = done.stdout.splitlines()
        (tool,) = (i for i, word in enumerate(words) if word.endswith(('/train.py', '/test.py')))
        for word in words[:tool]:
            option, _, value = word.partition('=')
            if option.endswith(('nodes', 'rank', 'port', 'node', 'ntasks', 'task')) and not value.isdigit():
                raise Problem(f'expected a number, got {word}')
        self.check_tool(f'tools/{Path(words[tool]).name}', words[tool + 1 :], '')

    def check_tool(self, script: str, arguments: list[str], section: str) -> None:
        """Its own parser takes the arguments, and what it reads of its config takes the options."""
        config = next((word for word in arguments if word.endswith('.py')), '')
        folder = self.folder_of(section, config if '/' in script else script)
        path = folder / script if (folder / script).exists() else self.folder / script
        if not path.is_file():
            raise Problem(f'expected a script, got {script}')
        if path.parent in self.sections.values():
            return  # of the page itself, where it is run
        args, cfg = parsed(path, arguments, folder)
        for name in ('seg_config', 'baseline'):
            if getattr(args, name, None):
                changes = {**(args.cfg_options or {}), **(args.stage_2_options or {})} if name == 'seg_config' else {}
                load(str(folder / getattr(args, name)), changes or args.cfg_options)
        if hasattr(args, 'rows') and 'rows' in (cfg or ()):
            if unknown := {*(args.rows or ()), *args.stage_2} - {*cfg.rows}:
                raise Problem(f'expected rows of {list(cfg.rows)}, got {unknown}')
            if args.stage_2_options:
                load(cfg.stage_2, args.stage_2_options)
        for word in arguments:
            check_checkpoint(word, cfg, args)

    def check_python(self, claim: Claim) -> None:
        tree = ast.parse(claim.text)
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict'):
                continue
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            if isinstance(kind := keywords.get('type'), ast.Constant) and kind.value not in self.classes:
                taken = registered(kind.value, 'mmseg')
                if not taken:
                    raise Problem(f'expected the name of something registered, got {kind.value!r}')
                if unknown := keywords.keys() - taken - {None, '_delete_', '_scope_'}:
                    raise Problem(f'{kind.value}: expected arguments of {sorted(taken)}, got {sorted(unknown)}')
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = import_module(node.module if isinstance(node, ast.ImportFrom) else node.names[0].name)
                for name in node.names if isinstance(node, ast.ImportFrom) else ():
                    getattr(module, name.name)
        if claim.name and '\n_base_ = ' in f'\n{claim.text}':
            with pytest.MonkeyPatch.context() as patch:
                patch.syspath_prepend(self.sections[claim.section])  # of what custom_imports names
                load(str(self.sections[claim.section] / claim.name), None)

    def check_code(self, claim: Claim) -> None:
        """A path, something of the package, a command or a setting within a sentence."""
        text = claim.text
        if text.startswith('--cfg-options '):
            check_setting(shlex.split(text)[1:])
        elif ' ' not in text and '.' in (key := text.partition('=')[0]) and '=' in text and is_dotted(key):
            check_setting([text])
        elif text.startswith('aream_mm.') and is_dotted(text):
            if not (registered(text, 'mmseg') or has(text)):
                raise Problem(f'expected something of the package, got {text}')
        elif ' ' not in text:
            require_file(text, self.folder, {path.name for path in self.files()})


def is_dotted(text: str) -> bool:
    return all(part.replace('-', '_').isidentifier() or part.isdigit() for part in text.split('.'))


def has(name: str) -> bool:
    """Whether this module, or what is in it, is there."""
    module, _, inside = name.rpartition('.')
    try:
        return hasattr(import_module(module), inside) or bool(import_module(name))
    except ImportError:
        return False


def load(path: str, changes: dict | None, reads: tuple = ()) -> Config:
    path = str(Path(path).resolve())  # the same in every clone
    return load_config(path, changes, reads) if changes else plain_config(path)


def parsed(script: Path, arguments: list[str], folder: Path) -> tuple[argparse.Namespace, Config | None]:
    """Runs a tool until it has read its arguments and, if it has one, its config; nothing else of it is run."""
    read = dict(cfg=None)
    parse = argparse.ArgumentParser.parse_args

    def parse_args(parser: argparse.ArgumentParser, *given) -> argparse.Namespace:
        parser.allow_abbrev = False
        read['args'] = args = parse(parser, *given)
        if not hasattr(args, 'cfg_options') or not any(getattr(args, name, None) for name in ('config', 'seed_config')):
            raise Reached
        return args

    def read_config(path: str, changes: dict | None = None, reads: tuple = ()) -> None:
        read['cfg'] = load(str(folder / path), changes, tuple(reads))
        raise Reached

    def refuse(parser: argparse.ArgumentParser, message: str) -> None:
        raise Problem(message)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        patch.setenv('LOCAL_RANK', '0')
        patch.setattr(sys, 'argv', [str(script), *arguments])
        patch.setattr(argparse.ArgumentParser, 'parse_args', parse_args)
        patch.setattr(argparse.ArgumentParser, 'error', refuse)
        patch.setattr(options, 'load_config', read_config)
        try:
            runpy.run_path(str(script), run_name='__main__')
        except Reached:
            return read['args'], read['cfg']
    raise Problem('expected a tool that reads arguments, got one that has ended')


def check_checkpoint(word: str, cfg: Config | None, args: argparse.Namespace) -> None:
    """A checkpoint in work_dirs is one that a config writes there."""
    parts = Path(word).parts
    if parts[:1] != ('work_dirs',) or len(parts) != 3 or not parts[2].startswith(('epoch_', 'iter_')):
        return
    own = {Path(args.config).stem: cfg} if cfg and hasattr(args, 'config') else {}
    writes = (own | writers()).get(parts[1])
    kind, _, number = Path(word).stem.partition('_')
    last = writes and writes.train_cfg and writes.train_cfg.get(f'max_{kind}s')
    if not last or int(number) not in (last, *range(0, last, writes.default_hooks.checkpoint.interval)):
        raise Problem(f'expected a checkpoint that a config writes, such as {kind}_{last}.pth, got {word}')


def check_setting(words: list[str]) -> None:
    """One of the configs takes the options."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=OptionAction)
    changes, problems = parser.parse_args(['--cfg-options', *words]).cfg_options, []
    for path in LOADED:
        try:
            load_config(ROOT / path, changes, ('tta_pipeline', 'pseudo_mask_dataloader'))
            return
        except ValueError as error:
            problems.append(str(error))
    raise Problem(' '.join(problems))


def check_pip(arguments: list[str]) -> None:
    extras = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['optional-dependencies']
    pins = dict(line.split('==') for line in (ROOT / 'requirements.txt').read_text().splitlines() if '==' in line)
    for word in arguments[1:]:
        if word.startswith('.['):
            if unknown := {*word[2:-1].split(',')} - extras.keys():
                raise Problem(f'expected extras of {sorted(extras)}, got {unknown}')
        name, _, version = word.partition('==')
        if version and pins.get(name, version) != version:
            raise Problem(f'expected {name}=={pins[name]} as in requirements.txt, got {word}')


def require_file(word: str, folder: Path, own: set[str] = frozenset()) -> None:
    """A path that begins with a name of the repository is there, and so is a file of Python or Markdown somewhere."""
    path = word.rstrip('/')
    if not path or set(path) & set('*<>{}…$=(),:;\'"') or path.startswith(('-', '.', '/')):
        return
    if Path(path).parts[0] in TOP and ('/' in word or (ROOT / path).is_file()):
        if not (folder / path).exists():
            raise Problem(f'expected a file of the repository, got {word}')
    elif path.endswith(('.py', '.md', '.sh')) and Path(path).parts[0] not in ('data', 'work_dirs'):
        found = [ROOT / top / path for top in ('configs', 'docs', 'tools', 'tests', 'aream_mm')]
        found += [
            each for top in ('configs', 'tools', 'tests', 'aream_mm') for each in (ROOT / top).rglob(Path(path).name)
        ]
        if path not in own and not any(each.exists() and str(each).endswith(path) for each in found):
            raise Problem(f'expected a file of the repository or of the page, got {word}')


def check_link(address: str, page: Path) -> None:
    if '://' in address:
        return
    file, _, anchor = address.partition('#')
    target = (page.parent / file).resolve() if file else page
    if not target.exists():
        raise Problem(f'expected a file, got {address}')
    if anchor and anchor not in anchors(target.read_text('utf-8')):
        raise Problem(f'expected a heading of {target.name}, got #{anchor}')
