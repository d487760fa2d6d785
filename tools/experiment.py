r"""Run an experiment: the rows of a table, several seeds of each, trained and measured by one command.

    python tools/experiment.py configs/experiment_voc.py --estimate
    python tools/experiment.py configs/experiment_voc.py --gpus 4 --seeds 0 1 2 --cfg-options data_root=/path/to/VOC2012
    python tools/experiment.py configs/experiment_animals.py --cfg-options data_root=/path/to/VOC2012
    python tools/experiment.py configs/experiment_animals.py --stage-2 'no AReAM' AReAM \
        --stage-2-options data_root=/path/to/VOC2012

The config has `rows`, each a few settings on top of a config, and `seeds`. What is there already is not done again, so
that an interrupted experiment goes on with the same command, and rows and seeds can be added.

A config with `decoders` is a table of the whole chain (table.py): both stages of each row, with all refiners. Before
the first step it measures what all of it will take, and --estimate ends there. `results.html` and `results.json` in the
work dir have its figures beside the paper's.

A config with `propagations` compares trainings that share a start (comparison.py), in one process a training.
"""

import argparse
import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aream_mm.quiet  # noqa: F401

import comparison
from arguments import config_file, count
from options import OptionAction, load_config
from table import LOG, READ, Step, Table
from table_estimate import Estimate
from table_page import duration, write_page


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Two that write to one folder would spoil it.

    Raises:
        ValueError: another one works in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / 'lock').open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f'{folder}: expected to be alone there, but another experiment is running') from error
        yield


def conduct(table: Table) -> list[Step]:
    """Do what is left of a table, keep its page, say how far it is; the steps that failed."""
    with alone_in(table.work_dir):
        finished = {step for step in table.steps if table.result(step)}
        if len(finished) < len(table.steps):
            estimate = Estimate.of(table)
            print(estimate.text())
            if finished:
                print(f'{len(finished)} of {len(table.steps)} steps are there already.')
        failed = []
        for number, step in enumerate(table.steps, start=1):
            if step in finished:
                continue
            if any(table.needed(step, name) not in finished for name in step.needs):
                continue  # said where what it needs failed
            place = f'step {number} of {len(table.steps)}: {step}'
            print(f'{place} …', flush=True)
            if table.run(step):
                finished.add(step)
                seconds = {each: table.result(each)['seconds'] for each in table.steps if each in finished}
                left = estimate.remaining(seconds)
                done = f'{duration(seconds[step])}; done {duration(sum(seconds.values()))}'
                print(f'{place}: {done}, remaining about {duration(left)}', flush=True)
            else:
                failed.append(step)
                log = table.folder(step) / LOG
                print(f'{step} failed, and what needs it is left out. The end of {log}:', file=sys.stderr)
                print('\n'.join(log.read_text(errors='replace').splitlines()[-15:]), file=sys.stderr, flush=True)
            write_page(table, failed)
        if len(finished) == len(table.steps):
            total = sum(table.result(step)['seconds'] for step in table.steps)
            print(f'All {len(finished)} steps are done, in {duration(total)}.')
        print(f'Page: {write_page(table, failed)}')
        return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=config_file)
    parser.add_argument('--work-dir', type=Path, help='default: work_dirs/<name of the config>')
    parser.add_argument('--rows', nargs='+', help='names; default: all of the config')
    parser.add_argument('--seeds', nargs='+', type=int, help="default: the config's")
    parser.add_argument('--cfg-options', nargs='+', action=OptionAction, help='override settings, key=value')
    table = parser.add_argument_group('with decoders')
    table.add_argument('--estimate', action='store_true', help='say what it takes, and end; needs no data')
    table.add_argument('--gpus', type=count, help='processes of each step, which share its batch; default: 1')
    compared = parser.add_argument_group('with propagations')
    compared.add_argument('--stage-2', nargs='+', default=[], help='rows whose masks train stage 2 too')
    compared.add_argument('--processes', type=count, help='trainings at a time, which share the threads; default: 1')
    compared.add_argument('--stage-2-options', nargs='+', action=OptionAction, help='override settings of stage 2')
    args = parser.parse_args()
    cfg = load_config(args.config, args.cfg_options, (*READ, *comparison.READ))
    args.work_dir = args.work_dir or Path('work_dirs', Path(args.config).stem)
    is_table = 'decoders' in cfg
    others = compared if is_table else table
    if unused := [action.option_strings[0] for action in others._group_actions if getattr(args, action.dest)]:
        parser.error(f'{", ".join(unused)}: would have no effect for {args.config}, which has no {others.title[5:]}')
    rows, seeds = list(dict.fromkeys([*(args.rows or cfg.rows), *args.stage_2])), args.seeds or list(cfg.seeds)
    if unknown := sorted({*rows} - {*cfg.rows}):
        parser.error(f'expected rows of {list(cfg.rows)}, got {unknown}')
    if not is_table:
        comparison.run(cfg, args, rows, seeds)
        return
    planned = Table(cfg, args.work_dir, rows, seeds, args.gpus or 1)
    if args.estimate:
        print(Estimate.of(planned).text())
    elif conduct(planned):
        sys.exit(1)


if __name__ == '__main__':
    main()
