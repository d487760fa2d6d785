"""PseudoMaskHook: writes the pseudo masks that stage 2 trains on."""

import dataclasses
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import barrier, broadcast, broadcast_object_list, get_rank, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.runner import Runner, find_latest_checkpoint
from mmengine.structures import PixelData
from mmengine.utils import ProgressBar
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Subset

from aream_mm.engine.warm_up import bare
from aream_mm.files import write_atomically
from aream_mm.registry import HOOKS

IGNORED_COLOUR = (224, 224, 192)  # of VOC's borders


@HOOKS.register_module()
class PseudoMaskHook(Hook):
    """Runs a `CAMSegmentor` over the training images after training and writes their masks and a manifest.json.

    A mask is a palette PNG of ids 0..C (255 ignored) at `out_dir/<sample_id>.png`. Masks that the same weights have
    written with the same settings are kept, so an interrupted run goes on where it was; the manifest appears when all
    are there. It names checkpoint, settings and classes, and the mIoU over the images that have a mask to compare with.

    Args:
        dataloader: config over an `ImageTagDataset` with test_mode=True.
        out_dir: folder. Default: `pseudo_masks` in the work dir.
        test_cfg: `TestSettings` that differ from the model's, such as dict(background=0.3).
        after_test: write the masks after testing too (`tools/test.py --pseudo-masks`).
    """

    priority = 'LOW'

    def __init__(
        self, dataloader: dict, out_dir: str | None = None, test_cfg: dict | None = None, after_test: bool = False
    ) -> None:
        self.dataloader = dataloader
        self.out_dir = out_dir and Path(out_dir)
        self.test_cfg = test_cfg or {}
        self.write_after_test = after_test

    def before_train(self, runner: Runner) -> None:
        """Find wrong settings and missing files before hours of training, not after."""
        self._prepare(runner)

    def before_test(self, runner: Runner) -> None:
        if self.write_after_test:
            self._prepare(runner)

    def _prepare(self, runner: Runner) -> None:
        self.out_dir = self.out_dir or Path(runner.work_dir) / 'pseudo_masks'
        model = bare(runner.model)
        self.settings = dataclasses.replace(model.test_cfg, **self.test_cfg)
        model.check_propagate_layers(self.settings)
        self.dataset = MMENGINE_DATASETS.build(self.dataloader['dataset'])
        background = int(self.settings.background is not None)
        classes, expected = self.dataset.metainfo['classes'], background + bare(runner.model).head.num_classes
        if len(classes) != expected or (classes[0] == 'background') != bool(background):
            raise ValueError(
                f'PseudoMaskHook: expected a data set of {expected} classes, {"with" if background else "without"} '
                f'background (test_cfg.background={self.settings.background}), got {tuple(classes)}'
            )

    def after_train(self, runner: Runner) -> None:
        self.write(runner, find_latest_checkpoint(runner.work_dir))

    def after_test(self, runner: Runner, metrics: dict | None = None) -> None:
        if self.write_after_test:
            self.write(runner, runner._load_from)

    def write(self, runner: Runner, checkpoint: str | None) -> None:
        """Write what is missing, measure what is there, and only then the manifest."""
        for buffer in bare(runner.model).buffers():  # each process has its own running statistics of a BatchNorm
            broadcast(buffer)
        identity = dict(
            weights=fingerprint(bare(runner.model)),
            settings=dataclasses.asdict(self.settings),
            classes=list(self.dataset.metainfo['classes']),
        )
        infos = [self.dataset.get_data_info(i) for i in range(len(self.dataset))]
        files = [self.out_dir / f'{info["sample_id"]}.png' for info in infos]
        pending = self._pending(files, json.loads(json.dumps(identity)))
        runner.logger.info(f'Pseudo masks: {len(pending)} of {len(files)} to write to {self.out_dir}')
        if pending:
            self._generate(runner, pending)
        barrier()
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise FileNotFoundError(
                f'PseudoMaskHook: expected {len(files)} masks in {self.out_dir}, got {len(files) - len(missing)}, none '
                f'at {missing[0]}; several machines have to share this folder'
            )
        manifest = dict(identity, checkpoint=checkpoint, images=len(files), mIoU=self._measure(infos, files))
        if is_main_process():
            write_atomically(self.out_dir / 'manifest.json', json.dumps(manifest, indent=2).encode())
            (self.out_dir / 'unfinished.json').unlink(missing_ok=True)
        runner.logger.info(f'Pseudo masks: {len(files)} in {self.out_dir}, mIoU {manifest["mIoU"]}')
        barrier()

    def _pending(self, files: list[Path], identity: dict) -> list[int]:
        """Indices of the masks still to write; forgets masks that other weights or settings made."""
        manifest, unfinished = self.out_dir / 'manifest.json', self.out_dir / 'unfinished.json'
        # One process looks for all: another, looking later, might see masks that the first has already begun to write.
        pending = [None]
        if is_main_process():
            found = next((json.loads(path.read_text()) for path in (unfinished, manifest) if path.is_file()), {})
            if {key: found.get(key) for key in identity} != identity:
                for path in (manifest, *files):
                    path.unlink(missing_ok=True)
            write_atomically(unfinished, json.dumps(identity).encode())
            pending = [[i for i, file in enumerate(files) if not file.is_file()]]
        broadcast_object_list(pending)
        return pending[0]

    @torch.no_grad()
    def _generate(self, runner: Runner, pending: list[int]) -> None:
        loader = runner.build_dataloader({**self.dataloader, 'dataset': Subset(self.dataset, pending)})
        palette = np.full((256, 3), IGNORED_COLOUR, np.uint8)
        palette[: len(self.dataset.metainfo['palette'])] = self.dataset.metainfo['palette']
        model, settings = bare(runner.model), bare(runner.model).test_cfg
        progress = ProgressBar(len(pending)) if is_main_process() else None
        model.eval()
        model.test_cfg = self.settings
        try:
            for batch in loader:
                for sample in model.test_step(batch):
                    mask = Image.fromarray(sample.pred_sem_seg.data[0].byte().cpu().numpy())
                    mask.putpalette(palette.tobytes())
                    content = io.BytesIO()
                    mask.save(content, format='PNG')
                    write_atomically(self.out_dir / f'{sample.sample_id}.png', content.getvalue())
                    if progress:
                        for _ in range(min(get_world_size(), len(pending) - progress.completed)):
                            progress.update()
        finally:
            model.test_cfg = settings
        if progress:
            print()

    def _measure(self, infos: list[dict], files: list[Path]) -> float | None:
        """mIoU in percent of the files as written, over the images that have a mask; None where none has."""
        pairs = [(info, file) for info, file in zip(infos, files, strict=True) if 'seg_map_path' in info]
        if not pairs:
            return None
        load = LoadAnnotations()
        metric = IoUMetric(iou_metrics=['mIoU'])
        metric.dataset_meta = self.dataset.metainfo
        for info, file in pairs[get_rank() :: get_world_size()]:
            sample = SegDataSample()
            sample.gt_sem_seg = PixelData(data=as_plane(load(dict(info, seg_fields=[]))['gt_seg_map']))
            sample.pred_sem_seg = PixelData(data=as_plane(np.array(Image.open(file))))
            metric.process({}, [sample.to_dict()])
        return round(float(metric.evaluate(len(pairs))['mIoU']), 2)


def as_plane(mask: np.ndarray) -> Tensor:
    """(H, W) ids → (1, H, W) int64."""
    return torch.from_numpy(mask.astype(np.int64))[None]


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of the weights, which tells one checkpoint from another wherever the file lies."""
    digest = hashlib.sha256()
    for key, value in model.state_dict().items():
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
