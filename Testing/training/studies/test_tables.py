"""What the tables of ablation and departures say about figures that are known."""

import pytest

from Training.config import load_config
from Training.studies import ablation, departures


def _figures(*iou):
    return {
        "iou": sum(iou) / len(iou),
        "iou_by_fraction": 0.5,
        "average_precision": 0.5,
        "healthy_percent": 0.1,
        "iou_of_scans": list(iou),
        "seconds_a_step": 1.0,
    }


def test_the_ablation_corrects_p_for_its_five_changes():
    better = [0.1 * n for n in range(1, 9)]
    names = ("raw", "+ regulariser", "+ refine", "+ attention", "+ vessels", "+ context")
    measured = {name: _figures(*([0.1] * 8)) for name in names}
    measured["+ refine"] = _figures(*(0.1 + 0.1 * x for x in better))
    rows = ablation._compare(measured)
    assert "iou_p" not in rows[0]
    # eight scans, all better: 2 / 2^8
    assert rows[2]["iou_p"] == pytest.approx(2 / 256)
    assert rows[2]["iou_p_corrected"] == pytest.approx(5 * 2 / 256)
    assert rows[1]["iou_p_corrected"] == 1.0
    assert "  0.039" in ablation.table(rows).splitlines()[3]


def test_departures_correct_p_for_all_that_are_tested():
    config = load_config(None)
    departure = departures.Departure("regression.freeze_norm", "map")
    theirs = _figures(*([0.1] * 8))
    ours = _figures(*(0.11 + 0.01 * n for n in range(8)))
    row = departures._compare(departure, config, ours, theirs, 20)
    assert row["p"] == pytest.approx(2 / 256)
    assert row["p_corrected"] == pytest.approx(20 * 2 / 256)
    assert "  0.156" in departures.table([row])
