"""The table of an experiment: both stages of every row, step by step, each by one of the tools.

A step is a command in a folder of its own, `<work dir>/<row>/<seed>/<step>`, which holds its `config.py`, `output.log`
and, when it has ended, `result.json`. What has a result is not done again; what has none goes on from its last
checkpoint, or from the masks that are there.
"""

import hashlib
import json
import pprint
import re
import sys
import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

from children import run_command
from mmengine.config import Config
from options import READ_OF_STAGES, load_config

from aream_mm.engine.checkpoints import latest_checkpoint
from aream_mm.files import write_atomically

TOOLS = Path(__file__).parent
RESULT, BEGUN, LOG = 'result.json', 'begun.json', 'output.log'
# Of the experiment's config, and of those of its rows and decoders beside what tools/train.py reads.
READ = ('data_root', 'seeds', 'rows', 'refiners', 'affinity', 'band', 'stage_2_masks', 'decoders', 'tta')
READ = (*READ, 'images', 'image_size')
BAND = 'band'  # the folder of the masks on which an AffinityNet is trained
WALK = 'aream_mm.RandomWalk'
LEFT_OUT = ('aream_mm.PseudoMaskHook', 'aream_mm.AffinityProfileHook')  # of the training of stage 1
FEW = 16  # images; tools/test.py measures before it writes masks, and here that has been done
WITHOUT_EFFECT = ('num_workers', 'persistent_workers', 'prefetch_factor', 'pin_memory', 'experiment_name')


class Step(NamedTuple):
    """name: unique within row and seed; kind: what it does; part: of which decoder; needs: steps it goes on from."""

    row: str
    seed: int
    name: str
    kind: str
    part: str | None = None
    needs: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f'{self.row}, seed {self.seed}, {self.name}'


class Made(NamedTuple):
    """What a step runs: a tool on a config, for testing with a checkpoint."""

    tool: str
    cfg: Config
    checkpoint: str | None = None
    options: tuple[str, ...] = ()


def slug(name: str) -> str:
    return re.sub(r'[^\w.+-]+', '_', name)


def plain(value):
    """Without what does not change a result, for comparing."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key not in WITHOUT_EFFECT}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def fingerprint(*values) -> str:
    return hashlib.sha256(json.dumps(plain(values), sort_keys=True, default=str).encode()).hexdigest()


def hooks_of(cfg: Config, *types: str) -> list[dict]:
    return [hook for hook in cfg.get('custom_hooks') or [] if hook['type'] in types]


def write_config(cfg: Config, path: Path) -> None:
    """As Python, in which tuples stay tuples; mmengine's own way lays it out first, which takes seconds."""
    text = '\n'.join(f'{key} = {pprint.pformat(value, width=120)}' for key, value in cfg.to_dict().items())
    write_atomically(path, f'{text}\n'.encode())


