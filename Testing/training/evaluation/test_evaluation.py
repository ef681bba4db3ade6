import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.images.geometry import image_like
from DRAMLesionLib.lobes import Lobe
from Testing.library.small_weights import write_small_weights
from Training.__main__ import main
from Training.evaluation import figures as evaluation_figures
from Training.evaluation import measure as evaluation
from Training.evaluation import report as evaluation_report
from Training.evaluation.kept import Keeper
from Training.evaluation.measure import CaseResult, LobeResult, compare, summarise
from Training.evaluation.report import write_evaluation
from Training.evaluation.run import read_ablation
from Training.evaluation.sources import PhantomSource, TrueScan
from Training.methods.base import Outcome, Prediction, Trained
from Training.metrics import Confusion, ProbabilityHistogram


def _case(name, true, found, scores, found_scores, confusion, percent=0.0, method="ours"):
    lobes = tuple(
        LobeResult(lobe.name, *values)
        for lobe, *values in zip(Lobe, found, true, found_scores, scores, strict=True)
    )
    truth = np.array([True] * (confusion.tp + confusion.fn) + [False] * 5)
    return CaseResult(
        case=name,
        method=method,
        healthy=not any(true),
        confusion=confusion,
        by_type={t: Confusion() for t in evaluation.TYPES} | {"mixed": confusion},
        found_of_type=dict.fromkeys(evaluation.TYPES, math.nan) | {"mixed": confusion.sensitivity},
        lobes=lobes,
        lesion_percent=percent,
        histogram=ProbabilityHistogram.of(np.linspace(0.9, 0.1, len(truth)), truth, 200),
        seconds={"total": 2.0},
        picture=evaluation.Picture(
            np.zeros((20, 30), np.uint8), np.eye(20, 30) > 0, np.zeros((20, 30), bool), (1.5, 1.5)
        ),
    )


def _results(method="ours"):
    ill = _case(
        "ill",
        [0.0, 0.1, 0.2, 0.3, 0.4],
        [0.1, 0.2, 0.3, 0.4, None],
        [0, 2, 2, 3, 3],
        [2, 2, 3, 3, None],
        Confusion(2, 1, 1, 96),
        method=method,
    )
    well = [
        _case(f"well{p}", [0] * 5, [0] * 5, [0] * 5, [0] * 5, Confusion(0, 0, 0, 9), p, method)
        for p in (0.2, 0.6)
    ]
    return [ill, *well]


def test_figures_by_hand():
    figures = summarise(_results())
    assert figures["scans_with_lesions"] == 1
    assert figures["lobes"] == 14
    assert figures["lobes_not_assessable"] == 1
    assert figures["fraction_correlation"] == pytest.approx(1.0)
    assert figures["fraction_mean_absolute_error"] == pytest.approx(0.1)
    assert figures["bland_altman_lesion_percent"]["bias"] == pytest.approx(10.0)
    assert figures["iou_mean_of_scans"] == 0.5
    assert figures["mean_of_scans"]["ppv"] == {"mean": pytest.approx(2 / 3), "scans": 1}
    assert math.isnan(figures["dice_mean_of_scans_interval"][0])
    assert figures["all_voxels"]["specificity"] == pytest.approx(96 / 97)
    assert figures["by_type"]["mixed"]["iou_mean_of_scans"] == 0.5
    assert figures["by_type"]["mixed"]["found_as_any_type"] == pytest.approx(2 / 3)
    assert figures["by_type"]["ground glass"]["scans"] == 0
    assert math.isnan(figures["by_type"]["ground glass"]["iou_mean_of_scans"])
    assert figures["healthy_lesion_percent_mean"] == pytest.approx(0.4)
    assert figures["healthy_lesion_percent_max"] == 0.6
    # true 0 2 2 3, found 2 2 3 3: distances add up to 2 + 0 + 1 + 0 = 3 of an expected
    # sum over pairs / 4: (2+2+3+3 + 2*(0+0+1+1) + (1+1+0+0)) / 4 = 16 / 4
    assert figures["lesion_scans_weighted_kappa"] == pytest.approx(1 - 3 / 4)
    # with the ten zeros of the healthy scans: still 3, of an expected sum over pairs / 14:
    # true 11 x 0, 2 x 2, 1 x 3; found 10 x 0, 2 x 2, 2 x 3:
    # 11*(2*2+2*3) + 2*(10*2+2*0+2*1) + 1*(10*3+2*1+2*0) = 110 + 44 + 32
    assert figures["score_weighted_kappa"] == pytest.approx(1 - 3 * 14 / 186)
    assert figures["score_confusion_matrix"][2][2:4] == [1, 1]


