"""`python -m aream_mm train CONFIG …` is `python tools/train.py CONFIG …` in any folder, and so is every tool."""

import runpy
import sys
from pathlib import Path

TOOLS = Path(__file__).parent / '.mim/tools'  # laid there by setup.py

if __name__ == '__main__':
    tool = TOOLS / f'{"".join(sys.argv[1:2])}.py'
    if not tool.is_file():
        names = sorted(path.relative_to(TOOLS).with_suffix('').as_posix() for path in TOOLS.rglob('*.py'))
        sys.exit(f'usage: python -m aream_mm TOOL …; expected a tool of {", ".join(names)}, got {sys.argv[1:2]}')
    sys.argv[:2], sys.path[:0] = [str(tool)], [str(tool.parent)]
    runpy.run_path(str(tool), run_name='__main__')
