"""Lobes and pseudo-labels that a person saved from 3D Slicer as segmentations."""

import numpy as np
import pytest
import SimpleITK as sitk

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.lobes.terminology import LESION_TERM, LOBE_TERMS, LUNG_TERM, VESSEL_TERM
from DRAMLesionLib.phantom import make_phantom
from DRAMLesionLib.writing import write_image
from Training.dataset.folder import Case, find_cases
from Training.dataset.labels import read_pseudolabel
from Training.dataset.verify import load_case

VALUES = np.zeros((6, 7, 8), dtype=np.uint8)
VALUES[1, 1:3], VALUES[2, 2:4], VALUES[4, 4] = 7, 9, 3


def _write(path, *named, values=VALUES):
    """Write a segmentation of one layer; ``named`` are value, name and term of the segments."""
    image = sitk.GetImageFromArray(values)
    for index, (value, name, term) in enumerate(named):
        image.SetMetaData(f"Segment{index}_ID", f"s{index}")
        image.SetMetaData(f"Segment{index}_LabelValue", str(value))
        image.SetMetaData(f"Segment{index}_Name", name)
        entry = "" if term is None else f"Segmentation.Status:x|TerminologyEntry:{term.entry()}|"
        image.SetMetaData(f"Segment{index}_Tags", entry)
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize(
    "named",
    [
        [(7, "Lesion (pseudo-label)", LESION_TERM), (9, "Vessel (pseudo-label)", VESSEL_TERM)],
        [(7, "lesion", None), (9, "vessels", None)],
        [(7, "Läsion", LESION_TERM), (9, "Gefäß", VESSEL_TERM)],
        [(9, "Lung vessels", VESSEL_TERM), (7, "Ground glass", LESION_TERM)],
        [(9, "vessel", None), (7, "Consolidation left lung", None)],
    ],
)
def test_segments_are_known_by_name_or_code(named, tmp_path):
    lungs = (3, "Lobes (mask for editing)", LUNG_TERM)
    label = read_pseudolabel(_write(tmp_path / "a.seg.nrrd", *named, lungs))
    expected = np.where(VALUES == 7, 2, np.where(VALUES == 9, 1, 0))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(label), expected)


def test_lobes_beside_the_lesions_are_passed_over(tmp_path):
    lobes = [(9, "left upper lobe", None), (3, "Oberlappen", LOBE_TERMS[Lobe.RUL])]
    label = read_pseudolabel(_write(tmp_path / "a.seg.nrrd", (7, "lesion", None), *lobes))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(label), 2 * (VALUES == 7))


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ([(7, "Segment_1", None)], "has the segment 'Segment_1', which is neither lesion nor ves"),
        ([(7, "vessel", LESION_TERM)], "name and code of the segment 'vessel' say vessel and les"),
        ([(7, "lesion with vessel", None)], "say vessel and lesion: make them agree"),
    ],
)
def test_what_is_neither_lesion_nor_vessel_is_named(named, says, tmp_path):
    others = [(9, "vessel", None), (3, "lung", None)]
    path = _write(tmp_path / "a.seg.nrrd", *named, *others)
    with pytest.raises(InputError, match=says) as refused:
        read_pseudolabel(path)
    assert str(path) in str(refused.value)


def test_voxels_of_no_segment_are_named(tmp_path):
    path = _write(tmp_path / "a.seg.nrrd", (7, "lesion", None), (9, "vessel", None))
    with pytest.raises(InputError, match="has voxels of the value 3, which none of its segments"):
        read_pseudolabel(path)


def test_a_plain_label_map_is_left_as_it_is_and_a_folder_refused(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(VALUES), str(tmp_path / "a.nii.gz"))
    read = sitk.GetArrayFromImage(read_pseudolabel(tmp_path / "a.nii.gz"))
    np.testing.assert_array_equal(read, VALUES)
    with pytest.raises(InputError, match="is a folder; a pseudo-label is one file"):
        read_pseudolabel(tmp_path)


@pytest.fixture
def phantom(tmp_path):
    made, folder = make_phantom(5, 4.0), tmp_path / "phantom"
    write_image(made.ct, folder / "ct.nii.gz")
    write_image(made.lobes, folder / "lobes.nii.gz")
    return folder


