"""DICOM folders: which series, in which order, and what is wrong with it."""

from __future__ import annotations

import struct

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import ImplicitVRLittleEndian, RLELossless

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.reading import checks, files
from Testing.library import simple_chest as chest
from Testing.library.reading.dicom_edits import edit, image_paths
from Testing.library.realdata import DATA, needs_data
from Testing.library.simple_chest import message, same


def test_series_is_sorted_by_position_and_in_hu(tmp_path, ct, volume):
    chest.write_series(tmp_path, volume)
    found, warnings = files.read_ct(tmp_path)
    assert warnings == []
    assert found.GetPixelID() == sitk.sitkInt16
    assert same(found, ct)


def test_series_in_subfolders_with_blanks_and_letters_beyond_ascii(tmp_path, ct, volume):
    folder = tmp_path / "Übersicht 1" / "肺 CT"
    chest.write_series(folder, volume)
    (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "read me.txt").write_text("nothing")
    assert same(files.read_ct(tmp_path)[0], ct)


def test_coronal_series_and_oblique_series_lie_where_they_should(tmp_path):
    for number, orientation in enumerate(([1, 0, 0, 0, 0, -1], [0.96, 0.28, 0, -0.28, 0.96, 0])):
        normal = np.cross(orientation[:3], orientation[3:])
        direction = np.stack([orientation[:3], orientation[3:], normal], axis=1)
        truth = chest.hu(chest.grid((70, 66, 64), (5.0, 5.0, 4.0), direction))
        folder = tmp_path / str(number)
        chest.write_series(
            folder,
            chest.values(truth),
            spacing=truth.GetSpacing(),
            origin=truth.GetOrigin(),
            orientation=orientation,
        )
        found, warnings = files.read_ct(folder)
        assert warnings == []
        assert same(found, truth)


def test_fractional_slope_gives_float(tmp_path, volume):
    stored = (volume.astype(np.int32) + 1024) * 2 - 1024
    chest.write_series(tmp_path, stored, RescaleSlope=0.5, RescaleIntercept=-1024.5)
    found, _ = files.read_ct(tmp_path)
    assert found.GetPixelID() == sitk.sitkFloat32
    assert np.allclose(chest.values(found), np.maximum(volume - 0.5, -1024))


def test_no_rescale(tmp_path, volume):
    chest.write_series(tmp_path, volume, rescale=False)
    found, _ = files.read_ct(tmp_path)
    with pytest.raises(InputError, match=r"the rescale intercept \(-1024\) is missing"):
        checks.check_ct(found)


def test_missing_slices(tmp_path, volume):
    chest.write_series(tmp_path, volume)
    for k in (20, 21, 33):
        next(tmp_path.glob(f"*-{k:03d}.dcm")).unlink()
    text = message(tmp_path)
    assert "3 slice(s) are missing, the first after img" in text
    assert "-019.dcm (15.00 mm to the next, 5.00 mm elsewhere)" in text


def uneven(volume, jitter) -> list:
    rng = np.random.default_rng(0)
    z = np.arange(len(volume)) * 5.0 + rng.uniform(-jitter, jitter, len(volume))
    return [(-172.5, -147.5, value - 122.5) for value in z]


def test_slightly_uneven_slices(tmp_path, volume):
    chest.write_series(tmp_path, volume, positions=uneven(volume, 0.5))
    (warning,) = files.read_ct(tmp_path)[1]
    assert warning.code == "uneven-slices"
    assert "The CT's slices are not quite evenly spaced: positions are up to 0." in warning.message


def test_rounded_positions_are_no_unevenness(tmp_path, volume):
    positions = [(-172.5, -147.5, round(k * 0.625, 1)) for k in range(len(volume))]
    chest.write_series(tmp_path, volume, positions=positions)
    assert files.read_ct(tmp_path)[1] == []


def test_very_uneven_slices(tmp_path, volume):
    z = np.cumsum(np.r_[np.full(25, 4.0), np.full(25, 5.8)])
    chest.write_series(tmp_path, volume, positions=[(-172.5, -147.5, v) for v in z])
    assert "the slices are unevenly spaced, up to" in message(tmp_path)


