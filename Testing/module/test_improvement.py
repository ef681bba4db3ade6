"""The training set in the panel, and better weights from it: real widgets, fake programs."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from Testing.host import missing

if missing():
    pytest.skip(str(missing()), allow_module_level=True)

from PIL import Image

from DRAMLesionLib.reading.markups import Point, write_points
from Testing.module.driving import alive, fake_library
from Testing.training.improvement.small_set import (
    SETTINGS,
    write_case,
    write_eager_weights,
    write_set,
)
from Training.improvement import split, verdict

PAIRS = {
    "Figures": verdict.Figures,
    "Network": verdict.NetworkVerdict,
    "Case": verdict.CaseVerdict,
    "Verdict": verdict.Verdict,
    "Split": split.Split,
}
"""What the panel reads, and what the training writes."""

POINTS = [Point((float(n), 0.0, 0.0), lesion=n > 1) for n in range(3)]


@pytest.mark.parametrize("name", PAIRS)
def test_the_panel_reads_what_the_training_writes(name, module):
    from DRAMLesionPanel import improvement_files

    read = {field.name for field in dataclasses.fields(getattr(improvement_files, name))}
    written = {field.name for field in dataclasses.fields(PAIRS[name])}
    assert read
    assert read <= written


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("small") / "set", 3)


@pytest.fixture
def data(small_set, tmp_path):
    """A training set with three cases that may be changed."""
    return Path(shutil.copytree(small_set, tmp_path / "my set & co"))


@pytest.fixture
def panel(module, data):
    """The panel with that training set, as a user chooses it."""
    widget = module.module.widget()
    widget.ui.teachingSection.collapsed = False
    widget.ui.trainingPathEdit.currentPath = str(data)
    return widget.improvement


def cells(panel):
    table = panel.caseTable
    return [
        [table.item(row, column).text() for column in range(table.columnCount)]
        for row in range(table.rowCount)
    ]


def figures(dice, in_interval, clear):
    return {
        "dice": dice,
        "dice_cases": 1,
        "in_interval": in_interval,
        "scored": 5,
        "clear_percent": clear,
        "clear_lobes": 3,
    }


def write_outcome(data, better=True):
    """Write what a training leaves; its place is taken by the fake program."""
    folder = data / "improvement"
    (folder / "result").mkdir(parents=True, exist_ok=True)
    before, after = figures(0.512, 3, 1.75), figures(0.634, 4, 0.5)
    same = {"trained": True, "before": before, "after": before, "better": False}
    final = {"trained": True, "before": before, "after": after, "better": True}
    verdict = {
        "better": better,
        "weights": "weights-1234" if better else None,
        "start": "the weights that come with DRAMLesion",
        "made_from": "0",
        "training": ["case-0001", "case-0003"],
        "validation": ["case-0002"],
        "edited": 2,
        "networks": {"segmentation": final if better else same, "regression": same},
        "cases": [
            {"case": "case-0002", "before": before, "after": after, "picture": "case-0002.png"}
        ],
        "notes": ["case-0001: something <odd>"],
    }
    (folder / "result" / "verdict.json").write_text(json.dumps(verdict))
    Image.new("RGB", (60, 20), (200, 30, 30)).save(folder / "result" / "case-0002.png")
    if better:
        write_eager_weights(folder / "weights-1234")
    split = {"validation": ["case-0002"], "training": ["case-0001", "case-0003"]}
    (data / "split.json").write_text(json.dumps(split))
    (folder / "unfinished.json").unlink(missing_ok=True)


def put_program(tmp_path, body):
    return fake_library(tmp_path, "child.kill()\n" + body)


def steps_until(data, end):
    """A program that tells two steps, notes that it is unfinished, and ends in some way."""
    note = data / "improvement" / "unfinished.json"
    return f"""
