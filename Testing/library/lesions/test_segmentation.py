import numpy as np
import pytest
import SimpleITK as sitk
import torch

from DRAMLesionLib.images.geometry import IDENTITY, image_like
from DRAMLesionLib.lesions.segmentation import (
    BACKGROUND,
    SegmentationConfig,
    drop_false_components,
    lesion_margin,
    limited_to,
    near_sure,
    segment,
    surer_at_cut_ends,
)
from DRAMLesionLib.networks import tiles as networks_tiles
from DRAMLesionLib.networks.tiles import fitting_tile, tiles
from DRAMLesionLib.networks.whole import fused, run_whole
from Testing.library.small_weights import random_network


@pytest.fixture(scope="module")
def network():
    return random_network(seed=3)


def _scan(shape):
    rng = np.random.default_rng(1)
    grid = sitk.Image([int(n) for n in shape[::-1]], sitk.sitkUInt8)
    grid.SetSpacing((1.5,) * 3)
    grid.SetDirection(IDENTITY)
    return image_like(rng.normal(-700, 200, shape).astype(np.float32), grid), grid


def test_tiles_cover_the_mask_once():
    inside = np.zeros((70, 50, 61), dtype=bool)
    inside[11:69, 5:40, 20:61] = True
    count = np.zeros((100, 100, 100), dtype=int)
    for tile in tiles(inside, 24):
        assert all(t.start % 8 == 0 and (t.stop - t.start) % 8 == 0 for t in tile)
        assert all(t.stop - t.start <= 24 for t in tile)
        count[tile] += 1
    assert count.max() == 1
    assert (count[:70, :50, :61][inside] == 1).all()


def test_no_lung_means_no_tile():
    assert list(tiles(np.zeros((8, 8, 8), dtype=bool), 24)) == []


def test_the_tile_size_does_not_change_the_result(network):
    ct, grid = _scan((50, 44, 40))
    lungs = image_like(np.ones((50, 44, 40), dtype=np.uint8), grid)
    whole = segment(network, ct, lungs, SegmentationConfig(tile=56))
    tiled = segment(network, ct, lungs, SegmentationConfig(tile=24))
    np.testing.assert_allclose(whole, tiled, atol=2e-5)
    np.testing.assert_allclose(whole.sum(axis=0), 1.0, atol=1e-5)
    assert whole.std(axis=(1, 2, 3)).min() > 1e-3


def test_where_no_lung_is_there_is_background_and_progress_reaches_one(network):
    ct, grid = _scan((40, 40, 40))
    mask = np.zeros((40, 40, 40), dtype=np.uint8)
    mask[1:9, 1:9, 1:9] = 1
    seen = []
    result = segment(
        network, ct, image_like(mask, grid), SegmentationConfig(tile=16), progress=seen.append
    )
    assert (result[BACKGROUND, 20:] == 1).all()
    assert seen[-1] == 1.0


def test_at_a_level_lesion_is_where_its_probability_lies_above():
    shares = np.array([[0.5, 0.7, 0.1], [0.05, 0.1, 0.45], [0.45, 0.2, 0.45]], dtype=np.float32)
    probabilities = shares.reshape(3, 1, 1, 3)
    np.testing.assert_allclose(
        lesion_margin(probabilities, 0.4).ravel(), [0.1, -0.4, 0.1], atol=1e-6
    )
    # among two classes, one half is the most probable one with the same margin
    two = np.array([[0.3, 0.8], [0.0, 0.0], [0.7, 0.2]], dtype=np.float32).reshape(3, 1, 1, 2)
    np.testing.assert_allclose(lesion_margin(two, 0.5), lesion_margin(two), atol=1e-6)


def test_lesion_margin_is_positive_where_lesion_wins():
    probabilities = np.array([[0.2, 0.5], [0.3, 0.1], [0.5, 0.4]]).reshape(3, 1, 1, 2)
    np.testing.assert_allclose(lesion_margin(probabilities).ravel(), [0.2, -0.1])


def test_the_whole_volume_is_the_output_of_one_huge_patch(network):
    torch.manual_seed(5)
    image = torch.rand(1, 1, 132, 116, 124)
    with torch.no_grad():
        wanted = network(image).logits[..., 10:-10, 10:-10, 10:-10]
    for run in (network, fused(network)):
        for depth in (4, 16):
            slabs = {}
            run_whole(run, image, slabs.__setitem__, depth)
            assert sorted(slabs) == list(range(0, 24, depth))
            found = torch.cat([slabs[first] for first in sorted(slabs)], dim=2)
            torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)


