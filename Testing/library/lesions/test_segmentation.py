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


def test_specks_and_vessels_are_no_lesions_and_lesions_on_vessels_stay():
    margin = np.full((30, 30, 60), -0.5, dtype=np.float32)
    margin[5:15, 5:15, 5:15] = 0.5  # a lesion
    margin[20:22, 20:22, 5:7] = 0.5  # 8 voxels: 0.027 ml
    margin[12:15, 12:15, 30:50] = 0.5  # the trunk of a vessel
    vessels = np.zeros(margin.shape, dtype=bool)
    vessels[12:14, 12:14, 30:50] = True
    vessels[9:11, 9:11, :20] = True  # a vessel that crosses the lesion
    left = drop_false_components(margin, vessels, SegmentationConfig())
    wanted = np.zeros(margin.shape, dtype=bool)
    wanted[5:15, 5:15, 5:15] = True
    np.testing.assert_array_equal(left > 0, wanted)
    np.testing.assert_array_equal(left[margin < 0], margin[margin < 0])
    nothing = np.full((4, 4, 4), -1.0)
    assert drop_false_components(nothing, nothing > 0, SegmentationConfig()) is nothing


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
