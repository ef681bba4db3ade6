"""How sure a lobe's fraction is: ends from probabilities, margins, and their calibration."""

import json
import math
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from DRAMLesionLib import weights
from DRAMLesionLib.errors import WeightsError
from DRAMLesionLib.images import geometry
from DRAMLesionLib.lesions.segmentation import Lesions, SegmentationConfig, lobe_intervals
from DRAMLesionLib.lesions.uncertainty import IntervalConfig, ends, intervals, widened
from DRAMLesionLib.lobes import Lobe

CONFIG = IntervalConfig(0.8, 0.3, 0.0, 0.0)


def _lobe():
    """A lobe of 20 x 10 x 10: surely lesion in 4 planes, perhaps in 2 beside them, and far away."""
    lobes = np.full((20, 10, 10), Lobe.RUL, dtype=np.uint8)
    lobes[:, :, 0] = 0
    share = np.zeros(lobes.shape, dtype=np.float32)
    share[:4], share[4], share[5], share[15] = 0.95, 0.6, 0.4, 0.4
    return share > 0.5, share, lobes


def test_the_ends_are_what_is_sure_and_what_is_possible_near_what_was_found():
    found, share, lobes = _lobe()
    (low, high), *others = ends(found, share, lobes, 0.8, 0.3).values()
    assert (low, high) == (4 / 20, 6 / 20)
    assert not others
    assert ends(found, share, lobes, 0.99, 0.5)[Lobe.RUL] == (0.0, 5 / 20)
    nothing = np.zeros_like(found)
    assert ends(nothing, share, lobes, 0.8, 0.3)[Lobe.RUL] == (0.0, 0.0)


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.3, 1.0])
def test_margins_are_those_of_an_arc_sine_and_stay_within_a_lobe(fraction):
    config = IntervalConfig(0.8, 0.3, 0.1, 0.05)
    low, high = widened(fraction, fraction, config)
    angle = math.asin(math.sqrt(fraction))
    assert low == pytest.approx(math.sin(max(0.0, angle - 0.1)) ** 2)
    assert high == pytest.approx(math.sin(min(math.pi / 2, angle + 0.05)) ** 2)
    assert widened(fraction, fraction, CONFIG) == pytest.approx((fraction, fraction))


def test_intervals_come_from_the_grid_of_the_network_and_only_where_they_were_calibrated():
    found, share, lobes = _lobe()
    grid = sitk.Image(10, 10, 20, sitk.sitkUInt8)
    grid.SetSpacing((2.0,) * 3)
    # the CT has voxels half as large
    fine = geometry.working_grid(grid, 1.0)
    lesions = Lesions(
        geometry.resample(geometry.image_like(found.astype(np.uint8), grid), fine, "nearest"),
        geometry.image_like(share, grid),
        0.0,
    )
    labels = geometry.resample(geometry.image_like(lobes, grid), fine, "nearest")
    got = lobe_intervals(lesions, labels, CONFIG)
    assert got == intervals(found, share, lobes, CONFIG)
    assert got[Lobe.RUL] == pytest.approx((0.2, 0.3))
    assert lobe_intervals(lesions, labels, None) == {}


def test_a_card_brings_intervals_and_a_wrong_one_is_refused(tmp_path):
    for file in weights.BUNDLED.glob("segmentation.*"):
        shutil.copy(file, tmp_path)
    path = tmp_path / "segmentation.json"
    content = json.loads(path.read_text())
    wanted = {"sure": 0.8, "possible": 0.2, "margin_low": 0.01, "margin_high": 0.02}
    content["config"]["interval"] = wanted
    path.write_text(json.dumps(content))
    card = weights.read_card(tmp_path, "segmentation")
    found = weights.settings(tmp_path, card, SegmentationConfig, ("spacing",))
    assert found.interval == IntervalConfig(0.8, 0.2, 0.01, 0.02)
    content["config"]["interval"] = wanted | {"sure": 2}
    path.write_text(json.dumps(content))
    card = weights.read_card(tmp_path, "segmentation")
    with pytest.raises(WeightsError, match=r"interval.sure is 2; wanted"):
        weights.settings(tmp_path, card, SegmentationConfig, ("spacing",))
