"""Look through masks, the doubtful ones first, and mark them: a page that works offline, in any browser.

    python tools/analysis/review.py configs/own_photographs.py --masks work_dirs/own_photographs/pseudo_masks

writes OUT/index.html, with small copies of photographs and masks beside it. Its keys mark a mask as good or bad, or its
tags as wrong and which are right; `s` saves the marks as review.csv, which tools/converters/reviewed.py takes over.

Doubt is 1 − IoU, mean over the tags of a photograph, between its mask and what the network makes of the photograph's
mirror image: that of the checkpoint in the masks' manifest, or another one of the config.
Where there are true masks, the command says how well this order finds the bad ones.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import aream_mm.quiet  # noqa: F401

import mmcv
import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.registry import DATASETS, init_default_scope
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.models import BaseSegmentor
from PIL import Image
from scipy.stats import spearmanr

from aream_mm.checkpoint import load_fitting_checkpoint
from aream_mm.datasets import ImageTagDataset
from aream_mm.datasets.contents import contents, read_digest
from aream_mm.datasets.images import read_image
from aream_mm.datasets.tags import require_same_classes
from aream_mm.engine.pseudo_masks import IGNORED_COLOUR
from aream_mm.files import write_atomically
from aream_mm.masks import IGNORE_INDEX
from aream_mm.models.segmentor import CAMSegmentor
from aream_mm.models.settings import RefineSettings
from aream_mm.progress import progress
from aream_mm.registry import MODELS

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / 'converters')]
from arguments import checkpoint_file, config_file, folder, new_folder  # noqa: E402
from options import OptionAction, load_config  # noqa: E402
from reviewed import HEADER  # noqa: E402

SIDE = 480  # pixels of a small copy, at most
PAGE = Path(__file__).with_suffix('.html')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=config_file, help='config of either stage')
    parser.add_argument('--masks', type=folder, required=True, help='folder of masks, named as their photographs are')
    parser.add_argument('--checkpoint', type=checkpoint_file, help="default: the one that the masks' manifest names")
    parser.add_argument('--out', type=new_folder, default='work_dirs/review', help='folder of the page, a new one')
    parser.add_argument('--cfg-options', nargs='+', action=OptionAction, help='override settings, key=value')
    return parser.parse_args()


def read_manifest(masks: Path, classes: Sequence[str]) -> dict:
    """That of the masks, {} where there is none."""
    path = masks / 'manifest.json'
    if not path.is_file():
        return {}
    try:
        manifest = json.loads(path.read_bytes())
        require_same_classes(str(path), classes, manifest['classes'])
    except (LookupError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f'{path}: expected JSON with the classes of the masks, got {error!r}') from error
    return manifest


def mirror_settings(model: BaseSegmentor, manifest: dict) -> RefineSettings:
    """Those that the masks were made with, as far as the network has them, for the mirror image alone."""
    if not isinstance(model, CAMSegmentor):
        return model.settings_with(refine=None)  # which would read the photograph, not its mirror image
    known = {field.name for field in dataclasses.fields(model.test_cfg)}
    made = {key: value for key, value in manifest.get('settings', {}).items() if key in known}
    settings = model.settings_with(**{**made, 'band': None, 'mirror': False})
    if settings.refiner and settings.refiner.reads_samples:
        settings = dataclasses.replace(settings, refine=None)
    return settings


@torch.no_grad()
def mirrored_mask(model: BaseSegmentor, packed: dict, settings: RefineSettings) -> np.ndarray:
    """What the network makes of the mirror image, mirrored back: (H, W) of the photograph's size."""
    batch = pseudo_collate([dict(packed, inputs=packed['inputs'].flip(-1))])
    (sample,) = model.predict(**model.data_preprocessor(batch), settings=settings)
    return sample.pred_sem_seg.data[0].flip(-1).byte().cpu().numpy()


def mean_iou(mask: np.ndarray, other: np.ndarray, ids: Sequence[int]) -> float:
    """Mean over the ids, without pixels that either ignores; 0 for one that neither has, 1 for no ids."""
    known = (mask != IGNORE_INDEX) & (other != IGNORE_INDEX)
    pairs = [((mask == i) & known, (other == i) & known) for i in ids]
    return float(np.mean([(a & b).sum() / max((a | b).sum(), 1) for a, b in pairs])) if pairs else 1.0


def write_small(path: Path, photograph: np.ndarray, mask: np.ndarray, palette: np.ndarray) -> list[int]:
    """The photograph as PATH.jpg and its mask, in colours (256, 4), as PATH.png; width and height of both."""
    if max(photograph.shape) > SIDE:
        photograph = mmcv.imrescale(photograph, (SIDE, SIDE), interpolation='area')
    overlay = Image.fromarray(mmcv.imresize(mask, photograph.shape[1::-1], interpolation='nearest'))
    overlay.putpalette(palette[:, :3].tobytes())
    Image.fromarray(photograph).save(path.with_suffix('.jpg'), quality=85)
    overlay.save(path.with_suffix('.png'), transparency=palette[:, 3].tobytes())
    return list(overlay.size)