@pytest.mark.parametrize("degrees", [-20.0, 12.0])
def test_gantry_tilt_is_straightened(tmp_path, degrees):
    angle = np.radians(degrees)
    row, column = np.array([1, 0, 0]), np.array([0, np.cos(angle), np.sin(angle)])
    step = np.array([0, 0, 4.0])  # the table moves along the body, not along the normal
    origin = np.array([-172.5, -145.0 * np.cos(angle), -100 - 145.0 * np.sin(angle)])
    i, j, k = np.meshgrid(np.arange(70), np.arange(60), np.arange(50), indexing="ij")
    where = origin + 5.0 * (i[..., None] * row + j[..., None] * column) + k[..., None] * step
    x, y, z = np.moveaxis(where.transpose(2, 1, 0, 3), -1, 0)
    smooth = 4.0 * y - 2.0 * z + x
    chest.write_series(
        tmp_path, smooth, origin=origin, orientation=[*row, *column], step=step, RescaleSlope=1
    )
    found, warnings = files.read_ct(tmp_path)
    assert [w.code for w in warnings] == ["gantry-tilt"]
    assert f"gantry tilted by {abs(degrees):.1f} degrees" in warnings[0].message
    direction = np.array(found.GetDirection()).reshape(3, 3)
    assert np.allclose(direction.T @ direction, np.eye(3))
    assert found.GetSpacing()[2] == pytest.approx(4.0 * np.cos(angle), abs=1e-3)
    values = chest.values(found)
    x, y, z = np.moveaxis(chest.points(found), -1, 0)
    truth = 4.0 * y - 2.0 * z + x
    real = values > -1020
    assert real.sum() > 0.9 * smooth.size * np.mean(smooth > -1020)
    # the edge of the tilted field of view mixes with padding by half a pixel
    assert np.mean(np.abs(values - truth)[real] < 3.0) > 0.97


def test_shift_beyond_any_gantry(tmp_path, volume):
    chest.write_series(tmp_path, volume, step=(0, 6.0, 5.0))
    assert "shifted against each other by 50 degrees, more than a gantry" in message(tmp_path)


def test_localiser_beside_the_scan_is_left_out(tmp_path, ct, volume):
    chest.write_series(tmp_path, volume)
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesDescription": "Topogram"}
    chest.write_series(
        tmp_path, volume[:, :30].transpose(1, 0, 2)[:2], prefix="top",
        orientation=(1, 0, 0, 0, 0, -1), **scout,
    )  # fmt: skip
    found, warnings = files.read_ct(tmp_path)
    assert same(found, ct)
    assert warnings == []
    listed = files.list_series(tmp_path)
    assert [(s.number_of_files, s.left_out) for s in listed] == [(50, ""), (2, "localiser")]
    assert listed[1].description == "Topogram"


def test_localiser_in_the_same_series_is_left_out_with_a_warning(tmp_path, ct, volume):
    uid = chest.write_series(tmp_path, volume)
    chest.write_series(
        tmp_path, volume[:1], uid=uid, prefix="top", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]
    )
    found, warnings = files.read_ct(tmp_path)
    assert same(found, ct)
    assert [w.code for w in warnings] == ["images-left-out"]


