"""DenseCRF against mean field over every pair of pixels, by its properties, and its processes."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from importlib import util
from pathlib import Path

import loky
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
    """build(…): a DenseCRF of one process, the same for all."""
    return lambda **options: DenseCRF(**{'workers': 1, **options})


def two_halves(size=(8, 8), noise=0.0):
    """An image (1, 3, H, W), black on the left and of another colour on the right."""
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


def test_absent_classes_and_images_of_one_class_are_not_computed(build, monkeypatch):
    energies, pool = [], loky.get_reusable_executor(1)
    submit = pool.submit
    monkeypatch.setattr(pool, 'submit', lambda *job: energies.append(job[2].shape) or submit(*job))
    planes = torch.zeros(2, 21, 8, 8)
    planes[0, [0, 7]], planes[1, 0] = 0.5, 1
    build()(torch.rand(2, 3, 8, 8), planes)
    assert energies == [(2, 8, 8)]


@pytest.mark.parametrize('workers', [1, 2, 7])
def test_a_batch_is_what_its_images_are_alone(build, workers):
    images, planes = torch.rand(5, 3, 10, 7), probabilities(5, 3, 10, 7)
    planes[1, 2] = 0
    refiner = DenseCRF(workers=workers)
    together = refiner(images, planes)
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


@pytest.mark.parametrize('package', ['pydensecrf', 'loky'])
def test_without_a_package_the_command_that_installs_it_is_named(package, monkeypatch):
    find_spec = util.find_spec
    monkeypatch.setattr(dense_crf, 'find_spec', lambda name: None if name == package else find_spec(name))
    with pytest.raises(ImportError, match=re.escape(f"expected {package}, got none; pip install 'aream_mm[crf]'")):
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


def processes():
    return list(loky.get_reusable_executor(2)._processes)


@pytest.fixture
def running():
    """A refiner whose two processes run, and two images for it."""
    refiner, images = DenseCRF(workers=2), (torch.rand(2, 3, 8, 8), probabilities(2, 3, 8, 8))
    refiner(*images)
    return refiner, images


def test_a_process_that_dies_while_it_computes_raises_and_the_next_call_has_a_new_one(running):
    refiner, images = running
    endless = DenseCRF(workers=2, num_iters=100_000)
    for pid in processes():
        threading.Timer(0.5, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(RuntimeError, match='SIGKILL'):
        endless(torch.rand(2, 3, 200, 300), probabilities(2, 4, 200, 300))
    assert torch.isfinite(refiner(*images)).all()


def test_an_error_in_a_process_raises_with_what_it_said(running):
    refiner, images = running
    refiner.bilateral['sxi'] = refiner.bilateral.pop('sxy')
    with pytest.raises(TypeError, match='addPairwiseBilateral'):
        refiner(*images)


def test_the_processes_hold_no_torch(running):
    assert all('libtorch' not in Path(f'/proc/{pid}/maps').read_text() for pid in processes())


PROGRAM = """
import loky, torch
from aream_mm.models import DenseCRF
DenseCRF(workers=2)(torch.rand(2, 3, 8, 8), torch.rand(2, 2, 8, 8))
print(*loky.get_reusable_executor(2)._processes, flush=True)
input()
"""


@pytest.mark.parametrize('kill', [True, False])
def test_the_processes_end_with_the_process_that_started_them(kill):
    """Here a program from standard input, which has no file that they could import."""
    parent = subprocess.Popen([sys.executable, '-c', PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    pids = next(line for line in parent.stdout if line[0].isdigit()).split()
    assert len(pids) == 2 and all(map(alive, pids))
    parent.kill() if kill else parent.stdin.write('leave\n')
    parent.communicate()
    assert parent.returncode == (-signal.SIGKILL if kill else 0)
    assert gone_after_a_while(pids)


def test_the_processes_of_a_launcher_share_the_cpus(monkeypatch):
    monkeypatch.setattr(os, 'cpu_count', lambda: 12)
    assert DenseCRF().workers == 12
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '8')
    assert DenseCRF().workers == 1
    assert DenseCRF(workers=3).workers == 3
