"""Intervals that nine truths in ten lie in: chosen on some lobes, counted on others."""

import json
import shutil

import numpy as np
import pytest

from DRAMLesionLib import weights
from DRAMLesionLib.lesions.segmentation import SegmentationConfig
from Training.studies.intervals import (
    POSSIBLE,
    SURE,
    LobeFinding,
    calibrate,
    check,
    interval,
    write_card,
)


def _lobes(count, seed):
    """Lobes of which a tenth or so is missed, with ends that come nearer as one asks for more."""
    rng = np.random.default_rng(seed)
    lobes = []
    for _ in range(count):
        true = float(rng.beta(0.5, 2))
        found = float(np.clip(true * (0.9 + 0.15 * rng.normal()), 0, 1))
        least = tuple(found * (1 - 0.1 * n) for n in range(len(SURE)))
        most = tuple(min(1.0, found * (1 + 0.1 * n)) for n in range(len(POSSIBLE)))
        lobes.append(LobeFinding(0, true, found, least, most))
    return lobes


def test_nine_intervals_in_ten_hold_on_lobes_that_nothing_was_chosen_on():
    config = calibrate(_lobes(400, 0))
    assert config.lobes == 400
    held = check(_lobes(2000, 1), config)
    assert 0.88 <= held["hold"] <= 0.96
    assert held["lobes"] == 2000
    assert held["true_score_within"] >= held["hold"]
    assert held["true_score_within"] > held["score_itself_right"]
    wider = check(_lobes(2000, 1), calibrate(_lobes(400, 0), 0.98))
    assert wider["hold"] > held["hold"]
    assert wider["mean_width_percent"] > held["mean_width_percent"]


def test_an_interval_holds_what_was_found():
    config = calibrate(_lobes(100, 0))
    for lobe in _lobes(50, 2):
        low, high = interval(lobe, config)
        assert 0 <= low <= lobe.found <= high <= 1


def test_too_few_lobes_are_told():
    with pytest.raises(ValueError, match="10 lobes are too few to hold in 95 % of the cases"):
        calibrate(_lobes(10, 0))


def test_what_was_found_goes_into_the_card_and_nothing_else_changes(tmp_path):
    for file in weights.BUNDLED.glob("segmentation.*"):
        shutil.copy(file, tmp_path)
    before = json.loads((tmp_path / "segmentation.json").read_text())
    config = calibrate(_lobes(100, 0))
    write_card(tmp_path, config)
    after = json.loads((tmp_path / "segmentation.json").read_text())
    assert after.pop("config") != before.pop("config") or "interval" in before
    assert after == before
    _, card = weights.load_network(tmp_path, "segmentation")
    found = weights.settings(tmp_path, card, SegmentationConfig, ("spacing",))
    assert found.interval == config
