"""DICOM segmentations as lobes: every type, place, code, and what is none."""

from __future__ import annotations

from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from highdicom.seg import Segmentation, SegmentationTypeValues, SegmentDescription
from pydicom.sr.coding import Code
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, RLELossless

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.lobes import Lobe, masks, schemes
from DRAMLesionLib.lobes.terminology import LOBE_TERMS, lobe_from_entry
from DRAMLesionLib.reading import dicom_seg
from DRAMLesionLib.reading.segments import segment_field
from Testing.library import simple_chest as chest
from Testing.library.reading.dicom_edits import edit, image_paths
from Testing.library.simple_chest import same

ANATOMY = Code("123037004", "SCT", "Anatomical Structure")
OBLIQUE = [0.96, 0.28, 0, -0.28, 0.96, 0]


def described(number: int, name: str, kind: Code, side: Code | None = None) -> SegmentDescription:
    description = SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=ANATOMY,
        segmented_property_type=kind,
        algorithm_type="MANUAL",
    )
    if side is not None:
        code = highdicom.sr.CodedConcept(side.value, side.scheme_designator, side.meaning)
        sequence = description.SegmentedPropertyTypeCodeSequence
        sequence[0].SegmentedPropertyTypeModifierCodeSequence = [code]
    return description


def coded(lobe: Lobe, name: str = "a lobe") -> SegmentDescription:
    term = LOBE_TERMS[lobe]
    side = Code(term.modifier.value, "SCT", term.modifier.meaning)
    kind = Code(term.type.value, "SCT", term.type.meaning)
    return described(int(lobe), name, kind, side)


def named(lobe: Lobe) -> SegmentDescription:
    return described(int(lobe), lobe.full_name, Code("39607008", "SCT", "Lung"))


def write_seg(
    path: Path,
    truth: sitk.Image,
    pixels: np.ndarray,
    segments: list[SegmentDescription],
    kind: str = "BINARY",
    **options,
) -> Path:
    """Write a SEG on the grid of ``truth``: (k, j, i), or (k, j, i, segment) for several layers."""
    source = path.parent / f"{path.stem}-ct"
    direction = np.array(truth.GetDirection()).reshape(3, 3)
    chest.write_series(
        source, np.zeros(truth.GetSize()[::-1]), spacing=truth.GetSpacing(),
        origin=truth.GetOrigin(), orientation=[*direction[:, 0], *direction[:, 1]],
        FrameOfReferenceUID="1.2.3.9", SliceThickness=truth.GetSpacing()[2],
        PatientBirthDate="", PatientSex="", AccessionNumber="", StudyID="", StudyDate="",
        StudyTime="", ReferringPhysicianName="", SeriesNumber=1, Manufacturer="",
    )  # fmt: skip
    images = [pydicom.dcmread(p) for p in image_paths(source)]
    for p in image_paths(source):
        p.unlink()
    source.rmdir()
    options.setdefault("omit_empty_frames", False)
    seg = Segmentation(
        images, pixels, SegmentationTypeValues[kind], segments,
        series_instance_uid="1.2.3.10", series_number=2, sop_instance_uid="1.2.3.11",
        instance_number=1, manufacturer="none", manufacturer_model_name="none",
        software_versions="0", device_serial_number="0", **options,
    )  # fmt: skip
    seg.save_as(path)
    return path


@pytest.fixture(scope="module")
def truth() -> sitk.Image:
    return chest.lobes(chest.grid((40, 36, 30), (8.0, 8.5, 9.0)))


def lobes_of(path: Path) -> sitk.Image:
    labels, names = masks.read_lobes(path)
    return schemes.to_lobes(labels, names=names)


def test_binary_segments_by_their_codes(tmp_path, truth):
    path = write_seg(tmp_path / "seg.dcm", truth, chest.values(truth), [coded(x) for x in Lobe])
    assert same(lobes_of(path), truth)


def test_deflated_segmentation(tmp_path, truth):
    path = write_seg(tmp_path / "seg.dcm", truth, chest.values(truth), [coded(x) for x in Lobe])
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    assert same(lobes_of(path), truth)


def test_binary_segments_by_their_names(tmp_path, truth):
    path = write_seg(tmp_path / "seg.dcm", truth, chest.values(truth), [named(x) for x in Lobe])
    assert same(lobes_of(path), truth)
    labels, names = masks.read_lobes(path)
    assert names == {int(lobe): lobe.full_name for lobe in Lobe}
    assert labels.GetPixelID() == sitk.sitkUInt8