def test_little_memory_means_smaller_tiles_and_the_same_result(network, monkeypatch):
    ct, grid = _scan((50, 44, 40))
    lungs = image_like(np.ones((50, 44, 40), dtype=np.uint8), grid)
    wanted = segment(network, ct, lungs, SegmentationConfig())
    edges = []
    real = networks_tiles.run_whole

    def limited(quick, patch, *rest):
        edges.append(max(patch.shape[2:]) - 108)
        if edges[-1] > 24:
            message = "[enforce fail] DefaultCPUAllocator: can't allocate memory"
            raise RuntimeError(message)
        real(quick, patch, *rest)

    monkeypatch.setattr(networks_tiles, "run_whole", limited)
    monkeypatch.setattr(networks_tiles, "free_memory", lambda _: 2e8)
    found = segment(network, ct, lungs, SegmentationConfig())
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    assert edges[0] > 24
    assert edges[-1] <= 24


def test_tiles_fit_the_free_memory(monkeypatch):
    cpu = torch.device("cpu")
    sizes = []
    for free in (1e6, 3e8, 1e9, 1e12, None):
        monkeypatch.setattr(networks_tiles, "free_memory", lambda _, free=free: free)
        sizes.append(fitting_tile(8, cpu))
    assert sizes == sorted(sizes)
    assert sizes[0] == 16
    assert all(size % 8 == 0 for size in sizes)
    # a paper-wide network takes smaller tiles, and more free memory than the budget changes nothing
    assert fitting_tile(32, cpu) < sizes[-1] == sizes[-2]


def test_what_is_no_lack_of_memory_is_not_tried_again(network, monkeypatch):
    ct, grid = _scan((40, 40, 40))
    lungs = image_like(np.ones((40, 40, 40), dtype=np.uint8), grid)

    def broken(*_):
        message = "the network is broken"
        raise RuntimeError(message)

    monkeypatch.setattr(networks_tiles, "run_whole", broken)
    with pytest.raises(RuntimeError, match="broken"):
        segment(network, ct, lungs, SegmentationConfig())


def test_lesion_is_what_lies_near_a_place_that_is_sure():
    found = np.zeros((40, 40, 60), dtype=bool)
    share = np.full(found.shape, 0.55, dtype=np.float32)
    found[8:16, 8:16, 8:16] = True
    share[10:14, 10:14, 10:14] = 0.9  # a nodule with a halo
    found[20:30, 20:30, 10] = True
    share[20:30, 20:30, 10] = 0.9  # the wall of something, one voxel thin
    found[20:28, 20:28, 30:38] = True  # thick, and half sure throughout
    left = near_sure(found, share, SegmentationConfig())
    wanted = np.zeros_like(found)
    wanted[8:16, 8:16, 8:16] = True
    np.testing.assert_array_equal(left, wanted)


def test_specks_and_the_border_of_the_lungs_are_no_lesions():
    lungs = np.zeros((40, 50, 60), dtype=bool)
    lungs[:, 5:45, 5:55] = True  # the scan cuts them at both ends
    deep, border, speck, end = (np.zeros_like(lungs) for _ in range(4))
    deep[10:16, 5:15, 20:30] = True  # begins at the border
    border[10:30, 5:7, 35:50] = True
    speck[25:27, 25:27, 25:27] = True  # 8 voxels: 0.027 ml
    end[:2, 20:30, 20:30] = True
    left = drop_false_components(deep | border | speck | end, lungs, SegmentationConfig())
    np.testing.assert_array_equal(left, deep | end)
    nothing = np.zeros_like(lungs)
    assert drop_false_components(nothing, lungs, SegmentationConfig()) is nothing


def test_the_margin_keeps_its_sign_beside_what_is_found_beyond_the_lungs():
    lungs = np.zeros((3, 3, 12), dtype=bool)
    lungs[..., :8] = True
    margin = np.full(lungs.shape, 0.4, dtype=np.float32)
    found = np.zeros_like(lungs)
    found[..., 6:8] = True
    signs = np.sign(limited_to(margin, found, lungs)[1, 1])
    np.testing.assert_array_equal(signs, [-1] * 6 + [1] * 2 + [1] + [-1] * 3)


@pytest.mark.parametrize(("cut_low", "cut_high"), [(False, False), (True, False), (True, True)])
def test_near_an_end_that_cuts_the_lungs_more_is_demanded(cut_low, cut_high):
    lungs = np.zeros((50, 4, 4), dtype=bool)
    lungs[0 if cut_low else 5 : 50 if cut_high else 45] = True
    margin = np.full(lungs.shape, 0.3, dtype=np.float32)
    found = surer_at_cut_ends(margin, lungs, SegmentationConfig(cut_margin=0.5)) > 0
    expected = np.ones(50, dtype=bool)
    expected[:16] = not cut_low
    expected[34:] = not cut_high
    assert (found == expected[:, None, None]).all()