def colours(dataset: ImageTagDataset) -> np.ndarray:
    """(256, 4) RGBA of each id: background is transparent."""
    palette = np.full((256, 4), (*IGNORED_COLOUR, 255), np.uint8)
    palette[: len(dataset.metainfo['palette']), :3] = dataset.metainfo['palette']
    palette[: dataset.first_id, 3] = 0
    return palette


def write_page(path: Path, images: list[dict], classes: Sequence[str], palette: np.ndarray) -> None:
    """The page of images, and of classes that are tags in colours (C, 3)."""
    key = hashlib.sha256(json.dumps(sorted(image['mask'] for image in images)).encode())  # of the browser's memory
    data = dict(header=HEADER, classes=classes, colours=palette.tolist(), key=key.hexdigest())
    data['entries'] = sorted(images, key=lambda image: -image['doubt'])
    text = json.dumps(data).replace('<', '\\u003c')  # which would end the script
    write_atomically(path, PAGE.read_text(encoding='utf-8').replace('DATA', text, 1).encode())


def rate(doubts: list[float], ious: list[float]) -> str:
    """How well doubt finds the masks of low IoU, in words."""
    order, tenth = np.argsort(doubts)[::-1], max(len(ious) // 10, 1)
    worst, rest = 100 * np.mean(np.array(ious)[order[:tenth]]), 100 * np.mean(np.array(ious)[order[tenth:]])
    return (
        f'On {len(ious)} true masks: rank correlation of IoU with 1 − doubt {-spearmanr(doubts, ious).statistic:.2f}; '
        f'mean IoU of the most doubtful tenth {worst:.1f}, of the rest {rest:.1f}'
    )


def main() -> None:
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options, ('pseudo_mask_dataloader',))
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    dataset = DATASETS.build(cfg.pseudo_mask_dataloader.dataset)
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    truths = [info.get('seg_map_path') for info in infos]
    masks = [str(args.masks / f'{info["sample_id"]}.png') for info in infos]
    named = [dict(info, seg_map_path=mask, label_map=None) for info, mask in zip(infos, masks, strict=True)]
    dataset.require_masks(named, 'a pseudo mask')
    manifest = read_manifest(args.masks, dataset.metainfo['classes'])
    checkpoint = args.checkpoint or manifest.get('checkpoint')
    if not checkpoint:
        raise ValueError(
            f'{args.masks}: expected a manifest.json that names a checkpoint, or --checkpoint, got neither'
        )
    model = MODELS.build(cfg.model)
    load_fitting_checkpoint(model, checkpoint, classes=dataset.metainfo['classes'])
    model.to(get_device()).eval()
    settings, palette, load = mirror_settings(model, manifest), colours(dataset), LoadAnnotations()

    (args.out / 'pictures').mkdir(parents=True, exist_ok=True)
    digests = [contents(read_digest, paths) for paths in ([info['img_path'] for info in infos], masks)]
    images, rated = [], []
    for i in progress(range(len(dataset))):
        info, mask = infos[i], load(dict(named[i], seg_fields=[]))['gt_seg_map']
        mirrored = mirrored_mask(model, dataset[i], settings)
        present = set(np.unique(mask)) | set(np.unique(mirrored))  # of a negative's false objects, for it has no tags
        ids = np.flatnonzero(info['gt_score']) + dataset.first_id
        ids = ids.tolist() or [each for each in present if dataset.first_id <= each != IGNORE_INDEX]
        doubt = 1 - mean_iou(mask, mirrored, ids)
        if truths[i]:
            truth = load(dict(info, seg_fields=[]))['gt_seg_map']
            there = np.union1d(truth, mask[truth != IGNORE_INDEX])
            there = [each for each in there.tolist() if dataset.first_id <= each != IGNORE_INDEX]
            rated += [(doubt, mean_iou(mask, truth, there))] if there else []
        path = args.out / 'pictures' / str(i)
        size = write_small(path, read_image(info['img_path'], dataset.value_range), mask, palette)
        link = quote(os.fsencode(Path(os.path.relpath(info['img_path'], args.out)).as_posix()))
        names = dict(image=info['sample_id'], tags=dataset.names(info['gt_score']), link=link, file=f'pictures/{i}')
        images.append(dict(names, doubt=doubt, size=size, photograph=digests[0][i], mask=digests[1][i]))
    page, classes = args.out / 'index.html', dataset.metainfo['classes']
    write_page(page, images, classes[dataset.first_id :], palette[dataset.first_id : len(classes), :3])
    print(f'\n{page}: {len(images)} photographs, the most doubtful first')
    if len(rated) > 1:
        print(rate(*zip(*rated, strict=True)))


if __name__ == '__main__':
    main()
