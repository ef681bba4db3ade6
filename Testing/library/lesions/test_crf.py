import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.ndimage as ndi
import SimpleITK as sitk
import torch

from DRAMLesionLib.errors import InputError, MissingDependencyError
from DRAMLesionLib.images.intensity import window
from DRAMLesionLib.lesions.crf import CRFConfig, DenseCRF, dense_crf
from Testing.library.realdata import DATA, needs_data
from Training.config import load_config
from Training.studies.crf_search import FAINT, GLASS, grows, survives

SAME_MARGINALS = 1e-4  # float32 sums in another order; 2e-5 is the most that was ever seen


WIDE = CRFConfig(3.0, 3.0, 5.0, 0.1, 10.0)
"""Wide and heavy: every small difference is fed back, whole regions flip where evidence is weak."""


def softmax(logits):
    return torch.softmax(torch.as_tensor(np.asarray(logits), dtype=torch.float32), 0)[None]


def smooth_case(seed, shape, classes=2):
    """Blobs with a little noise, and a noisy opinion that follows them."""
    rng = np.random.default_rng(seed)
    blobs = ndi.gaussian_filter(rng.normal(size=shape), 3.0)
    blobs = (blobs - blobs.min()) / np.ptp(blobs)
    image = (blobs + 0.03 * rng.normal(size=shape)).clip(0, 1).astype(np.float32)
    logits = [8 * c * (blobs - 0.5) + rng.normal(size=shape) for c in range(classes)]
    return softmax(logits), torch.from_numpy(image)[None, None]


def white_case(seed, shape, classes=2):
    """Nothing but noise, where mean-field magnifies every difference."""
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.random(shape, dtype=np.float32))[None, None]
    return softmax(rng.normal(size=(classes, *shape))), image


def lung_case(seed, shape):
    """A chunk of a real CT with a smooth, noisy opinion on what is dense."""
    rng = np.random.default_rng(seed)
    name = f"lidc-idri-000{1 + seed % 2}.nii.gz"
    scan = window(sitk.GetArrayFromImage(sitk.ReadImage(str(DATA / "ct" / name))))
    aerated = np.argwhere(scan[::8, ::8, ::8] < 0.4) * 8
    room = np.array(scan.shape) - shape
    inside = aerated[((aerated > 0.25 * np.array(scan.shape)) & (aerated < room)).all(1)]
    start = inside[rng.integers(len(inside))] if len(inside) else room // 2
    chunk = scan[tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))]
    noise = ndi.gaussian_filter(rng.normal(size=shape), 2.0)
    opinion = 12 * (ndi.gaussian_filter(chunk, 1.0) - 0.45) + noise / noise.std()
    return softmax([-opinion / 2, opinion / 2]), torch.from_numpy(chunk)[None, None]


def assert_like_the_reference(probability, image, config=WIDE):
    pytest.importorskip("pydensecrf", reason="the reference CRF (pydensecrf2) is not installed")
    ours = dense_crf(probability, image, config)
    theirs = dense_crf(probability, image, config, backend="pydensecrf")
    assert (ours.argmax(1) == theirs.argmax(1)).float().mean() >= 0.999
    torch.testing.assert_close(ours, theirs, atol=SAME_MARGINALS, rtol=0)


@pytest.mark.parametrize(
    ("case", "shape", "classes"),
    [
        (smooth_case, (40, 40, 40), 2),
        (smooth_case, (41, 53, 47), 2),
        (smooth_case, (44, 40, 63), 3),
        (smooth_case, (40, 41, 42), 5),
        (smooth_case, (80, 80, 80), 2),
        (white_case, (40, 40, 40), 2),
        (white_case, (43, 57, 41), 2),
        (white_case, (50, 40, 40), 3),
        (white_case, (40, 47, 40), 4),
        (white_case, (64, 64, 64), 2),
    ],
)
def test_random_chunks_get_the_labels_and_marginals_of_the_reference(case, shape, classes):
    assert_like_the_reference(*case(sum(shape), shape, classes))


