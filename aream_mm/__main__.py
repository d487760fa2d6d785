"""`python -m aream_mm train CONFIG …` is `python tools/train.py CONFIG …` in any folder, and so is every tool."""

import runpy
import sys
from pathlib import Path

TOOLS = Path(__file__).parent / '.mim' / 'tools'  # laid there by setup.py

if __name__ == '__main__':
    name = sys.argv[1] if sys.argv[1:] else ''
    if not (TOOLS / f'{name}.py').is_file():
        names = sorted(path.relative_to(TOOLS).with_suffix('').as_posix() for path in TOOLS.rglob('*.py'))
        sys.exit(f'usage: python -m aream_mm TOOL …; expected a tool of {", ".join(names)}, got {name!r}')
    sys.argv[:2] = [str(TOOLS / f'{name}.py')]
    sys.path.insert(0, str(Path(sys.argv[0]).parent))
    runpy.run_path(sys.argv[0], run_name='__main__')
