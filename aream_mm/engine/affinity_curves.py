"""AffinityProfileHook: what every layer's affinity does, as curves over the training."""

from mmengine.hooks import Hook
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.runner import Runner

from aream_mm.checks import require_whole
from aream_mm.engine.layer_entropy import evenly_spread
from aream_mm.engine.training import bare
from aream_mm.evaluation.affinity_profile import AffinityProfile
from aream_mm.progress import progress
from aream_mm.registry import HOOKS


@HOOKS.register_module()
class AffinityProfileHook(Hook):
    """After each validation, logs the figures of `AffinityProfile` as scalars `affinity/<figure>/<row>`.

    mmengine's visualisation backends (local JSON, TensorBoard, W&B) draw them over the training.

    Args:
        dataloader: config over an `ImageTagDataset` with test_mode=True, each image once.
        num_images: measure on so many images, evenly spread over the data set; None for all.
    """

    def __init__(self, dataloader: dict, num_images: int | None = 32) -> None:
        self.dataloader = dataloader
        require_whole('AffinityProfileHook', low=1, num_images=1 if num_images is None else num_images)
        self.num_images = num_images
        self.loader = None

    def before_train(self, runner: Runner) -> None:
        """Find wrong settings and missing files before training."""
        self.before_val(runner)

    def before_val(self, runner: Runner) -> None:
        if self.loader is None:
            dataset = evenly_spread(MMENGINE_DATASETS.build(self.dataloader['dataset']), self.num_images)
            # One image at a time, for it takes as many affinities as the profile has rows.
            self.loader = runner.build_dataloader({**self.dataloader, 'dataset': dataset, 'batch_size': 1})

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        model = bare(runner.model)
        profile = AffinityProfile(model)
        runner.logger.info(f'Affinity profile: measuring on {len(self.loader.dataset)} images')
        model.eval()
        for batch in progress(self.loader):
            batch = model.data_preprocessor(batch)
            profile.update(batch['inputs'], batch['data_samples'])
        scalars = {
            f'affinity/{figure}/{row.replace(" ", "_")}': value
            for row, figures in profile.compute().items()
            for figure, value in figures.items()
        }
        runner.visualizer.add_scalars(scalars, step=runner.iter)
