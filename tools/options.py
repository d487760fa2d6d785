"""Reading a config with --cfg-options, each of which acts wherever it is used, or is refused.

A key is one of the config, as in mmengine. Where it is a variable from which the files of the config compute other
values, such as data_root, or a part of one, it is set where the files set it, so that all of them see it.
"""

import argparse
import ast
import difflib
import re
import tempfile
from collections.abc import Iterator, Sequence
from copy import deepcopy
from os.path import expanduser
from pathlib import Path
from typing import Any

from mmengine.config import Config
from signatures import RUNNER, taken

MISSING = object()
WORDS = dict(true=True, yes=True, on=True, false=False, no=False, off=False, none=None, null=None)
READ_OF_STAGES = ('pseudo_mask_dataloader', 'tta_model', 'tta_pipeline')  # by some tools
ARGUMENTS = ('launcher', 'resume')  # the tools set them in the config


class Typed(str):
    """The value of an option as it was typed; what it replaces says how to read it."""


class OptionAction(argparse.Action):
    """KEY=VALUE … as a dict. The value is all that follows the first `=`: blanks, commas and quotes too."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        options = dict(getattr(namespace, self.dest) or {})
        for value in values:
            key, equals, text = value.partition('=')
            if not (key and equals):
                raise argparse.ArgumentError(self, f'expected KEY=VALUE, quoted if it has blanks, got {value!r}')
            options[key] = Typed(text)
        setattr(namespace, self.dest, options)


def read(text: str, old: Any = MISSING) -> Any:
    """The Python literal that a text is, or else the text itself, in the place of `old`.

    A list may be typed as a,b where it replaces one or nothing, and as [a, b] where it replaces no text; yes and true
    are True. In the place of a text a number is a text too, such as the folder 2012.

    Raises:
        ValueError: it replaces a number or a dict and is none, or has unquoted texts in brackets in brackets.
    """
    text, bracketed = str(text), text[:1] + text[-1:] in ('[]', '()', '{}')
    sequence = type(old) if isinstance(old, list | tuple) else list if old is None or old is MISSING else None
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        value = text if isinstance(old, str | Path) else WORDS.get(text.lower(), text)
        if bracketed and not isinstance(old, str | Path):
            if text[0] == '{' or set(text[1:-1]) & set('[](){}'):
                raise ValueError(f'expected a literal of Python, its texts in quotes, got {text}') from None
            value = (list if text[0] == '[' else tuple)(read(part.strip()) for part in text[1:-1].split(','))
        elif isinstance(old, list | tuple) and ',' in text:
            value = sequence(read(part.strip()) for part in text.split(','))
    if isinstance(value, tuple) and not bracketed:
        value = sequence(value) if sequence else text
    if isinstance(old, str | Path) and not isinstance(value, str | bool | list | tuple | dict | None):
        value = text
    if isinstance(value, str) and isinstance(old, int | float | dict) and not isinstance(old, bool):
        raise ValueError(f'expected a {"dict" if isinstance(old, dict) else "number"}, got {text!r}')
    return value


def find(value: Any, parts: Sequence[str]) -> Any:
    """What is at a place in a config, or MISSING."""
    for part in parts:
        if isinstance(value, dict | Config) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return MISSING
    return value


def leaves(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """What a part of a config has at each place, down to what has no parts."""
    if not isinstance(value, dict | list) or not value:
        yield place, value
        return
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield from leaves(item, (*place, str(key)))


def set_options(name: str, value: Any, options: dict[str, Any]) -> Any:
    """A variable of a config file with options, those that fit: another file may set other parts of it."""
    cfg, fitting = Config({name: value}), {}
    for key, new in options.items():
        old, inside = find(cfg, key.split('.')), find(cfg, key.split('.')[:-1])
        if old is not MISSING or isinstance(inside, dict | Config):
            fitting[key] = Path(new) if isinstance(old, Path) else new
    cfg.merge_from_dict(fitting)
    return cfg[name]


class Copier(ast.NodeTransformer):
    """Copies a file of a config, and its bases, into a folder; there options follow each assignment to a variable."""

    def __init__(self, options: dict[str, Any], folder: str) -> None:
        self.options, self.folder = options, folder

    def copy(self, path: Path) -> str:
        if path.suffix != '.py':
            return str(path.absolute())
        self.place = path.absolute().parent
        # By {{ fileDirname }} mmengine would mean the folder of the copy.
        text = re.sub(r'\{\{\s*fileDirname\s*\}\}', lambda _: self.place.as_posix(), path.read_text('utf-8'))
        copy = Path(tempfile.mkdtemp(dir=self.folder), path.name)
        copy.write_text(ast.unparse(self.visit(ast.parse(text))), 'utf-8')
        return str(copy)

    def visit_Assign(self, node: ast.Assign | ast.AnnAssign | ast.AugAssign) -> list[ast.stmt]:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
        if '_base_' in names:
            bases = eval(compile(ast.Expression(node.value), '_base_', 'eval'))
            place, bases = self.place, [bases] if isinstance(bases, str) else bases
            return ast.parse(f'_base_ = {[base if "::" in base else self.copy(place / base) for base in bases]}').body
        lines = []
        for name in names & {key.split('.')[0] for key in self.options}:
            options = {key: value for key, value in self.options.items() if key.split('.')[0] == name}
            # By an import statement mmengine would know a file of its other style.
            lines += [f'{name} = __import__({__name__!r}).set_options({name!r}, {name}, {options})']
        return [node, *ast.parse('\n'.join(lines)).body]

    visit_AnnAssign = visit_AugAssign = visit_Assign

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        return node  # its variables are its own


class Options:
    """Options for a config, checked.

    Args:
        plain: the config without them.
        options: by key, as they were typed or as values.
        reads: what is read of the config beside what mmengine's runner is built from.
    """

    def __init__(self, plain: Config, options: dict[str, Any], reads: Sequence[str]) -> None:
        self.plain, self.scope, self.known = plain, plain.get('default_scope', 'mmseg'), RUNNER | {*reads}
        self.values = {}
        for key, value in options.items():
            *place, _ = key.split('.')
            whole, place = find(plain, place), '.'.join(place)
            if key in ARGUMENTS:
                raise ValueError(f'{key}: expected it as the argument --{key}, got an option')
            try:
                self.values[key] = read(value, find(plain, key.split('.'))) if isinstance(value, Typed) else value
            except ValueError as error:
                raise ValueError(f'{key}: {error}') from error
            kinds = dict | Config | list if isinstance(self.values[key], dict) else dict | Config
            if not (whole is MISSING or isinstance(whole, kinds) or f'{place}._delete_' in options):
                raise ValueError(f'{key}: expected the whole of {place}, which is {whole!r}, got a part')

    def built(self, cfg: Config) -> dict[str, Any]:
        return {key: cfg[key] for key in cfg if key in self.known}

    def refuse(self, key: str) -> None:
        """Name the keys that act and are most like it, those with the same end where there are any."""
        built, names = self.built(self.plain), {}
        places = {place[:i] for place, _ in leaves(built) for i in range(len(place)) if '.' not in ''.join(place[:i])}
        for place in places:
            if isinstance(inside := find(built, place), dict):
                known = taken('.'.join(place), inside, self.scope) if place else {*self.plain} - {key}
                known = {*inside, *known}
                names |= {'.'.join((*place, name)): name for name in known if '.' not in name}
        same = [each for each, name in names.items() if name == key.split('.')[-1]]
        nearest = difflib.get_close_matches(key, same or names, n=5, cutoff=0 if same else 0.6)
        such = ', '.join(nearest or built)
        expected = f'expected a setting that is known to act in {self.plain.filename}, such as {such}'
        raise ValueError(f'{key}: {expected}; got one that is not')

    def require_known(self, key: str, value: Any, cfg: Config) -> None:
        """Each part of the key, and of a dict that it sets, is in the config or is known to be read."""
        for parts, _ in leaves(value, tuple(key.split('.'))):
            old, new, place, told = self.plain, cfg, '', False
            for part in parts:
                if part == '_delete_' or place and 'config' in new:  # a key of another config, which is read with it
                    break
                if isinstance(new, dict | Config) and find(old, [part]) is MISSING and place != 'default_hooks':
                    names = taken(place, new, self.scope) if place else self.known
                    free = told and not names and old is MISSING  # of a known argument that is new as a whole
                    if part not in names and not free:
                        self.refuse('.'.join(parts))
                    told = True
                old, new, place = find(old, [part]), find(new, [part]), f'{place}.{part}'.lstrip('.')

    def require_effect(self, key: str, alone: Config, cfg: Config) -> None:
        """Of what an option changes alone something is in the config with all options; a word on what is not."""
        before, alone, after = map(self.built, (self.plain, alone, cfg))
        changed = {place: value for place, value in leaves(alone) if find(before, place) != value}
        others = ['.'.join(place) for place, value in changed.items() if find(after, place) != value]
        if alone == before or changed and len(others) == len(changed):
            self.refuse(key)
        if others:
            print(f'{key} leaves alone what other options set: {", ".join(others)}')

    def evaluated(self, variables: dict[str, Any]) -> Config:
        """The config, its variables set in its files."""
        cfg = deepcopy(self.plain)
        with tempfile.TemporaryDirectory() as folder:
            changed = Config.fromfile(Copier(variables, folder).copy(Path(cfg.filename)))
        for key in changed:
            cfg[key] = changed[key]
        cfg.merge_from_dict(deepcopy(variables))
        return cfg

    def config(self) -> Config:
        """The config with the options."""
        variables = {key: value for key, value in self.values.items() if key.split('.')[0] not in RUNNER}
        for key in variables:
            if key.split('.')[0] not in {*self.plain, *self.known}:
                self.refuse(key)
        try:
            alone = {key: self.evaluated({key: value}) for key, value in variables.items()}
            cfg = self.evaluated(variables) if len(variables) > 1 else deepcopy(next(iter(alone.values()), self.plain))
            cfg.merge_from_dict(deepcopy(self.values))
        except Exception as error:
            tried = ', '.join(self.values)
            raise ValueError(f'{self.plain.filename} cannot be read with the options {tried}: {error!r}') from error
        for key, value in self.values.items():
            self.require_known(key, value, cfg)
            if key in alone and find(self.plain, key.split('.')) != value:
                self.require_effect(key, alone[key], cfg)
        return cfg


def expanded(value: Any) -> Any:
    """With the home folder in the place of `~` at the start of texts, all of which are paths."""
    if isinstance(value, list | tuple):
        return type(value)(map(expanded, value))
    for key in value if isinstance(value, dict | Config) else ():
        if (item := expanded(value[key])) != value[key]:
            value[key] = item
    return type(value)(expanduser(value)) if isinstance(value, str | Path) else value


def require_variables_read(path: Path, known: set[str]) -> None:
    """What a config with bases sets is known to be read, or read in the config itself.

    A base has used its own value of a variable before, and does not hear of another one.
    """
    try:
        tree = ast.parse(path.read_text('utf-8'))
    except SyntaxError:  # JSON, YAML, and what mmengine replaces before it is Python
        return
    names = [each for each in ast.walk(tree) if isinstance(each, ast.Name)]
    unread = {each.id for each in names if isinstance(each.ctx, ast.Store)}
    unread -= {each.id for each in names if isinstance(each.ctx, ast.Load)} | known
    if '_base_' not in unread:
        return
    with tempfile.TemporaryDirectory() as folder:
        lines = [line for line in tree.body if ast.unparse(line).startswith('_base_ =')]
        bases, copier = Path(folder, path.name), Copier({}, folder)
        copier.place = path.absolute().parent
        bases.write_text(ast.unparse(copier.visit(ast.Module(lines, []))), 'utf-8')
        base = Config.fromfile(bases)
    for name in sorted(unread - {'_base_'}):
        expected = f'{path}: {name}: expected what acts in a config with bases, got a variable that nothing reads'
        if name in base:
            raise ValueError(f'{expected}; set it by --cfg-options {name}=…, which changes all that is computed of it')
        if nearest := difflib.get_close_matches(name, known | {*base}, n=1, cutoff=0.8):
            raise ValueError(f'{expected}; there is {nearest[0]}')


def load_config(path: str | Path, options: dict[str, Any] | None = None, reads: Sequence[str] = ()) -> Config:
    """mmengine's config, with options and with `~` for the home folder.

    Args:
        path: file.
        options: by key, of `OptionAction` or as values.
        reads: what the tool reads of the config beside what mmengine's runner is built from.

    Raises:
        ValueError: an option, or a variable of the file, has no effect; a value is not fit for what it replaces.
    """
    cfg = Config.fromfile(path)
    require_variables_read(Path(path), RUNNER | {*READ_OF_STAGES, *reads})
    return expanded(Options(cfg, options, reads).config() if options else cfg)
