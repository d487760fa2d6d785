"""PseudoMaskHook: writes the pseudo masks that stage 2 trains on."""

import dataclasses
import hashlib
import json
import math
import shlex
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.runner import Runner, autocast
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.evaluation import IoUMetric
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import nn

from aream_mm.checkpoint import read_checkpoint
from aream_mm.checks import require, require_switches
from aream_mm.datasets.contents import MADE_FROM, contents, read_mask
from aream_mm.datasets.tags import require_same_classes
from aream_mm.engine.checkpoints import classes_of_loops, latest_checkpoint
from aream_mm.engine.training import bare
from aream_mm.files import write_atomically
from aream_mm.masks import IGNORE_INDEX, encode_mask
from aream_mm.models.refined import RefinedEncoderDecoder
from aream_mm.models.segmentor import CAMSegmentor
from aream_mm.models.settings import RefineSettings
from aream_mm.progress import progress
from aream_mm.registry import HOOKS
from aream_mm.version import METHOD

IGNORED_COLOUR = (224, 224, 192)  # of VOC's borders
WRITERS, MAX_WAITING = 4, 64  # threads, and images that wait for them


@HOOKS.register_module()
class PseudoMaskHook(Hook):
    """Runs a segmentor over the training images and writes their masks and a manifest.json.

    A `CAMSegmentor` runs after its training, with the checkpoint of `save_best` or else the last weights. A
    `RefinedEncoderDecoder` of stage 2 runs by `tools/test.py --pseudo-masks`. Both predict tags and background alone.

    A mask is a palette PNG of ids 0..C (255 ignored) at `out_dir/<sample_id>.png`. Its text says what it was made from:
    the digest of weights, network, settings, pipeline, classes and `METHOD`; the tags; the digest of the photograph.
    A mask that would be made from the same is kept. The manifest appears when all are there. It names checkpoint,
    settings and classes, and the mIoU over the images that have a mask to compare with. With `test_cfg.band` that is
    the mIoU of the pixels that are not ignored, and `ignored` is the percentage of the others.

    Args:
        dataloader: config over an `ImageTagDataset` with test_mode=True.
        out_dir: folder. Default: `pseudo_masks` in the work dir.
        test_cfg: what differs from the model's `test_cfg`, such as dict(background=0.3).
        after_test: write the masks after testing too (`tools/test.py --pseudo-masks`).
        fp16: run the network under autocast, as mmengine's test loop does with its `fp16`; bfloat16 on a CPU.
    """

    priority = 'LOW'

    def __init__(
        self,
        dataloader: dict,
        out_dir: str | None = None,
        test_cfg: dict | None = None,
        after_test: bool = False,
        fp16: bool = False,
    ) -> None:
        require_switches('PseudoMaskHook', after_test=after_test, fp16=fp16)
        good = out_dir is None or isinstance(out_dir, str | Path) and str(out_dir) != ''
        require('PseudoMaskHook.out_dir', out_dir, 'the path of a folder, or None', good)
        self.dataloader = dataloader
        self.out_dir = out_dir and Path(out_dir)
        self.test_cfg = test_cfg or {}
        self.write_after_test = after_test
        self.fp16 = fp16

    def before_train(self, runner: Runner) -> None:
        """Find wrong settings and missing files before hours of training, not after."""
        self.out_dir = self.out_dir or Path(runner.work_dir) / 'pseudo_masks'
        model = bare(runner.model)
        if not isinstance(model, CAMSegmentor | RefinedEncoderDecoder):
            raise TypeError(
                'PseudoMaskHook: expected a CAMSegmentor or a RefinedEncoderDecoder, without test-time augmentation, '
                f'got {type(model).__name__}'
            )
        self.settings = model.settings_with(**self.test_cfg)
        refiner = self.settings.refiner  # built now, to see whether it can be
        self.dataset = MMENGINE_DATASETS.build(self.dataloader['dataset'])
        classes = self.dataset.metainfo['classes']
        background, expected = self.dataset.first_id == 1, model.out_channels
        if isinstance(model, CAMSegmentor):
            background = self.settings.background is not None
            expected = background + model.head.num_classes
        if len(classes) != expected or (classes[0] == 'background') != background:
            raise ValueError(
                f'PseudoMaskHook: expected a data set of {expected} classes, {"with" if background else "without"} '
                f'background, as the network has them, got {tuple(classes)}'
            )
        if not background and getattr(refiner, 'background', False):
            raise ValueError(
                'PseudoMaskHook: expected refine.background=False for a data set without background, got True'
            )
        for own in classes_of_loops(runner):
            require_same_classes('PseudoMaskHook: dataloader', own, classes)

    def before_test(self, runner: Runner) -> None:
        if self.write_after_test:
            self.before_train(runner)

    def after_train(self, runner: Runner) -> None:
        chosen = runner.message_hub.runtime_info.get('best_ckpt')
        if chosen:
            runner.logger.info(f'Pseudo masks: of {chosen}, which the validation has chosen')
            bare(runner.model).load_state_dict(read_checkpoint(chosen, map_location='cpu')['state_dict'])
        self.write(runner, chosen or latest_checkpoint(runner.work_dir))

    def after_test(self, runner: Runner, metrics: dict | None = None) -> None:
        if self.write_after_test:
            self.write(runner, runner._load_from)

    def write(self, runner: Runner, checkpoint: str | None) -> dict:
        """Write what is missing, measure what is there, and only then the manifest, which is returned."""
        model = bare(runner.model)
        for buffer in model.buffers():  # each process has its own running statistics of a BatchNorm
            dist.broadcast(buffer)
        pipeline, classes = self.dataloader['dataset']['pipeline'], self.dataset.metainfo['classes']
        made = made_by(model, self.settings, runner.cfg, pipeline, classes, self.fp16)
        infos = [self.dataset.get_data_info(i) for i in range(len(self.dataset))]
        files = [self.out_dir / f'{info["sample_id"]}.png' for info in infos]
        pending = self._pending(infos, files, made['identity'])
        runner.logger.info(f'Pseudo masks: {len(pending)} of {len(files)} to write to {self.out_dir}')
        if pending:
            self._generate(runner, pending)
        dist.barrier()
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise FileNotFoundError(
                f'PseudoMaskHook: expected {len(files)} files, got none at {missing[0]} and '
                f'{len(missing) - 1} other places; several machines have to share this folder'
            )
        miou, ignored = self._measure(infos, files, bool(made['settings'].get('band')))
        # mmengine has put the config into the work dir, with all options in it.
        config = Path(runner.work_dir, Path(runner.cfg.filename or 'CONFIG').name)
        command = shlex.join(['python', 'tools/test.py', str(config), str(checkpoint), '--pseudo-masks'])
        photographs = str(self.dataset.inner.data_prefix['img_path'])
        outcome = dict(checkpoint=checkpoint, command=command, photographs=photographs, images=len(files))
        manifest = dict(made, **outcome, mIoU=miou, ignored=ignored)
        if dist.is_main_process():
            write_atomically(self.out_dir / 'manifest.json', json.dumps(manifest, indent=2, default=str).encode())
        confident = '' if ignored is None else f' of the pixels outside the band; {ignored} % ignored'
        runner.logger.info(f'Pseudo masks: {len(files)} in {self.out_dir}, mIoU {miou}{confident}')
        dist.barrier()
        return manifest

    def _pending(self, infos: list[dict], files: list[Path], identity: str) -> dict[int, dict]:
        """What masks are to be made from, by the indices of those that are not there or made from else."""
        # One process looks for all: another, looking later, might see masks that the first has already begun to write.
        pending = [None]
        if dist.is_main_process():
            wanted = self.dataset.sources(identity, infos, [info['gt_score'] for info in infos])
            found = contents(read_mask, files)
            pending = [{i: wish for i, wish in enumerate(wanted) if found[i].get('made_from') != wish}]
            if pending[0]:
                (self.out_dir / 'manifest.json').unlink(missing_ok=True)
        dist.broadcast_object_list(pending)
        return pending[0]

    @torch.no_grad()
    def _generate(self, runner: Runner, pending: dict[int, dict]) -> None:
        # Whole batches, also where some of their masks are there: an image then always has the same company, on which
        # the last bit of its CAM depends.
        sampler = dict(type='aream_mm.SizeBatchSampler', indices=list(pending))
        made_from = {self.dataset.get_data_info(i)['sample_id']: wish for i, wish in pending.items()}
        loader = runner.build_dataloader({**self.dataloader, 'dataset': self.dataset, 'batch_sampler': sampler})
        model = bare(runner.model).eval()
        with ThreadPoolExecutor(WRITERS) as pool:
            writing = deque()
            for batch in progress(loader):
                with autocast(enabled=self.fp16):
                    samples = model.predict(**model.data_preprocessor(batch), settings=self.settings)
                for sample in samples:
                    if wish := made_from.get(sample.sample_id):
                        mask = sample.pred_sem_seg.data[0].byte().cpu().numpy()
                        file = self.out_dir / f'{sample.sample_id}.png'
                        writing.append(pool.submit(write_mask, file, mask, self.dataset.metainfo['palette'], wish))
                    if len(writing) > MAX_WAITING:
                        writing.popleft().result()
            for written in writing:
                written.result()

    def _measure(self, infos: list[dict], files: list[Path], band: bool) -> tuple[float | None, float | None]:
        """Of the files as written, in percent: mIoU over the images that have a mask, and with a band what is ignored.

        What a file ignores is in no mIoU. None where nothing is left to measure.
        """
        number = sum('seg_map_path' in info for info in infos)
        pairs = [pair for pair in zip(infos, files, strict=True) if band or 'seg_map_path' in pair[0]]
        load, metric, counts = LoadAnnotations(), IoUMetric(iou_metrics=['mIoU']), torch.zeros(2, dtype=torch.int64)
        metric.dataset_meta = self.dataset.metainfo
        for info, file in pairs[dist.get_rank() :: dist.get_world_size()]:
            mask = np.array(Image.open(file))
            counts += torch.tensor([(mask == IGNORE_INDEX).sum(), mask.size])
            if 'seg_map_path' in info:
                truth = load(dict(info, seg_fields=[]))['gt_seg_map']
                planes = dict(pred_sem_seg=mask, gt_sem_seg=np.where(mask == IGNORE_INDEX, IGNORE_INDEX, truth))
                metric.process({}, [{key: dict(data=torch.from_numpy(plane)) for key, plane in planes.items()}])
        dist.all_reduce(counts)
        miou = float(metric.evaluate(number)['mIoU']) if number else math.nan
        ignored = round(100 * float(counts[0] / counts[1]), 2) if band else None
        return None if math.isnan(miou) else round(miou, 2), ignored