class Table:
    """The plan of an experiment: which steps there are, what each of them runs, and what has come of it.

    Args:
        cfg: the experiment's, such as configs/experiment_voc.py.
        work_dir: where the steps have their folders.
        seeds: of the rows; the first ones come first, each as a whole table.
        gpus: processes of each step.
    """

    def __init__(self, cfg: Config, work_dir: Path, rows: list[str], seeds: list[int], gpus: int = 1) -> None:
        self.cfg, self.work_dir, self.gpus = cfg, work_dir.resolve(), gpus
        self.rows, self.seeds = rows, seeds
        walks = [name for name, settings in cfg.refiners.items() if is_walk(settings)]
        self.walks, self.direct = walks, [name for name in cfg.refiners if name not in walks]
        if cfg.decoders and cfg.stage_2_masks not in cfg.refiners:
            raise ValueError(f'stage_2_masks: expected one of {list(cfg.refiners)}, got {cfg.stage_2_masks!r}')
        self.steps = [step for seed in seeds for row in rows for step in self.steps_of(row, seed)]
        self.by_name = {(step.row, step.seed, step.name): step for step in self.steps}
        self.bases, self.fingerprints = {}, {}

    def steps_of(self, row: str, seed: int) -> Iterator[Step]:
        yield Step(row, seed, 'train', 'stage 1')
        yield Step(row, seed, 'seeds', 'seeds', None, ('train',))
        yield Step(row, seed, 'masks', 'masks', None, ('train', 'seeds'))
        if self.walks:
            yield Step(row, seed, 'affinity', 'affinity', None, ('masks',))
            yield Step(row, seed, 'walk', 'walk', None, ('train', 'seeds', 'affinity'))
        masks = 'walk' if self.cfg.stage_2_masks in self.walks else 'masks'
        for decoder in self.cfg.decoders:
            yield Step(row, seed, decoder, 'stage 2', decoder, (masks,))
            yield Step(row, seed, f'{decoder}, val', 'val', decoder, (decoder,))

    def needed(self, step: Step, name: str) -> Step:
        return self.by_name[step.row, step.seed, name]

    def folder(self, step: Step) -> Path:
        return self.work_dir / slug(step.row) / str(step.seed) / slug(step.name)

    def result(self, step: Step) -> dict | None:
        """Of a step that has ended.

        Raises:
            ValueError: it was done with other settings than the experiment has now.
        """
        for name in (RESULT, BEGUN):
            path = self.folder(step) / name
            found = json.loads(path.read_text()) if path.is_file() else None
            if found and found['settings'] != self.settings(step):
                raise ValueError(
                    f'{path}: expected the settings that the experiment has now, got others; take them back, remove '
                    'the folder, or choose another --work-dir'
                )
            if found and name == RESULT:
                return found
        return None

    def settings(self, step: Step) -> str:
        """A fingerprint of all that its result depends on, but for where the data lies."""
        if step not in self.fingerprints:
            self.fingerprints[step] = self.fingerprint_of(step)
        return self.fingerprints[step]

    def fingerprint_of(self, step: Step) -> str:
        config = ('affinity',) if step.kind == 'affinity' else (group_of(step.kind), step.part or step.row)
        if config not in self.fingerprints:
            self.fingerprints[config] = fingerprint(self.base(step.kind, config[-1], None).to_dict())
        own = [self.fingerprints[config], step.seed]
        if step.kind in ('masks', 'walk'):
            names = self.walks if step.kind == 'walk' else self.direct
            own += [{name: self.cfg.refiners[name] for name in names}, self.cfg.band if self.walks else None]
        if step.kind == 'stage 2':
            own += [self.cfg.stage_2_masks]
        if step.kind == 'val':
            own += [self.cfg.tta]
        return fingerprint(own, [self.settings(self.needed(step, name)) for name in step.needs])

    def base(self, kind: str, name: str, data_root: str | None) -> Config:
        """The config of a row, of the AffinityNet or of a decoder, with the settings that the experiment has for it."""
        key = ('affinity', data_root) if kind == 'affinity' else (group_of(kind), name, data_root)
        if key not in self.bases:
            entry = self.cfg.affinity if kind == 'affinity' else self.cfg[group_of(kind)][name]
            options = {option: value for option, value in entry.items() if option not in ('config', 'paper')}
            options |= dict(data_root=data_root) if data_root else {}
            self.bases[key] = load_config(entry.config, options, READ_OF_STAGES)
        return deepcopy(self.bases[key])

    def checkpoint(self, step: Step) -> str:
        """The best one of a training, by its own measure, or where it has none the last one."""
        folder = self.folder(step)
        best = sorted(folder.glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
        return str(best[-1]) if best else latest_checkpoint(str(folder))

    def made(self, step: Step) -> Made:
        """What to run for a step; what it needs has ended."""
        folder, part = self.folder(step), step.part or step.row
        cfg = self.base(step.kind, part, self.cfg.data_root)
        cfg.update(work_dir=str(folder), experiment_name=slug(str(step)))
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=step.seed)
        if step.kind in ('stage 1', 'affinity', 'stage 2'):
            cfg.train_dataloader.batch_size = per_process(cfg.train_dataloader.batch_size, self.gpus, step)
        if step.kind == 'stage 1':
            cfg.custom_hooks = [hook for hook in cfg.get('custom_hooks') or [] if hook['type'] not in LEFT_OUT]
            return Made('train.py', cfg)
        if step.kind == 'affinity':
            cfg.train_dataloader.dataset.mask_dir = str(self.folder(self.needed(step, 'masks')) / BAND)
            return Made('train.py', cfg)
        if step.kind == 'stage 2':
            (source,) = step.needs
            masks = self.folder(self.needed(step, source)) / slug(self.cfg.stage_2_masks)
            cfg.train_dataloader.dataset.mask_dir = str(masks)
            cfg.update(val_dataloader=None, val_cfg=None, val_evaluator=None)
            cfg.update(test_dataloader=None, test_cfg=None, test_evaluator=None)
            return Made('train.py', cfg)
        if step.kind == 'val':
            checkpoint = latest_checkpoint(str(self.folder(self.needed(step, step.part))))
            return Made('test.py', cfg, checkpoint, ('--tta',) if self.cfg.tta else ())
        checkpoint = self.checkpoint(self.needed(step, 'train'))
        if step.kind == 'seeds':
            cfg.custom_hooks = []
            return Made('test.py', cfg, checkpoint)
        background = self.result(self.needed(step, 'seeds'))['figures']['threshold']
        loader, refiners = mask_loader(cfg), self.refiners(step)
        cfg.custom_hooks = [
            dict(
                type='aream_mm.PseudoMaskHook',
                dataloader=loader,
                out_dir=str(folder / slug(name)),
                test_cfg=dict(settings, background=background),
            )
            for name, settings in refiners.items()
        ]
        cfg.test_evaluator = dict(type='aream_mm.CAMMetric')
        cfg.test_dataloader.dataset.dataset.indices = FEW
        return Made('test.py', cfg, checkpoint, ('--pseudo-masks',))

    def refiners(self, step: Step) -> dict[str, dict]:
        """By name the test settings of the masks that a step writes."""
        if step.kind == 'masks':
            band = {BAND: self.cfg.band} if self.walks else {}
            return {**{name: self.cfg.refiners[name] or {} for name in self.direct}, **band}
        net = self.base('affinity', '', None).model
        checkpoint = latest_checkpoint(str(self.folder(self.needed(step, 'affinity'))))
        return {name: with_net(self.cfg.refiners[name], net, checkpoint) for name in self.walks}

    def figures(self, step: Step) -> dict:
        """What the tool of a step that has ended says of it: mIoU in percent."""
        folder = self.folder(step)
        if step.kind in ('masks', 'walk'):
            names = self.walks if step.kind == 'walk' else self.direct
            return {name: json.loads((folder / slug(name) / 'manifest.json').read_text())['mIoU'] for name in names}
        if step.kind in ('seeds', 'val'):
            latest = max(folder.glob('*/*.json'), key=lambda path: path.name)
            said = json.loads(latest.read_text())
            if step.kind == 'val':
                return dict(mIoU=said['mIoU'])
            return dict(mIoU=said['cam/mIoU_best'], threshold=said['cam/threshold_best'])
        return {}

    def command(self, step: Step, made: Made) -> list[str]:
        folder = self.folder(step)
        tool = [str(TOOLS / made.tool), str(folder / 'config.py')]
        tool += [made.checkpoint] if made.checkpoint else []
        tool += ['--work-dir', str(folder), *made.options]
        if made.tool == 'train.py' and (folder / 'last_checkpoint').is_file():
            tool.append('--resume')
        if self.gpus == 1:
            return [sys.executable, *tool]
        launcher = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', str(self.gpus)]
        return [sys.executable, *launcher, *tool, '--launcher', 'pytorch']

    def run(self, step: Step) -> bool:
        """Run a step to its end; False where it failed."""
        folder, began = self.folder(step), time.time()
        folder.mkdir(parents=True, exist_ok=True)
        made = self.made(step)
        begun = folder / BEGUN
        # Of runs that were killed what their log tells.
        spent = json.loads(begun.read_text())['spent'] if begun.is_file() else 0
        if begun.is_file() and (folder / LOG).is_file():
            spent += max((folder / LOG).stat().st_mtime - begun.stat().st_mtime, 0)
        settings = self.settings(step)
        write_atomically(begun, json.dumps(dict(settings=settings, spent=spent)).encode())
        write_config(made.cfg, folder / 'config.py')
        if run_command(self.command(step, made), folder / LOG, group=self.gpus > 1):
            return False
        seconds = spent + time.time() - began
        result = dict(settings=settings, seconds=seconds, checkpoint=made.checkpoint, figures=self.figures(step))
        write_atomically(folder / RESULT, json.dumps(result, indent=2).encode())
        return True


def is_walk(settings: dict | None) -> bool:
    return bool(settings) and (settings.get('refine') or {}).get('type') == WALK


def with_net(settings: dict, net: dict, checkpoint: str) -> dict:
    return dict(settings, refine=dict(settings['refine'], net=net, checkpoint=checkpoint))


def group_of(kind: str) -> str:
    return 'decoders' if kind in ('stage 2', 'val') else 'rows'


def mask_loader(cfg: Config) -> dict:
    """The loader over the images that masks are written for."""
    hooks = hooks_of(cfg, 'aream_mm.PseudoMaskHook')
    return hooks[0]['dataloader'] if hooks else cfg.pseudo_mask_dataloader


def per_process(batch: int, processes: int, step: Step) -> int:
    if batch % processes:
        raise ValueError(f'--gpus {processes}: expected a divisor of the batch of {batch} images of {step}')
    return batch // processes
