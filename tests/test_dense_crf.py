"""DenseCRF against mean field over every pair of pixels, by its properties, and its processes."""

import gc
import multiprocessing
import os
import re
import signal
import threading
import time
from importlib import util
from pathlib import Path

import pytest
import reference
import torch
from torch.testing import assert_close

from aream_mm.models import PAR, DenseCRF, cam, dense_crf

NO_PAIRS = dict(gaussian_compat=0, bilateral_compat=0)
NO_COLOURS = dict(bilateral_compat=0)
ONLY_COLOURS = dict(gaussian_compat=0, bilateral_srgb=5)


@pytest.fixture(scope='module')
def build():
    """build(…): a DenseCRF, kept for all tests, for its process takes a quarter of a second to start."""
    built = {}
    return lambda **options: built.setdefault(str(options), DenseCRF(**{'workers': 1, **options}))


def two_halves(size=(8, 8), noise=0.0):
    """A picture (1, 3, H, W), black on the left and of another colour on the right."""
    image = noise * torch.rand(1, 3, *size)
    image[..., size[1] // 2 :] += torch.tensor([0.5, 0.2, 0.8])[None, :, None, None]
    return image


def probabilities(*shape):
    return (2 * torch.randn(shape)).softmax(dim=1)


@pytest.mark.parametrize(
    'options',
    [
        dict(gaussian_compat=3, bilateral_compat=0, bilateral_sxy=20, num_iters=10),
        dict(gaussian_compat=0, bilateral_compat=10, bilateral_sxy=20, num_iters=1),
        dict(gaussian_sxy=1.5, gaussian_compat=1, bilateral_compat=1, bilateral_sxy=20, num_iters=10),
        dict(gaussian_sxy=3, gaussian_compat=3, bilateral_compat=10, bilateral_sxy=20, num_iters=2),
        dict(gaussian_compat=1, bilateral_compat=1, bilateral_sxy=20, num_iters=5, label_confidence=0.7),
    ],
)
@pytest.mark.parametrize('noise', [0.0, 0.04])
def test_is_near_the_mean_field_over_every_pair_of_pixels(build, options, noise):
    """Near only: pydensecrf filters on a coarse lattice."""
    image, planes = two_halves(noise=noise), probabilities(1, 3, 8, 8)
    settings = dict(gaussian_sxy=3, bilateral_srgb=13) | options
    refined = build(**settings)(image, planes)[0]
    confidence = settings.pop('label_confidence', None)
    if confidence is not None:
        planes = torch.where(planes == planes.amax(dim=1, keepdim=True), confidence, (1 - confidence) / 2)
    expected = torch.from_numpy(
        reference.mean_field((image[0] * 255).round().numpy(), -planes[0].log().numpy(), **settings)
    )
    error, change = (refined - expected).abs(), (refined - planes[0]).abs()
    assert error.max() < 0.1 and error.mean() < min(0.02, change.mean() / 5)


def test_without_pairs_the_probabilities_are_kept(build):
    planes = probabilities(1, 4, 9, 11)
    assert_close(build(**NO_PAIRS)(torch.rand(1, 3, 9, 11), planes), planes, rtol=1e-4, atol=1e-5)
    assert_close(build(num_iters=0)(torch.rand(1, 3, 9, 11), planes), planes, rtol=1e-4, atol=1e-5)


def test_without_pairs_labels_have_the_confidence_and_the_rest_is_shared(build):
    planes = probabilities(1, 4, 9, 11)
    refined = build(label_confidence=0.7, **NO_PAIRS)(torch.rand(1, 3, 9, 11), planes)
    expected = torch.full_like(planes, 0.1).scatter_(1, planes.argmax(dim=1, keepdim=True), 0.7)
    assert_close(refined, expected, rtol=1e-4, atol=1e-5)


def test_smoothing_removes_an_isolated_pixel(build):
    planes = torch.tensor([0.8, 0.2]).view(1, 2, 1, 1).repeat(1, 1, 9, 9)
    planes[..., 4, 4] = torch.tensor([0.2, 0.8])
    images = torch.full((1, 3, 9, 9), 0.5)
    assert build(**NO_PAIRS)(images, planes).argmax(dim=1).sum() == 1
    assert not build(**NO_COLOURS)(images, planes).argmax(dim=1).any()


def test_labels_move_to_the_edge_of_the_colours(build):
    planes = torch.tensor([0.6, 0.4]).view(1, 2, 1, 1).repeat(1, 1, 8, 12)
    planes[..., 4:] = torch.tensor([0.4, 0.6]).view(1, 2, 1, 1)  # two columns too far
    colours = build(**ONLY_COLOURS)
    refined = colours(two_halves((8, 12)), planes).argmax(dim=1)
    assert torch.equal(refined, (torch.arange(12) >= 6).long().expand(1, 8, 12))
    assert len(colours(torch.full((1, 3, 8, 12), 0.5), planes).argmax(dim=1).unique()) == 1  # no edge, no stop


def test_a_class_goes_with_its_plane(build):
    images, planes, order = two_halves(), probabilities(1, 4, 8, 8), [2, 0, 3, 1]
    refined = build(num_iters=3)(images, planes)
    assert_close(build(num_iters=3)(images, planes[:, order]), refined[:, order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('options', [dict(), dict(label_confidence=0.7)])
def test_planes_sum_to_one_and_absent_classes_stay_zero_without_a_part(build, options):
    planes = torch.zeros(2, 6, 8, 8)
    planes[0, [0, 2, 5]], planes[1, [0]] = probabilities(1, 3, 8, 8)[0], torch.ones(8, 8)
    images = torch.cat([two_halves(noise=0.1), torch.rand(1, 3, 8, 8)])
    refined = build(**options)(images, planes)
    assert_close(refined.sum(dim=1), torch.ones(2, 8, 8))
    assert not refined[0, [1, 3, 4]].any() and torch.equal(refined[1], planes[1])
    assert torch.equal(refined[0, [0, 2, 5]], build(**options)(images[:1], planes[:1, [0, 2, 5]])[0])


def test_absent_classes_and_pictures_of_one_class_are_not_computed(build, monkeypatch):
    energies, ask = [], dense_crf.ask
    monkeypatch.setattr(dense_crf, 'ask', lambda *request: energies.append(request[1][1].shape) or ask(*request))
    planes = torch.zeros(2, 21, 8, 8)
    planes[0, [0, 7]], planes[1, 0] = 0.5, 1
    build()(torch.rand(2, 3, 8, 8), planes)
    assert energies == [(2, 8, 8)]


@pytest.mark.parametrize('workers', [1, 2, 7])
def test_a_batch_is_what_its_pictures_are_alone(build, workers):
    images, planes = torch.rand(5, 3, 10, 7), probabilities(5, 3, 10, 7)
    planes[1, 2] = 0
    refiner = DenseCRF(workers=workers)
    together = refiner(images, planes)
    assert len(refiner.processes) == min(workers, 5)
    for i in range(5):
        assert torch.equal(together[i : i + 1], build()(images[i : i + 1], planes[i : i + 1]))


def test_each_background_score_is_refined_by_itself(build):
    """Those of two would compete; PAR takes both at once, for they share its affinity."""
    scores, present = torch.rand(2, 3, 16, 16), torch.tensor([[True, True, False], [True, False, False]])
    images = torch.rand(2, 3, 16, 16)
    for refiner in (build(), PAR(dilations=(1, 2))):
        both = cam.refine(scores, present, images, refiner, (0.3, 0.7))
        assert both.shape == (2, 2, 4, 16, 16)
        for refined, background in zip(both, (0.3, 0.7), strict=True):
            (alone,) = cam.refine(scores, present, images, refiner, (background,))
            assert_close(refined, alone)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(label_confidence=1.0), 'DenseCRF.label_confidence: expected a number between 0 and 1, or None, got 1.0'),
        (dict(workers=0), 'DenseCRF.workers: expected a whole number from 1 on, got 0'),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DenseCRF(**options)


def test_without_the_package_the_command_that_installs_it_is_named(monkeypatch):
    find_spec = util.find_spec
    monkeypatch.setattr(dense_crf, 'find_spec', lambda name: None if name == 'pydensecrf' else find_spec(name))
    with pytest.raises(ImportError, match=re.escape("pip install 'aream_mm[crf]'")):
        DenseCRF()


# The processes


def alive(pid):
    try:
        return Path(f'/proc/{pid}/stat').read_text().split()[2] != 'Z'
    except FileNotFoundError:
        return False


def gone_after_a_while(pids):
    deadline = time.monotonic() + 60
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(alive, pids))


@pytest.fixture
def running():
    """A refiner whose two processes run, and two pictures for it."""
    refiner, pictures = DenseCRF(workers=2), (torch.rand(2, 3, 8, 8), probabilities(2, 3, 8, 8))
    refiner(*pictures)
    return refiner, pictures


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_dies_raises_with_the_signal_and_does_not_block(running, number):
    refiner, pictures = running
    os.kill(refiner.processes[0].pid, number)
    with pytest.raises(RuntimeError, match=f'its end with exit code -{number.value} '):
        refiner(*pictures)


def test_an_error_in_a_process_raises_with_what_it_said(running):
    refiner, pictures = running
    refiner.bilateral['sxi'] = refiner.bilateral.pop('sxy')
    with pytest.raises(
        RuntimeError, match=r'(?s)its end with exit code 1 .*Traceback.*TypeError: addPairwiseBilateral'
    ):
        refiner(*pictures)


def test_a_process_that_dies_while_it_computes_raises():
    refiner = DenseCRF(workers=1, num_iters=100_000)
    refiner(torch.rand(1, 3, 2, 2), probabilities(1, 2, 2, 2))
    threading.Timer(0.5, refiner.processes[0].kill).start()
    with pytest.raises(RuntimeError, match='its end with exit code -9 '):
        refiner(torch.rand(1, 3, 200, 300), probabilities(1, 4, 200, 300))


def test_the_processes_end_with_the_refiner():
    refiner = DenseCRF(workers=2)
    refiner(torch.rand(2, 3, 8, 8), probabilities(2, 2, 8, 8))
    pids = [process.pid for process in refiner.processes]
    assert len(pids) == 2 and all(map(alive, pids))
    del refiner
    gc.collect()
    assert gone_after_a_while(pids)


def refine_and_wait(connection):
    torch.set_num_threads(1)  # renews what a fork has left of torch's threads, which two threads at once must not do
    refiner = DenseCRF(workers=2)
    refiner(torch.rand(2, 3, 8, 8), probabilities(2, 2, 8, 8))
    connection.send([process.pid for process in refiner.processes])
    connection.recv()


@pytest.mark.parametrize('kill', [True, False])
def test_the_processes_end_with_the_process_that_started_them(kill):
    context = multiprocessing.get_context('fork')
    ours, theirs = context.Pipe()
    parent = context.Process(target=refine_and_wait, args=(theirs,))
    parent.start()
    theirs.close()  # a process that has died then ends the wait
    pids = ours.recv()
    assert len(pids) == 2 and all(map(alive, pids))
    parent.kill() if kill else ours.send('leave')
    parent.join()
    assert parent.exitcode == (-signal.SIGKILL if kill else 0)
    assert gone_after_a_while(pids)


def test_the_processes_of_a_launcher_share_the_cpus(monkeypatch):
    monkeypatch.setattr(os, 'cpu_count', lambda: 12)
    assert DenseCRF().workers == 12
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '8')
    assert DenseCRF().workers == 1
    assert DenseCRF(workers=3).workers == 3
