"""The measures of ``python -m Testing.realdata``, with figures worked out by hand."""

import io

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from DRAMLesionLib.lobes import Lobe
from Testing.realdata import measures
from Testing.realdata.pictures import ACROSS, DOWN, montage

SPACING = 1.5


def image(values):
    result = sitk.GetImageFromArray(values)
    result.SetSpacing((SPACING,) * 3)
    return result


@pytest.fixture
def scan():
    """Return HU and lobes of two boxes of lung, a bubble below the left one inside its lobe."""
    hu = np.full((60, 50, 90), 40, dtype=np.int16)
    lobes = np.zeros(hu.shape, dtype=np.uint8)
    lobes[20:55, 5:45, 50:85], lobes[20:55, 5:45, 5:40] = Lobe.LUL, Lobe.RUL
    hu[lobes > 0] = -850
    hu[4:14, 20:30, 60:70] = -1000
    return hu, lobes


def test_gas_in_a_lobe_is_gut_only_where_soft_tissue_surrounds_it(scan):
    hu, lobes = scan
    assert measures.gut_gas_ml(image(hu), image(lobes)) == 0.0
    lobes[4:14, 20:30, 60:70] = Lobe.LLL
    wrong = measures.gut_gas_ml(image(hu), image(lobes))
    assert wrong == pytest.approx(1000 * SPACING**3 / 1000.0, rel=0.01)
    hu[4:14, 20:30, 60:70] = 40
    lobes[4:14, 20:30, 60:70] = 0
    hu[24:34, 20:30, 60:70] = -1000
    assert measures.gut_gas_ml(image(hu), image(lobes)) == 0.0


def test_dice_of_both_lungs_and_each(scan):
    _, lobes = scan
    contours = np.where(lobes == Lobe.RUL, 1, np.where(lobes == Lobe.LUL, 2, 0)).astype(np.uint8)
    contours[20:55, 5:25, 50:85] = 0
    found = measures.lung_dice(image(lobes), image(contours))
    assert found["right"] == 1.0
    assert found["left"] == pytest.approx(2 / 3)
    assert found["dice"] == pytest.approx(6 / 7)


def test_area_under_the_curve_counts_pairs_and_ties_half():
    yes, no = np.array([3.0, 1.0]), np.array([0.0, 1.0])
    assert measures.auc(yes, no) == pytest.approx((1 + 1 + 1 + 0.5) / 4)


def test_slices_are_compared_with_the_reader():
    lesions = np.zeros((4, 10, 10), dtype=np.uint8)
    lesions[0], lesions[2, 0] = 1, 1
    answers = {0: True, 1: False, 2: False, 3: False}
    compared = measures.by_slice(image(lesions), answers)
    assert compared["auc"] == 1.0
    # ten voxels of 3.4 microlitres are 0.034 ml
    assert compared["negatives"] == 0.0
    lesions[2, :2] = 1
    assert measures.by_slice(image(lesions), answers)["negatives"] == pytest.approx(100 / 3)


def test_volumes_and_lesion_share(scan):
    _, lobes = scan
    lesions = np.zeros_like(lobes)
    lesions[20:55, 5:45, 50:57] = 1
    volumes = measures.lung_ml(image(lobes))
    assert volumes["left"] == volumes["right"] == pytest.approx(35 * 40 * 35 * SPACING**3 / 1000.0)
    assert measures.lesion_percent(image(lesions), image(lobes)) == pytest.approx(10.0)


def test_the_montage_shows_sixteen_slices_with_outlines(scan):
    hu, lobes = scan
    picture = Image.open(io.BytesIO(montage(image(hu), image(lobes), image(lobes), image(lobes))))
    pixels = np.asarray(picture)
    assert pixels.shape[0] % DOWN == 0
    assert pixels.shape[1] % ACROSS == 0
    assert (pixels == (255, 255, 255)).all(axis=2).sum() > 16 * 100
