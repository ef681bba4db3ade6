"""Results as DICOM: the standard's own check, and the same voxels through three readers."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from DRAMLesionLib import __main__ as command_line
from DRAMLesionLib.errors import InputError
from DRAMLesionLib.images import geometry
from DRAMLesionLib.interchange import source
from DRAMLesionLib.interchange.findings import Findings, read_findings
from DRAMLesionLib.interchange.measurements import mean_densities
from DRAMLesionLib.interchange.write import dicom_writer, write_dicom
from DRAMLesionLib.lobes import Lobe, masks
from DRAMLesionLib.lobes.schemes import to_lobes
from DRAMLesionLib.reading import files
from DRAMLesionLib.reading.dicom_seg import read_segmentation
from DRAMLesionLib.report.data import to_json
from DRAMLesionLib.report.model import Report, tabulate
from DRAMLesionLib.report.output import DICOM
from DRAMLesionLib.report.result import LesionResult
from Testing.library import simple_chest as chest
from Testing.library.small_weights import write_small_weights

hd = pytest.importorskip("highdicom", reason="highdicom is not installed")

STUDY: dict[str, Any] = {
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.1",
    "FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.2",
    "PositionReferenceIndicator": "",
    "StudyDate": "20200401",
    "StudyTime": "101112",
    "StudyID": "7",
    "AccessionNumber": "8",
    "ReferringPhysicianName": "",
    "PatientBirthDate": "19500101",
    "PatientSex": "F",
    "SeriesNumber": 3,
    "KVP": 120,
    "AcquisitionNumber": 1,
}
_TURNED = (0.96, 0.28, 0, -0.28, 0.96, 0)


@dataclass
class Case:
    """A DICOM series with a made-up result."""

    series: Path
    result: LesionResult
    source: source.Source


def write_scan(folder: Path, **tags: Any) -> Path:
    """Write a chest whose grid is turned, with the tags of a whole study."""
    volume = chest.values(chest.hu(chest.grid()))
    step = np.cross(_TURNED[:3], _TURNED[3:]) * 5.0
    chest.write_series(folder, volume, orientation=_TURNED, step=step, **{**STUDY, **tags})
    return folder


def made_up(series: Path) -> Case:
    """Return a result with all types of lesions, one of them in one lobe alone, and a vessel."""
    ct, _ = files.read_ct(series)
    lobes = geometry.image_like(chest.values(chest.lobes(chest.grid())), ct)
    places = sitk.GetArrayFromImage(lobes)
    lesions, vessels = np.zeros_like(places), np.zeros_like(places)
    k, j, i = np.indices(places.shape)
    lesions[(places > 0) & (k % 9 == 0)] = 1
    lesions[(places == Lobe.RML) & (j > 28)] = 2
    lesions[(places == Lobe.LUL) & (i % 7 == 0)] = 3
    vessels[(places > 0) & (lesions == 0) & (j == 30)] = 1
    rows, totals = tabulate(places, lesions, geometry.voxel_ml(ct), vessels=vessels)
    report = Report(
        rows=rows,
        totals=totals,
        total_score=totals[2].score,
        lobes_source="given",
        grid={},
        version="0.1.0",
        created="2026-01-01",
        weights=({"name": "segmentation.safetensors", "sha256": "ab" * 32},),
    )
    result = LesionResult(
        ct,
        lobes,
        geometry.image_like(lesions, ct),
        geometry.image_like(vessels, ct),
        report,
        maps=None,
        lesion_share=None,
    )
    return Case(series, result, source.source_of(series, ct))


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return made_up(write_scan(tmp_path_factory.mktemp("dicom") / "series"))


@pytest.fixture(scope="module", params=["binary", "labelmap"])
def written(request, case, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    write_dicom(Findings.of(case.result), case.source, folder, request.param)
    return folder


def lesions_and_vessels(case):
    numbers = chest.values(case.result.lesions)
    numbers[chest.values(case.result.vessels) > 0] = 4
    return numbers


def on_grid(image, ct):
    """Return the voxels of a label map on the grid of the CT; 0 where it has none."""
    return sitk.GetArrayFromImage(geometry.resample(image, ct, "labels"))


def test_our_own_reading_gives_the_same_voxels(case, written):
    image, names = masks.read_lobes(written / "lobes.seg.dcm")
    found = to_lobes(image, "auto", names)
    assert (on_grid(found, case.result.ct) == chest.values(case.result.lobes)).all()
    image, warnings = read_segmentation(written / "lesions.seg.dcm")
    assert warnings == []
    assert (on_grid(image, case.result.ct) == lesions_and_vessels(case)).all()
    assert [image.GetMetaData(f"Segment{n}_Name") for n in range(4)] == [
        "Ground glass opacity",
        "Lung consolidation",
        "Mixed ground glass and consolidation",
        "Vessels",
    ]


def test_highdicom_gives_the_same_voxels_slice_by_slice(case, written):
    uids = [one.SOPInstanceUID for one in case.source.slices]
    for name, wanted in (
        ("lesions", lesions_and_vessels(case)),
        ("lobes", chest.values(case.result.lobes)),
    ):
        segmentation = hd.seg.segread(written / f"{name}.seg.dcm")
        found = segmentation.get_pixels_by_source_instance(
            uids, combine_segments=True, assert_missing_frames_are_empty=True
        )
        assert (found == wanted).all(), name


def test_study_frame_of_reference_and_patient_are_those_of_the_ct(case, written):
    first = case.source.slices[0]
    for name in DICOM:
        found = pydicom.dcmread(written / name)
        for tag in (
            "PatientName",
            "PatientID",
            "PatientBirthDate",
            "PatientSex",
            "StudyDate",
        ):
            assert found[tag].value == first[tag].value, (name, tag)
        assert found.StudyInstanceUID == first.StudyInstanceUID
        assert found.SeriesInstanceUID != first.SeriesInstanceUID
        (scheme,) = found.CodingSchemeIdentificationSequence
        assert scheme.CodingSchemeDesignator == "99DRAMLESION"
    for name in DICOM[:2]:
        assert pydicom.dcmread(written / name).FrameOfReferenceUID == first.FrameOfReferenceUID


def test_segments_are_coded_and_say_what_made_them(written):
    lesions = pydicom.dcmread(written / "lesions.seg.dcm").SegmentSequence
    # a label map has a segment 0 as well, the background
    lesions = [segment for segment in lesions if segment.SegmentNumber > 0]
    kinds = [segment.SegmentedPropertyTypeCodeSequence[0] for segment in lesions]
    assert [(k.CodingSchemeDesignator, k.CodeValue) for k in kinds] == [
        ("DCM", "112120"),
        ("SCT", "95436008"),
        ("99DRAMLESION", "mixed"),
        ("SCT", "59820001"),
    ]
    (algorithm,) = lesions[0].SegmentationAlgorithmIdentificationSequence
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == (
        "DRAMLesion",
        "0.1.0",
    )
    assert "abab" in algorithm.AlgorithmParameters


def test_the_report_has_volumes_densities_shares_and_scores(case, written):
    report = hd.sr.srread(written / "measurements.sr.dcm")
    lobes = report.content.get_volumetric_roi_measurement_groups()
    rows = case.result.report.rows
    assert [value_of(group, "118565006") for group in lobes] == [
        pytest.approx(row.volume_ml, abs=1e-3) for row in rows
    ]
    assert [value_of(group, "lobe-score") for group in lobes] == [row.score for row in rows]
    segment = lobes[0].referenced_segment
    assert segment.referenced_segment_numbers == [int(Lobe.LUL)]
    assert segment.referenced_sop_instance_uid == (
        pydicom.dcmread(written / "lobes.seg.dcm").SOPInstanceUID
    )
    others = report.content.get_image_measurement_groups()
    assert len(others) == 16
    by_title = {group.tracking_identifier: group for group in others}
    group = by_title["consolidation, right middle lobe"]
    assert group.finding_type.value == "95436008"
    (site,) = group.finding_sites
    assert (site.value.value, site.laterality.value) == ("72481006", "24028007")
    inside = (chest.values(case.result.lobes) == Lobe.RML) & (
        chest.values(case.result.lesions) == 2
    )
    mean = chest.values(case.result.ct)[inside].mean()
    assert value_of(group, "112031") == pytest.approx(mean, abs=1e-3)
    ml = inside.sum() * geometry.voxel_ml(case.result.ct)
    assert value_of(group, "118565006") == pytest.approx(ml, abs=1e-3)
    rml = case.result.report.row("RML")
    assert value_of(group, "lesion-share") == pytest.approx(100 * ml / rml.volume_ml, abs=1e-3)
    empty = by_title["consolidation, left upper lobe"]
    assert value_of(empty, "118565006") == 0.0
    assert [m.name.value for m in empty.get_measurements()] == [
        "118565006",
        "lesion-share",
    ]
    both = by_title["lesions, both lungs"]
    assert value_of(both, "ctss") == case.result.report.total_score


def value_of(group, code):
    (found,) = [m for m in group.get_measurements() if m.name.value == code]
    return found.value


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is missing")
@pytest.mark.parametrize("name", DICOM)
@pytest.mark.parametrize("written", ["binary"], indirect=True)
def test_the_standards_check_finds_no_error(written, name):
    tool = shutil.which("dciodvfy") or ""
    # label maps are newer than the tool
    said = subprocess.run([tool, str(written / name)], capture_output=True, text=True, check=False)  # noqa: S603
    wrong = [line for line in said.stderr.splitlines() if line.startswith("Error")]
    assert wrong == []
    assert said.stderr.strip(), "it said nothing, not even what it looked at"


def test_a_result_without_any_lesion_is_whole(case, tmp_path):
    nothing = case.result.lesions * 0
    empty = LesionResult(
        case.result.ct,
        case.result.lobes,
        nothing,
        nothing,
        case.result.report,
        maps=None,
        lesion_share=None,
    )
    write_dicom(Findings.of(empty), case.source, tmp_path)
    image, _ = read_segmentation(tmp_path / "lesions.seg.dcm")
    assert sitk.GetArrayFromImage(image).max() == 0


def test_segment_writes_them_beside_the_others(case, tmp_path):
    write_small_weights(tmp_path / "weights")
    sitk.WriteImage(case.result.lobes, str(tmp_path / "lobes.nii.gz"))
    words = ["segment", str(case.series), "-o", str(tmp_path / "out"), "--device", "cpu"]
    words += ["--lobes", str(tmp_path / "lobes.nii.gz"), "--lobe-scheme", "dram"]
    words += ["--weights", str(tmp_path / "weights"), "--json-progress"]
    assert command_line.main([*words, "--dicom"]) == 0
    image, _ = read_segmentation(tmp_path / "out" / "lesions.seg.dcm")
    lesions, vessels = (
        sitk.ReadImage(str(tmp_path / "out" / f"{name}.nii.gz")) for name in ("lesions", "vessels")
    )
    wanted = chest.values(lesions) + 4 * chest.values(vessels)
    assert (on_grid(image, case.result.ct) == wanted).all()
    assert (tmp_path / "out" / "measurements.sr.dcm").is_file()
    # those of an earlier run do not stay beside new results
    assert command_line.main(words) == 0
    assert not {path.name for path in (tmp_path / "out").iterdir()} & set(DICOM)
    # and can be had later
    words = ["dicom", str(tmp_path / "out"), str(case.series), "-o", str(tmp_path / "later")]
    assert command_line.main([*words, "--json-progress"]) == 0
    assert sorted(path.name for path in (tmp_path / "later").iterdir()) == sorted(DICOM)
    image, _ = read_segmentation(tmp_path / "later" / "lesions.seg.dcm")
    assert (on_grid(image, case.result.ct) == wanted).all()


@pytest.fixture
def stored(case, tmp_path):
    """A result as segment writes it."""
    folder = tmp_path / "result"
    folder.mkdir()
    for name in ("lesions", "vessels", "lobes"):
        sitk.WriteImage(getattr(case.result, name), str(folder / f"{name}.nii.gz"))
    (folder / "report.json").write_text(json.dumps(to_json(case.result.report)))
    return folder


def test_what_is_written_later_is_what_was_found(case, stored):
    found = read_findings(stored, case.result.ct)
    for name in ("lesions", "vessels", "lobes"):
        assert chest.same(getattr(found, name), getattr(case.result, name)), name
    for row, wanted in zip(found.report.rows, case.result.report.rows, strict=True):
        assert row.volume_ml == pytest.approx(wanted.volume_ml, abs=1e-3)
        assert row.score == wanted.score
    assert found.report.total_score == case.result.report.total_score
    assert found.report.weights == case.result.report.weights


def test_what_a_person_has_changed_says_so(case, stored, tmp_path):
    lesions = sitk.Cast(case.result.lesions > 0, sitk.sitkUInt8)
    sitk.WriteImage(lesions, str(stored / "lesions.nii.gz"))
    slices = tmp_path / "slices.txt"
    slices.write_text("\n".join(str(path) for path in case.series.iterdir()), encoding="utf-8")
    sitk.WriteImage(case.result.ct, str(tmp_path / "ct.nrrd"))
    words = ["dicom", str(stored), str(tmp_path / "ct.nrrd"), "--slices", str(slices)]
    words += ["-o", str(tmp_path / "out"), "--untyped", "--edited", "lesions", "--json-progress"]
    assert command_line.main(words) == 0
    for name, how in (("lesions", "SEMIAUTOMATIC"), ("lobes", "AUTOMATIC")):
        found = pydicom.dcmread(tmp_path / "out" / f"{name}.seg.dcm")
        assert {segment.SegmentAlgorithmType for segment in found.SegmentSequence} == {how}
        assert ("edited by hand" in found.ContentDescription) == (how == "SEMIAUTOMATIC")
    image, _ = read_segmentation(tmp_path / "out" / "lesions.seg.dcm")
    wanted = np.where(chest.values(lesions) > 0, 1, 2 * chest.values(case.result.vessels))
    assert (on_grid(image, case.result.ct) == wanted).all()


def _moved(folder, case):
    lobes = sitk.Image(case.result.lobes)
    lobes.SetOrigin([v + 1 for v in lobes.GetOrigin()])
    sitk.WriteImage(lobes, str(folder / "lobes.nii.gz"))


def _beyond(folder, case):
    sitk.WriteImage(case.result.lobes * 3, str(folder / "lesions.nii.gz"))


def _without_rows(folder, _case):
    content = json.loads((folder / "report.json").read_text())
    del content["lobes"][0]
    (folder / "report.json").write_text(json.dumps(content))


def _without_number(folder, _case):
    content = json.loads((folder / "report.json").read_text())
    content["lobes"][1]["mixed_ml"] = None
    (folder / "report.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_moved, "lobes.nii.gz does not lie on the voxels of the CT"),
        (_beyond, "lesions.nii.gz holds the label 15; labels from 0 to 3 are wanted"),
        (_without_rows, "report.json does not have the rows LUL, LLL, RUL, RML, RLL"),
        (_without_number, "report.json: the row LLL has no mixed_ml"),
    ],
)
def test_results_that_do_not_fit_are_told_and_nothing_is_written(
    case, stored, tmp_path, capsys, spoil, says
):
    spoil(stored, case)
    words = ["dicom", str(stored), str(case.series), "-o", str(tmp_path / "out")]
    assert command_line.main(words) == 1
    assert says in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir() if (tmp_path / "out").exists() else []) == []


def test_a_list_with_a_file_that_is_no_image_is_told(case, tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(InputError, match=r"notes\.txt is no DICOM image"):
        source.source_of_files([tmp_path / "notes.txt"], case.result.ct)
    with pytest.raises(InputError, match="cannot be read as a list of files"):
        source.listed(tmp_path)
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'gone.dcm'}\n")
    with pytest.raises(InputError, match="1 of the 1 DICOM images of the CT are no longer"):
        source.listed(tmp_path / "list.txt")


def test_mean_densities_are_those_of_the_voxels():
    ct = sitk.GetImageFromArray(np.array([[[-700, -500, -300, 0]]], dtype=np.int16))
    lobes = sitk.GetImageFromArray(np.array([[[1, 1, 2, 0]]], dtype=np.uint8))
    lesions = sitk.GetImageFromArray(np.array([[[1, 1, 3, 0]]], dtype=np.uint8))
    assert mean_densities(ct, lobes, lesions) == {
        (Lobe.LUL, 1): -600.0,
        (Lobe.LLL, 3): -300.0,
    }


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"FrameOfReferenceUID": ""},
            "no valid identifier of their frame of reference",
        ),
        ({"StudyInstanceUID": ""}, "no valid identifier of their study"),
        ({"StudyInstanceUID": "not a UID"}, "no valid identifier of their study"),
    ],
)
def test_what_a_source_lacks_is_told_before_the_computing(
    tmp_path, monkeypatch, capsys, change, says
):
    def computing(*_, **__):
        pytest.fail("the computing began")

    monkeypatch.setattr("DRAMLesionLib.pipeline.LesionPipeline.run", computing)
    series = write_scan(tmp_path / "series", **change)
    words = [
        "segment",
        str(series),
        "-o",
        str(tmp_path / "out"),
        "--dicom",
        "--device",
        "cpu",
    ]
    assert command_line.main(words) == 1
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_headers_that_make_no_segmentation_are_told_before_the_computing(case, monkeypatch):
    def refuse(*_, **__):
        message = "no such thing"
        raise AttributeError(message)

    monkeypatch.setattr(hd.seg, "Segmentation", refuse)
    with pytest.raises(InputError, match=r"DICOM results: no such thing; send it") as told:
        dicom_writer(case.series, case.result.ct, "binary")
    assert "no such thing" not in told.value.stored


def test_empty_values_are_no_obstacle(case, tmp_path):
    series = write_scan(tmp_path / "series")
    for path in series.iterdir():
        one = pydicom.dcmread(path)
        for name in ("PatientSex", "AccessionNumber", "StudyTime"):
            del one[name]
        one.save_as(path)
    found = made_up(series)
    write_dicom(Findings.of(found.result), found.source, tmp_path)
    assert pydicom.dcmread(tmp_path / "lobes.seg.dcm").StudyTime == ""


def test_a_ct_that_came_from_no_dicom_is_told(tmp_path):
    with pytest.raises(InputError, match="is no folder with a DICOM series"):
        source.source_of(tmp_path / "ct.nii.gz", chest.hu(chest.grid()))


def test_slices_that_the_voxels_do_not_lie_on_are_told(case):
    moved = sitk.Image(case.result.ct)
    moved.SetOrigin([v + 1.0 for v in moved.GetOrigin()])
    with pytest.raises(InputError, match="50 of its 50 planes of voxels do not lie where a slice"):
        source.source_of(case.series, moved)


def test_slices_come_in_the_order_of_the_voxels(case):
    ct = case.result.ct
    for k, one in enumerate(case.source.slices):
        place = ct.TransformIndexToPhysicalPoint((0, 0, k))
        assert np.allclose(place, [float(v) for v in one.ImagePositionPatient], atol=1e-3)