def test_segments_in_another_order_and_on_an_oblique_grid(tmp_path):
    normal = np.cross(OBLIQUE[:3], OBLIQUE[3:])
    direction = np.stack([OBLIQUE[:3], OBLIQUE[3:], normal], axis=1)
    truth = chest.lobes(chest.grid((40, 36, 30), (8.0, 8.5, 9.0), direction))
    order = [Lobe.RLL, Lobe.RML, Lobe.LUL, Lobe.RUL, Lobe.LLL]
    segments = [coded(lobe) for lobe in order]
    pixels = np.zeros_like(chest.values(truth))
    for number, (lobe, segment) in enumerate(zip(order, segments, strict=True), start=1):
        segment.SegmentNumber = number
        pixels[chest.values(truth) == lobe] = number
    path = write_seg(tmp_path / "seg.dcm", truth, pixels, segments)
    assert same(lobes_of(path), truth)


def test_frames_of_empty_slices_are_left_out(tmp_path, truth):
    pixels = chest.values(truth).copy()
    pixels[:4], pixels[10:13], pixels[-3:] = 0, 0, 0
    path = write_seg(tmp_path / "seg.dcm", truth, pixels, [coded(x) for x in Lobe],
                     omit_empty_frames=True)  # fmt: skip
    found = lobes_of(path)
    assert found.GetSize()[2] < truth.GetSize()[2]
    on_grid = sitk.Resample(found, truth, sitk.Transform(), sitk.sitkNearestNeighbor)
    assert np.array_equal(chest.values(on_grid), pixels)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless], ids=lambda uid: uid.name)
@pytest.mark.parametrize("fraction", ["PROBABILITY", "OCCUPANCY"])
def test_fractions_are_cut_at_one_half(tmp_path, truth, syntax, fraction):
    values = chest.values(truth)
    shares = np.stack([np.where(values == lobe, 0.6, 0.3) for lobe in Lobe], axis=-1)
    shares[0] = 0
    path = write_seg(tmp_path / "seg.dcm", truth, shares.astype(np.float32),
                     [coded(x) for x in Lobe], "FRACTIONAL", fractional_type=fraction,
                     max_fractional_value=200, transfer_syntax_uid=syntax)  # fmt: skip
    image, warnings = dicom_seg.read_segmentation(path)
    expected = values.copy()
    expected[0] = 0
    assert np.array_equal(chest.values(image), expected)
    assert [w.code for w in warnings] == ["fractional-segments"]
    assert np.array_equal(chest.values(lobes_of(path)), expected)


def test_label_map(tmp_path, truth):
    path = write_seg(tmp_path / "seg.dcm", truth, chest.values(truth), [coded(x) for x in Lobe],
                     "LABELMAP")  # fmt: skip
    assert pydicom.dcmread(path).SOPClassUID == dicom_seg.LABEL_MAP
    assert same(lobes_of(path), truth)


def test_segments_beside_the_lobes_take_nothing_from_them(tmp_path, truth):
    values = chest.values(truth)
    layers = np.stack([values == lobe for lobe in Lobe] + [values > 0, values > 3], axis=-1)
    lung = Code("39607008", "SCT", "Lung")
    segments = [*(coded(x) for x in Lobe), described(6, "lungs", lung),
                described(7, "infiltrate", Code("47351003", "SCT", "Infiltrate"))]  # fmt: skip
    path = write_seg(tmp_path / "seg.dcm", truth, layers.astype(np.uint8), segments)
    image, _ = dicom_seg.read_segmentation(path)
    assert image.GetNumberOfComponentsPerPixel() == 3
    assert same(lobes_of(path), truth)


def test_the_side_may_stand_with_the_region(tmp_path, truth):
    path = write_seg(tmp_path / "seg.dcm", truth, chest.values(truth), [coded(x) for x in Lobe])

    def move(ds):
        for item in ds.SegmentSequence:
            kind = item.SegmentedPropertyTypeCodeSequence[0]
            region = pydicom.Dataset()
            region.CodeValue, region.CodingSchemeDesignator = "39607008", "SCT"
            region.CodeMeaning = "Lung"
            sides = kind.SegmentedPropertyTypeModifierCodeSequence
            region.AnatomicRegionModifierSequence = sides
            del kind.SegmentedPropertyTypeModifierCodeSequence
            item.AnatomicRegionSequence = [region]

    edit([path], move)
    assert same(lobes_of(path), truth)


@pytest.mark.parametrize(
    ("kind", "side", "lobe"),
    [
        ("44714003", "", Lobe.LUL), ("41224006", "", Lobe.LLL), ("42400003", "", Lobe.RUL),
        ("72481006", "", Lobe.RML), ("266005", "", Lobe.RLL), ("266005", "24028007", Lobe.RLL),
        ("266005", "7771000", None), ("T-28820", "G-A101", Lobe.LUL), ("T-28400", "", Lobe.RLL),
        ("45653009", "", None), ("39607008", "7771000", None),
    ],
)  # fmt: skip
def test_codes_of_lobes(kind, side, lobe):
    assert lobe_from_entry(f"~SCT^1^~SCT^{kind}^x~SCT^{side}^y~~^^~^^") == lobe


