"""What happens to the panel when scenes are imported and closed, and when paths are cleared."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest

from Testing.host import missing

if missing():
    pytest.skip(str(missing()), allow_module_level=True)

from Testing.host.host import Host
from Testing.module.cases import MODULE, add_lobes, add_result, add_volume
from Testing.module.driving import (
    choose,
    fake_library,
    finished_library,
    type_score,
    wait_for_run,
)
from Testing.module.scenes import make_ct

SCENE = """<?xml version="1.0" encoding="UTF-8"?>
<MRML version="5.12.3" userTags="">
<Text id="vtkMRMLTextNode1" name="a note"></Text>
</MRML>
"""


def import_scene(folder: Path) -> None:
    """Add a scene with one node to the one that is open."""
    import slicer

    path = folder / "note.mrml"
    path.write_text(SCENE)
    slicer.mrmlScene.SetURL(str(path))
    assert slicer.mrmlScene.Import()
    assert slicer.util.getNode("a note") is not None


# --- paths ----------------------------------------------------------------------------------------


def test_a_cleared_path_is_used_no_more(finished, run, tmp_path):
    _module, widget, _result = finished
    ui, parameters = widget.ui, widget._parameterNode
    assert parameters.weightsFolder == str(run.weights)
    ui.weightsPathEdit.currentPath = ""
    assert parameters.weightsFolder == ""
    assert ui.weightsCardLabel.text == "The weights that come with DRAMLesion."
    type_score(widget, "RUL", "4")
    ui.trainingPathEdit.currentPath = str(tmp_path)
    assert ui.addToTrainingButton.enabled
    ui.trainingPathEdit.currentPath = ""
    assert parameters.trainingFolder == ""
    assert ui.addToTrainingButton.toolTip == "Choose the training folder."


# --- scenes that are imported ---------------------------------------------------------------------


def test_the_choices_outlast_the_import_of_a_scene(module, run, tmp_path):
    widget = module.module.widget()
    ui = widget.ui
    make_ct("another volume")
    ct = add_volume(run.ct)
    lobes = add_lobes(run.lobes, ct)
    ui.inputVolumeSelector.setCurrentNode(ct)
    ui.lobesFromBox.currentIndex = 1
    ui.lobesNodeSelector.setCurrentNode(lobes)
    import_scene(tmp_path)
    module.process_events()
    parameters = widget._parameterNode
    assert (parameters.inputVolume, parameters.lobesNode) == (ct, lobes)
    assert ui.inputVolumeSelector.currentNode() is ct
    assert ui.lobesNodeSelector.currentNode() is lobes
    assert widget._lobeKeys
    ui.lobesNodeSelector.setCurrentNode(None)
    assert parameters.lobesNode is None, "the panel is connected again"


def test_a_run_goes_on_while_a_scene_is_imported(module, run, tmp_path):
    widget = module.module.widget()
    finished_library(tmp_path, run.folder, "time.sleep(0.5)")
    ct = add_volume(run.ct)
    choose(widget, ct, run)
    widget.ui.applyButton.click()
    import_scene(tmp_path)
    assert widget.run is not None
    wait_for_run(module)
    assert widget.ui.statusLabel.text == "Done."
    assert widget._result().ct is ct


def test_a_run_may_end_while_a_scene_is_imported(module, run, tmp_path):
    """The progress display of a long import handles events."""
    import slicer

    widget, scene = module.module.widget(), slicer.mrmlScene
    finished_library(tmp_path, run.folder)
    choose(widget, add_volume(run.ct), run)
    widget.ui.applyButton.click()
    scene.StartState(scene.ImportState)
    wait_for_run(module)
    scene.EndState(scene.ImportState)
    assert widget.ui.statusLabel.text == "Done."
    assert widget.ui.scoreTable.rowCount == 8


# --- scenes that are closed -----------------------------------------------------------------------


def test_the_next_patient_gets_a_case_name_of_their_own(finished, run, tmp_path):
    import slicer

    module, widget, result = finished
    widget.ui.caseNameEdit.text = "the-first-patient"
    identifier = result.node.GetID()
    slicer.mrmlScene.Clear(False)
    module.process_events()
    ct = add_volume(run.ct)
    again = add_result(run, ct)
    assert again.node.GetID() == identifier, "the scene begins to count anew"
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    widget._onParameters()
    assert widget.ui.caseNameEdit.text == "case-0001"


def test_no_effect_of_the_editor_outlasts_the_scene(finished):
    import slicer

    module, widget, _result = finished
    widget.ui.editButton.click()
    editor = widget.results.editor.widget
    editor.setActiveEffectByName("Paint")
    assert editor.activeEffect().name == "Paint"
    slicer.mrmlScene.Clear(False)
    module.process_events()
    assert editor.activeEffect() is None
    assert editor.segmentationNode() is None


def test_the_editor_opens_again_in_the_next_scene(finished, run):
    import slicer

    module, widget, _result = finished
    widget.ui.editButton.click()
    slicer.mrmlScene.Clear(False)
    module.process_events()
    ct = add_volume(run.ct)
    result = add_result(run, ct)
    choose(widget, ct, run)
    widget._onParameters()
    widget.ui.editButton.click()
    editor = widget.results.editor.widget
    assert editor.segmentationNode() is result.get("pseudolabel")
    assert editor.currentSegmentID() == "lesion"
    node = editor.mrmlSegmentEditorNode()
    assert node.GetMaskMode() == slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment
    editor.setActiveEffectByName("Paint")
    widget.ui.editButton.click()
    assert editor.activeEffect() is None


def test_nothing_keeps_the_parameters_of_a_scene_that_was_closed(module, tmp_path):
    import slicer

    widget = module.module.widget()
    gc.disable()  # what goes only with the collector may still hear of the next scene
    try:
        for leave in (lambda: slicer.mrmlScene.Clear(False), lambda: import_scene(tmp_path)):
            before = weakref.ref(widget._parameterNode)
            leave()
            module.process_events()
            assert before() is None
    finally:
        gc.enable()


def test_a_scene_begins_with_the_last_choices_while_a_script_holds_the_old_parameters(
    module, run, tmp_path
):
    import slicer

    widget = module.module.widget()
    held = widget.logic.getParameterNode()
    choose(widget, add_volume(run.ct), run)
    fake_library(tmp_path, "time.sleep(30)")
    widget.ui.applyButton.click()
    slicer.mrmlScene.Clear(False)
    assert widget._parameterNode is not held
    assert widget._parameterNode.weightsFolder == str(run.weights)


def test_a_panel_whose_setup_failed_can_be_cleaned_up(run, monkeypatch):
    with Host(MODULE) as host:
        widget = host.module.source().DRAMLesionWidget()

        def fail(_path):
            message = "no such file"
            raise RuntimeError(message)

        monkeypatch.setattr("slicer.util.loadUI", fail)
        with pytest.raises(RuntimeError, match="no such file"):
            widget.setup()
        monkeypatch.undo()
        widget.exit()
        widget.cleanup()
