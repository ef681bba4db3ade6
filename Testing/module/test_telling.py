"""What the panel says, when it stops to say it, and that it goes on after a failure."""

from __future__ import annotations

import pytest

from Testing.host import missing

if missing():
    pytest.skip(str(missing()), allow_module_level=True)

from DRAMLesionLib.errors import InputError
from Testing.host.host import SampleDataLogic
from Testing.module.cases import add_volume
from Testing.module.driving import choose, finished_library, type_score, wait_for_run

# --- failures -------------------------------------------------------------------------------------


def failing(error: Exception):
    def fail(*_arguments, **_named):
        raise error

    return fail


def test_the_application_s_own_helper_raises_again(host):
    import slicer

    with (
        pytest.raises(InputError),
        slicer.util.tryWithErrorDisplay("It failed."),
    ):
        failing(InputError("why"))()
    assert "It failed." in host.dialogs.messages[-1].text


@pytest.mark.parametrize(
    ("error", "shown", "is_logged"),
    [
        (InputError("no lung in it"), "Tried.\n\nNo lung in it", False),
        (OSError("the disk is full"), "Tried.\n\nThe disk is full", False),
        (InputError("CT is empty"), "Tried.\n\nCT is empty", False),
        (InputError("scan.nii is empty"), "Tried.\n\nscan.nii is empty", False),
        (KeyError("what"), "Tried.\n\nKeyError: 'what'", True),
    ],
)
def test_a_failure_is_told_once_and_what_follows_is_done(module, caplog, error, shown, is_logged):
    from DRAMLesionPanel.telling import telling

    followed = []
    with telling("Tried.", waitCursor=True) as attempt:
        failing(error)()
    followed.append(attempt.done)
    assert followed == [False]
    assert [message.text for message in module.dialogs.messages] == [shown]
    assert ("Traceback" in caplog.text) is is_logged
    assert ("Traceback" in (module.dialogs.messages[0].details or "")) is is_logged


def test_a_name_of_the_scene_keeps_its_first_letter(module, run):
    from DRAMLesionPanel.telling import sentence

    add_volume(run.ct, "scan of today")
    assert sentence("scan of today lacks slices") == "scan of today lacks slices"
    assert sentence("the scan lacks slices") == "The scan lacks slices"
    assert sentence("") == ""


def test_apply_edit_phantom_and_training_set_go_on_after_a_failure(
    finished, run, tmp_path, monkeypatch, caplog
):
    module, widget, _result = finished
    ui = widget.ui
    monkeypatch.setattr(widget.results.editor, "open", failing(InputError("no mask")))
    ui.editButton.click()
    assert not ui.editButton.checked, "no editor, and the button says so"
    monkeypatch.setattr("DRAMLesionPanel.dependencies.ensure", failing(OSError("no network")))
    ui.applyButton.click()
    assert ui.statusLabel.text == "Packages are missing; nothing was done."
    monkeypatch.setattr("DRAMLesionPanel.dependencies.ensure", lambda: True)
    monkeypatch.setattr(widget.logic, "request", failing(InputError("too thick")))
    ui.applyButton.click()
    assert (ui.applyButton.text, ui.applyButton.enabled) == ("&Apply", True)
    monkeypatch.setattr("DRAMLesion.makePhantom", failing(MemoryError("too large")))
    assert SampleDataLogic.registered[-1]["customDownloader"](None) == []
    type_score(widget, "RUL", "4")
    ui.trainingPathEdit.currentPath = str(tmp_path)
    monkeypatch.setattr("DRAMLesionLib.mrml.training_set.has_case", failing(InputError("no table")))
    ui.addToTrainingButton.click()
    assert ui.trainingMessageLabel.text == ""
    memory = "Not enough memory for this CT; close other programs or use a computer with more"
    reasons = ["No mask", "No network", "Too thick", memory, "No table"]
    told = [message.text.rpartition("\n\n")[2] for message in module.dialogs.messages]
    assert told == reasons
    assert "Traceback" not in caplog.text, "none of them is a fault of the program"


def test_the_size_of_what_would_be_downloaded_is_said(module):
    from DRAMLesionPanel import dependencies

    for missing_now, size in (({"torch"}, "up to 3 GB"), ({"safetensors"}, "less than 100 MB")):
        module.packaging.missing = missing_now
        module.dialogs.answers.append((size, "Cancel"))
        assert not dependencies.ensure()


# --- lines that are no longer true ----------------------------------------------------------------


def done(module, run, tmp_path):
    widget = module.module.widget()
    finished_library(tmp_path, run.folder)
    ct = add_volume(run.ct)
    choose(widget, ct, run)
    widget.ui.applyButton.click()
    wait_for_run(module, 20)
    assert widget.ui.statusLabel.text == "Done."
    return widget, ct


def another_ct(widget, _ct, run):
    widget.ui.inputVolumeSelector.setCurrentNode(add_volume(run.ct, "other"))


def closed_scene(_widget, _ct, _run):
    import slicer

    slicer.mrmlScene.Clear(False)


def other_weights(widget, _ct, _run):
    widget.ui.weightsPathEdit.currentPath = ""


def lost_result(widget, _ct, _run):
    import slicer

    slicer.mrmlScene.RemoveNode(widget._result().get("segmentation"))


def lost_ct(_widget, ct, _run):
    import slicer

    slicer.mrmlScene.RemoveNode(ct)


@pytest.mark.parametrize("change", [another_ct, closed_scene, other_weights, lost_result, lost_ct])
def test_done_goes_when_it_is_about_something_else(module, run, tmp_path, change):
    widget, ct = done(module, run, tmp_path)
    widget.ui.opacitySlider.value = 0.7
    assert widget.ui.statusLabel.text == "Done.", "the look of the heat map changes nothing"
    change(widget, ct, run)
    module.process_events()
    assert widget.ui.statusLabel.text == ""


def test_a_failure_is_said_until_something_else_is_chosen(module, run, tmp_path):
    from Testing.module.driving import fake_library

    widget = module.module.widget()
    fake_library(tmp_path, "child.kill()\nsys.exit('dramlesion: no lung was found')")
    choose(widget, add_volume(run.ct), run)
    widget.ui.applyButton.click()
    wait_for_run(module, 20)
    assert widget.ui.statusLabel.text == "Not done: no lung was found"
    widget.ui.lobesFromBox.currentIndex = 1
    assert widget.ui.statusLabel.text == ""


def written(widget, tmp_path):
    type_score(widget, "RUL", "4")
    widget.ui.trainingPathEdit.currentPath = str(tmp_path / "set")
    widget.ui.addToTrainingButton.click()
    assert widget.ui.trainingMessageLabel.text.startswith("Wrote 3 files of case-0001.")


@pytest.mark.parametrize("change", ["score", "name", "threshold", "folder", "ct"])
def test_a_written_case_is_said_until_it_differs_from_what_was_written(
    finished, run, tmp_path, change
):
    _module, widget, _result = finished
    written(widget, tmp_path)
    ui = widget.ui
    if change == "score":
        type_score(widget, "RML", "1")
    elif change == "name":
        ui.caseNameEdit.text = "another"
    elif change == "threshold":
        ui.thresholdSlider.value = 0.3
    elif change == "folder":
        ui.trainingPathEdit.currentPath = str(tmp_path / "other")
    else:
        ui.inputVolumeSelector.setCurrentNode(add_volume(run.ct, "other"))
    assert ui.trainingMessageLabel.text == ""
