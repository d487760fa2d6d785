"""Copy the true masks of some pictures into a folder, as if a person had drawn them, to measure what they bring.

    python tools/analysis/pick_true_masks.py configs/aream_dual_animals.py --page work_dirs/review --number 20 \
        --out data/true_20

takes the first 20 of the page of tools/analysis/review.py that have a true mask, with --seed as many at random. Then

    python tools/train.py configs/seg/deeplabv3plus_lite0_animals.py --work-dir work_dirs/true_20 --cfg-options \
        train_dataloader.dataset.true_masks=True \
        train_dataloader.dataset.dataset.data_prefix.seg_map_path=$PWD/data/true_20

learns them in the place of pseudo masks.
"""

import argparse
import json
import random
import shutil
import sys
from pathlib import Path

from mmengine.registry import DATASETS, init_default_scope

sys.path.append(str(Path(__file__).parents[1]))
from arguments import config_file, folder  # noqa: E402
from options import OptionAction, load_config  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', type=config_file, help='config with a pseudo_mask_dataloader')
    parser.add_argument('--page', type=folder, required=True, help='folder of the review')
    parser.add_argument('--number', type=int, required=True, help='of masks')
    parser.add_argument('--out', type=folder, required=True, help='a new folder')
    parser.add_argument('--seed', type=int, help='take them at random')
    parser.add_argument('--cfg-options', nargs='+', action=OptionAction, help='override settings, key=value')
    args = parser.parse_args()
    if args.out.is_dir() and any(args.out.iterdir()):
        parser.error(f'--out: expected a new or empty folder, got {args.out}')
    cfg = load_config(args.config, args.cfg_options, ('pseudo_mask_dataloader',))
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    dataset = DATASETS.build(cfg.pseudo_mask_dataloader.dataset)
    infos = {info['sample_id']: info for info in map(dataset.get_data_info, range(len(dataset)))}
    page = (args.page / 'index.html').read_text(encoding='utf-8')
    data = json.loads(page.partition('id="data">')[2].partition('</script>')[0])
    ids = [picture['image'] for picture in data['pictures']]
    ids = [image for image in ids if 'seg_map_path' in infos.get(image, ())]
    if args.seed is not None:
        random.Random(args.seed).shuffle(ids)
    if not 0 < args.number <= len(ids):
        raise ValueError(f'--number: expected 1..{len(ids)}, the pictures that have a true mask, got {args.number}')
    for image in ids[: args.number]:
        path = args.out / f'{image}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(infos[image]['seg_map_path'], path)
    print(f'{args.number} of {len(ids)} true masks in {args.out}')


if __name__ == '__main__':
    main()
