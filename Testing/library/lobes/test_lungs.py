"""Lungs alone: what is told from them, what stays in them, and where their border runs."""

import numpy as np
import pytest
from scipy import ndimage

from DRAMLesionLib.images import geometry
from DRAMLesionLib.lobes import morphology
from DRAMLesionLib.lobes.lungs import segment_lungs
from Testing.library import simple_chest
from Testing.library.overlap import dice

SIZE, SPACING = (120, 84, 90), (3.0, 3.0, 3.0)


@pytest.fixture(scope="module")
def chest():
    """Return grid, places (x, y, z), HU and lungs of a chest with ribs and no lesion."""
    grid = simple_chest.grid(SIZE, SPACING)
    x, y, z = np.moveaxis(simple_chest.points(grid), -1, 0)
    hu = simple_chest.values(simple_chest.hu(grid)).astype(np.float32)
    lungs = simple_chest.values(simple_chest.lobes(grid)) > 0
    return grid, (x, y, z), hu, lungs


def found(hu, grid):
    """Return the lungs (0, 1 left, 2 right) on the grid, and the warnings' codes."""
    noise = np.random.default_rng(0).normal(0.0, 15.0, hu.shape)
    result = segment_lungs(geometry.image_like((hu + noise).astype(np.float32), grid))
    labels = geometry.array(geometry.resample(result.lungs, grid, "labels"))
    return labels, [warning.code for warning in result.warnings]


def test_gas_below_a_thin_diaphragm_is_no_lung(chest):
    grid, (x, y, z), hu, lungs = chest
    gas = ((x - 60) / 30) ** 2 + ((y + 30) / 30) ** 2 + ((z + 112) / 20) ** 2 < 1
    fluid = gas & (y > -25)
    wall = morphology.dilate(gas, 1) & ~gas
    hu = np.where(wall, 30.0, hu)
    hu = np.where(fluid, 10.0, np.where(gas, -1000.0, hu))
    labels, _ = found(hu, grid)
    lungs = lungs & ~gas & ~wall
    assert (labels[gas & ~fluid] > 0).mean() < 0.02
    assert dice(labels > 0, lungs) > 0.97


def test_gas_that_breaks_through_to_the_lung_is_cut_off(chest):
    grid, (x, y, z), hu, lungs = chest
    gas = ((x - 60) / 30) ** 2 + ((y + 30) / 30) ** 2 + ((z + 112) / 20) ** 2 < 1
    hole = (np.hypot(x - 65, y + 25) < 5) & (z > -100) & (z < -80)
    wall = morphology.dilate(gas, 1) & ~gas & ~hole
    hu = np.where(wall, 30.0, np.where(gas | hole, -1000.0, hu))
    labels, _ = found(hu, grid)
    assert (labels[gas] > 0).mean() < 0.1
    assert (labels[lungs & ~gas & ~wall] > 0).mean() > 0.97


def test_a_ct_cropped_to_the_lungs_keeps_them(chest):
    grid, _, hu, lungs = chest
    box = ndimage.find_objects(lungs.astype(np.uint8))[0]
    start, stop = ([side.start for side in box][::-1], [side.stop for side in box][::-1])
    part = grid[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
    labels, _ = found(hu[box], part)
    assert dice(labels > 0, lungs[box]) > 0.97
    assert set(np.unique(labels)) == {0, 1, 2}


def test_the_chest_wall_beside_a_narrow_lung_is_no_lung(chest):
    grid, (x, y, z), hu, lungs = chest

    def narrow(grown):
        return ((x + 62) / (34 + grown)) ** 2 + (y / (78 + grown)) ** 2 + (z / 98) ** 2 < 1

    gone = lungs & (x < 0) & ~narrow(0)
    ribs = (x < -50) & narrow(7) & ~narrow(1) & (np.mod(z + 0.4 * y, 30) < 9)
    hu = np.where(ribs, 350.0, np.where(gone, 50.0, hu))
    labels, _ = found(hu, grid)
    wall = gone & ~narrow(3)
    litres = (labels[wall] > 0).sum() * geometry.voxel_ml(grid) / 1000.0
    assert litres < 0.05
    assert dice(labels > 0, lungs & ~gone) > 0.96


def test_partial_volume_at_the_pleura_counts_as_lung(chest):
    grid, _, hu, lungs = chest
    blurred = ndimage.gaussian_filter(hu, 0.7)
    labels, _ = found(blurred, grid)
    border = morphology.dilate(lungs) & (blurred < -300.0) & (blurred > -400.0)
    assert border.sum() > 1000
    assert (labels[border] > 0).mean() > 0.8


@pytest.mark.parametrize("steps", [1, 3])
def test_growing_and_shrinking_agree_with_scipy(steps):
    mask = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(21, 30, 25)), 2) > 0
    grown = ndimage.binary_dilation(mask, iterations=steps)
    shrunk = ndimage.binary_erosion(mask, iterations=steps)
    assert np.array_equal(morphology.dilate(mask, steps), grown)
    assert np.array_equal(morphology.erode(mask, steps), shrunk)


def test_a_ball_survives_halving_and_doubling():
    k, j, i = np.indices((41, 40, 39))
    ball = (k - 20) ** 2 + (j - 20) ** 2 + (i - 19) ** 2 < 15**2
    back = morphology.doubled(morphology.halved(ball) >= 0.5, ball.shape)
    assert back.shape == ball.shape
    assert dice(back, ball) > 0.96


def test_distance_is_negative_inside():
    mask = np.zeros((9, 9, 9), dtype=bool)
    mask[4, 4, 2:7] = True
    distance = morphology.distance_to(mask)
    assert distance[4, 4, 4] <= 0
    assert distance[4, 7, 4] == pytest.approx(3.0, abs=0.01)
