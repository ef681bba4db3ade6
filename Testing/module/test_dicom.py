"""The button DICOM …: the shown result as DICOM, for CTs that came from DICOM."""

from __future__ import annotations

import importlib.util
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from Testing.host import missing

if missing():
    pytest.skip(str(missing()), allow_module_level=True)
pytest.importorskip("highdicom", reason="highdicom is not installed")

import pydicom

from DRAMLesionLib.images import geometry
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.reading.dicom_seg import read_segmentation
from DRAMLesionLib.report.output import DICOM
from Testing.host.dicom_database import load_series
from Testing.library import simple_chest as chest
from Testing.module.cases import add_result, add_volume
from Testing.module.driving import alive, edit, fake_library, temporary_folders
from Testing.module.scenes import RIGID, put_under

STUDY = {
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.1",
    "FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.2",
    "StudyDate": "20200401",
    "StudyID": "7",
}


@pytest.fixture(scope="module")
def series(run, tmp_path_factory):
    """The turned phantom as a DICOM series."""
    folder = tmp_path_factory.mktemp("dicom") / "series"
    axes = np.array(run.ct.GetDirection()).reshape(3, 3)
    chest.write_series(
        folder,
        chest.values(run.ct),
        spacing=run.ct.GetSpacing(),
        origin=run.ct.GetOrigin(),
        orientation=(*axes[:, 0], *axes[:, 1]),
        step=axes[:, 2] * run.ct.GetSpacing()[2],
        **STUDY,
    )
    return folder


@pytest.fixture
def loaded(module, run, series):
    """The module with a result of a CT that the module DICOM has loaded."""
    database = module.open_dicom_database(series)
    ct = load_series(database)
    result = add_result(run, ct)
    widget = module.module.widget()
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    widget._onParameters()
    return module, widget, result


def export(module, widget, folder):
    """Click the button, choose a folder, and wait."""
    module.dialogs.paths.append(str(folder))
    widget.ui.dicomButton.click()
    module.wait_for(lambda: not widget.results.dicom.running, "the DICOM files")


def segments(path):
    """Voxels by place, and the segments of a segmentation."""
    image, _ = read_segmentation(path)
    return image, [s for s in pydicom.dcmread(path).SegmentSequence if s.SegmentNumber > 0]


def on_ct(image, run):
    return chest.values(geometry.resample(image, run.ct, "labels"))