def test_a_folder_with_one_segmentation(tmp_path, truth):
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "notes.txt").write_text("x")
    seg = write_seg(folder / "1", truth, chest.values(truth), [coded(x) for x in Lobe])
    assert same(lobes_of(folder), truth)
    (folder / "2").write_bytes(seg.read_bytes())
    with pytest.raises(InputError, match="holds 2 DICOM segmentations: give the path of one"):
        masks.read_lobes(folder)


def test_what_is_no_segmentation(tmp_path):
    chest.write_series(tmp_path, np.zeros((2, 8, 8)))
    path = image_paths(tmp_path)[0]
    with pytest.raises(InputError, match=r"another DICOM file \(CT Image Storage\): give a DICOM"):
        masks.read_lobes(path)

    def structures(ds):
        ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
        ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"

    edit([path], structures)
    with pytest.raises(InputError, match="convert the contours to a label map first"):
        masks.read_lobes(path)


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_cut_segmentation(tmp_path, truth, keep):
    path = write_seg(tmp_path / "seg.dcm", truth, chest.values(truth), [coded(x) for x in Lobe])
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(InputError, match="cut short or damaged"):
        masks.read_lobes(path)


def shift_frame(ds, vector):
    position = ds.PerFrameFunctionalGroupsSequence[5].PlanePositionSequence[0]
    place = np.add([float(v) for v in position.ImagePositionPatient], vector)
    position.ImagePositionPatient = place.tolist()


FAULTS = {
    "unevenly spaced frames": lambda ds: shift_frame(ds, [0, 0, 3.3]),
    "shifted against each other": lambda ds: shift_frame(ds, [20, 0, 0]),
    "too far apart": lambda ds: shift_frame(ds, [0, 0, 9.0 * 2_000_000]),
    "does not say where its frames lie": lambda ds: [
        delattr(f, "PlanePositionSequence") for f in ds.PerFrameFunctionalGroupsSequence
    ],
    "does not say what its frames show": lambda ds: [
        delattr(f, "SegmentIdentificationSequence") for f in ds.PerFrameFunctionalGroupsSequence
    ],
    "frames of segment 77, which it does not describe": lambda ds: setattr(
        ds.PerFrameFunctionalGroupsSequence[4].SegmentIdentificationSequence[0],
        "ReferencedSegmentNumber", 77,
    ),
    "of an unknown type": lambda ds: setattr(ds, "SegmentationType", "OTHER"),
    "cut short or damaged": lambda ds: setattr(ds, "NumberOfFrames", 60000),
    "two frames of one segment at the same place": lambda ds: setattr(
        ds.PerFrameFunctionalGroupsSequence[6], "PlanePositionSequence",
        ds.PerFrameFunctionalGroupsSequence[5].PlanePositionSequence,
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", FAULTS)
def test_segmentations_that_contradict_themselves(tmp_path, truth, text):
    path = write_seg(tmp_path / "seg.dcm", truth, chest.values(truth), [coded(x) for x in Lobe])
    edit([path], FAULTS[text])
    with pytest.raises(InputError, match=text) as caught:
        masks.read_lobes(path)
    assert str(path) in str(caught.value)
    assert str(caught.value).isprintable()


def test_bytes_changed_anywhere_are_read_or_refused(tmp_path, truth, capfd):
    path = write_seg(tmp_path / "seg.dcm", truth, chest.values(truth), [coded(x) for x in Lobe])
    content = path.read_bytes()
    rng = np.random.default_rng(7)
    refused = []
    for _ in range(60):
        changed = bytearray(content)
        for at in rng.integers(132, 12_000, 8):
            changed[at] = rng.integers(256)
        path.write_bytes(changed)
        try:
            image, _ = dicom_seg.read_segmentation(path)
            assert image.GetDimension() == 3
        except InputError as error:
            refused.append(str(error))
    assert len(refused) > 5
    assert all(text.startswith(str(path)) for text in refused)
    assert capfd.readouterr() == ("", "")


def test_fields_of_segments_are_those_of_slicer(tmp_path, truth):
    path = write_seg(tmp_path / "seg.dcm", truth, chest.values(truth),
                     [coded(x, "a~lobe^|") for x in Lobe])  # fmt: skip
    image, _ = dicom_seg.read_segmentation(path)
    assert segment_field(image, 1, "LabelValue") == "2"
    assert segment_field(image, 1, "Name") == "a~lobe^|"
    assert segment_field(image, 1, "Tags") == (
        "TerminologyEntry:Segmentation category and type - DICOM master list"
        "~SCT^123037004^Anatomical Structure~SCT^90572001^Lower lobe of lung~SCT^7771000^Left"
        "~Anatomic codes - DICOM master list~^^~^^|"
    )
