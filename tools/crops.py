"""How often does a random crop lose what a tag names? Then the tag lies, and training teaches the background.

    python tools/crops.py configs/aream_dual_animals.py --least 0.08 0.2 0.4 0.6 0.8

The masks that the config's val_dataloader has go through the random crop as images do in training: that of
the config's train pipeline, in the first row, and the same with other least areas of a crop, relative to the image.

lost        percent of the (image, tag) pairs of which the crop has no pixel, among those that the mask has
below 1 %   percent of the pairs that fill less than a hundredth of the crop, lost ones among them
"""

import argparse

import aream_mm.quiet  # noqa: F401

import numpy as np
from arguments import config_file, count, share
from mmcv.transforms import TRANSFORMS, BaseTransform
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, init_default_scope
from mmseg.datasets.transforms import LoadAnnotations
from options import OptionAction, load_config
from prettytable import PrettyTable
from refiners import with_masks

from aream_mm.progress import progress

CROPS = ('aream_mm.ResizedCrop', 'mmpretrain.RandomResizedCrop')


def shares(dataset: BaseDataset, crop: BaseTransform, number: int) -> np.ndarray:
    """What each tag's object fills of each of `number` crops, in 0..1: one value a crop of an (image, tag) pair."""
    load, found = LoadAnnotations(), []
    for i in progress(range(len(dataset))):
        info = dataset.get_data_info(i)
        mask = load(dict(info, seg_fields=[]))['gt_seg_map']
        ids = np.intersect1d(np.flatnonzero(info['gt_score']) + dataset.first_id, mask)
        for _ in range(number):
            cropped = crop(dict(img=mask))['img']
            found += [(cropped == tag).mean() for tag in ids]
    print()
    return np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=config_file, help='config of stage 1')
    parser.add_argument('--least', nargs='+', type=share, default=[], help='least areas to compare, in 0..1')
    parser.add_argument('--crops', type=count, default=20, help='of each image')
    parser.add_argument('--cfg-options', nargs='+', action=OptionAction, help='override settings, key=value')
    args = parser.parse_args()
    cfg = load_config(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    steps = cfg.train_dataloader.dataset.pipeline
    own = next((step for step in steps if step['type'] in CROPS), None)
    if own is None:
        parser.error(f'expected {" or ".join(CROPS)} in the train_dataloader of {args.config}, got none')
    dataset = with_masks(DATASETS.build(cfg.val_dataloader.dataset), None)
    np.random.seed(0)
    rows = []
    for area in [own.get('crop_ratio_range', (0.08, 1.0)), *((least, 1.0) for least in args.least)]:
        crop = TRANSFORMS.build(dict(own, crop_ratio_range=tuple(area), interpolation='nearest', backend='cv2'))
        filled = shares(dataset, crop, args.crops)
        lost, scraps = 100 * (filled == 0).mean(), 100 * (filled < 0.01).mean()
        rows.append({'area of the crop': '{} to {}'.format(*area), 'lost': lost, 'below 1 %': scraps})
    print(f'{len(dataset)} images, {len(filled) // args.crops} pairs, {args.crops} crops of each')
    table = PrettyTable(list(rows[0]), align='r', float_format='.1')
    table.add_rows([row.values() for row in rows])
    print(table)


if __name__ == '__main__':
    main()