def made_by(
    model: nn.Module, settings: RefineSettings, cfg: Config, pipeline: list, classes: Sequence[str], fp16: bool
) -> dict[str, Any]:
    """What the masks of a segmentor depend on, and its digest as `identity`."""
    of_mmseg = {} if isinstance(model, CAMSegmentor) else model.test_cfg or {}
    made = dict(
        method=METHOD,
        weights=fingerprint(model, settings.refiner),
        network=network({key: cfg.get(key) for key in ('model', 'data_preprocessor')}),
        settings={**of_mmseg, **dataclasses.asdict(settings), 'fp16': fp16},
        pipeline=list(pipeline),
        classes=list(classes),
    )
    return dict(made, identity=hashlib.sha256(json.dumps(made, sort_keys=True, default=str).encode()).hexdigest())


def write_mask(file: Path, mask: np.ndarray, palette: Sequence, made_from: dict) -> None:
    """The PNG of uint8 ids (H, W), whose text says what it was made from."""
    colours = np.full((256, 3), IGNORED_COLOUR, np.uint8)
    colours[: len(palette)] = palette
    text = PngInfo()
    text.add_text(MADE_FROM, json.dumps(made_from))
    write_atomically(file, encode_mask(mask, colours, text))


def fingerprint(*models: nn.Module | None) -> str:
    """SHA-256 of the weights, which tells one checkpoint from another wherever the file lies."""
    digest = hashlib.sha256()
    for model in filter(None, models):
        for key, value in model.state_dict().items():
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def network(config: Any) -> Any:
    """The config of a model without what tells how it begins and trains, and how it predicts, which settings tell."""
    if isinstance(config, Mapping):
        others = ('pretrained', 'init_cfg', 'train_cfg', 'test_cfg', 'attention_loss', 'loss_decode')
        return {key: network(value) for key, value in config.items() if key not in others}
    return [network(value) for value in config] if isinstance(config, list | tuple) else config
