import json

import pytest

from DRAMLesionLib.lobes import Lobe
from Testing.library.small_weights import write_small_weights
from Training import evaluation
from Training.evaluation import CaseResult, summarise


def _case(true, found, scores, found_scores, healthy=False, percent=0.0, overlap=(1, 2)):
    names = [lobe.name for lobe in Lobe]
    return CaseResult(
        seed=0,
        healthy=healthy,
        predicted=dict(zip(names, found, strict=True)),
        dram=dict(zip(names, true, strict=True)),
        true=dict(zip(names, true, strict=True)),
        predicted_scores=dict(zip(names, found_scores, strict=True)),
        true_scores=dict(zip(names, scores, strict=True)),
        intersection=overlap[0],
        union=overlap[1],
        lesion_percent=percent,
    )


def test_figures_by_hand():
    ill = _case(
        [0.0, 0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4, None], [0, 2, 2, 3, 3], [2, 2, 3, 3, None]
    )
    well = [_case([0] * 5, [0] * 5, [0] * 5, [0] * 5, healthy=True, percent=p) for p in (0.2, 0.6)]
    figures = summarise([ill, *well])
    assert figures["lobes"] == 4
    assert figures["lobes_not_assessable"] == 1
    assert figures["fraction_correlation"] == pytest.approx(1.0)
    assert figures["fraction_mean_absolute_error"] == pytest.approx(0.1)
    assert figures["iou_mean_of_scans"] == 0.5
    assert figures["healthy_lesion_percent_mean"] == pytest.approx(0.4)
    assert figures["healthy_lesion_percent_max"] == 0.6
    # true 0 2 2 3, found 2 2 3 3: distances add up to 2 + 0 + 1 + 0 = 3 of an expected
    # sum over pairs / 4: (2+2+3+3 + 2*(0+0+1+1) + (1+1+0+0)) / 4 = 16 / 4
    assert figures["score_weighted_kappa"] == pytest.approx(1 - 3 / 4)


def test_the_command_evaluates_phantoms(tmp_path, capsys):
    weights = write_small_weights(tmp_path / "weights")
    words = ["--output", str(tmp_path / "figures.json"), "--count", "1", "--spacing", "4"]
    assert evaluation.main([*words, "--weights", str(weights), "--workers", "1"]) == 0
    content = json.loads((tmp_path / "figures.json").read_text())
    assert [case["healthy"] for case in content["cases"]] == [False, True]
    assert content["cases"][1]["true"] == dict.fromkeys((lobe.name for lobe in Lobe), 0.0)
    assert content["summary"]["healthy_scans"] == 1
    assert "fraction_correlation" in capsys.readouterr().out