def test_a_comparison_by_hand():
    grid = sitk.Image(10, 10, 10, sitk.sitkUInt8)
    lobes = np.zeros((10, 10, 10), np.uint8)
    lobes[:, :, :5], lobes[:, :, 5:9] = Lobe.RUL, Lobe.LUL
    truth, found = np.zeros_like(lobes), np.zeros_like(lobes)
    truth[:, :2, :5] = 1
    truth[:, 2:4, :5] = 2
    found[:, 1:3, :5] = 1
    ct = image_like(np.full(lobes.shape, -800, np.int16), grid)
    images = [image_like(a, grid) for a in (lobes, truth, found)]
    probability = image_like((found > 0) * np.float32(0.8), grid)
    outcome = Outcome({}, images[0], frozenset({Lobe.LUL}))
    result = compare(
        "a",
        "m",
        TrueScan(ct, images[0], images[1]),
        Prediction(probability, images[2]),
        outcome,
        {"total": 1.0},
    )
    assert result.confusion == Confusion(tp=100, fp=0, fn=100, tn=700)
    assert result.by_type["ground glass"] == Confusion(tp=50, fp=50, fn=50, tn=750)
    assert result.by_type["consolidation"].iou == 0.0
    assert result.found_of_type["consolidation"] == 0.5
    assert result.lesion_percent == pytest.approx(100 / 9)
    rows = {row.name: row for row in result.lobes}
    assert rows["RUL"] == LobeResult("RUL", 0.2, 0.4, 2, 3)
    assert rows["LUL"].predicted is None
    assert rows["LUL"].true_score == 0
    assert rows["RML"] == LobeResult("RML", None, None, None, None)
    assert result.histogram.average_precision() == pytest.approx(0.5 + 0.5 * 200 / 900)


def test_the_report_is_whole_and_holds_everything(tmp_path):
    out = tmp_path / "out"
    results = _results("CAM") + _results()
    for _ in range(2):
        content = write_evaluation(results, out, {"title": "by hand <&>"})
    assert content == json.loads((out / "evaluation.json").read_text())
    assert content["main"] == "ours"
    assert content["methods"]["ours"]["by_type"]["ground glass"]["iou_all_voxels"] is None
    test = content["paired_tests_iou"][0]
    assert (test["first"], test["second"], test["p"]) == ("ours", "CAM", 1.0)
    rows = list(csv.DictReader((out / "table.csv").open()))
    assert [row["method"] for row in rows] == ["CAM", "ours"]
    assert rows[1]["IoU"] == "0.5"
    assert rows[1]["IoU ground glass"] == ""
    assert len(list(csv.DictReader((out / "lobes.csv").open()))) == 30
    page = (out / "evaluation.html").read_text()
    assert "<h2>Ablation</h2>" not in page
    assert "by hand &lt;&amp;&gt;" in page
    # five plots, and four scans by two methods
    assert page.count("data:image/png;base64,") == 5 + 4 * 2
    assert "http" not in page
    (out / "evaluation.json").unlink()
    with pytest.raises(InputError, match="holds other files"):
        write_evaluation(results, out, {"title": ""})


