"""Dependent density of both lungs is told from lesions; what one side alone has is not."""

import numpy as np
import pytest
import SimpleITK as sitk

from DRAMLesionLib.images import geometry
from DRAMLesionLib.lesions.gravity import REACH_MM, dependent_density, dependent_warnings
from DRAMLesionLib.lesions.segmentation import SegmentationConfig, find_lesions
from Testing.library.small_weights import dense_voxels

SHAPE, SPACING = (48, 70, 60), 1.5
LUNGS = np.zeros(SHAPE, dtype=bool)
LUNGS[4:44, 5:65, 4:27] = LUNGS[4:44, 5:65, 33:56] = True
BACK = np.zeros(SHAPE, dtype=bool)
BACK[:, 57:65] = True
RIGHT, LEFT = np.indices(SHAPE)[2] < 30, np.indices(SHAPE)[2] >= 30


def chest(dense):
    """Lungs in expiration, denser where ``dense`` is, in soft tissue; HU."""
    hu = np.full(SHAPE, 40.0, dtype=np.float32)
    hu[LUNGS] = -720.0
    hu[LUNGS & dense] = -560.0
    return hu + np.random.default_rng(2).normal(0.0, 20.0, SHAPE).astype(np.float32)


def test_what_both_backs_have_is_gravity_and_a_denser_lesion_in_it_is_none():
    hu = chest(BACK)
    lesion = np.zeros(SHAPE, dtype=bool)
    lesion[20:30, 58:64, 8:18] = True
    hu[lesion] = -250.0
    called = LUNGS & BACK
    found = dependent_density(hu, LUNGS, called, SPACING, 1.0)
    assert not (found & ~called).any()
    assert not found[22:28, 59:63, 10:16].any()
    assert found[called & LEFT].mean() > 0.95
    assert found[called & RIGHT & ~lesion].mean() > 0.85


def test_ground_glass_in_front_stays():
    hu = chest(BACK)
    lesion = np.zeros(SHAPE, dtype=bool)
    lesion[15:30, 10:25, 8:22] = True
    hu[lesion] = -600.0
    assert (65 - 25) * SPACING > REACH_MM
    assert not dependent_density(hu, LUNGS, lesion, SPACING, 1.0).any()


@pytest.mark.parametrize(("dense", "strength"), [(BACK & RIGHT, 1.0), (BACK, 0.0)])
def test_one_side_alone_or_a_scan_in_inspiration_is_left_as_it_is(dense, strength):
    found = dependent_density(chest(dense), LUNGS, LUNGS & dense, SPACING, strength)
    assert not found.any()


def test_half_an_expiration_explains_half_as_much():
    hu = chest(BACK)
    hu[LUNGS & BACK] += 110.0
    called = LUNGS & BACK
    shares = [
        dependent_density(hu, LUNGS, called, SPACING, strength)[called].mean()
        for strength in (0.2, 1.0)
    ]
    assert shares[0] < 0.3 < 0.9 < shares[1]


def test_where_nothing_is_called_lesion_nothing_is_found():
    nothing = np.zeros(SHAPE, dtype=bool)
    assert not dependent_density(chest(BACK), nothing, nothing, SPACING, 1.0).any()


def test_the_lesions_of_a_scan_in_expiration_are_without_it():
    grid = sitk.Image([int(n) for n in SHAPE[::-1]], sitk.sitkUInt8)
    grid.SetSpacing((SPACING,) * 3)
    ct = geometry.image_like(chest(BACK), grid)
    lungs = geometry.image_like(LUNGS.astype(np.uint8), grid)
    everything = SegmentationConfig(SPACING, least_ml=0.0, sure=0.0, rim_share=1.0)
    inner = LUNGS & BACK & np.roll(LUNGS & BACK, -3, axis=1)
    shares, left_out = [], []
    for expiration in (0.0, 1.0):
        found = find_lesions(dense_voxels(), ct, lungs, everything, expiration=expiration)
        shares.append(geometry.array(found.mask)[inner].mean())
        left_out.append(found.dependent_ml)
    assert shares[0] > 0.9
    assert shares[1] < 0.1
    assert left_out[0] == 0.0
    assert left_out[1] >= inner.sum() * SPACING**3 / 1000.0


def test_what_is_not_counted_is_told():
    assert dependent_warnings(0.9) == []
    (told,) = dependent_warnings(31.6)
    assert told.code == "dependent-density"
    assert "About 32 ml at the back of both lungs look like ground glass" in told.message
