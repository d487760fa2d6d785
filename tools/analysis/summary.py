"""Measure a two-stage run: a table of mIoU, and a picture of photographs, CAMs, masks and truth side by side.

    python tools/analysis/summary.py configs/aream_vit_animals.py configs/seg/deeplabv3plus_lite0_animals.py

The latest checkpoint of each config's work dir is measured on the config's test data, beside two masks that need no
training: background everywhere, and the image's tag everywhere (its first, where it has several). With `--baseline`
the CAMs of another config of stage 1 stand beside, with `--masks` folders of masks that PseudoMaskHook has written for
the same images, such as those of another refiner. They go by their last two names. Those that the config of stage 2
learns are left out where they are gone.
"""

import argparse
import json
import sys
from pathlib import Path

import aream_mm.quiet  # noqa: F401

import matplotlib
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample
from PIL import Image
from prettytable import PrettyTable

from aream_mm.checkpoint import load_fitting_checkpoint
from aream_mm.datasets.images import read_image
from aream_mm.engine.checkpoints import latest_checkpoint

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402

sys.path.append(str(Path(__file__).parents[1]))
from arguments import config_file, count  # noqa: E402
from console import QuietRunner  # noqa: E402
from options import OptionAction, load_config  # noqa: E402
from refiners import with_masks  # noqa: E402


def read_config(config: str, work_dir: str | None, cfg_options: dict | None) -> Config:
    """The config with the latest checkpoint of its work dir as `load_from`."""
    cfg = load_config(config, cfg_options)
    cfg.work_dir = work_dir or cfg.get('work_dir') or f'work_dirs/{Path(config).stem}'
    cfg.load_from = latest_checkpoint(cfg.work_dir)
    if cfg.load_from is None:
        raise FileNotFoundError(f'{cfg.work_dir}: expected a checkpoint of {config}; run tools/train.py on it first')
    return cfg


def build_runner(cfg: Config) -> Runner:
    """A runner over the checkpoint, which has all weights of the network."""
    runner = QuietRunner.from_cfg(cfg)
    load_fitting_checkpoint(runner.model, cfg.load_from)
    return runner


def measured(folder: Path) -> dict:
    """The manifest of masks that were compared with true ones."""
    file = folder / 'manifest.json'
    if not file.is_file():
        raise FileNotFoundError(f'expected {file}, which masks have when they are complete; --masks names others')
    manifest = json.loads(file.read_bytes())
    if manifest.get('mIoU') is None:
        raise ValueError(f'{folder}: expected masks that were compared with true ones, got no mIoU in manifest.json')
    return manifest


def trivial_miou(dataset: BaseDataset) -> dict[str, float]:
    """mIoU in percent of the masks that need no training, over the images of an `ImageTagDataset` that have a mask."""
    dataset = with_masks(dataset, None)
    load, results = LoadAnnotations(), {}
    for name in ('background everywhere', 'tag everywhere')[1 - dataset.first_id :]:
        metric = IoUMetric(iou_metrics=['mIoU'])
        metric.dataset_meta = dataset.metainfo
        for i in range(len(dataset)):
            info = dataset.get_data_info(i)
            truth = torch.from_numpy(load(info)['gt_seg_map'].astype(np.int64))[None]
            tagged = name.startswith('tag') and info['gt_score'].any()
            label = dataset.first_id + int(info['gt_score'].argmax()) if tagged else 0
            sample = SegDataSample(gt_sem_seg=PixelData(data=truth))
            sample.pred_sem_seg = PixelData(data=torch.full_like(truth, label))
            metric.process({}, [sample.to_dict()])
        results[name] = metric.evaluate(len(dataset))['mIoU']
    return results


@torch.no_grad()
def predict(runner: Runner, inputs: dict) -> SegDataSample:
    """The sample that the runner's model predicts for one item of a data set."""
    runner.model.eval()
    return runner.model.test_step(pseudo_collate([inputs]))[0].cpu()


def paint(mask: np.ndarray, palette: list) -> np.ndarray:
    """(H, W) ids → (H, W, 3) RGB; 255 is white."""
    colours = np.full((256, 3), 255, np.uint8)
    colours[: len(palette)] = palette
    return colours[mask.astype(np.uint8)]  # one bit is read as booleans


