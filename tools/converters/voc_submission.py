r"""Pack predictions on VOC 2012 as the evaluation server takes them, competition 6 (any training data).

    python tools/test.py SEG_CONFIG SEG_CHECKPOINT --tta --out predictions --cfg-options \
        test_evaluator.format_only=True test_dataloader.dataset.dataset.ann_file=ImageSets/Segmentation/test.txt
    python tools/converters/voc_submission.py predictions data/VOCdevkit/VOC2012 submission.tar

The archive holds results/VOC2012/Segmentation/comp6_test_cls/<id>.png, in VOC's colours.
"""

import argparse
import io
import os
import tarfile
from functools import partial
from multiprocessing import Pool
from pathlib import Path

import aream_mm.quiet  # noqa: F401

import numpy as np
from voc import NUM_CLASSES, counted, list_path, read_list, read_mask

from aream_mm.datasets.images import SHOWN, read_header
from aream_mm.masks import encode_mask
from aream_mm.progress import progress

FOLDER = 'results/VOC2012/Segmentation/comp6_{}_cls'


def encode_prediction(name: str, predictions: Path, images: Path) -> tuple[str, bytes]:
    """What is wrong with the prediction of an id, or '', and its PNG in VOC's colours."""
    path, image = predictions / f'{name}.png', images / f'{name}.jpg'
    header = read_header(str(image))
    if header is None:
        return f'{image}: expected an image, got none that can be read', b''
    ids = read_mask(path)
    if ids is None:
        return f'{path}: expected a PNG, got none that can be read', b''
    if ids.ndim != 2 or ids.dtype != np.uint8:
        return f'{path}: expected class ids, uint8 of shape (H, W), got {ids.dtype} of shape {ids.shape}', b''
    if ids.shape != header.size[::-1]:
        return '{}: expected {}x{} pixels as the image has, got {}x{}'.format(path, *header.size, *ids.shape[::-1]), b''
    if ids.max() >= NUM_CLASSES:
        return f'{path}: expected ids 0..{NUM_CLASSES - 1}, got {ids.max()}', b''
    return '', encode_mask(ids)


def pack(predictions: Path, root: Path, out: Path, image_set: str) -> int:
    """Write the archive, once every prediction has been found right; return their number.

    Raises:
        FileNotFoundError: no such list or folder.
        ValueError: a prediction is missing, belongs to no id of the list, has another size than its image, or holds
            other ids than 0..20.
    """
    ids = list(dict.fromkeys(read_list(root, image_set)))
    if not predictions.is_dir():
        raise FileNotFoundError(f'{predictions}: expected the folder that tools/test.py --out wrote, got no folder')
    wanted, found = {f'{name}.png' for name in ids}, {path.name for path in predictions.iterdir()}
    for what, names in (('missing', wanted - found), ('not among these', found - wanted)):
        if names:
            each = f'each of the {len(ids)} ids of {list_path(root, image_set)} alone'
            raise ValueError(f'{predictions}: expected a PNG for {each}, {what} {counted(sorted(names))}')
    encode = partial(encode_prediction, predictions=predictions, images=root / 'JPEGImages')
    with Pool() as pool:
        encoded = list(progress(pool.imap(encode, ids, chunksize=8), len(ids)))
    if faults := [fault for fault, _ in encoded if fault]:
        raise ValueError(f'{len(faults)} predictions cannot be submitted:\n' + '\n'.join(faults[:SHOWN]))
    temporary = out.with_name(f'{out.name}.tmp')
    with tarfile.open(temporary, 'w') as archive:
        for name, (_, content) in zip(ids, encoded, strict=True):
            member = tarfile.TarInfo(f'{FOLDER.format(image_set)}/{name}.png')
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    os.replace(temporary, out)
    return len(ids)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('predictions', type=Path, help='folder that tools/test.py --out wrote')
    parser.add_argument('root', type=Path, help='folder VOC2012 of VOCdevkit')
    parser.add_argument('out', type=Path, help='archive to write, .tar')
    parser.add_argument('--image-set', default='test', help='list of the ids below ImageSets/Segmentation')
    args = parser.parse_args()
    if args.out.suffix != '.tar' or args.out.is_dir() or not args.out.parent.is_dir():
        parser.error(f'out: expected the name of a file that ends in .tar, in a folder that is there, got {args.out}')
    count = pack(args.predictions, args.root, args.out, args.image_set)
    print(f'{args.out}: {count} predictions')


if __name__ == '__main__':
    main()
