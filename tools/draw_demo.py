"""Draw the demo set: photographs of five kinds of objects with tags and true masks, in the form of one's own.

python tools/draw_demo.py data/demo

Writes images/, masks/, tags.csv and the lists train.txt and val.txt below the folder, which appears only once complete.
An equal set that is there already is kept, anything else is refused.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import aream_mm.quiet  # noqa: F401

import numpy as np
from converters.tag_table import write_tag_table
from demo_scenes import CLASSES, draw_image
from PIL import Image

from aream_mm.masks import encode_mask
from aream_mm.progress import progress

VERSION = 2  # of what is drawn, and where it lies


def draw_demo(root: Path, num_train: int = 320, num_val: int = 80, size: int = 160, seed: int = 0) -> None:
    """Draw `num_train` + `num_val` square images of `size` pixels a side into `root`.

    Image i depends on `size`, `seed` and i alone; the first `num_train` are for training.

    Raises:
        ValueError: `root` is there with other content.
    """
    settings = dict(num_train=num_train, num_val=num_val, size=size, seed=seed, version=VERSION)
    if root.exists():
        marker = root / 'settings.json'
        found = json.loads(marker.read_text()) if marker.is_file() else None
        if found != settings:
            raise ValueError(f'{root} exists with other content: expected settings {settings}, got {found}')
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'.{root.name}.', dir=root.parent) as scratch:
        folder = Path(scratch) / root.name  # a child, because the scratch folder itself is readable by its owner only
        (folder / 'images').mkdir(parents=True)
        (folder / 'masks').mkdir()
        ids, tags = [f'{index:05d}' for index in range(num_train + num_val)], {}
        for index in progress(range(len(ids))):
            image, mask = draw_image(np.random.default_rng((seed, index)), size)
            Image.fromarray(image).save(folder / 'images' / f'{ids[index]}.jpg', quality=92)
            (folder / 'masks' / f'{ids[index]}.png').write_bytes(encode_mask(mask))
            tags[f'{ids[index]}.jpg'] = [CLASSES[i] for i in np.unique(mask) if i]
        write_tag_table(folder / 'tags.csv', tags)
        (folder / 'train.txt').write_text('\n'.join(ids[:num_train]))
        (folder / 'val.txt').write_text('\n'.join(ids[num_train:]))
        (folder / 'settings.json').write_text(json.dumps(settings, indent=2))
        os.replace(folder, root)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('root', type=Path, help='folder to draw into')
    args = parser.parse_args()
    draw_demo(args.root)


if __name__ == '__main__':
    main()