def draw(seeds: dict[str, Runner], seg: Runner, folders: dict[str, Path], rows: int, path: Path) -> None:
    """Photographs of stage 1's test data that have a mask, evenly spread, with what each step makes of them.

    `seeds` are runners of stage 1 by name, whose CAMs are shown; the masks are of the first. `folders` are those of
    masks by name.
    """
    seed = next(iter(seeds.values()))
    dataset = with_masks(seed.test_dataloader.dataset, None)
    palette = dataset.metainfo['palette']
    cams = [f'CAM, {name}' for name in seeds] if len(seeds) > 1 else ['CAM']
    titles = ('photograph', *cams, 'CAM mask', *folders, 'stage 2', 'truth')
    figure, axes = plt.subplots(rows, len(titles), figsize=(2.2 * len(titles), 2.2 * rows), squeeze=False)
    for row, i in zip(axes, np.linspace(0, len(dataset) - 1, rows, dtype=int).tolist(), strict=True):
        info = dataset.get_data_info(i)
        photograph = read_image(info['img_path'], dataset.value_range)
        seed_samples = [predict(runner, dataset[i]) for runner in seeds.values()]
        seed_sample = seed_samples[0]
        tags = [dataset.metainfo['classes'][c] for c in seed_sample.cam_classes.tolist()]
        seg_inputs = seg.test_dataloader.dataset.pipeline(dict(info))
        masks = [np.array(Image.open(folder / f'{info["sample_id"]}.png')) for folder in folders.values()]
        images = (
            photograph,
            *(photograph for _ in seeds),
            paint(seed_sample.pred_sem_seg.data[0].numpy(), palette),
            *(paint(mask, palette) for mask in masks),
            paint(predict(seg, seg_inputs).pred_sem_seg.data[0].numpy(), palette),
            paint(seed_sample.gt_sem_seg.data[0].numpy(), palette),
        )
        for axis, image, title in zip(row, images, titles, strict=True):
            axis.imshow(image)
            axis.set_axis_off()
            axis.set_title(title.replace('/', '/\n') if title != 'photograph' else ', '.join(tags), fontsize=9)
        for axis, sample in zip(row[1:], seed_samples, strict=False):
            axis.imshow(sample.cam.data.amax(dim=0), cmap='jet', alpha=0.5, vmin=0, vmax=1)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('seed_config', type=config_file, help='config of stage 1')
    parser.add_argument('seg_config', type=config_file, help='config of stage 2')
    parser.add_argument('--seed-work-dir', help='default: work_dirs/<name of the config>')
    parser.add_argument('--seg-work-dir', help='default: work_dirs/<name of the config>')
    parser.add_argument('--baseline', type=config_file, help='another config of stage 1, on the same test data')
    parser.add_argument('--baseline-work-dir', help='default: work_dirs/<name of the config>')
    parser.add_argument('--masks', nargs='+', type=Path, default=[], help='more folders of masks of the same images')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/summary'), help='folder of table and picture')
    parser.add_argument('--rows', type=count, default=8, help='photographs in the picture')
    parser.add_argument('--cfg-options', nargs='+', action=OptionAction, help='override settings of all configs')
    parser.add_argument('--stage-2-options', nargs='+', action=OptionAction, help='override settings of stage 2')
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    init_default_scope('mmseg')
    cfg = read_config(args.seed_config, args.seed_work_dir, args.cfg_options)
    options = {**(args.cfg_options or {}), **(args.stage_2_options or {})}
    seg_cfg = read_config(args.seg_config, args.seg_work_dir, options)
    baseline = args.baseline and read_config(args.baseline, args.baseline_work_dir, args.cfg_options)
    if baseline and Path(baseline.load_from).resolve() == Path(cfg.load_from).resolve():
        parser.error(f'--baseline: expected a config or --baseline-work-dir of another checkpoint than {cfg.load_from}')
    own, others = Path(seg_cfg.train_dataloader.dataset.mask_dir), args.masks
    folders = {'pseudo masks': own} if (own / 'manifest.json').is_file() or not others else {}
    for folder in others:
        name = '/'.join(folder.absolute().parts[-2:])
        folders[str(folder) if name in folders else name] = folder
    manifests = {name: measured(folder) for name, folder in folders.items()}
    seed, seg = build_runner(cfg), build_runner(seg_cfg)
    rows = {f'{name} (stage 1 test data)': v for name, v in trivial_miou(seed.test_dataloader.dataset).items()}
    figures = seed.test()
    rows['CAM masks (stage 1 test data)'] = figures['cam/mIoU_fixed']
    seeds = {Path(args.seed_config).stem: seed}
    if args.baseline:
        name = Path(args.baseline).stem
        name = f'{name} in {baseline.work_dir}' if name in seeds else name
        seeds[name] = build_runner(baseline)
        rows['the same, at the best threshold'] = figures['cam/mIoU_best']
        rows[f'{name}, at the best threshold'] = seeds[name].test()['cam/mIoU_best']
    for name, manifest in manifests.items():
        ignored = f', but for {manifest["ignored"]} % ignored' if manifest.get('ignored') else ''
        rows[f'{name} (all that have a truth{ignored})'] = manifest['mIoU']
    rows['stage 2 (its test data)'] = seg.test()['mIoU']
    rows = {name: round(float(value), 2) for name, value in rows.items()}
    (args.out / 'summary.json').write_text(json.dumps(rows, indent=2))
    table = PrettyTable(['masks', 'mIoU'], align='l', float_format='.1')
    table.add_rows(list(rows.items()))
    print(table)
    print(f'Table:   {args.out / "summary.json"}')
    draw(seeds, seg, folders, args.rows, args.out / 'summary.png')
    print(f'Picture: {args.out / "summary.png"}')


if __name__ == '__main__':
    main()