def test_only_a_localiser(tmp_path, volume):
    chest.write_series(tmp_path, volume[:2], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    text = message(tmp_path)
    assert "holds no usable CT series, only" in text
    assert "(chest, CT 2 images, localiser)" in text


@pytest.mark.parametrize(
    "kind", [["DERIVED", "SECONDARY", "AXIAL"], ["DERIVED", "PRIMARY", "MPR"]], ids="-".join
)
def test_derived_images_are_left_out_beside_original_ones(tmp_path, ct, volume, kind):
    chest.write_series(tmp_path / "a", volume)
    chest.write_series(tmp_path / "b", volume + 1, ImageType=kind)
    assert same(files.read_ct(tmp_path)[0], ct)
    # alone they are used, as after many an anonymiser, and the report says so
    _, warnings = files.read_ct(tmp_path / "b")
    assert [w.code for w in warnings] == ["derived-series"]


def test_derived_primary_axial_is_an_ordinary_scan(tmp_path, volume):
    chest.write_series(tmp_path, volume, ImageType=["DERIVED", "PRIMARY", "AXIAL"])
    assert files.read_ct(tmp_path)[1] == []


def test_projections_and_other_modalities_are_never_used(tmp_path, volume):
    chest.write_series(tmp_path / "a", volume, ImageType=["DERIVED", "SECONDARY", "MIP"])
    assert "projections or pictures" in message(tmp_path / "a")
    chest.write_series(tmp_path / "b", volume, Modality="PT")
    assert "PT 50 images, modality PT" in message(tmp_path / "b")


def test_several_series_are_listed_and_one_can_be_chosen(tmp_path, ct, volume):
    first = chest.write_series(tmp_path, volume, SeriesDescription="soft Größe", prefix="a")
    second = chest.write_series(tmp_path, volume[:40] + 1, SeriesDescription="sharp", prefix="b")
    text = message(tmp_path)
    assert "holds 2 usable CT series: choose one with --series UID or series_uid=" in text
    assert first in text
    assert f"{second} (sharp, CT 40 images)" in text
    assert same(files.read_ct(tmp_path, first)[0], ct)
    assert files.read_ct(tmp_path, series_uid=second)[0].GetSize() == (70, 60, 40)
    assert "has no DICOM series 1.2.3; it has" in message(tmp_path, series_uid="1.2.3")


def test_bolus_tracking_beside_the_scan_is_no_choice(tmp_path, ct, volume):
    chest.write_series(tmp_path, volume)
    chest.write_series(tmp_path, volume[:6], positions=[(-172.5, -147.5, 0)] * 6, prefix="b")
    assert same(files.read_ct(tmp_path)[0], ct)
    assert files.list_series(tmp_path)[1].left_out == "too few slices"


def test_different_images_at_the_same_place(tmp_path, volume):
    uid = chest.write_series(tmp_path, volume, AcquisitionNumber=1)
    chest.write_series(tmp_path, volume + 5, uid=uid, prefix="b", AcquisitionNumber=2)
    text = message(tmp_path)
    assert "different images at the same place, 50 times (acquisitions 1, 2)" in text


def test_the_same_image_twice(tmp_path, ct, volume):
    chest.write_series(tmp_path, volume)
    path = next(tmp_path.glob("*-010.dcm"))
    (tmp_path / "copy.dcm").write_bytes(path.read_bytes())
    found, warnings = files.read_ct(tmp_path)
    assert same(found, ct)
    assert [w.code for w in warnings] == ["duplicate-slices"]
    assert "1 image(s) of the CT series are there twice" in warnings[0].message


def test_the_same_image_twice_under_two_identifiers(tmp_path, ct, volume):
    uid = chest.write_series(tmp_path, volume)
    chest.write_series(tmp_path, volume[10:12], uid=uid, prefix="b", origin=(-172.5, -147.5, -72.5))
    found, warnings = files.read_ct(tmp_path)
    assert same(found, ct)
    assert [w.code for w in warnings] == ["duplicate-slices"]
    assert "2 image(s) of the CT series are there twice" in warnings[0].message


@pytest.mark.parametrize("number", [2, 25, 50])
def test_one_identifier_for_different_slices(tmp_path, ct, volume, number):
    chest.write_series(tmp_path, volume)
    edit(image_paths(tmp_path)[:number], lambda ds: setattr(ds, "SOPInstanceUID", "1.2.3.4"))
    found, warnings = files.read_ct(tmp_path)
    assert same(found, ct)
    assert [w.code for w in warnings] == ["shared-identifiers"]


def test_one_identifier_for_different_images_at_one_place(tmp_path, volume):
    uid = chest.write_series(tmp_path, volume, SOPInstanceUID="1.2.3.4")
    chest.write_series(tmp_path, volume[:1] + 5, uid=uid, prefix="b", SOPInstanceUID="1.2.3.4")
    assert "different images at the same place, 1 times" in message(tmp_path)


INTERLEAVED = {
    "acquisitions": ({"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}),
    "kernels": ({"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B70f"}),
    "slice thicknesses": ({"SliceThickness": "1"}, {"SliceThickness": "5"}),
    "reconstruction diameters": ({"ReconstructionDiameter": 300}, {"ReconstructionDiameter": 350}),
    "times": ({"AcquisitionTime": "101500.25"}, {"AcquisitionTime": "101530"}),
    "studies": ({"StudyInstanceUID": "1.2.3"}, {"StudyInstanceUID": "1.2.4"}),
    "patients": ({"PatientID": "1"}, {"PatientID": "2"}),
}


@pytest.mark.parametrize("what", INTERLEAVED)
@pytest.mark.parametrize("number", [6, 50])
def test_two_scans_or_reconstructions_that_alternate(tmp_path, volume, what, number):
    first, second = INTERLEAVED[what]
    uid = chest.write_series(tmp_path, volume, **first)
    chest.write_series(
        tmp_path, volume[:number], uid=uid, prefix="b", origin=(-172.5, -147.5, -120), **second
    )
    text = message(tmp_path)
    assert f"slices of different {what}" in text
    assert "alternate within the series, as if two scans or reconstructions were mixed" in text
    assert text.endswith("keep the images of one in the folder")


def test_two_scans_told_by_their_image_numbers_alone(tmp_path, volume):
    uid = chest.write_series(tmp_path, volume)
    chest.write_series(tmp_path, volume, uid=uid, prefix="b", origin=(-172.5, -147.5, -120))
    edit(
        sorted(tmp_path.glob("b*")),
        lambda ds: setattr(ds, "InstanceNumber", ds.InstanceNumber + 50),
    )
    assert "slices of two separate runs of image numbers alternate" in message(tmp_path)


@pytest.mark.parametrize("block", [1, 4, 25])
def test_acquisitions_that_follow_each_other_are_one_scan(tmp_path, ct, volume, block):
    chest.write_series(tmp_path, volume)
    for k, path in enumerate(image_paths(tmp_path)):

        def step(ds, take=k // block):
            ds.AcquisitionNumber, ds.AcquisitionTime = take + 1, f"1015{take:02d}"

        edit([path], step)
    found, warnings = files.read_ct(tmp_path)
    assert same(found, ct)
    assert warnings == []


def test_spacing_rounded_in_two_ways(tmp_path, ct, volume):
    chest.write_series(tmp_path, volume)
    for k, path in enumerate(image_paths(tmp_path)):
        value = ["5.00004", "5.00006"][k % 2]
        edit([path], lambda ds, value=value: setattr(ds, "PixelSpacing", [value, value]))
    found, warnings = files.read_ct(tmp_path)
    assert np.array_equal(chest.values(found), volume)
    assert found.GetSpacing() == pytest.approx((5.00005, 5.00005, 5.0), abs=1e-9)
    assert warnings == []


def test_orientation_rounded_in_two_ways(tmp_path, ct, volume):
    chest.write_series(tmp_path, volume)
    for k, path in enumerate(image_paths(tmp_path)):
        small = ["0.00499", "0.00501"][k % 2]
        cosines = ["1", small, "0", f"-{small}", "1", "0"]
        edit([path], lambda ds, c=cosines: setattr(ds, "ImageOrientationPatient", c))
    found, warnings = files.read_ct(tmp_path)
    assert np.array_equal(chest.values(found), volume)
    assert found.GetDirection()[3] == pytest.approx(0.005, abs=1e-6)
    assert warnings == []


def test_mixed_sizes(tmp_path, volume):
    uid = chest.write_series(tmp_path, volume[:25])
    chest.write_series(
        tmp_path, volume[25:, :40], uid=uid, prefix="b", origin=(-172.5, -147.5, 2.5)
    )
    assert "mixes images of different size, spacing or orientation (2 kinds)" in message(tmp_path)


@pytest.mark.parametrize("keep", [0.5, 0.95])
def test_truncated_dicom_image(tmp_path, volume, keep):
    chest.write_series(tmp_path, volume)
    path = next(tmp_path.glob("*-049.dcm"))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    text = message(tmp_path)
    assert f"1 DICOM image(s) are cut short or damaged ({path.name}); copy or export" in text


def test_truncated_image_of_another_series_does_no_harm(tmp_path, ct, volume):
    mine = chest.write_series(tmp_path, volume)
    chest.write_series(tmp_path, volume, prefix="b")
    path = next(tmp_path.glob("b*-020.dcm"))
    path.write_bytes(path.read_bytes()[:5000])
    assert same(files.read_ct(tmp_path, mine)[0], ct)


def test_all_images_truncated(tmp_path, volume):
    chest.write_series(tmp_path, volume[:4])
    for path in tmp_path.glob("*.dcm"):
        path.write_bytes(path.read_bytes()[:900])
    assert "none of the 4 DICOM images can be read" in message(tmp_path)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, RLELossless], ids=lambda uid: uid.name)
def test_other_transfer_syntaxes_and_their_truncation(tmp_path, ct, volume, syntax):
    chest.write_series(tmp_path, volume)
    for path in tmp_path.glob("*.dcm"):
        image = pydicom.dcmread(path)
        if syntax == RLELossless:
            image.compress(syntax, generate_instance_uid=False)
        image.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(path, image, implicit_vr=syntax.is_implicit_VR, little_endian=True)
    assert same(files.read_ct(tmp_path)[0], ct)
    cut = next(tmp_path.glob("*-049.dcm"))
    cut.write_bytes(cut.read_bytes()[:-100])
    assert f"cut short or damaged ({cut.name})" in message(tmp_path)


def test_single_dicom_file(tmp_path, volume):
    chest.write_series(tmp_path, volume[:5])
    text = message(next(tmp_path.glob("*.dcm")))
    assert "is a single DICOM file: give the folder that holds the whole series" in text


def test_single_slice_in_a_folder(tmp_path, volume):
    chest.write_series(tmp_path, volume[:1])
    assert "holds a single slice; give the whole series" in message(tmp_path)


def test_multi_frame_dicom(tmp_path, volume):
    chest.write_series(tmp_path, volume[:1], NumberOfFrames=1)
    path = next(tmp_path.glob("*.dcm"))
    old, new = b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.840.10008.5.1.4.1.1.2.1\0"
    content = path.read_bytes()
    # both class identifiers grow by two bytes, and so do their length fields
    content = content.replace(struct.pack("<H", 26) + old, struct.pack("<H", 28) + new)
    group = struct.unpack_from("<I", content, 140)[0]
    path.write_bytes(content[:140] + struct.pack("<I", group + 2) + content[144:])
    assert "convert a multi-frame file to NIfTI first" in message(tmp_path)


def test_folder_with_nothing_readable(tmp_path):
    assert "holds no DICOM image (0 files looked at): give another folder" in message(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8\xff")
    assert "holds no DICOM image (2 files looked at)" in message(tmp_path)
    (tmp_path / "a.nii.gz").write_text("x")
    assert "holds no DICOM image, but a.nii.gz: give the path of that file" in message(tmp_path)


def test_nothing_is_printed_about_files_that_are_no_images(tmp_path, volume, capfd):
    chest.write_series(tmp_path, volume)
    (tmp_path / "notes.txt").write_text("x")
    files.read_ct(tmp_path)
    assert capfd.readouterr() == ("", "")


@needs_data
def test_real_series_equals_what_a_plain_reader_gives():
    folder = DATA / "dicom" / "cptac-c3n-00247"
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    plain = sitk.ReadImage(names)
    found, warnings = files.read_ct(folder)
    assert warnings == []
    assert same(found, plain)
    assert found.GetSize() == (512, 512, 99)
    (series,) = files.list_series(folder)
    assert (series.modality, series.number_of_files, series.left_out) == ("CT", 99, "")