@needs_data
@pytest.mark.parametrize("seed", range(10))
def test_lung_chunks_get_the_labels_and_marginals_of_the_reference(seed):
    shape = [(40, 40, 40), (48, 56, 40), (64, 48, 52), (40, 80, 44), (80, 80, 80)][seed // 2]
    assert_like_the_reference(*lung_case(seed, shape))


def test_other_parameters_follow_the_reference_too():
    config = CRFConfig(1.5, 6.0, 8.0, 0.04, 3.0, iterations=9)
    assert_like_the_reference(*smooth_case(5, (24, 31, 18)), config)


def test_the_lattice_is_close_to_the_gaussian_formula():
    probability, image = smooth_case(1, (14, 15, 16))
    config = WIDE
    exact = mean_field_with_all_pairs(probability[0], image[0, 0], config)
    ours = dense_crf(probability, image, config)[0]
    assert (ours.argmax(0) == exact.argmax(0)).float().mean() > 0.98
    assert (ours - exact).abs().mean() < 0.02


def mean_field_with_all_pairs(probability, image, config):
    """The formula as it stands: every voxel talks to every other one."""
    axes = [torch.arange(n, dtype=torch.float32) for n in image.shape]
    place = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1).T
    intensity = image.reshape(-1, 1) / config.bilateral_intensity_sigma
    total = torch.zeros(len(place), len(place))
    for feature, weight in (
        (place / config.spatial_sigma, config.spatial_weight),
        (torch.cat((place / config.bilateral_sigma, intensity), 1), config.bilateral_weight),
    ):
        kernel = torch.exp(-0.5 * torch.cdist(feature, feature) ** 2)
        norm = kernel.sum(1).rsqrt()
        total += weight * norm[:, None] * kernel * norm
    unary = probability.flatten(1).log()
    marginals = torch.softmax(unary, 0)
    for _ in range(config.iterations):
        marginals = torch.softmax(unary + marginals @ total, 0)
    return marginals.view_as(probability)


def test_widths_shrink_and_grow_with_the_chunk_that_the_lobe_fills():
    probability, image = smooth_case(6, (40, 36, 32))
    config = CRFConfig(3.0, 1.0, 5.0, 0.1, 2.0, reference_size=80)
    as_wide = CRFConfig(1.5, 1.0, 2.5, 0.1, 2.0)
    wanted = dense_crf(probability, image, as_wide)
    assert torch.equal(dense_crf(probability, image, config), wanted)
    assert not torch.equal(dense_crf(probability, image, replace(config, reference_size=0)), wanted)
    assert_like_the_reference(probability, image, config)
    # one CRF serves chunks of all sizes, as the training draws them
    crf = DenseCRF(config)
    crf(*smooth_case(7, (24, 24, 24)))
    assert torch.equal(crf(probability, image), wanted)


SHIPPED = load_config(None).regression.crf


@pytest.mark.parametrize("size", [40, 48, 80])
@pytest.mark.parametrize("hu", [GLASS, FAINT], ids=["glass", "faint"])
@pytest.mark.parametrize("diameter_mm", [10.0, 20.0])
def test_a_sure_ball_of_ground_glass_survives_what_ships(size, hu, diameter_mm):
    crf = DenseCRF(SHIPPED)
    assert survives(crf, size, diameter_mm, hu) >= 0.9
    # what shipped before, in voxels of every chunk, has erased it
    if hu == FAINT:
        assert survives(DenseCRF(WIDE), size, 10.0, hu) < 0.5


@pytest.mark.parametrize("size", [40, 48, 80])
def test_what_ships_follows_the_reference(size):
    assert_like_the_reference(*smooth_case(size, (size,) * 3), SHIPPED)


@pytest.mark.parametrize("size", [40, 48, 80])
def test_a_vessel_at_a_lesion_does_not_grow_with_what_ships(size):
    assert grows(DenseCRF(SHIPPED), size) <= 1.05


def test_a_single_voxel_only_hears_itself():
    probability = torch.tensor([0.45, 0.55]).view(1, 2, 1, 1, 1)
    config = CRFConfig(spatial_weight=0.5, bilateral_weight=1.5, iterations=3)
    q = 0.55
    for _ in range(3):
        # both normalised kernels are 1 there, so the message is (0.5 + 1.5) Q
        q = 1 / (1 + math.exp(-(math.log(0.55 / 0.45) + 2.0 * (2 * q - 1))))
    out = dense_crf(probability, torch.full((1, 1, 1, 1, 1), 0.3), config)
    assert out[0, 1].item() == pytest.approx(q, abs=1e-6)


@pytest.mark.parametrize("config", [CRFConfig(iterations=0), CRFConfig(3, 0, 5, 0.1, 0)])
def test_without_iterations_or_weights_the_probability_stays(config):
    probability, image = smooth_case(2, (9, 8, 7), 3)
    torch.testing.assert_close(dense_crf(probability, image, config), probability)


