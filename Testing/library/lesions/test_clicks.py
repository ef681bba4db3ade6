"""Clicks correct a map in the lobe that they lie in, whatever their order."""

import numpy as np
import pytest

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.lesions.clicks import Click, LobeClicks, ScanClicks

SPACING = (2.0, 1.0, 1.0)


@pytest.fixture
def chest():
    """Two lobes of lung, each with two equal cubes of ground glass; the network has found one."""
    hu = np.full((24, 48, 100), -860, dtype=np.int16)
    hu += np.random.default_rng(3).integers(-20, 21, hu.shape, dtype=np.int16)
    lobes = np.zeros(hu.shape, dtype=np.uint8)
    lobes[2:22, 4:44, 4:48], lobes[2:22, 4:44, 52:96] = 1, 3
    answer = np.zeros(hu.shape, dtype=np.float32)
    for first in (8, 56):
        hu[8:14, 10:22, first : first + 12] += 260
        hu[8:14, 10:22, first + 20 : first + 32] += 260
        answer[8:14, 10:22, first : first + 12] = 0.9
    return hu, answer, lobes, np.zeros(hu.shape, dtype=bool)


MISSED = Click((11, 16, 34), True)
MADE_UP = Click((11, 16, 14), False)


def _correct(chest, *clicks):
    hu, answer, lobes, vessels = chest
    return ScanClicks(hu, answer, lobes, vessels, SPACING).correct(clicks)[0]


def test_a_click_on_a_missed_lesion_brings_in_all_of_it_and_nothing_else(chest):
    found = _correct(chest, MISSED) > 0.5
    cube = np.zeros_like(found)
    cube[8:14, 10:22, 28:40] = True
    before = chest[1] > 0.5
    assert found[MISSED.voxel]
    assert (found & cube).sum() > 0.75 * cube.sum()
    assert (found & ~cube & ~before).sum() < 0.25 * cube.sum()
    assert found[before].all()


def test_a_click_on_background_takes_what_looks_like_it_out(chest):
    found = _correct(chest, MADE_UP) > 0.5
    assert not found[MADE_UP.voxel]
    assert found[..., :48].sum() < 0.2 * (chest[1] > 0.5)[..., :48].sum()


@pytest.mark.parametrize("click", [MISSED, MADE_UP])
def test_nothing_changes_outside_the_clicked_lobe(chest, click):
    corrected = _correct(chest, click)
    np.testing.assert_array_equal(corrected[chest[2] != 1], chest[1][chest[2] != 1])
    assert (corrected != chest[1]).any()


def test_clicks_obey_side_by_side_and_their_order_makes_no_difference(chest):
    clicks = [
        MISSED,
        Click((11, 16, 35), False),
        Click((9, 12, 12), True),
        MADE_UP,
        Click((11, 16, 60), False),
    ]
    corrected = _correct(chest, *clicks)
    for click in clicks:
        assert corrected[click.voxel] == float(click.lesion)
    np.testing.assert_array_equal(_correct(chest, *clicks[::-1]), corrected)
    assert 0.0 <= corrected.min() <= corrected.max() <= 1.0


def test_without_a_click_all_is_as_the_network_said(chest):
    kept = chest[1].copy()
    _correct(chest, MISSED, MADE_UP)
    np.testing.assert_array_equal(chest[1], kept)  # the original is not touched
    np.testing.assert_array_equal(_correct(chest), kept)
    once = _correct(chest, MISSED)
    np.testing.assert_array_equal(_correct(chest, MISSED, MISSED), once)


def test_a_click_in_no_lobe_is_named_and_changes_nothing(chest):
    hu, answer, lobes, vessels = chest
    outside = [Click((0, 0, 0), True), Click((11, 16, 400), True), Click((-1, 16, 14), True)]
    corrected, ignored = ScanClicks(hu, answer, lobes, vessels, SPACING).correct(outside)
    assert ignored == outside
    np.testing.assert_array_equal(corrected, answer)


def test_vessels_do_not_follow_a_click_beside_them(chest):
    hu, answer, lobes, vessels = chest
    hu[4:20, 36:40, 6:46] += 260
    vessels[4:20, 36:40, 6:46] = True
    found = _correct((hu, answer, lobes, vessels), MISSED) > 0.5
    assert found[8:14, 10:22, 28:40].mean() > 0.75
    assert found[vessels].mean() < 0.05


def test_one_voxel_cannot_be_both(chest):
    with pytest.raises(InputError, match="as lesion and as background"):
        _correct(chest, MISSED, Click(MISSED.voxel, False))


def test_a_lobe_refuses_a_click_beside_it(chest):
    hu, answer, lobes, vessels = chest
    lobe = LobeClicks(hu, answer, lobes == 1, vessels, SPACING)
    with pytest.raises(InputError, match="outside its lobe"):
        lobe.correct([Click((11, 16, 60), True)])


def test_a_lobe_smaller_than_a_coarse_voxel_can_be_clicked(chest):
    _, answer, lobes, _ = chest
    lobes[:] = 0
    lobes[11, 16, 30] = 2
    click = Click((11, 16, 30), True)
    corrected = _correct(chest, click)
    assert corrected[click.voxel] == 1.0
    assert (corrected != answer).sum() == 1