def test_what_is_shown_is_saved_as_dicom(loaded, run, tmp_path):
    module, widget, _result = loaded
    assert widget.ui.dicomButton.enabled
    assert "patient's names" in widget.ui.dicomButton.toolTip
    export(module, widget, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(DICOM)
    assert str(tmp_path) in widget.ui.dicomLabel.text
    assert "name the patient" in widget.ui.dicomLabel.text
    assert temporary_folders() == []
    image, found = segments(tmp_path / DICOM[0])
    wanted = run.array("lesions") + 4 * run.array("vessels")
    np.testing.assert_array_equal(on_ct(image, run), wanted)
    assert {s.SegmentAlgorithmType for s in found} == {"AUTOMATIC"}
    image, found = segments(tmp_path / DICOM[1])
    np.testing.assert_array_equal(on_ct(image, run), run.array("lobes"))
    assert len(found) == 5
    report = pydicom.dcmread(tmp_path / DICOM[2])
    assert report.StudyInstanceUID == STUDY["StudyInstanceUID"]
    assert report.PatientName == "Somebody^Real"


def test_an_edited_pseudo_label_is_saved_if_it_is_what_the_table_counts(loaded, run, tmp_path):
    import highdicom as hd

    module, widget, result = loaded
    widget.ui.tableSourceBox.currentIndex = 1
    edit(result, run)
    before = widget.ui.scoreTable.item(2, 2).text()
    export(module, widget, tmp_path)
    # what was painted since is counted in the table, in the files and in their report
    assert widget.ui.scoreTable.item(2, 2).text() != before
    label = result.pseudolabel()
    image, found = segments(tmp_path / DICOM[0])
    wanted = np.where(label == 2, 1, np.where(label == 1, 2, 0))
    np.testing.assert_array_equal(on_ct(image, run), wanted)
    assert [s.SegmentedPropertyTypeCodeSequence[0].CodeValue for s in found] == [
        "52988006",
        "59820001",
    ]
    assert {s.SegmentAlgorithmType for s in found} == {"SEMIAUTOMATIC"}
    assert "edited by hand" in pydicom.dcmread(tmp_path / DICOM[0]).ContentDescription
    _image, found = segments(tmp_path / DICOM[1])
    assert {s.SegmentAlgorithmType for s in found} == {"AUTOMATIC"}
    groups = hd.sr.srread(tmp_path / DICOM[2]).content.get_image_measurement_groups()
    titles = [group.tracking_identifier for group in groups]
    assert titles == [*(f"lesions, {lobe.full_name}" for lobe in Lobe), "lesions, both lungs"]
    (volume,) = [m for m in groups[-1].get_measurements() if m.name.value == "118565006"]
    ml = (label == 2).sum() * geometry.voxel_ml(run.ct)
    assert volume.value == pytest.approx(ml, abs=1e-3)


def test_the_network_s_lesions_are_not_edited_because_the_pseudo_label_is(loaded, run, tmp_path):
    module, widget, result = loaded
    edit(result, run)
    assert widget.ui.tableSourceBox.currentIndex == 0
    export(module, widget, tmp_path)
    image, found = segments(tmp_path / DICOM[0])
    assert {s.SegmentAlgorithmType for s in found} == {"AUTOMATIC"}
    assert on_ct(image, run).max() > 2


def test_lobes_changed_by_hand_are_told_apart_from_lesions(loaded, run):
    import slicer

    from DRAMLesionLib.mrml import exchange

    _module, _widget, result = loaded
    assert exchange.edited_parts(result) == []
    lobes = (run.array("lobes") == Lobe.RUL).astype(np.uint8)
    lobes[: lobes.shape[0] // 2] = 0
    node = result.get("segmentation")
    slicer.util.updateSegmentBinaryLabelmapFromArray(lobes, node, "lobe_RUL", result.ct)
    assert exchange.edited_parts(result) == ["lobes"]


def test_a_ct_that_was_moved_since_keeps_its_slices(loaded, run, tmp_path):
    module, widget, result = loaded
    put_under(RIGID, result.ct)
    module.process_events()
    export(module, widget, tmp_path)
    image, _ = segments(tmp_path / DICOM[1])
    np.testing.assert_array_equal(on_ct(image, run), run.array("lobes"))


def test_a_transform_that_changes_the_size_is_told(loaded, tmp_path):
    module, widget, result = loaded
    put_under(np.diag([1.1, 1.1, 1.1, 1.0]), result.ct)
    module.process_events()
    export(module, widget, tmp_path)
    assert "changes its size: take the CT out of it" in module.dialogs.messages[-1].text
    assert list(tmp_path.iterdir()) == []


def test_the_button_says_why_there_are_no_dicom_files(loaded, run, series, monkeypatch):
    import slicer

    module, widget, result = loaded
    button, ct = widget.ui.dicomButton, result.ct

    def reason():
        widget._onParameters()
        assert not button.enabled
        return button.toolTip

    widget.ui.inputVolumeSelector.setCurrentNode(add_volume(run.ct, "none yet"))
    assert "no result" in reason()
    plain = add_volume(run.ct, "from a file")
    add_result(run, plain)
    widget.ui.inputVolumeSelector.setCurrentNode(plain)
    assert "did not come from DICOM" in reason()
    widget.ui.inputVolumeSelector.setCurrentNode(ct)
    assert button.enabled
    original = importlib.util.find_spec
    with monkeypatch.context() as patch:
        patch.setattr(
            importlib.util,
            "find_spec",
            lambda name, *rest: None if name == "highdicom" else original(name, *rest),
        )
        assert "highdicom is not installed" in reason()
    ct.SetAttribute("DICOM.instanceUIDs", "1.2.3 1.2.4")
    assert "not in Slicer's DICOM database" in reason()
    slicer.dicomDatabase.closeDatabase()
    assert "is not open" in reason()
    del slicer.dicomDatabase
    assert "is not open" in reason()
    module.open_dicom_database(series)
    assert "not in Slicer's DICOM database" in reason()


def test_images_that_have_gone_are_told(loaded, series, tmp_path):
    module, widget, _result = loaded
    copy = shutil.copytree(series, tmp_path / "copy")
    module.open_dicom_database(copy)
    next(copy.iterdir()).unlink()
    widget._onParameters()
    assert widget.ui.dicomButton.enabled
    widget.ui.dicomButton.click()
    assert "1 of the" in module.dialogs.messages[-1].text
    assert "import the series again" in module.dialogs.messages[-1].text


def test_a_series_that_cannot_have_results_is_told_and_leaves_nothing(
    loaded, run, series, tmp_path
):
    module, widget, _result = loaded
    bad = shutil.copytree(series, tmp_path / "bad")
    for path in bad.iterdir():
        one = pydicom.dcmread(path)
        one.FrameOfReferenceUID = ""
        one.save_as(path)
    module.open_dicom_database(bad)
    (tmp_path / "out").mkdir()
    export(module, widget, tmp_path / "out")
    text = module.dialogs.messages[-1].text
    assert "no valid identifier of their frame of reference" in text
    assert "--dicom" not in text
    assert list((tmp_path / "out").iterdir()) == []
    assert widget.ui.dicomLabel.text == ""
    assert widget.ui.dicomButton.text == "DICOM …"


def test_files_that_are_there_are_replaced_only_if_the_user_says_so(loaded, tmp_path):
    module, widget, _result = loaded
    (tmp_path / DICOM[1]).write_text("another patient's")
    module.dialogs.answers.append(("Replace them?", "Cancel"))
    export(module, widget, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [DICOM[1]]
    assert (tmp_path / DICOM[1]).read_text() == "another patient's"
    module.dialogs.answers.append(("Replace them?", "Ok"))
    export(module, widget, tmp_path)
    assert pydicom.dcmread(tmp_path / DICOM[1]).Modality == "SEG"


def test_cancel_stops_the_process_and_leaves_nothing(loaded, tmp_path):
    module, widget, _result = loaded
    pids = fake_library(tmp_path, "time.sleep(60)")
    (tmp_path / "out").mkdir()
    module.dialogs.paths.append(str(tmp_path / "out"))
    widget.ui.dicomButton.click()
    assert widget.ui.dicomButton.text == "Cancel DICOM"
    module.wait_for(pids.is_file, "the process")
    module.wait_for(lambda: pids.read_text().count(" ") == 1, "its number")
    widget.ui.dicomButton.click()
    assert not widget.ui.dicomButton.enabled
    module.wait_for(lambda: not widget.results.dicom.running, "the end")
    assert not any(alive(int(pid)) for pid in pids.read_text().split())
    assert "Cancelled" in widget.ui.dicomLabel.text
    assert widget.ui.dicomButton.enabled
    assert widget.ui.dicomButton.text == "DICOM …"
    assert list((tmp_path / "out").iterdir()) == []
    assert temporary_folders() == []


def test_cancel_before_the_process_runs(loaded, tmp_path):
    module, widget, _result = loaded
    module.dialogs.paths.append(str(tmp_path))
    widget.ui.dicomButton.click()
    widget.ui.dicomButton.click()
    assert not widget.results.dicom.running
    module.process_events()
    assert list(tmp_path.iterdir()) == []
    assert temporary_folders() == []


def test_a_scene_that_closes_ends_it(loaded, tmp_path):
    import slicer

    module, widget, _result = loaded
    pids = fake_library(tmp_path, "time.sleep(60)")
    (tmp_path / "out").mkdir()
    module.dialogs.paths.append(str(tmp_path / "out"))
    widget.ui.dicomButton.click()
    module.wait_for(pids.is_file, "the process")
    module.wait_for(lambda: pids.read_text().count(" ") == 1, "its number")
    slicer.mrmlScene.Clear(0)
    assert not widget.results.dicom.running
    assert widget.ui.dicomButton.text == "DICOM …"
    assert not widget.ui.dicomButton.enabled
    assert temporary_folders() == []


def test_the_message_is_about_the_result_that_is_shown(loaded, run, tmp_path):
    module, widget, result = loaded
    export(module, widget, tmp_path)
    assert widget.ui.dicomLabel.text
    other = add_volume(run.ct, "other")
    widget.ui.inputVolumeSelector.setCurrentNode(other)
    assert widget.ui.dicomLabel.text == ""
    assert not widget.ui.dicomLabel.visible
    widget.ui.inputVolumeSelector.setCurrentNode(result.ct)
    assert widget.ui.dicomLabel.text == ""


def test_a_scan_in_memory_is_as_the_library_reads_it(loaded, run):
    """Otherwise the tests above would prove nothing about the order of slices."""
    import slicer

    from DRAMLesionLib.mrml import volumes

    _module, _widget, result = loaded
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(result.ct), chest.values(run.ct))
    read = sitk.Image(run.ct)
    volumes.set_geometry(read, volumes.ijk_to_ras(result.ct))
    assert geometry.same_grid(read, run.ct)