def test_a_speck_goes_and_an_edge_stays():
    image = torch.full((1, 1, 20, 20, 20), 0.1)
    image[..., 10:] = 0.8
    foreground = torch.full_like(image, 0.2)
    foreground[..., 10:] = 0.8
    foreground[0, 0, 10, 10, 4] = 0.9
    foreground[0, 0, 10, 10, 15] = 0.1
    out = dense_crf(torch.cat((1 - foreground, foreground), 1), image, WIDE).argmax(1)
    assert torch.equal(out[0], (image[0, 0] > 0.5).long())


def test_marginals_are_probabilities_even_where_the_input_is_certain():
    probability, image = white_case(3, (12, 10, 11), 4)
    certain = torch.nn.functional.one_hot(probability.argmax(1), 4).movedim(-1, 1).float()
    out = dense_crf(certain, image)
    assert torch.isfinite(out).all()
    torch.testing.assert_close(out.sum(1), torch.ones_like(out[:, 0]))
    assert out.min() >= 0


def test_a_batch_is_its_members_and_a_kept_kernel_changes_nothing():
    cases = [smooth_case(seed, (11, 13, 12)) for seed in (1, 2)]
    probability, image = (torch.cat(parts) for parts in zip(*cases, strict=True))
    crf = DenseCRF()
    both = crf(probability, image)
    crf(*smooth_case(3, (8, 9, 10)))
    for n, case in enumerate(cases):
        assert torch.equal(both[n : n + 1], dense_crf(*case))
        assert torch.equal(both[n : n + 1], crf(*case))


def test_the_result_repeats_and_hardly_depends_on_the_number_of_threads():
    case = smooth_case(4, (70, 50, 60))  # more than one block of voxels
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 1, 2):
            torch.set_num_threads(threads)
            results.append(dense_crf(*case))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    torch.testing.assert_close(results[0], results[2], atol=SAME_MARGINALS, rtol=0)


def test_gradients_equal_finite_differences():
    probability, image = smooth_case(6, (3, 3, 2), 3)
    config = CRFConfig(spatial_weight=0.5, bilateral_weight=1.0, iterations=2)
    logits = probability.log().double().requires_grad_()

    def refine(x):
        return dense_crf(torch.softmax(x, 1), image, config)

    assert torch.autograd.gradcheck(refine, logits, atol=1e-6)


def test_a_kernel_kept_in_inference_mode_serves_training():
    probability, image = smooth_case(7, (8, 8, 8))
    crf = DenseCRF()
    with torch.inference_mode():
        crf(probability.clone(), image.clone())
    leaf = probability.clone().requires_grad_()
    crf(leaf, image)[:, 1].sum().backward()
    assert leaf.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_dtype_of_the_probability_is_kept(dtype):
    probability, image = smooth_case(8, (8, 9, 7))
    out = dense_crf(probability.to(dtype), image)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), dense_crf(probability, image), atol=0.1, rtol=0)


@pytest.mark.parametrize(
    ("probability", "image"),
    [
        ((1, 1, 4, 4, 4), (1, 1, 4, 4, 4)),
        ((2, 4, 4, 4), (1, 2, 4, 4, 4)),
        ((1, 2, 4, 4, 4), (1, 1, 4, 4, 5)),
        ((2, 2, 4, 4, 4), (1, 1, 4, 4, 4)),
        ((1, 2, 0, 4, 4), (1, 1, 0, 4, 4)),
    ],
)
def test_wrong_shapes_are_named(probability, image):
    with pytest.raises(InputError, match="CRF"):
        dense_crf(torch.zeros(probability), torch.zeros(image))


def test_wrong_values_are_named():
    probability, image = smooth_case(9, (4, 4, 4))
    with pytest.raises(InputError, match="finite"):
        dense_crf(probability, torch.full_like(image, float("nan")))
    with pytest.raises(InputError, match="too narrow"):
        dense_crf(probability, image, CRFConfig(bilateral_sigma=1e-4))
    with pytest.raises(InputError, match="back-end"):
        dense_crf(probability, image, backend="magic")
    with pytest.raises(InputError, match="positive"):
        CRFConfig(spatial_sigma=0)
    with pytest.raises(InputError, match="negative"):
        CRFConfig(iterations=-1)
    with pytest.raises(InputError, match="must not be negative"):
        CRFConfig(reference_size=-1)


def test_a_missing_reference_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    with pytest.raises(MissingDependencyError, match="pydensecrf2"):
        dense_crf(*smooth_case(9, (4, 4, 4)), backend="pydensecrf")
