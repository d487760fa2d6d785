"""The page of a table: what was measured beside what the paper has, and what was not run. One file, without scripts."""

import json
from html import escape
from pathlib import Path

import numpy as np
from table import RESULT, Step, Table, slug

from aream_mm.files import write_atomically

STYLE = """
body { font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 90em; padding: 0 1em; color: #222 }
table { border-collapse: collapse } th, td { padding: .35em .8em; text-align: right; border-bottom: 1px solid #ddd }
th { border-bottom: 2px solid #888; vertical-align: bottom } th:first-child { text-align: left }
td:first-child { text-align: left; white-space: nowrap }
td.paper { color: #06c } .none { color: #aaa } .failed { color: #b00 } .n { color: #888; font-size: 80% }
"""


def duration(seconds: float) -> str:
    if seconds < 90:
        return f'{seconds:.0f} s'
    return f'{seconds / 60:.1f} min' if seconds < 5400 else f'{seconds / 3600:.1f} h'


def mean_and_deviation(values: list[float]) -> str:
    """With n − 1; of one value itself."""
    if len(values) == 1:
        return f'{values[0]:.1f}'
    return f'{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}'


def columns_of(table: Table) -> dict[str, tuple[str, str]]:
    """Title of each column of figures → the step that measures it and its name there."""
    cfg = table.cfg
    columns = {'seeds, train': ('seeds', 'mIoU')}
    for name in cfg.refiners:
        columns[f'masks: {name}, train'] = ('walk' if name in table.walks else 'masks', name)
    views = ', TTA' if cfg.tta else ''
    return columns | {f'{name}, val{views}': (f'{name}, val', 'mIoU') for name in cfg.decoders}


def with_all_there(table: Table) -> Table:
    """The table of all rows of the experiment, and of all seeds that were asked for now or before."""
    folders = [folder for row in table.cfg.rows for folder in (table.work_dir / slug(row)).glob('[0-9]*')]
    seeds = sorted({*table.seeds, *(int(folder.name) for folder in folders)})
    whole = Table(table.cfg, table.work_dir, list(table.cfg.rows), seeds, table.gpus)
    whole.bases, whole.fingerprints = table.bases, table.fingerprints  # which take their time
    return whole


def done(table: Table, step: Step) -> dict | None:
    """The result of a step; none where it is of other settings, as those of a row that was not asked for may be."""
    try:
        return table.result(step)
    except ValueError:
        return None


def collect(table: Table, failed: list[Step]) -> dict[str, dict]:
    """By row: its figures of each seed, the paper's, minutes."""
    found, columns = {}, columns_of(table)
    for row, entry in table.cfg.rows.items():
        results = {step: result for step in table.steps if step.row == row and (result := done(table, step))}
        figures = {title: {} for title in columns}
        for title, (name, key) in columns.items():
            for step, result in results.items():
                if step.name == name:
                    figures[title][step.seed] = result['figures'][key]
        found[row] = dict(
            paper=entry.get('paper'),
            figures=figures,
            minutes=sum(result['seconds'] for result in results.values()) / 60,
            steps={'done': len(results), 'all': sum(step.row == row for step in table.steps)},
            failed=[str(step) for step in failed if step.row == row],
        )
    return found


def cell(values: dict[int, float], asked: list[int], failed: bool) -> str:
    values = {seed: value for seed, value in values.items() if value is not None}
    if not values:
        return f'<td class="{"failed" if failed else "none"}">{"failed" if failed else "not run"}</td>'
    few = f' of {len(asked)}' if len(values) < len(asked) else ''
    count = f' <span class="n">n = {len(values)}{few}</span>' if few or len(values) > 1 else ''
    return f'<td>{mean_and_deviation(list(values.values()))}{count}</td>'


def write_page(table: Table, failed: list[Step]) -> Path:
    """`results.html` and `results.json` in the work dir."""
    whole = with_all_there(table)
    found, columns = collect(whole, failed), columns_of(table)
    lines = []
    for row, one in found.items():
        broken = {step.name for step in failed if step.row == row}
        cells = [cell(one['figures'][title], whole.seeds, name in broken) for title, (name, _) in columns.items()]
        paper = f'<td class="paper">{one["paper"]}</td>' if one['paper'] else '<td class="none">–</td>'
        minutes = f'<td>{one["minutes"]:.1f}</td>' if one['steps']['done'] else '<td class="none">not run</td>'
        lines.append(f'<tr><td>{escape(row)}</td>{cells[0]}{paper}{"".join(cells[1:])}{minutes}</tr>')
    titles = [*columns]
    titles = ['row', titles[0], 'seeds, in the paper', *titles[1:], 'minutes']
    left = [step for step in table.steps if not (table.folder(step) / RESULT).is_file()]
    by_row = {}
    for step in left:
        by_row.setdefault(f'{step.row}, seed {step.seed}', []).append(step.name)
    idle = [row for row, one in found.items() if row not in table.rows and not one['steps']['done']]
    notes = [f'Not asked for: {", ".join(idle)}.'] if idle else []
    notes += [f'Failed: {"; ".join(map(str, failed))}.'] if failed else []
    notes += [f'{len(left)} of {len(table.steps)} steps are not done:'] if left else []
    notes += [f'{row}: {", ".join(names)}' for row, names in by_row.items()]
    notes += [] if notes else ['All steps are done.']
    about = (
        'mIoU in percent; mean ± standard deviation (n − 1) where there are several seeds. Seeds are measured at the '
        'background score that is best on <code>train</code>, and masks are made at it; stage 2 is trained on the '
        f'masks of {escape(table.cfg.stage_2_masks)} and measured on <code>val</code> once. Minutes are those of all '
        'steps of the row, over its seeds.'
    )
    remark = table.cfg.get('remark')
    page = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Results</title><style>{STYLE}</style>
<h1>Results beside the paper's</h1>
{f'<p><b>{escape(remark)}</b></p>' if remark else ''}<p>{about}</p>
<table><tr>{''.join(f'<th>{escape(title)}</th>' for title in titles)}</tr>
{chr(10).join(lines)}
</table>
{chr(10).join(f'<p>{escape(note)}</p>' for note in notes)}
</html>
"""
    path = table.work_dir / 'results.html'
    write_atomically(path, page.encode())
    content = dict(seeds=whole.seeds, stage_2_masks=table.cfg.stage_2_masks, rows=found, not_done=list(map(str, left)))
    write_atomically(path.with_suffix('.json'), json.dumps(content, indent=2).encode())
    return path
