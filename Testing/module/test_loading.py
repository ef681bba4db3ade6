"""A large result comes into the scene in steps, and its maps are in memory once."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from Testing.host import missing

if missing():
    pytest.skip(str(missing()), allow_module_level=True)

from Testing.module.cases import add_result, add_volume
from Testing.module.driving import choose, finished_library, node_ids, same_as_files, wait_for_run


def loading(module, run, tmp_path):
    """A run whose process has ended and whose result is being read."""
    widget = module.module.widget()
    finished_library(tmp_path, run.folder)
    ct = add_volume(run.ct)
    choose(widget, ct, run)
    before = node_ids()
    widget.ui.applyButton.click()
    module.wait_for(lambda: widget.run is None or widget.run._loading is not None, "the process")
    assert widget.run is not None
    return widget, ct, before


def test_the_window_answers_between_the_steps_of_loading(module, run, tmp_path):
    import qt

    turns: list[str] = []
    timer = qt.QTimer()
    timer.setInterval(0)
    widget, _ct, _before = loading(module, run, tmp_path)
    timer.connect("timeout()", lambda: turns.append(widget.ui.statusLabel.text))
    timer.start()
    wait_for_run(module)
    timer.stop()
    assert turns.count("Loading the result …") >= 10
    same_as_files(widget._result(), run)


def test_nothing_half_loaded_is_shown_or_offered(module, run, tmp_path):
    import slicer

    widget, ct, _before = loading(module, run, tmp_path)
    seen = []
    while widget.run is not None:
        module.process_events()
        part = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        seen.append((bool(part), widget._result() is not None, widget.ui.scoreTable.rowCount))
        assert set(widget.ui.inputVolumeSelector._object.nodes()) == {ct}
        assert widget.ui.lobesNodeSelector._object.nodes() == []
    assert (True, False, 0) in seen, "segments are there, but no result yet"
    assert widget.ui.scoreTable.rowCount == 8


def test_a_scene_that_is_closed_while_a_result_is_loaded_leaves_nothing(module, run, tmp_path):
    import slicer

    widget, _ct, _before = loading(module, run, tmp_path)
    module.wait_for(lambda: slicer.util.getNodesByClass("vtkMRMLSegmentationNode"), "segments")
    assert widget.run is not None
    slicer.mrmlScene.Clear(False)
    module.process_events()
    assert widget.run is None
    assert slicer.util.getNodesByClass("vtkMRMLSegmentationNode") == []
    assert widget.ui.statusLabel.text == ""


def test_a_result_that_cannot_be_loaded_to_its_end_leaves_nothing(
    module, run, tmp_path, monkeypatch
):
    from DRAMLesionLib.mrml import result

    def fail(*_arguments):
        message = "too little memory"
        raise MemoryError(message)

    _widget, _ct, before = loading(module, run, tmp_path)
    monkeypatch.setattr(result, "_pseudolabel_steps", fail)
    wait_for_run(module)
    assert node_ids() == before
    assert module.dialogs.messages[-1].text.startswith("Not enough memory for this CT; close other")


def test_maps_are_taken_over_and_not_copied(host, run):
    import slicer

    from DRAMLesionLib.mrml import result, volumes

    ct = add_volume(run.ct)
    images = run.images
    taken = volumes.new_image(images["dram"].shape)
    np.copyto(volumes.view(taken), images["dram"])
    images["dram"] = taken
    steps = result.show_in_steps(ct, images, run.report)
    next(steps)
    assert "dram" not in images, "let go of as soon as it is placed"
    made = result.Result.find(ct)
    assert np.shares_memory(slicer.util.arrayFromVolume(made.get("dram")), volumes.view(taken))
    for _step in steps:
        assert not made.complete
    assert images == {}
    same_as_files(made, run)
    again = add_result(run, ct)
    same_as_files(again, run)


def test_the_voxels_of_a_ct_are_let_go_of_while_the_process_runs(module, run, tmp_path):
    widget, _ct, _before = loading(module, run, tmp_path)
    assert widget.run._request.image is None
    wait_for_run(module)
    assert threading.active_count() < 8