def test_a_training_set_uses_segmentations_of_lobes_and_lesions(phantom, tmp_path):
    for name in ("scans", "lobes", "pseudolabels"):
        (tmp_path / name).mkdir()
    (tmp_path / "scores.csv").write_text("case,LUL,LLL,RUL,RML,RLL\na,1,2,3,4,5\n")
    (tmp_path / "scans" / "a.nii.gz").symlink_to(phantom / "ct.nii.gz")
    lobes = sitk.ReadImage(str(phantom / "lobes.nii.gz"))
    # numbers that mean nothing: names alone say what they are
    strange = sitk.ChangeLabel(lobes, {int(lobe): 60 - 3 * int(lobe) for lobe in Lobe})
    for index, lobe in enumerate(Lobe):
        strange.SetMetaData(f"Segment{index}_LabelValue", str(60 - 3 * int(lobe)))
        strange.SetMetaData(f"Segment{index}_Name", lobe.full_name)
    sitk.WriteImage(strange, str(tmp_path / "lobes" / "a.seg.nrrd"))
    drawn = sitk.Cast(lobes == int(Lobe.RLL), sitk.sitkUInt8) * 5
    drawn.SetMetaData("Segment0_LabelValue", "5")
    drawn.SetMetaData("Segment0_Name", "Lesion")
    sitk.WriteImage(drawn, str(tmp_path / "pseudolabels" / "a.seg.nrrd"))
    cases, problems = find_cases([tmp_path])
    assert problems == []
    scores = dict(zip(Lobe, range(1, 6), strict=True))
    files = (tmp_path / "lobes" / "a.seg.nrrd", tmp_path / "pseudolabels" / "a.seg.nrrd")
    assert cases == [
        Case("a", tmp_path / "scans" / "a.nii.gz", files[0], scores, files[1]),
    ]
    loaded, problems = load_case(cases[0])
    assert [problem for problem in problems if problem.fatal] == []
    assert not loaded.estimated
    found, given = sitk.GetArrayFromImage(loaded.lobes), sitk.GetArrayFromImage(lobes)
    assert np.mean(found[given > 0] == given[given > 0]) > 0.99


def _layers(path, *segments):
    """Write overlapping segments, each a mask in a layer of its own, as 3D Slicer does."""
    masks = np.stack([mask for mask, *_ in segments], axis=-1).astype(np.uint8)
    head = "NRRD0004\ntype: unsigned char\ndimension: 4\nspace: left-posterior-superior\n"
    head += f"sizes: {' '.join(map(str, masks.shape[::-1]))}\nkinds: list domain domain domain\n"
    head += "space directions: none (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n"
    head += "encoding: raw\n"
    for n, (_, name) in enumerate(segments):
        head += f"Segment{n}_Name:={name}\nSegment{n}_LabelValue:=1\nSegment{n}_Layer:={n}\n"
    path.write_bytes(f"{head}\n".encode() + masks.tobytes())
    return path


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_lesion_goes_before_vessel_and_lung_where_they_overlap(order, tmp_path):
    lesion, vessel, lung = VALUES == 7, np.isin(VALUES, (7, 9)), VALUES >= 0
    parts = ((lesion, "Lesion"), (vessel, "Vessel"), (lung, "Lobes (mask for editing)"))
    label = read_pseudolabel(_layers(tmp_path / "a.seg.nrrd", *(parts[n] for n in order)))
    expected = np.where(VALUES == 7, 2, np.where(VALUES == 9, 1, 0))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(label), expected)


def test_segments_of_one_kind_that_overlap_are_told(phantom, tmp_path):
    lobes = sitk.ReadImage(str(phantom / "lobes.nii.gz"))
    size = sitk.GetArrayFromImage(lobes).shape
    part = np.zeros(size, dtype=bool)
    part[2:6, 2:6, 2:6] = True
    path = _layers(tmp_path / "a.seg.nrrd", (part, "Lesion"), (part, "Consolidation"))
    scores = dict.fromkeys(Lobe, 1)
    case = Case("a", phantom / "ct.nii.gz", phantom / "lobes.nii.gz", scores, path)
    said = [p.message for p in load_case(case)[1] if p.message.startswith("the pseudo-label")]
    assert any("'Lesion'" in line and "'Consolidation'" in line for line in said)
