"""A disk that is full: an error that names the file and the cause, and nothing half written."""

import errno
import resource
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.runner import Runner, find_latest_checkpoint
from test_engine import run_config
from toy_voc import make_voc

from aream_mm.engine import SafeCheckpointHook
from aream_mm.engine.checkpoints import latest_checkpoint
from aream_mm.files import write_atomically

FULL = Path('/dev/full')


@pytest.mark.skipif(not FULL.exists(), reason='needs the device that is always full')
def test_a_full_disk_is_named_with_the_file_and_leaves_the_older_one(tmp_path):
    path = tmp_path / 'mask.png'
    write_atomically(path, b'older')
    (tmp_path / 'mask.png.tmp').symlink_to(FULL)  # where it is written to
    with pytest.raises(OSError, match=r'No space left on device, when 5 bytes.*mask\.png') as caught:
        write_atomically(path, b'newer')
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(path)
    assert path.read_bytes() == b'older' and list(tmp_path.iterdir()) == [path]
    write_atomically(path, b'newer')
    assert path.read_bytes() == b'newer' and list(tmp_path.iterdir()) == [path]


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / 'masks').write_bytes(b'')
    with pytest.raises(OSError, match=r'masks/1\.png'):
        write_atomically(tmp_path / 'masks/1.png', b'1')


@contextmanager
def files_end_after(size):
    """The system refuses to write more bytes than `size` to any file, as a full disk or a quota does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(tmp_path):
    cfg = run_config(make_voc(tmp_path / 'voc'), tmp_path / 'work', **{'train_cfg.max_epochs': 1})
    cfg.custom_hooks = cfg.custom_hooks[:1]
    cfg.default_hooks.checkpoint = dict(type='aream_mm.SafeCheckpointHook', max_keep_ckpts=1)
    runner = Runner.from_cfg(cfg)
    runner.train()
    before = {path.name: path.read_bytes() for path in (tmp_path / 'work').iterdir() if path.is_file()}
    hook = next(hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook))
    with files_end_after(50_000), pytest.raises(OSError, match=r'File too large, when \d+ bytes .*epoch_2\.pth'):
        hook._save_checkpoint(runner)
    assert {path.name: path.read_bytes() for path in (tmp_path / 'work').iterdir() if path.is_file()} == before
    assert torch.load(find_latest_checkpoint(tmp_path / 'work'), weights_only=False)['meta']['epoch'] == 1


def test_a_work_dir_that_was_copied_has_its_own_checkpoints(tmp_path):
    """What is written in them are the paths of the folder that they were copied from."""
    first, copied = tmp_path / 'first', tmp_path / 'copied'
    known = dict(last_ckpt=f'{first}/iter_4.pth', best_ckpt=f'{first}/best_mAP_iter_2.pth', best_score=1.0)
    for folder in (first, copied):
        folder.mkdir()
        (folder / 'last_checkpoint').write_text(f'{first}/iter_4.pth')
        for name in ('iter_4.pth', 'best_mAP_iter_2.pth'):
            (folder / name).touch()
    for folder in (first, copied):
        assert latest_checkpoint(str(folder)) == f'{folder}/iter_4.pth'
        runner = SimpleNamespace(_load_from=f'{folder}/iter_4.pth', _train_loop=None, _val_loop=None, _test_loop=None)
        checkpoint = dict(meta={}, message_hub=dict(runtime_info=dict(known)))
        SafeCheckpointHook().after_load_checkpoint(runner, checkpoint)
        found = checkpoint['message_hub']['runtime_info']
        assert found == dict(known, last_ckpt=f'{folder}/iter_4.pth', best_ckpt=f'{folder}/best_mAP_iter_2.pth')
    (copied / 'iter_4.pth').unlink()
    assert latest_checkpoint(str(copied)) == f'{first}/iter_4.pth'
    assert latest_checkpoint(str(tmp_path)) is None
