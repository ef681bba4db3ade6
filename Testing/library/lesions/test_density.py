"""Lungs of every breath at one level: what is scaled, how much, and what stays as it is."""

import numpy as np
import pytest
import SimpleITK as sitk

from DRAMLesionLib.images import geometry
from DRAMLesionLib.lesions.density import COMMON_HU, at_common_level, find_level

SHAPE = (30, 90, 60)
LUNG = (slice(4, 26), slice(10, 80), slice(5, 55))


def scan(front, back, noise=20.0, spacing=(3.0, 2.5, 3.0)):
    """A box of lung whose HU change from front to back, in soft tissue; and its mask."""
    hu = np.full(SHAPE, 40.0)
    slope = np.linspace(front, back, 70)[None, :, None]
    rng = np.random.default_rng(3)
    hu[LUNG] = slope + rng.normal(0.0, noise, hu[LUNG].shape)
    mask = np.zeros(SHAPE, np.uint8)
    mask[LUNG] = 1
    images = [sitk.GetImageFromArray(hu.astype(np.int16)), sitk.GetImageFromArray(mask)]
    for image in images:
        image.SetSpacing(spacing)
        image.SetOrigin((-90.0, -110.0, 30.0))
    return images


def test_a_lung_in_inspiration_stays_as_it_is():
    ct, lungs = scan(-910.0, -880.0)
    level = find_level(ct, lungs)
    assert level.is_common
    assert level.summary() == {
        "level_hu": pytest.approx(level.hu, abs=0.1), "least_factor": 1.0, "largest_factor": 1.0
    }  # fmt: skip
    assert at_common_level(ct, level) is ct


def test_expiration_comes_to_the_common_level_from_front_to_back():
    ct, lungs = scan(-830.0, -740.0)
    level = find_level(ct, lungs)
    assert level.hu == pytest.approx(np.percentile(geometry.array(ct)[LUNG], 15), abs=3.0)
    seen = geometry.array(at_common_level(ct, level))
    for part in np.array_split(seen[LUNG], 5, axis=1):
        assert np.percentile(part, 15) == pytest.approx(COMMON_HU, abs=20.0)
    outside = np.ones(SHAPE, bool)
    outside[LUNG] = False
    assert (seen[outside] == 40).all()
    assert seen.dtype == np.int16
    assert seen.min() >= -1024


def test_a_lung_that_is_dense_at_the_back_only_is_diseased_there():
    ct, lungs = scan(-890.0, -890.0)
    values = geometry.array(ct)
    values[:, 55:80] += 250 * (geometry.array(lungs)[:, 55:80] > 0)
    sick = geometry.image_like(values, ct)
    level = find_level(sick, lungs)
    seen = geometry.array(at_common_level(sick, level))
    back = (slice(6, 24), slice(58, 78), slice(8, 52))
    assert np.median(seen[back]) == pytest.approx(np.median(values[back]), abs=40.0)


def test_what_is_scaled_begins_and_ends_without_a_jump():
    """Scans a little denser than each other are scaled by a little more or less."""
    largest = []
    for hu in np.arange(-905.0, -700.0, 4.0):
        largest.append(find_level(*scan(hu, hu)).summary()["largest_factor"])
    assert largest[0] == largest[-1] == 1.0
    assert max(largest) > 1.1
    assert np.abs(np.diff(largest)).max() < 0.06


def test_what_no_breath_explains_is_left_alone():
    ct, lungs = scan(-640.0, -600.0)
    assert find_level(ct, lungs).is_common


def test_how_sure_the_expiration_is():
    levels = (-910.0, -855.0, -820.0, -732.0, -700.0)
    sure = [find_level(*scan(hu, hu)).expiration for hu in levels]
    assert sure[0] == sure[-1] == 0.0
    assert sure[2] == 1.0
    assert 0.0 < sure[1] < 1.0
    assert 0.0 < sure[3] < 1.0


@pytest.mark.parametrize("degrees", [0.0, 20.0])
def test_the_way_of_storing_does_not_matter(degrees):
    ct, lungs = scan(-830.0, -740.0, noise=1.0)  # interpolation would take more away
    straight = at_common_level(ct, find_level(ct, lungs))
    turn = np.radians(degrees)
    c, s = float(np.cos(turn)), float(np.sin(turn))
    grid = sitk.Image(140, 100, 40, sitk.sitkUInt8)
    grid.SetSpacing((2.0, 3.0, 3.0))
    # rows run from back to front
    grid.SetDirection((c, s, 0.0, s, -c, 0.0, 0.0, 0.0, -1.0))
    centre = np.array(ct.TransformContinuousIndexToPhysicalPoint([30.0, 45.0, 15.0]))
    middle = np.array(grid.TransformContinuousIndexToPhysicalPoint([70.0, 50.0, 20.0]))
    grid.SetOrigin((centre - middle).tolist())
    other_ct = geometry.resample(ct, grid, fill=40.0)
    other_lungs = geometry.resample(lungs, grid, "nearest")
    found = at_common_level(other_ct, find_level(other_ct, other_lungs))
    assert found.GetDirection() == grid.GetDirection()
    back = geometry.array(geometry.resample(found, ct))
    inner = (slice(8, 22), slice(18, 72), slice(12, 48))
    difference = back[inner] - geometry.array(straight)[inner]
    assert abs(np.median(difference)) < 6.0
    assert abs(difference.mean()) < 6.0
