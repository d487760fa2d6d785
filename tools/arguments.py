"""What the arguments of the tools have to be, as `type=` of argparse: refused by name before anything is loaded."""

import ast
import json
from argparse import ArgumentTypeError
from pathlib import Path

CONFIG_ENDINGS = ('.py', '.json', '.yaml', '.yml')
CHECKPOINT_ENDINGS = ('.pth', '.pt', '.ckpt', '.safetensors')
FILE_ENDINGS = (
    *CONFIG_ENDINGS,
    *CHECKPOINT_ENDINGS,
    '.pkl',
    '.npy',
    '.csv',
    '.txt',
    '.jpg',
    '.jpeg',
    '.png',
    '.zip',
    '.tar',
)


def config_file(text: str) -> str:
    """A config whose Python, and that of its bases, can be read."""
    if not text.endswith(CONFIG_ENDINGS):
        raise ArgumentTypeError(f'expected a config file ({" ".join(CONFIG_ENDINGS)}), got {text!r}')
    if not Path(text).expanduser().is_file():
        raise ArgumentTypeError(f'expected a config file, got {text!r} which does not exist')
    require_readable(Path(text).expanduser().resolve(), [])
    return text


def require_readable(path: Path, above: list[Path]) -> None:
    """Raise an ArgumentTypeError unless this config file and its bases are UTF-8 and Python."""
    if path.suffix != '.py':
        return
    if path in above:
        raise ArgumentTypeError(f'{above[-1]}: expected a _base_ that does not lead back to it, got {path}')
    content = path.read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b'\n') + 1
        byte = content[error.start : error.start + 1]
        got = f'the byte 0x{byte.hex()}, {byte.decode("cp1252", "replace")!r} in cp1252'
        raise ArgumentTypeError(f'{path}, line {line}: expected text in UTF-8, got {got}; save it as UTF-8') from error
    if text.startswith('\ufeff'):
        raise ArgumentTypeError(f'{path}, line 1: expected UTF-8 without a byte order mark; save it without ("UTF-8")')
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        shown = f'{(error.text or "").strip()!r}'
        raise ArgumentTypeError(f'{path}, line {error.lineno}: expected Python, got {error.msg}: {shown}') from error
    except ValueError as error:  # such as null bytes
        raise ArgumentTypeError(f'{path}: expected Python, got {error}') from error
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == '_base_':
            try:
                bases = ast.literal_eval(node.value)
            except ValueError:
                continue  # computed: left to mmengine
            for base in [bases] if isinstance(bases, str) else bases:
                file = (path.parent / base).resolve()
                if '::' in base:  # of a package
                    continue
                if not file.is_file():
                    raise ArgumentTypeError(
                        f'{path}, line {node.lineno}: expected files as _base_, got {base!r}, no file'
                    )
                require_readable(file, [*above, path])


def checkpoint_file(text: str) -> str:
    """No file of another kind, as where two arguments have changed places."""
    if text.endswith(CONFIG_ENDINGS) or Path(text).expanduser().is_dir():
        raise ArgumentTypeError(f'expected a checkpoint file (.pth), got {text!r}')
    return text


def photographs(text: str) -> Path:
    """No file of another kind."""
    if text.endswith((*CONFIG_ENDINGS, *CHECKPOINT_ENDINGS)):
        raise ArgumentTypeError(f'expected a photograph or a folder of photographs, got {text!r}')
    return Path(text)


def folder(text: str) -> Path:
    """A folder that is there, or a name for one."""
    path = Path(text).expanduser()
    if path.is_file() or not path.is_dir() and path.suffix.lower() in FILE_ENDINGS:
        raise ArgumentTypeError(
            f'expected a folder, got {"the file" if path.is_file() else "the name of a file"} {text!r}'
        )
    return path


def new_folder(text: str) -> Path:
    """A folder that holds nothing yet: neither what would be overwritten, nor results of another run."""
    path = folder(text)
    if path.is_dir() and any(path.iterdir()):
        raise ArgumentTypeError(f'expected a new or empty folder, got {text!r}, which holds files')
    return path


def count(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or not int(text):
        raise ArgumentTypeError(f'expected a whole number from 1 on, got {text!r}')
    return int(text)


def share(text: str) -> float:
    """A number above 0 and up to 1."""
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number <= 1:
        raise ArgumentTypeError(f'expected a number above 0 and up to 1, got {text!r}')
    return number


def refiner(text: str) -> dict:
    """The config of a refiner as JSON."""
    try:
        config = json.loads(text)
    except ValueError:
        config = None
    if not isinstance(config, dict) or '.' not in str(config.get('type')):
        raise ArgumentTypeError(f'expected JSON such as {{"type": "aream_mm.PAR"}}, got {text!r}')
    return config
