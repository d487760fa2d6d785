r"""Masks of new photographs, by a checkpoint of either stage.

python tools/predict.py NEW_PHOTOGRAPHS configs/seg/own_photographs.py \
    work_dirs/own_photographs_seg/iter_1000.pth --out out

Writes OUT/masks/<path of the photograph>.png, class ids in a palette PNG of the size of the photograph as it is shown,
and OUT/overlays/<path of the photograph>.jpg, at most 1024 pixels wide or high, to look at. Stage 1 gives the classes
that it finds in each photograph. Either is refined as `model.test_cfg.refine` says, at the size that the network gets.
Of several frames the first is taken; transparency is ignored. Photographs that cannot be read are named at the end, and
the exit code is 1.

What this tool has made of the same photographs before is kept where it would be the same, else replaced. An OUT with
other masks is refused, unless they are of other photographs and made in the same way. OUT/masks/manifest.json is what
tools/converters/export_masks.py needs.
"""

import argparse
import io
import json
import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import aream_mm.quiet  # noqa: F401

import cv2
import mmcv
import numpy as np
import torch
import torch.nn.functional as F
from arguments import checkpoint_file, config_file, folder, photographs
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.registry import DATASETS
from mmengine.structures import PixelData
from mmseg.apis import init_model
from mmseg.models import BaseSegmentor
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer
from options import OptionAction, load_config
from PIL import Image
from torch import Tensor

from aream_mm.checkpoint import load_fitting_checkpoint
from aream_mm.datasets import ToEightBits
from aream_mm.datasets.contents import contents, read_digest, read_mask
from aream_mm.datasets.images import (
    ENDINGS,
    RANGE_ADVICE,
    damage,
    endings,
    find_images,
    read_header,
    read_image,
    require_distinct_names,
    why_unreadable,
)
from aream_mm.datasets.tags import refuse, require_same_classes
from aream_mm.engine.pseudo_masks import made_by, write_mask
from aream_mm.files import write_atomically
from aream_mm.models.settings import RefineSettings
from aream_mm.progress import progress

OVERLAY_SIDE = 1024  # pixels; drawing takes long and much memory on the photographs of today's cameras
MAX_INPUT_PIXELS = 2**21  # that the network gets; the memory of a transformer grows with their square


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'photographs', type=photographs, help='a photograph, or a folder of them in folders of any depth'
    )
    parser.add_argument('config', type=config_file, help='config file')
    parser.add_argument('checkpoint', type=checkpoint_file, help='checkpoint file')
    parser.add_argument('--out', type=folder, required=True, help='folder of the masks and overlays')
    parser.add_argument('--cfg-options', nargs='+', action=OptionAction, help='override settings, key=value')
    return parser.parse_args()