import pathlib
words = sys.argv[1:]
note = pathlib.Path({str(note)!r})
note.parent.mkdir(exist_ok=True)
note.write_text(json.dumps({{"weights": words[words.index("--weights") + 1]}}))
(note.parent / "words.json").write_text(json.dumps(words))
print(json.dumps({{"stage": "prepare", "fraction": 0.1}}), flush=True)
print(json.dumps({{"stage": "segmentation", "fraction": 0.6}}), flush=True)
{end}
"""


# --- the cases ------------------------------------------------------------------------------------


def test_the_cases_of_the_folder_are_listed_with_what_is_wrong(module, data, tmp_path):
    widget = module.module.widget()
    panel = widget.improvement
    assert panel.improveButton.toolTip == "Choose the training folder."
    (data / "pseudolabels" / "case-0002.nii.gz").unlink()
    (data / "points").mkdir()
    write_points(POINTS, data / "points" / "case-0002.mrk.json")
    (data / "points" / "case-0003.mrk.json").write_text("{}")
    (data / "scans" / "case-0003.nii.gz").rename(data / "scans" / "case-0004.nii.gz")
    table = data / "scores.csv"
    rows = table.read_text().splitlines()
    rows[1] = "case-0001,0,,x,0,2"
    table.write_text("\n".join(rows) + "\n")
    widget.ui.trainingPathEdit.currentPath = str(data)
    found = cells(panel)
    assert found[0][:5] == ["case-0001", "0 – x 0 2", "yes", "–", "training"]
    assert found[0][5] == "the score of the right upper lobe is 'x'"
    assert found[1][2:] == ["–", "3", "training", ""]
    assert found[2][3] == "0"
    assert "it has no scan" in found[2][5]
    assert "the points in case-0003.mrk.json cannot be read" in found[2][5]
    assert found[3][5] == "it has no row in scores.csv"
    assert not panel.improveButton.enabled
    assert "there are 1." in panel.improveButton.toolTip
    table.write_text("nonsense\n")
    panel.refresh()
    assert "is no table with the columns" in panel.improveButton.toolTip
    assert cells(panel) == []


# --- the training ---------------------------------------------------------------------------------


def test_cancelled_and_resumed(module, panel, data, tmp_path):
    pids = put_program(tmp_path, steps_until(data, "time.sleep(60)"))
    assert panel.improveButton.text == "Improve the weights"
    panel.improveButton.click()
    module.wait_for(lambda: panel.progressBar.value == 60, "progress", 60)
    assert panel.statusLabel.text == "Training on the labels …"
    assert panel.improveButton.text == "Cancel the training"
    words = json.loads((data / "improvement" / "words.json").read_text())
    assert words[:4] == ["-m", "Training", "improve", str(data)]
    assert words[words.index("--output") + 1] == str(data / "improvement")
    assert words[words.index("--weights") + 1].endswith("bundled_weights")
    panel.improveButton.click()
    module.wait_for(lambda: not panel.running, "the end", 60)
    assert not any(alive(int(pid)) for pid in pids.read_text().split())
    assert panel.statusLabel.text == "Cancelled; Resume goes on from there."
    assert panel.improveButton.text == "Resume"
    assert not panel.progressBar.visible
    assert module.dialogs.messages == []


def test_other_weights_begin_anew(module, panel, data, tmp_path):
    put_program(tmp_path, steps_until(data, "sys.exit(130)"))
    panel.improveButton.click()
    module.wait_for(lambda: not panel.running, "the end", 60)
    assert panel.improveButton.text == "Resume"
    other = write_eager_weights(tmp_path / "other")
    module.module.widget().ui.weightsPathEdit.currentPath = str(other)
    assert panel.improveButton.text == "Improve the weights"
    module.module.widget().ui.weightsPathEdit.currentPath = str(tmp_path)
    assert not panel.improveButton.enabled
    assert "holds no weights of the regression network" in panel.improveButton.toolTip


def test_better_weights_are_shown_and_taken(module, panel, data, tmp_path):
    widget = module.module.widget()
    write_outcome(tmp_path / "outcome")
    copy = f"import shutil\nshutil.copytree({str(tmp_path / 'outcome')!r}, {str(data)!r}, "
    copy += "dirs_exist_ok=True)\nnote.unlink()"
    put_program(tmp_path, steps_until(data, copy))
    panel.improveButton.click()
    module.wait_for(lambda: not panel.running, "the end", 60)
    assert panel.statusLabel.text == f"Trained on {data}."
    text = panel.verdictLabel.text
    assert "The new weights are better." in text
    for shown in ("0.512", "0.634", "3 of 5", "4 of 5", "1.75", "0.50"):
        assert shown in text
    assert "Segmentation: better, taken" in text
    assert "Activation map (dRAM): not better, kept as it was" in text
    assert "trained on case-0001, case-0003 (2 with corrected pseudo-labels)" in text
    assert "something &lt;odd&gt;" in text
    assert "case-0002, before | after" in panel.pictureLabel.text
    assert "case-0002.png" in panel.pictureLabel.text
    assert [row[4] for row in cells(panel)] == ["training", "validation", "training"]
    assert panel.useButton.enabled
    panel.useButton.click()
    folder = data / "improvement" / "weights-1234"
    assert widget.ui.weightsPathEdit.currentPath == str(folder)
    assert "nothing: set by hand" in widget.ui.weightsCardLabel.text
    shutil.rmtree(folder)
    panel.refresh()
    assert not panel.useButton.enabled
    assert "no longer there" in panel.verdictLabel.text


def test_weights_that_are_not_better_are_not_offered(panel, data):
    write_outcome(data, better=False)
    panel.refresh()
    assert "No better weights: nothing changes." in panel.verdictLabel.text
    assert not panel.useButton.enabled
    assert "only if they are better" in panel.useButton.toolTip
    assert not panel.curvesLabel.visible
    (data / "improvement" / "segmentation" / "tensorboard").mkdir(parents=True)
    panel.refresh()
    assert 'href="file://' in panel.curvesLabel.text
    assert panel.curvesLabel.openExternalLinks


def test_a_training_that_fails_says_why(module, panel, data, tmp_path):
    put_program(tmp_path, "print('training: no case is left', file=sys.stderr)\nsys.exit(1)")
    panel.improveButton.click()
    module.wait_for(lambda: not panel.running, "the end", 60)
    assert panel.statusLabel.text == "Not done: No case is left"
    assert module.dialogs.messages[-1].text == "No case is left"
    assert panel.improveButton.enabled


def test_damaged_sides_are_named_and_nothing_begins(panel, data):
    write_outcome(data)
    (data / "split.json").write_text("{")
    panel.refresh()
    assert "split.json is damaged" in panel.improveButton.toolTip
    assert not panel.improveButton.enabled


@pytest.mark.parametrize("name", ["unfinished.json", "result/verdict.json"])
def test_a_damaged_outcome_is_named_and_made_anew(panel, data, name):
    write_outcome(data)
    (data / "improvement" / name).write_text("{")
    panel.refresh()
    assert f"{Path(name).name} is damaged" in panel.verdictLabel.text
    assert not panel.useButton.visible
    assert panel.improveButton.enabled
    assert panel.improveButton.text == "Improve the weights"


def test_missing_packages_and_a_refusal_are_told(module, panel):
    module.packaging.missing = {"lightning"}
    module.dialogs.answers.append(("lightning>=2.4", "Cancel"))
    panel.improveButton.click()
    assert panel.statusLabel.text == "Packages are missing; nothing was done."
    assert not panel.running


def test_closing_the_scene_leaves_the_training_and_the_application_ends_it(
    module, panel, data, tmp_path
):
    import slicer

    pids = put_program(tmp_path, steps_until(data, "time.sleep(60)"))
    panel.improveButton.click()
    module.wait_for(lambda: panel.progressBar.value == 60, "progress", 60)
    slicer.mrmlScene.Clear(False)
    module.process_events()
    assert panel.running
    module.module.widget().cleanup()
    module.wait_for(lambda: not alive(int(pids.read_text().split()[0])), "the end", 60)


def test_from_cases_to_better_weights_through_the_panel(module, panel, data, tmp_path):
    """The whole way with the real program, on a small chest and few steps."""
    from Training.commands.improvement import DEFAULT
    from Training.config import dump_config, load_config

    write_case(data, "case-0004", 25.0)
    (data / "improve.yaml").write_text(dump_config(load_config(DEFAULT, SETTINGS)))
    widget = module.module.widget()
    widget.ui.weightsPathEdit.currentPath = str(write_eager_weights(tmp_path / "weights"))
    panel.improveButton.click()
    module.wait_for(lambda: not panel.running, "the training", 300)
    assert module.dialogs.messages == []
    assert "The new weights are better." in panel.verdictLabel.text
    assert sorted(row[4] for row in cells(panel)) == [*["training"] * 2, *["validation"] * 2]
    panel.useButton.click()
    assert "improved on 2 cases of the user" in widget.ui.weightsCardLabel.text
