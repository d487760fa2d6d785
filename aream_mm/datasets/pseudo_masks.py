"""PseudoMaskDataset: any mmseg data set with its masks replaced by pseudo masks, for stage 2."""

import json
from pathlib import Path
from typing import Any

from aream_mm.datasets.contents import contents, read_digest
from aream_mm.datasets.images import first_few, warn
from aream_mm.datasets.masks import MaskDataset
from aream_mm.datasets.tags import refuse, require_same_classes
from aream_mm.datasets.wrapper import has_mask
from aream_mm.files import read_lines
from aream_mm.registry import DATASETS


@DATASETS.register_module()
class PseudoMaskDataset(MaskDataset):
    """Points an mmseg data set at the folder that `PseudoMaskHook` wrote; the data set's own masks are read if true.

    Args:
        dataset: config of an mmseg data set.
        mask_dir: folder with one PNG per image and a manifest.json.
        tag_file: that of stage 1, to notice tags that were corrected since the masks were written.
        left_out: list of images whose masks are bad, SHA-256 and id, as tools/converters/reviewed.py writes it. One
            that was painted or written anew since is another one, and learnt.
        options: as in `MaskDataset`; drop_unmasked leaves out those that stage 1 left out with drop_untagged.

    Raises:
        FileNotFoundError: the folder has no manifest: nothing was written there, or writing has not ended.
        ValueError: the masks were made for other classes, by something else than the manifest names, from other tags
            or photographs, or are missing for some images. Masks that were painted since are used, with a warning.
    """

    what = 'a pseudo mask'
    loads_masks = True  # whatever the pipeline does

    def __init__(
        self, dataset: dict, mask_dir: str, tag_file: str | None = None, left_out: str | None = None, **options: Any
    ) -> None:
        self.mask_dir = Path(mask_dir)
        self.tag_file, self.left_out = tag_file, left_out
        super().__init__(dataset, **options)

    def change(self, infos: list[dict]) -> list[dict]:
        manifest = self.mask_dir / 'manifest.json'
        if not manifest.is_file():
            raise FileNotFoundError(
                f'pseudo masks: expected {manifest}, which is written when they are complete; run stage 1 first'
            )
        try:
            self.manifest = json.loads(manifest.read_bytes())
            made_for = list(self.manifest['classes'])
        except (LookupError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(f'{manifest}: expected JSON with the classes of the masks, got {error!r}') from error
        require_same_classes(str(manifest), self.metainfo['classes'], made_for)
        true = self.with_true_masks(infos)
        masks = super().require_masks(true, 'a true mask')
        pseudo = [info for info in infos if not (self.true_masks and has_mask(info))]
        for info in pseudo:
            # Pseudo masks hold the ids of this problem already, so the map from the data set's ids must not apply.
            info.update(seg_map_path=str(self.mask_dir / f'{info["sample_id"]}.png'), label_map=None)
        listed = self._listed(infos, self.left_out) if self.left_out else {}
        replaced = listed.keys() & {info['sample_id'] for info in true}
        bad = {sample_id for sample_id, same in listed.items() if same} - replaced
        if true or listed:
            told = f'{len(true)} true masks are learnt; {len(bad)} of {len(listed)} bad masks are left out'
            told += f', {len(replaced)} replaced by true ones' * bool(replaced)
            changed = len(listed) - len(bad) - len(replaced)
            warn(f'{self.mask_dir}: {told}' + f', {changed} are not as they were marked' * bool(changed))
        self.tags = {}  # by `sample_id`, of masks that know theirs
        known = 'identity' in self.manifest  # what masks have that `PseudoMaskHook` wrote
        if self.tag_file and (true or known):
            tags = self.tags_from_file(infos, self.tag_file)
            self.tags = {info['sample_id']: tag for info, tag in zip(infos, tags, strict=True)}
            self.compare(self.tag_file, true, [self.tags[i['sample_id']] for i in true], self.classes_in(true, masks))
            tagged = [i for i in infos if known and self.tags[i['sample_id']].any()]
            self.require(tagged, [not has_mask(info) for info in tagged], self.what, 'img_path')
        pseudo = [info for info in pseudo if info['sample_id'] not in bad]
        if not (true or pseudo):
            raise ValueError(f'{self.left_out}: expected some masks that are not bad, got none')
        return [*true, *super().change(pseudo)]

    def _listed(self, infos: list[dict], file: str) -> dict[str, bool]:
        """Whether the masks of a list are those that were marked, by the ids of their images."""
        if not Path(file).is_file():
            raise FileNotFoundError(
                f'left_out: expected a list as tools/converters/reviewed.py writes it, got {file!r}'
            )
        rows = [line.partition('  ')[::2] for line in read_lines(file) if line]
        masks = {info['sample_id']: info['seg_map_path'] for info in infos}
        wrong = ['  '.join(row) for row in rows if len(row[0]) != 64 or row[1] not in masks]
        refuse(file, 'lines of a SHA-256, two blanks, and the id of an image', wrong)
        now = contents(read_digest, [masks[sample_id] for _, sample_id in rows])
        # Of lists that were joined, the line that fits counts.
        return dict(sorted((row[1], row[0] == digest) for row, digest in zip(rows, now, strict=True)))

    def require_masks(self, infos: list[dict], what: str) -> list[dict]:
        """As in the base class, and those of `PseudoMaskHook` are made from what is there now."""
        masks = super().require_masks(infos, what)
        if 'identity' not in self.manifest:
            return masks
        tags = [self.tags.get(info['sample_id']) for info in infos]
        now = self.sources(self.manifest['identity'], infos, tags)
        kinds = dict(made_by='other weights or settings', tags='other tags', photograph='another photograph')
        stale, painted = [], []
        for info, mask, source in zip(infos, masks, now, strict=True):
            was = mask['made_from']
            others = [kind for key, kind in kinds.items() if was and source[key] not in (False, was.get(key))]
            stale += [f'{info["sample_id"]} ({", ".join(others)})'] if others else []
            painted += [] if was else [info['sample_id']]
        if stale:
            raise ValueError(
                f'{self.mask_dir}: expected masks of the run in manifest.json, of tags and photographs as they are; '
                f'{len(stale)} of {len(infos)} were made from others: {first_few(stale)}. This writes them anew: '
                f'{self.manifest.get("command")}'
            )
        if painted:
            warn(f'{self.mask_dir}: {len(painted)} masks are not as they were written, but used: {first_few(painted)}')
        return masks
