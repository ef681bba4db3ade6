"""Nodes of the scene as the library wants them: geometry, lobes, fingerprints, training cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from Testing.host import missing

if missing():
    pytest.skip(str(missing()), allow_module_level=True)

from DRAMLesionLib.errors import InputError, LobeError, OutputError
from DRAMLesionLib.images import geometry
from DRAMLesionLib.lobes import Lobe
from Testing.module.cases import add_lobes, add_volume
from Testing.module.scenes import RIGID, put_under

# --- geometry -------------------------------------------------------------------------------------


def test_a_volume_keeps_its_geometry(host, run):
    from DRAMLesionLib.mrml import volumes

    image = volumes.image_from_volume(add_volume(run.ct))
    assert geometry.same_grid(image, run.ct, 1e-6)
    np.testing.assert_array_equal(geometry.array(image), geometry.array(run.ct))


def test_a_linear_transform_is_part_of_the_geometry(host, run):
    from DRAMLesionLib.mrml import volumes

    ct = add_volume(run.ct)
    put_under(RIGID, ct)
    image = volumes.image_from_volume(ct)
    index = (3, 5, 7)
    expected = RIGID @ volumes.ras_matrix(run.ct) @ (*index, 1)
    lps = image.TransformIndexToPhysicalPoint(index)
    np.testing.assert_allclose(lps, expected[:3] * (-1, -1, 1), atol=1e-6)
    assert volumes.voxel_ml(ct) == pytest.approx(0.064)


def test_other_transforms_are_refused_with_a_reason(host, run):
    import slicer

    from DRAMLesionLib.mrml import volumes

    ct = add_volume(run.ct)
    shear = np.eye(4)
    shear[0, 1] = 0.2
    put_under(shear, ct)
    with pytest.raises(InputError, match="skews CT"):
        volumes.image_from_volume(ct)
    grid = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", "tilt")
    ct.SetAndObserveTransformNodeID(grid.GetID())
    with pytest.raises(InputError, match="tilt, which is not linear"):
        volumes.image_from_volume(ct)


# --- lobes ----------------------------------------------------------------------------------------


def test_lobes_are_recognised_by_code_then_by_name(host, run):
    from DRAMLesionLib.lobes.terminology import LOBE_TERMS, TERMINOLOGY_TAG
    from DRAMLesionLib.mrml import lobes

    ct = add_volume(run.ct)
    node = add_lobes(run.lobes, ct)
    found = lobes.match(node)
    assert found == {Lobe.LUL: "s1", Lobe.LLL: "s2", Lobe.RUL: "s3", Lobe.RLL: "s5"}
    segment = node.GetSegmentation().GetSegment("s4")
    segment.SetTag(TERMINOLOGY_TAG, LOBE_TERMS[Lobe.RML].entry())
    found = lobes.match(node)
    assert found[Lobe.RML] == "s4"
    image = lobes.lobe_image(node, found, ct)
    np.testing.assert_array_equal(geometry.array(image), geometry.array(run.lobes))
    assert geometry.same_grid(image, run.ct)
    with pytest.raises(LobeError, match="several lobes"):
        lobes.lobe_image(node, {Lobe.RML: "s4", Lobe.RUL: "s4"}, ct)


def label_map(run, numbers):
    """Lobes as a label map node, by other numbers, LUL first."""
    import slicer

    values = geometry.array(run.lobes)
    other = np.zeros_like(values)
    for lobe, number in zip(Lobe, numbers, strict=True):
        other[values == lobe] = number
    node = add_volume(geometry.image_like(other, run.lobes), "labels")
    labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    slicer.modules.volumes.logic().CreateLabelVolumeFromVolume(slicer.mrmlScene, labels, node)
    return labels


def test_lobes_of_a_label_map_are_recognised_by_anatomy(host, run):
    from DRAMLesionLib.mrml import lobes

    labels = label_map(run, (10, 11, 12, 13, 14))
    found = lobes.match(labels)
    assert found == {lobe: str(number) for lobe, number in zip(Lobe, range(10, 15), strict=True)}
    image = lobes.lobe_image(labels, found, add_volume(run.ct))
    np.testing.assert_array_equal(geometry.array(image), geometry.array(run.lobes))
    assert [key for key, _name in lobes.choices(labels)] == ["10", "11", "12", "13", "14"]


def test_the_names_of_a_colour_table_count_if_they_name_the_lobes(host, run):
    import slicer

    from DRAMLesionLib.mrml import lobes

    labels = label_map(run, (3, 7, 2, 9, 8))
    colours = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableNode", "lobes")
    colours.SetTypeToUser()
    colours.SetNumberOfColors(10)
    for number, name in ((3, "LUL"), (7, "left lower lobe"), (2, "RUL"), (9, "RML"), (8, "RLL")):
        colours.SetColor(number, name, 0.5, 0.5, 0.5, 1.0)
    labels.CreateDefaultDisplayNodes()
    labels.GetDisplayNode().SetAndObserveColorNodeID(colours.GetID())
    assert lobes.match(labels) == {
        lobe: str(number) for lobe, number in zip(Lobe, (3, 7, 2, 9, 8), strict=True)
    }


# --- fingerprints and training cases --------------------------------------------------------------


def test_fingerprints_grow_with_the_labels():
    from DRAMLesionLib.mrml.segments import Fingerprint, checksum

    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, (7, 8, 9)).astype(np.uint8)
    running = Fingerprint.of(labels)
    changed = labels.copy()
    where = np.flatnonzero(labels.ravel() == 1)[:5]
    changed.ravel()[where] = 2
    running.remove(1, where)
    running.add(2, where)
    assert running.text == Fingerprint.of(changed).text != Fingerprint.of(labels).text
    assert Fingerprint.parse(running.text) == running
    swapped = labels.copy()
    swapped[labels == 1], swapped[labels == 2] = 2, 1
    assert Fingerprint.of(swapped).text != Fingerprint.of(labels).text
    assert Fingerprint.of(np.zeros((2, 2, 2), np.uint8)).text == "empty"
    assert checksum(changed) != checksum(labels) != checksum(swapped)


@pytest.fixture
def case(run):
    labels = geometry.image_like((run.array("lesions") > 0).astype(np.uint8) * 2, run.ct)
    scores = {Lobe.LUL: 1, Lobe.LLL: 0, Lobe.RUL: 5, Lobe.RML: None, Lobe.RLL: 2}
    return run.ct, run.lobes, labels, scores


def test_a_case_is_read_by_the_training_as_it_is(case, tmp_path):
    from DRAMLesionLib.mrml import training_set
    from Training.dataset.folder import find_cases
    from Training.dataset.verify import load_case

    folder = tmp_path / "data set"
    assert training_set.next_case_name(folder) == "case-0001"
    training_set.add_case(folder, "case-0001", *case)
    assert training_set.next_case_name(folder) == "case-0002"
    found, problems = find_cases([folder])
    assert [str(problem) for problem in problems if problem.fatal] == []
    assert found[0].name == "case-0001"
    assert found[0].scores == case[3]
    assert geometry.same_grid(sitk.ReadImage(str(found[0].scan)), case[0])
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(sitk.ReadImage(str(found[0].lobes))), geometry.array(case[1])
    )
    assert found[0].label is not None
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(sitk.ReadImage(str(found[0].label))), geometry.array(case[2])
    )
    loaded, problems = load_case(found[0])
    assert loaded is not None
    assert [str(problem) for problem in problems if problem.fatal] == []
    np.testing.assert_array_equal(geometry.array(loaded.lobes), geometry.array(case[1]))


def test_other_cases_and_columns_of_the_table_stay(case, tmp_path):
    from DRAMLesionLib.mrml import training_set

    (tmp_path / "scores.csv").write_text("case,RUL,RML,RLL,LUL,LLL,note\nold,1,2,3,4,5,mine\n")
    training_set.add_case(tmp_path, "new", *case)
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert lines == ["case,LUL,LLL,RUL,RML,RLL,note", "new,1,0,5,,2,", "old,4,5,1,2,3,mine"]
    assert training_set.has_case(tmp_path, "old")
    assert not training_set.has_case(tmp_path, "older")


@pytest.mark.parametrize(
    "there",
    ["scans/old.nrrd", "scans/old.MHA", "lobes/old.dcm", "pseudolabels/old.seg.nrrd"],
)
def test_a_case_of_any_kind_of_file_is_known_and_replaced_whole(case, tmp_path, there):
    from DRAMLesionLib.mrml import training_set
    from Training.dataset.folder import find_cases

    place = tmp_path / there
    place.parent.mkdir()
    place.write_bytes(b"whatever it was")
    assert training_set.has_case(tmp_path, "old")
    assert not training_set.has_case(tmp_path, "old.seg")
    written = training_set.add_case(tmp_path, "old", *case)
    assert not place.exists(), "two files would be two scans of one case"
    assert all(path.is_file() for path in written)
    _cases, problems = find_cases([tmp_path])
    assert [str(problem) for problem in problems if problem.fatal] == []


def test_a_dicom_folder_of_that_name_is_not_replaced(case, tmp_path):
    from DRAMLesionLib.mrml import training_set

    (tmp_path / "scans" / "old").mkdir(parents=True)
    assert training_set.has_case(tmp_path, "old")
    with pytest.raises(InputError, match="is a folder of another case old: give this one another"):
        training_set.add_case(tmp_path, "old", *case)
    assert not (tmp_path / "scores.csv").exists()


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("old,1,2,3,4,5,6\n", "line 2 has 7 cells, but the first line has 6"),
        ("old,1,2,3,4,5\nold,0,0,0,0,0\n", "line 3 has the case 'old', which has a row already"),
    ],
)
def test_a_table_that_can_be_read_in_two_ways_is_not_written_anew(table, says, case, tmp_path):
    from DRAMLesionLib.mrml import training_set

    text = "case,LUL,LLL,RUL,RML,RLL\n" + table
    (tmp_path / "scores.csv").write_text(text)
    with pytest.raises(InputError, match=says):
        training_set.add_case(tmp_path, "new", *case)
    assert (tmp_path / "scores.csv").read_text() == text


def test_segments_of_the_module_are_pseudo_labels_for_the_training(tmp_path):
    from DRAMLesionLib.mrml import segments
    from Training.dataset.labels import read_pseudolabel

    wanted = {"lesion": 2, "vessel": 1, "lungs": 0, "mixed": 2, "vessels": 1, "lobe_RML": 0}
    specs = (*segments.PSEUDOLABEL_SEGMENTS, segments.LUNGS_SEGMENT)
    specs += segments.LESION_SEGMENTS + segments.LOBE_SEGMENTS
    for spec in specs:
        image = sitk.Image(2, 2, 2, sitk.sitkUInt8) + 1
        for key, value in (("LabelValue", "1"), ("Name", spec.name)):
            image.SetMetaData(f"Segment0_{key}", value)
        image.SetMetaData("Segment0_Tags", f"TerminologyEntry:{spec.term.entry()}|")
        sitk.WriteImage(image, str(tmp_path / "a.seg.nrrd"))
        value = read_pseudolabel(tmp_path / "a.seg.nrrd")[0, 0, 0]
        default = 0 if spec.id.startswith("lobe") else 2
        assert value == wanted.get(spec.id, default), spec.id


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_case_is_written_whole_or_not_at_all(case, tmp_path, monkeypatch, name):
    """Each step fails once, after it was done; and is seen as a kill there would leave it."""
    from DRAMLesionLib.mrml import training_set

    folder = tmp_path / "set"
    training_set.add_case(folder, "a", *case)

    def files():
        found = (path for path in folder.rglob("*") if path.is_file())
        return {path: path.read_bytes() for path in found if not path.name.startswith(".")}

    def seen():
        """The state of the case's files, if the table has it."""
        if name not in training_set._read(folder / "scores.csv"):
            return None
        places = [folder / place / f"{name}.nii.gz" for place in training_set.FOLDERS]
        return tuple(path.read_bytes() if path.exists() else b"" for path in places)

    before, old = files(), seen()
    steps, states, plan = [], set(), {}
    replace = Path.replace

    def fail(path, target):
        replace(path, target)
        steps.append(target)
        states.add(seen())
        if len(steps) == plan["failing"]:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    scores = dict.fromkeys(Lobe, 5)
    for failing in range(1, 100):
        steps.clear()
        plan["failing"] = failing
        try:
            training_set.add_case(folder, name, case[1], case[1], None, scores)
        except OutputError:
            assert files() == before
        else:
            break
    assert failing > 4
    new = seen()
    assert new is not None
    assert new != old
    assert states == {None, old, new}


def test_two_cannot_add_to_one_data_set_at_a_time(case, tmp_path):
    from DRAMLesionLib.mrml import training_set
    from DRAMLesionLib.writing import locked

    with locked(tmp_path), pytest.raises(OutputError, match="in use by another run"):
        training_set.add_case(tmp_path, "a", *case)
    assert not (tmp_path / "scans").exists()


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "Müller", "x" * 65])
def test_bad_names_of_cases_are_refused(case, tmp_path, name):
    from DRAMLesionLib.mrml import training_set

    with pytest.raises(InputError, match="named with letters"):
        training_set.add_case(tmp_path, name, *case)
    assert list(tmp_path.iterdir()) == []


def test_a_case_without_any_score_or_into_a_strange_table_is_refused(case, tmp_path):
    from DRAMLesionLib.mrml import training_set

    with pytest.raises(InputError, match="no lobe has a reader's score"):
        training_set.add_case(tmp_path, "a", *case[:3], {})
    (tmp_path / "scores.csv").write_text("something,else\n1,2\n")
    with pytest.raises(InputError, match="is no table"):
        training_set.add_case(tmp_path, "a", *case)
