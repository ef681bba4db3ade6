"""The measure of lesion types, by hand and on a coarse phantom."""

import json

import pytest

from DRAMLesionLib.lesions.types import LesionType
from Training.evaluation.lesion_types import main, summarise
from Training.metrics import Confusion

GGO, CONS, MIXED = LesionType


def test_figures_by_hand():
    # 10 voxels of ground glass of which 8 are found, 4 of consolidation of which 2 are; none mixed
    one = {
        GGO: Confusion(tp=8, fp=2, fn=2, tn=2),
        CONS: Confusion(tp=2, fp=2, fn=2, tn=8),
        MIXED: Confusion(tn=14),
    }
    figures = summarise([one, one])
    assert figures["iou_ground_glass"] == pytest.approx(8 / 12)
    assert figures["iou_consolidation"] == pytest.approx(2 / 6)
    assert figures["iou_mixed"] != figures["iou_mixed"]  # not defined without any
    assert figures["voxels_right"] == pytest.approx(10 / 14)


def test_the_command_measures_a_phantom(tmp_path, capsys):
    path = tmp_path / "types.json"
    arguments = ["--output", str(path), "--count", "1", "--spacing", "4", "--workers", "1"]
    assert main(arguments) == 0
    figures = json.loads(path.read_text())
    assert 0.5 < figures["voxels_right"] <= 1.0
    assert "iou_ground_glass" in capsys.readouterr().out
