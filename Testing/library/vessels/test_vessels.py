"""Vessels: Frangi's response by hand and against scikit-image, the reference, tiled inference."""

from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy import ndimage
from skimage.filters import frangi, threshold_otsu

import DRAMLesionLib.vessels.frangi as module
from DRAMLesionLib.errors import Cancelled, InputError
from DRAMLesionLib.images.intensity import window
from DRAMLesionLib.networks.tiles import vessel_probability
from DRAMLesionLib.networks.unet import UNet3D
from DRAMLesionLib.vessels.frangi import FrangiConfig, vesselness
from DRAMLesionLib.vessels.masks import ReferenceConfig, predict_vessels, reference_vessels
from Testing.library.realdata import DATA, needs_data

AS_SKIMAGE = {"gamma": None, "normalised": False}


def image(values: np.ndarray, spacing: float = 1.0) -> sitk.Image:
    result = sitk.GetImageFromArray(values)
    result.SetSpacing((spacing,) * 3)
    return result


def centred(*shape: int) -> list[np.ndarray]:
    return list(np.meshgrid(*(np.arange(n) - n // 2 for n in shape), indexing="ij", sparse=True))


def in_a_frame(values: np.ndarray, width: int) -> np.ndarray:
    """Return the values in a constant frame: the two programs mirror slopes differently."""
    values = values - values.mean()
    return np.pad(values, width).astype(np.float32)


# -- the response by hand -------------------------------------------------------------------------


def expected(l1: float, l2: float, l3: float, config: FrangiConfig) -> float:
    plate = 1.0 - math.exp(-((l2 / l3) ** 2) / (2.0 * config.alpha**2))
    blob = math.exp(-(l1**2) / abs(l2 * l3) / (2.0 * config.beta**2))
    structure = 1.0 - math.exp(-(l1**2 + l2**2 + l3**2) / (2.0 * config.gamma**2))
    return plate * blob * structure


def test_tube_and_sphere_by_hand():
    # a Gaussian profile of width w stays one under a Gaussian of width s: with q = w^2 + s^2 its
    # height is w^2 / q in 2D, (w^2 / q)^1.5 in 3D, its curvature at the centre height / q
    w, s, spacing = 3.0, 2.0, 1.0
    config = FrangiConfig(sigmas=(s,), gamma=0.5)
    k, j, i = centred(41, 41, 41)
    q = w**2 + s**2
    tube = np.exp(-(j**2 + i**2) / (2 * w**2)) + 0.0 * k
    bend = -(s**2) * (w**2 / q) / q
    assert vesselness(tube, spacing, config)[20, 20, 20] == pytest.approx(
        expected(0.0, bend, bend, config), rel=5e-3
    )
    sphere = np.exp(-(k**2 + j**2 + i**2) / (2 * w**2))
    bend = -(s**2) * (w**2 / q) ** 1.5 / q
    assert vesselness(sphere, spacing, config)[20, 20, 20] == pytest.approx(
        expected(bend, bend, bend, config), rel=5e-3
    )


def test_plates_and_dark_tubes_do_not_answer():
    config = FrangiConfig(sigmas=(1.0, 2.0))
    k, j, i = centred(33, 33, 33)
    plate = np.exp(-(k**2) / 8.0) + 0.0 * j + 0.0 * i
    assert vesselness(plate, 1.0, config).max() < 1e-3
    tube = np.exp(-(k**2 + i**2) / 8.0) + 0.0 * j
    dark = vesselness(1.0 - tube, 1.0, config)
    bright = vesselness(tube, 1.0, config)
    # around a dark tube there is a weak bright rim
    assert bright[16, 16, 16] > 0.8
    assert dark[16, 16, 16] == 0.0
    assert dark.max() < 0.1 * bright.max()


def test_a_tube_answers_alike_in_every_direction():
    config = FrangiConfig(sigmas=(1.5,))
    k, j, i = (axis.astype(float) for axis in centred(33, 33, 33))
    answers = []
    for direction in ((0, 0, 1), (1, 0, 0), (1, 1, 0), (1, 1, 1), (1, -2, 3)):
        along = (direction[0] * k + direction[1] * j + direction[2] * i) / math.hypot(*direction)
        tube = np.exp(-(k**2 + j**2 + i**2 - along**2) / (2 * 1.5**2))
        answers.append(vesselness(tube, 1.0, config)[16, 16, 16])
    assert max(answers) - min(answers) < 0.01 * max(answers)


def test_constant_volume_gives_zero():
    flat = np.full((20, 30, 40), 0.7, dtype=np.float32)
    assert not vesselness(flat, 1.0).any()
    assert not vesselness(flat, 1.0, FrangiConfig(**AS_SKIMAGE)).any()


def test_eigenvalues_against_numpy():
    rng = np.random.default_rng(1)
    m = rng.normal(size=(500, 3, 3))
    m = m + m.transpose(0, 2, 1)
    m[0] = np.eye(3)  # three equal ones
    m[1] = 0.0
    m[2] = np.diag([-2.0, -2.0, 0.0])
    rows = [m[:, a, b] for a, b in ((0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2))]
    parts = [torch.from_numpy(row.astype(np.float32)) for row in rows]
    trace = parts[0] + parts[2] + parts[5]
    ours = torch.stack(module._eigenvalues(parts, trace)).numpy().T
    np.testing.assert_allclose(ours, np.linalg.eigvalsh(m), atol=5e-3)


@pytest.mark.parametrize("sigma", [1.0, 1.4, 2.5])
def test_kernels_take_derivatives(sigma):
    smooth, slope, bend = module._kernels(sigma)
    r = len(smooth) // 2
    x = np.arange(-r, r + 1, dtype=float)
    assert smooth.sum() == pytest.approx(1.0)
    # convolved with x: the slope; with x^2 / 2: the second derivative; with 1: nothing
    assert -(slope * x).sum() == pytest.approx(1.0, rel=0.02)
    assert (bend * x**2 / 2).sum() == pytest.approx(1.0, rel=0.04)
    assert slope.sum() == pytest.approx(0.0, abs=1e-12)
    assert bend.sum() == pytest.approx(0.0, abs=1e-12)


# -- against scikit-image -------------------------------------------------------------------------


@pytest.mark.parametrize("sigmas", [(1.5, 2.5), (2.0,)])
def test_equals_skimage_on_noise(sigmas):
    rng = np.random.default_rng(0)
    volume = in_a_frame(ndimage.gaussian_filter(rng.normal(size=(34, 40, 58)), 1.0), 12)
    ours = vesselness(volume, 1.0, FrangiConfig(sigmas=sigmas, **AS_SKIMAGE))
    theirs = frangi(volume, sigmas=sigmas, black_ridges=False)
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.999
    assert np.percentile(np.abs(ours - theirs), 99.9) < 1e-3 * theirs.max()


def test_equals_skimage_on_a_tree_with_given_gamma():
    volume, _ = tree((60, 50, 70))
    scaled = in_a_frame(window(volume), 10)
    ours = vesselness(scaled, 1.0, FrangiConfig(sigmas=(1.2, 2.0), gamma=0.05, normalised=False))
    theirs = frangi(scaled, sigmas=(1.2, 2.0), gamma=0.05, black_ridges=False)
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.999


@needs_data
def test_equals_skimage_on_a_real_lung():
    ct = sitk.ReadImage(str(DATA / "ct" / "lidc-idri-0002.nii.gz"))
    volume = window(sitk.GetArrayViewFromImage(ct)[110:160, 110:180, 40:110])
    ours = vesselness(volume, 1.25, FrangiConfig(sigmas=(1.6, 2.5), **AS_SKIMAGE))
    theirs = frangi(volume, sigmas=(1.6 / 1.25, 2.0), black_ridges=False)
    inner = (slice(10, -10),) * 3
    assert np.corrcoef(ours[inner].ravel(), theirs[inner].ravel())[0, 1] > 0.99


# -- blocks, masks, units -------------------------------------------------------------------------


def test_blocks_leave_no_seams(monkeypatch):
    rng = np.random.default_rng(2)
    volume = ndimage.gaussian_filter(rng.normal(size=(40, 45, 50)), 1.0)
    config = FrangiConfig(sigmas=(1.0, 2.0), gamma=0.1)
    whole = vesselness(volume, 1.0, config)
    blocks = module._blocks
    monkeypatch.setattr(module, "_blocks", lambda shape, mask: blocks(shape, mask, size=16))
    np.testing.assert_allclose(vesselness(volume, 1.0, config), whole, atol=2e-4)


def test_mask_only_leaves_out():
    rng = np.random.default_rng(3)
    volume = ndimage.gaussian_filter(rng.normal(size=(30, 70, 70)), 1.0).astype(np.float32)
    mask = np.zeros(volume.shape, dtype=bool)
    mask[5:20, 10:30, 66:] = True
    config = FrangiConfig(sigmas=(1.0, 2.0), gamma=0.1)
    whole = vesselness(volume, 1.0, config)
    part = vesselness(volume, 1.0, config, mask)
    np.testing.assert_allclose(part[mask], whole[mask], atol=1e-5)
    assert not part[~mask].any()


@pytest.mark.parametrize("normalised", [True, False])
def test_scales_are_in_millimetres(normalised):
    rng = np.random.default_rng(4)
    volume = rng.random((25, 26, 27)).astype(np.float32)
    make = {"gamma": 0.2, "normalised": normalised}
    one = vesselness(volume, 1.0, FrangiConfig(sigmas=(1.0, 2.0), **make))
    two = vesselness(volume, 2.0, FrangiConfig(sigmas=(2.0, 4.0), **make))
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_volume_smaller_than_the_kernels():
    volume = np.random.default_rng(5).random((3, 1, 8))
    answer = vesselness(volume, 1.0, FrangiConfig(sigmas=(3.0,)))
    assert answer.shape == (3, 1, 8)
    assert np.isfinite(answer).all()


def test_progress_rises_to_one_and_may_cancel():
    volume = np.random.default_rng(6).random((20, 70, 70))
    threads = torch.get_num_threads()
    seen: list[float] = []
    vesselness(volume, 1.0, FrangiConfig(gamma=None), progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)

    def stop(_: float) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        vesselness(volume, 1.0, progress=stop)
    assert torch.get_num_threads() == threads


def test_bad_input_is_named():
    good = np.zeros((5, 5, 5))
    with pytest.raises(InputError, match="3D volume"):
        vesselness(np.zeros((5, 5)), 1.0)
    with pytest.raises(InputError, match="above 0 mm"):
        vesselness(good, 0.0)
    with pytest.raises(InputError, match="mask has shape"):
        vesselness(good, 1.0, mask=np.ones((5, 5, 4), dtype=bool))
    bad = good.copy()
    bad[2, 2, 2] = np.nan
    with pytest.raises(InputError, match="NaN or infinite"):
        vesselness(bad, 1.0)
    with pytest.raises(InputError, match="above 0"):
        FrangiConfig(sigmas=(1.0, -2.0))
    with pytest.raises(InputError, match="above 0"):
        FrangiConfig(sigmas=())


# -- the reference --------------------------------------------------------------------------------


def tree(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return a lung of -860 HU with straight vessels of radius 1, 1.5 and 3 mm, and their mask."""
    k, j, i = (axis.astype(float) for axis in centred(*shape))
    radius = np.full(shape, -np.inf)
    for r, offset, direction in (
        (3.0, (0.0, -12.0, 0.0), (1.0, 0.1, 0.2)),
        (1.5, (0.0, 10.0, 5.0), (0.3, 0.2, 1.0)),
        (1.0, (-15.0, 0.0, -5.0), (0.2, 1.0, 0.4)),
    ):
        d = [k - offset[0], j - offset[1], i - offset[2]]
        along = sum(a * b for a, b in zip(d, direction, strict=True)) / math.hypot(*direction)
        distance = np.sqrt(np.maximum(sum(a**2 for a in d) - along**2, 0.0))
        radius = np.maximum(radius, r - distance)
    hu = -860.0 + 900.0 * np.clip(radius + 0.5, 0.0, 1.0)
    return hu.astype(np.float32), radius > 0


def noisy(hu: np.ndarray, sd: float) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(8).normal(size=hu.shape), 0.7)
    return (ndimage.gaussian_filter(hu, 0.6) + noise * sd / noise.std()).astype(np.float32)


def test_reference_finds_the_vessels():
    hu, truth = tree((70, 64, 72))
    found = sitk.GetArrayFromImage(
        reference_vessels(image(noisy(hu, 40.0)), image(np.ones(hu.shape, dtype=np.uint8)))
    )
    assert found.dtype == np.uint8
    found = found > 0
    assert found[truth].mean() > 0.85
    near = ndimage.binary_dilation(truth, np.ones((3, 3, 3)))
    assert near[found].mean() > 0.99
    assert truth[found].mean() > 0.6


def test_noise_is_no_vessel():
    hu = noisy(np.full((60, 60, 60), -860.0), 60.0)
    found = reference_vessels(image(hu), image(np.ones(hu.shape, dtype=np.uint8)))
    assert sitk.GetArrayFromImage(found).mean() < 0.003


def test_consolidation_is_no_vessel():
    hu, truth = tree((70, 90, 72))
    k, j, i = centred(70, 90, 72)
    lesion = (k**2 + (j - 30) ** 2 + (i + 10) ** 2 < 14**2) & ~truth
    hu[lesion] = 20.0
    found = sitk.GetArrayFromImage(
        reference_vessels(image(noisy(hu, 40.0)), image(np.ones(hu.shape, dtype=np.uint8)))
    )
    inner = ndimage.binary_erosion(lesion, iterations=2)
    assert found[inner].mean() < 0.02
    assert found[lesion].mean() < 0.2  # its rim is as bright, as thin and as near to lung
    assert found[truth].mean() > 0.8


def test_without_guards_the_reference_is_otsus_threshold_alone():
    hu = noisy(np.full((40, 40, 40), -860.0), 60.0)
    ct, lungs = image(hu), image(np.ones(hu.shape, dtype=np.uint8))
    found = sitk.GetArrayFromImage(reference_vessels(ct, lungs, ReferenceConfig.unguarded())) > 0
    response = vesselness(window(hu), 1.0, None, np.ones(hu.shape, dtype=bool))
    assert np.array_equal(found, response > threshold_otsu(response))
    assert found.mean() > 10 * sitk.GetArrayFromImage(reference_vessels(ct, lungs)).mean()


def test_vessels_stay_inside_the_lungs():
    hu, truth = tree((50, 50, 50))
    lungs = np.zeros(hu.shape, dtype=np.uint8)
    lungs[10:40, :25] = 2
    found = sitk.GetArrayFromImage(reference_vessels(image(hu), image(lungs)))
    assert found[truth & (lungs > 0)].mean() > 0.7
    assert not found[lungs == 0].any()


def test_no_lung_no_vessel():
    hu, _ = tree((20, 20, 20))
    seen: list[float] = []
    empty = image(np.zeros(hu.shape, dtype=np.uint8))
    assert not sitk.GetArrayFromImage(reference_vessels(image(hu), empty, None, seen.append)).any()
    assert seen == [1.0]
    probability, mask = predict_vessels(UNet3D(base_channels=1, padding="valid"), image(hu), empty)
    assert not sitk.GetArrayFromImage(probability).any()
    assert not sitk.GetArrayFromImage(mask).any()


def test_grids_are_checked():
    hu, _ = tree((20, 20, 20))
    lungs = image(np.ones(hu.shape, dtype=np.uint8), 1.5)
    with pytest.raises(InputError, match="another grid"):
        reference_vessels(image(hu), lungs)
    ct = image(hu)
    ct.SetSpacing((1.0, 1.0, 3.0))
    with pytest.raises(InputError, match="isotropic"):
        reference_vessels(ct, ct)


# -- the network ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    net = UNet3D(base_channels=2, padding="valid", prior=0.5).eval()
    net.head.weight.data.normal_(0, 20)
    net.head.bias.data.fill_(0.5)
    return net


def test_the_network_is_asked_in_tiles_that_equal_one_patch(network):
    rng = np.random.default_rng(9)
    hu = rng.uniform(-1000.0, 200.0, (25, 43, 38)).astype(np.float32)
    lungs = np.zeros(hu.shape, dtype=np.uint8)
    lungs[3:24, 5:40, 9:37] = 1
    seen: list[float] = []
    probability, mask = predict_vessels(
        network, image(hu), image(lungs), threshold=0.6, progress=seen.append
    )
    assert seen[-1] == pytest.approx(1.0)
    assert seen == sorted(seen)
    values = sitk.GetArrayFromImage(probability)
    assert values.dtype == np.float32
    assert not values[lungs == 0].any()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), values > 0.6)
    assert 0.0 < (values[lungs > 0] > 0.6).mean() < 1.0
    tiled = vessel_probability(network, window(hu), lungs > 0, tile=24)
    np.testing.assert_allclose(values, tiled, atol=2e-5)

    # one patch of 92 + 8 n voxels with its mirror image around, from a multiple of 8
    patch = np.pad(window(hu), ((54, 53), (54, 51), (46, 64)), mode="reflect")
    with torch.no_grad():
        whole = network(torch.from_numpy(patch)[None, None]).logits[0, 0].sigmoid().numpy()
    # the output of a patch begins 44 voxels into it
    inner = whole[10:35, 10:53, 2:40]
    np.testing.assert_allclose(values[lungs > 0], inner[lungs > 0], atol=2e-5)