def test_an_ablation_that_was_measured_goes_into_the_page(tmp_path):
    (tmp_path / "ablation").mkdir()
    rows = [{"row": "raw", "iou": 0.25}, {"row": "+ context", "iou": 0.5, "iou_change": 0.25}]
    (tmp_path / "ablation" / "ablation.json").write_text(json.dumps({"rows": rows}))
    assert read_ablation(tmp_path / "other") == []
    content = write_evaluation(
        _results(), tmp_path / "out", {"title": ""}, None, read_ablation(tmp_path)
    )
    assert content["ablation"][1]["iou_change"] == 0.25
    page = (tmp_path / "out" / "evaluation.html").read_text()
    assert "<h2>Ablation</h2>" in page
    assert "+ context" in page


def test_results_that_are_kept_come_back_whole_until_something_changes(tmp_path):
    source = PhantomSource(7, 4.0, False)
    (tmp_path / "weights").mkdir()
    trained = Trained("dram", tmp_path / "weights")
    task = evaluation.EvaluationTask(source, trained, False)
    results = _results()
    keeper = Keeper(tmp_path / "kept")
    assert keeper.find(task) is None
    keeper.keep(task, results)
    found = Keeper(tmp_path / "kept").find(task)
    assert json.dumps(summarise(found)) == json.dumps(summarise(results))
    assert (found[0].picture.truth == results[0].picture.truth).all()
    assert found[0].lobes == results[0].lobes
    assert keeper.find(replace(task, estimate=True)) is None
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "checkpoint.pt").write_bytes(b"1")
    assert keeper.find(replace(task, trained=Trained("dram", tmp_path / "other"))) is None


def test_only_healthy_scans_leave_overlaps_undefined(tmp_path):
    content = write_evaluation(_results()[1:], tmp_path / "out", {"title": "healthy"})
    figures = content["methods"]["ours"]
    assert figures["iou_mean_of_scans"] is None
    assert figures["healthy_lesion_percent_mean"] == pytest.approx(0.4)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    words = ["phantoms", "--output", str(folder), "--count", "1", "--spacing", "4"]
    assert main([*words, "--first-seed", "42", "--healthy-share", "0", "--workers", "1"]) == 0
    return folder


def test_the_command_evaluates_a_data_set(data, tmp_path, capsys):
    weights = write_small_weights(tmp_path / "weights")
    words = ["evaluate", "--data", str(data), "--weights", str(weights), "--workers", "1"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert list(content["methods"]) == ["dRAM", "dRAM refined", "dRAM refined + context"]
    assert content["methods"]["dRAM"]["scans_with_lesions"] == 1
    assert "segmentation" in content["cases"][0]["seconds"]
    assert "wrote" in capsys.readouterr().out


def test_a_data_set_without_truth_is_refused(data, tmp_path, capsys):
    (tmp_path / "scores.csv").write_text((data / "scores.csv").read_text())
    words = ["evaluate", "--data", str(tmp_path), "--output", str(tmp_path / "out")]
    assert main(words) == 1
    assert "has no truth" in capsys.readouterr().err
    (tmp_path / "truth").symlink_to(data / "truth")
    assert main(words) == 1
    assert "lacks a scan; phantom-000042 lacks lobes" in capsys.readouterr().err


def test_the_old_command_evaluates_phantoms(tmp_path, capsys):
    weights = write_small_weights(tmp_path / "weights")
    words = ["--output", str(tmp_path / "figures.json"), "--count", "1", "--spacing", "4"]
    assert evaluation.main([*words, "--weights", str(weights), "--workers", "1"]) == 0
    content = json.loads((tmp_path / "figures.json").read_text())
    assert [case["healthy"] for case in content["cases"]] == [False, True]
    assert all(lobe["true"] == 0 for lobe in content["cases"][1]["lobes"])
    assert content["summary"]["healthy_scans"] == 1
    assert "fraction_correlation" in capsys.readouterr().out


def test_methods_are_told_apart_and_no_p_is_zero():
    lines = [(evaluation_figures.COLOURS[n % 8], evaluation_figures._style(n)) for n in range(16)]
    assert len(set(lines)) == 16
    assert evaluation_report._p_value(3e-7) == "< 0.0001"
    assert evaluation_report._p_value(0.0123) == "0.0123"
    assert evaluation_report._p_value(None) == "–"