class OverlayVisualizer(SegLocalVisualizer):
    """mmseg's, which puts a class's name in the middle of the first of the rows where the class is widest."""

    def _get_center_loc(self, mask: np.ndarray) -> np.ndarray:
        # The same place as mmseg's, which sorts a list of all the pixels and takes seconds.
        row = mask.sum(axis=1).argmax()
        columns = mask[row].nonzero()[0]
        return np.array([columns[len(columns) // 2], row])


def photographs_at(path: Path, out: Path) -> tuple[Path, list[str]]:
    """The folder, and the photographs in it as relative paths; those below `out` are results of ours, and left out."""
    if path.is_file():
        return path.parent, [path.name]
    if not path.is_dir():
        raise FileNotFoundError(f'expected a photograph or a folder of photographs, got {str(path)!r}')
    images, others = find_images(path)
    results = Path(os.path.realpath(out))
    images = [image for image in images if results not in Path(os.path.realpath(path / image)).parents]
    if others:
        print(f'{path}: {len(others)} files are left out, which are no {" ".join(ENDINGS)}: {endings(others)}')
    if not images:
        raise ValueError(f'{path}: expected photographs ({" ".join(ENDINGS)}), got none')
    require_distinct_names(path, images)
    return path, images


def results(out: Path, name: str) -> tuple[Path, Path]:
    """The files of a photograph: its mask and its overlay."""
    return (out / 'masks' / name).with_suffix('.png'), (out / 'overlays' / name).with_suffix('.jpg')


def clear(out: Path, root: Path, names: list[str], identity: str) -> dict[str, dict]:
    """By photograph, what the masks that are not there already are to be made from.

    All else that was made of these photographs is removed, so that nothing of another run is left among the masks. What
    the same network has made of other photographs stays.

    Raises:
        ValueError: masks of other photographs by another network or settings, or that something else made or changed.
    """
    places = {name: results(out, name) for name in names}
    folders = [folder for folder in (out / 'masks', out / 'overlays') if folder.is_dir()]
    there = [folder / file for folder in folders for file in find_images(folder)[0]]
    masks = [file for file in there if file.is_relative_to(out / 'masks')]
    made_from = {file: found.get('made_from') for file, found in zip(masks, contents(read_mask, masks), strict=True)}
    same = [file for file, made in made_from.items() if made and made['made_by'] == identity]
    names_there = [*names, *(str(file.relative_to(out / 'masks')) for file in same)]
    known = {file for name in names_there for file in results(out, name)}
    others = [str(file) for file in there if file not in known or not made_from.get(file, True)]
    expected = f'nothing but what this tool makes of the photographs in {root} with the same network, or a new folder'
    refuse(out, expected, others)
    readable = [name for name in names if not why_unreadable(root / name)]
    digests = contents(read_digest, [root / name for name in readable])
    wanted = {
        name: dict(made_by=identity, tags=False, photograph=digest)
        for name, digest in zip(readable, digests, strict=True)
    }
    for name, (mask, overlay) in places.items():
        if name in wanted and made_from.get(mask) == wanted[name] and overlay.is_file():
            del wanted[name]
        else:
            (out / 'masks/manifest.json').unlink(missing_ok=True)
            mask.unlink(missing_ok=True)
            overlay.unlink(missing_ok=True)
    return wanted


def data_of(cfg: Config) -> ConfigDict:
    """The data set that the config tests on, without its wrappers. It is not there where new photographs are."""
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset


def refuse_true_masks(cfg: Config, out: Path) -> None:
    """Raise a ValueError where the masks would become the true ones of the config's own data set."""
    dataset, ours = data_of(cfg), (out / 'masks').resolve()
    true = dataset.get('data_prefix', {}).get('seg_map_path')
    if true and Path(dataset.get('data_root') or '', true).resolve() == ours:
        raise ValueError(f'--out: expected a folder whose masks are not taken for true ones, as those in {ours} are')


def classes_of_config(cfg: Config) -> Sequence[str] | None:
    dataset = data_of(cfg)
    classes = dataset.get('metainfo', {}).get('classes')
    if classes is None and 'type' in dataset:
        with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
            classes = registry.get(dataset.type).METAINFO.get('classes')
    return classes


def load_model(cfg: Config, checkpoint: str) -> BaseSegmentor:
    """The segmentor with the weights and the classes of the checkpoint, which are those of the config."""
    model = init_model(cfg, device=get_device())
    meta = load_fitting_checkpoint(model, checkpoint).get('meta', {}).get('dataset_meta')
    try:
        classes, palette = meta['classes'], np.array(meta['palette'], np.uint8)
        good = all(isinstance(name, str) for name in classes) and palette.shape == (len(classes), 3)
    except (LookupError, OverflowError, TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(
            f'{checkpoint}: expected a checkpoint with classes and palette in meta.dataset_meta, as tools/train.py '
            f'writes it, got {str(meta)[:200]}'
        )
    require_same_classes(checkpoint, classes_of_config(cfg) or classes, classes)
    model.dataset_meta = meta
    return model


def predict(model: BaseSegmentor, packed: dict) -> np.ndarray:
    """A photograph as the test pipeline packs it → the mask of class ids, uint8 (H, W) of the photograph as shown.

    It is predicted, and refined, at the size that the network gets. The planes are brought to the photograph's size one
    class at a time, because those of all classes of a large photograph need gigabytes.
    """
    sample = packed['data_samples']
    height, width = sample.img_shape[:2]
    if height * width > MAX_INPUT_PIXELS:
        raise ValueError(
            f'{sample.img_path}: expected a test pipeline that gives the network at most {MAX_INPUT_PIXELS} pixels, '
            f'got {width} × {height}; add a Resize to test_dataloader.dataset.pipeline'
        )
    shown = sample.ori_shape[:2]
    sample.set_metainfo(dict(ori_shape=(height, width)))
    with torch.no_grad():
        (result,) = model.test_step(pseudo_collate([packed]))
    return upsampled_argmax(result.seg_logits.data, shown).cpu().numpy()


def upsampled_argmax(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Planes (C, h, w) → the id of the highest at each of (H, W) pixels, uint8; the lowest id of equal ones."""
    best = torch.full(size, -torch.inf, device=planes.device)
    ids = torch.zeros(size, dtype=torch.uint8, device=planes.device)
    for i, plane in enumerate(planes):
        plane = F.interpolate(plane[None, None], size, mode='bilinear', align_corners=False)[0, 0]
        ids[plane > best] = i
        best = torch.maximum(best, plane)
    return ids


def problem_of(path: str, value_range: Sequence[float] | None) -> str | None:
    """Why a photograph cannot be predicted; None where it can."""
    if problem := why_unreadable(path) or damage(path):
        return problem
    return None if value_range or not read_header(path).deep else f'more than 8 bits and no value_range; {RANGE_ADVICE}'


def draw(visualizer: OverlayVisualizer, name: str, photograph: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mask over the photograph, RGB (H, W, 3) with no side longer than `OVERLAY_SIDE`."""
    if max(photograph.shape) > OVERLAY_SIDE:
        photograph = mmcv.imrescale(photograph, (OVERLAY_SIDE, OVERLAY_SIDE), interpolation='area')
    mask = mmcv.imresize(mask, photograph.shape[1::-1], interpolation='nearest')
    # As an array: mmseg takes a tensor of a single pixel for an index.
    sample = SegDataSample(pred_sem_seg=PixelData(data=mask[None]))
    visualizer.add_datasample(name, photograph, sample, draw_gt=False)
    return visualizer.get_image()


def encoded(image: Image.Image, **options) -> bytes:
    content = io.BytesIO()
    image.save(content, **options)
    return content.getvalue()


def main() -> None:
    args = parse_args()
    sys.stdout.reconfigure(errors='backslashreplace')  # names of files may hold anything
    cfg = load_config(args.config, args.cfg_options)
    refuse_true_masks(cfg, args.out)
    root, names = photographs_at(args.photographs, args.out)
    model = load_model(cfg, args.checkpoint)
    # As mmseg's own inferencers do: there are no masks to load.
    steps = cfg.test_dataloader.dataset.pipeline
    pipeline = Compose([step for step in steps if step['type'].split('.')[-1] != 'LoadAnnotations'])
    value_range = next((step.value_range for step in pipeline.transforms if isinstance(step, ToEightBits)), None)
    palette = np.array(model.dataset_meta['palette'], np.uint8)
    visualizer = OverlayVisualizer(alpha=0.5)
    visualizer.dataset_meta = dict(classes=model.dataset_meta['classes'], palette=palette.tolist())
    settings = getattr(model, 'settings_with', RefineSettings)()
    made = made_by(model, settings, cfg, steps, model.dataset_meta['classes'], fp16=False)
    made_from, unreadable = clear(args.out, root, names, made['identity']), {}
    seen = Counter()  # photographs, by class
    pending = [name for name in names if not results(args.out, name)[0].is_file()]
    for name in progress(pending):
        path, (mask_file, overlay_file) = root / name, results(args.out, name)
        problem = problem_of(str(path), value_range)
        try:
            packed = None if problem else pipeline(dict(img_path=str(path)))
        except cv2.error as error:  # an image so thin that nothing is left of it when it is resized
            problem = str(error).strip()
        if problem:
            unreadable[str(path)] = problem
            continue
        mask = predict(model, packed)
        overlay = draw(visualizer, name, read_image(str(path), value_range), mask)
        write_atomically(overlay_file, encoded(Image.fromarray(overlay), format='JPEG', quality=90))
        write_mask(mask_file, mask, palette, made_from[name])
        seen.update(model.dataset_meta['classes'][i] for i in np.unique(mask))
    told = dict(checkpoint=args.checkpoint, command=shlex.join(['python', 'tools/predict.py', *sys.argv[1:]]))
    number = len(find_images(args.out / 'masks')[0]) if (args.out / 'masks').is_dir() else 0
    manifest = dict(made, **told, photographs=str(root), images=number, mIoU=None, ignored=None)
    write_atomically(args.out / 'masks/manifest.json', json.dumps(manifest, indent=2, default=str).encode())
    kept = f', {len(names) - len(pending)} of them as they were there already' if len(pending) < len(names) else ''
    print(f'{len(names) - len(unreadable)} of {len(names)} photographs: masks and overlays in {args.out}{kept}')
    if seen:
        print(f'photographs with each class: {", ".join(f"{name} ({number})" for name, number in seen.most_common())}')
    for path, problem in unreadable.items():
        print(f'not read: {path} ({problem})')
    sys.exit(bool(unreadable))


if __name__ == '__main__':
    main()
