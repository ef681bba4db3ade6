"""Files that are read, files that are refused with a sentence, files that are written whole."""

from __future__ import annotations

import gzip
import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from DRAMLesionLib import writing
from DRAMLesionLib.errors import InputError, LobeError
from DRAMLesionLib.lobes import Lobe, masks
from DRAMLesionLib.lobes.schemes import SCHEMES, segment_names, to_lobes
from DRAMLesionLib.reading import checks, files
from Testing.library import simple_chest as chest
from Testing.library.simple_chest import message, same

SUFFIXES = ("nii.gz", "nii", "nrrd", "mha", "mhd")


# --- volume files -------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_same_ct(tmp_path, ct, suffix):
    sitk.WriteImage(ct, str(tmp_path / f"a.{suffix}"), True)
    found, warnings = files.read_ct(tmp_path / f"a.{suffix}")
    assert same(found, ct)
    assert warnings == []
    assert checks.check_ct(found) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_blanks_and_letters_beyond_ascii_in_the_path(tmp_path, ct, suffix):
    folder = tmp_path / "Klinik für Röntgen 胸部"
    folder.mkdir()
    path = folder / f"Größe µ {suffix[0]} é.{suffix}"
    sitk.WriteImage(ct, str(path))
    assert same(files.read_ct(path)[0], ct)
    assert same(files.read_ct(str(path))[0], ct)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (sitk.sitkInt16, sitk.sitkInt16),
        (sitk.sitkInt32, sitk.sitkInt16),
        (sitk.sitkFloat32, sitk.sitkFloat32),
        (sitk.sitkFloat64, sitk.sitkFloat32),
    ],
)
def test_pixel_types(tmp_path, ct, kind, expected):
    sitk.WriteImage(sitk.Cast(ct, kind), str(tmp_path / "a.nrrd"))
    found, _ = files.read_ct(tmp_path / "a.nrrd")
    assert found.GetPixelID() == expected
    assert same(found, ct)


def test_padding_becomes_air_and_metal_stays(tmp_path, ct, volume):
    padded = volume.astype(np.int32)
    padded[:, :5], padded[9, 9, 9] = -3024, 40000
    sitk.WriteImage(chest.changed(ct, padded), str(tmp_path / "a.nrrd"))
    found = chest.values(files.read_ct(tmp_path / "a.nrrd")[0])
    assert (found[:, :5] == -1024).sum() >= found[:, :5].size - 1
    assert found.max() == 32767
    assert (found[:, 5:] == volume[:, 5:])[:9].all()


def test_nan_survives_reading_so_that_the_check_finds_it(tmp_path, ct, volume):
    bad = volume.astype(np.float32)
    bad[3, 3, 3], bad[4, 4, 4] = np.nan, -3024
    sitk.WriteImage(chest.changed(ct, bad), str(tmp_path / "a.nrrd"))
    found, _ = files.read_ct(tmp_path / "a.nrrd")
    with pytest.raises(InputError, match="not a number or infinite"):
        checks.check_ct(found)


def test_headers_keep_nothing_of_the_patient(tmp_path, ct, volume):
    named = sitk.Image(ct)
    named.SetMetaData("patient", "Somebody^Real")
    sitk.WriteImage(named, str(tmp_path / "a.nrrd"))
    chest.write_series(tmp_path / "dicom", volume[:10])
    for path in (tmp_path / "a.nrrd", tmp_path / "dicom"):
        assert files.read_ct(path)[0].GetMetaDataKeys() == ()


def test_a_fourth_dimension_of_one_is_dropped(tmp_path, ct):
    sitk.WriteImage(sitk.JoinSeries([ct]), str(tmp_path / "a.nii.gz"))
    assert same(files.read_ct(tmp_path / "a.nii.gz")[0], ct)


def test_does_not_exist(tmp_path):
    assert "does not exist: check the path" in message(tmp_path / "no such scan.nii.gz")


def test_no_permission(tmp_path, ct, monkeypatch):
    # not by chmod: root may read everything
    path = tmp_path / "a.nii.gz"
    writing.write_image(ct, path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "cannot be read: you lack the permission" in message(path)
    assert "cannot be read: you lack the permission" in message(tmp_path)


def test_subfolder_without_permission(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert "cannot be read (Permission denied): check that you may read it" in message(tmp_path)


def test_2d_4d_vector_are_refused_before_their_voxels_are_read(tmp_path, ct):
    sitk.WriteImage(ct[:, :, 7], str(tmp_path / "a.nii.gz"))
    assert "is a single slice (70 x 60 voxels)" in message(tmp_path / "a.nii.gz")
    sitk.WriteImage(ct[:, :, 7:8], str(tmp_path / "b.nii.gz"))
    assert "is a single slice (70 x 60 x 1 voxels)" in message(tmp_path / "b.nii.gz")
    sitk.WriteImage(sitk.JoinSeries([ct, ct]), str(tmp_path / "c.nii.gz"))
    assert "4 dimensions (70 x 60 x 50 x 2), like a scan over time" in message(
        tmp_path / "c.nii.gz"
    )
    sitk.WriteImage(sitk.Compose([ct, ct, ct]), str(tmp_path / "d.nrrd"))
    assert "3 values a voxel, like a colour picture" in message(tmp_path / "d.nrrd")


def test_picture(tmp_path):
    sitk.WriteImage(sitk.Image(20, 20, sitk.sitkUInt8), str(tmp_path / "a.png"))
    assert "is a picture, not a CT in Hounsfield units: give a NIfTI" in message(tmp_path / "a.png")


def test_unknown_kind(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    assert "is of an unknown kind: give a NIfTI, NRRD or" in message(tmp_path / "notes.txt")


def sheared_nifti(path, ct) -> None:
    """Write a NIfTI file whose affine has shear and whose quaternion is not set."""
    sitk.WriteImage(ct, str(path))
    content = bytearray(path.read_bytes())
    struct.pack_into("<hh", content, 252, 0, 1)
    struct.pack_into("<12f", content, 280, 5, 1.5, 0, -170, 0, 5, 0, -140, 0, 0, 5, -120)
    path.write_bytes(bytes(content))


def test_sheared_grid(tmp_path, ct):
    sheared_nifti(tmp_path / "a.nii", ct)
    assert "has a sheared grid: its axes are not at right angles" in message(tmp_path / "a.nii")
    bad = sitk.Image(ct)
    bad.SetDirection((1, 0.3, 0, 0, 1, 0, 0, 0, 1))
    for suffix in ("nrrd", "mha"):
        sitk.WriteImage(bad, str(tmp_path / f"a.{suffix}"))
        assert "has a sheared grid" in message(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("share", [0.9, 0.5, 0.01])
@pytest.mark.parametrize("suffix", ["nii.gz", "nii", "nrrd", "mha"])
def test_truncated_file(tmp_path, ct, suffix, share):
    path = tmp_path / f"a.{suffix}"
    sitk.WriteImage(ct, str(path), True)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    text = message(path)
    assert "is cut short" in text
    assert "copy or convert it again" in text


def test_empty_file(tmp_path):
    for suffix in SUFFIXES:
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(b"")
        assert "is cut short" in message(path)


@pytest.mark.parametrize("suffix", ["nii.gz", "nrrd", "mha"])
def test_damaged_in_the_middle(tmp_path, volume, suffix):
    rng = np.random.default_rng(0)
    noisy = sitk.GetImageFromArray(volume + rng.integers(-20, 20, volume.shape).astype(np.int16))
    noisy.SetSpacing((5, 5, 5))
    path = tmp_path / f"a.{suffix}"
    sitk.WriteImage(noisy, str(path), True)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    assert re.search("is cut short(,| or) damaged", message(path))


def test_header_promises_more_than_there_is(tmp_path, ct):
    path = tmp_path / "a.nii.gz"
    sitk.WriteImage(ct, str(path))
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[: 352 + (len(content) - 352) // 2]))
    assert "is cut short: 50 % of its data are there" in message(path)


def test_missing_raw_file_of_a_header(tmp_path, ct):
    writing.write_image(ct, tmp_path / "a.mha")
    sitk.WriteImage(ct, str(tmp_path / "a.mhd"))
    (tmp_path / "a.raw").unlink()
    text = message(tmp_path / "a.mhd")
    assert "is only the header: a.raw, which holds its voxels, is missing; copy both" in text


# --- label maps ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lobes() -> sitk.Image:
    return chest.lobes(chest.grid())


@pytest.mark.parametrize("kind", [sitk.sitkUInt8, sitk.sitkInt16, sitk.sitkFloat32])
def test_label_map(tmp_path, lobes, kind):
    sitk.WriteImage(sitk.Cast(lobes, kind), str(tmp_path / "a.nii.gz"))
    found = files.read_labels(tmp_path / "a.nii.gz")
    assert found.GetPixelID() == sitk.sitkUInt8
    assert same(found, lobes)
    assert masks.read_lobes(tmp_path / "a.nii.gz")[1] is None


def test_no_label_map(tmp_path, lobes, ct):
    cases = [
        (sitk.Cast(lobes, sitk.sitkFloat32) * 0.3, "it has fractions, like a probability map"),
        (ct, "its values go from -1000 to 400; give an image that has 0 outside"),
        (lobes[:, :, 5:6], "is a single slice"),
    ]
    for number, (image, text) in enumerate(cases):
        path = tmp_path / f"{number}.nii.gz"
        sitk.WriteImage(image, str(path))
        with pytest.raises(InputError, match=text) as caught:
            files.read_labels(path)
        assert str(caught.value).startswith(str(path))


def segmentation(lobes, layers: dict[Lobe, tuple[int, int]]) -> sitk.Image:
    """Return a Slicer segmentation with each lobe at (layer, label)."""
    values = chest.values(lobes)
    planes = np.zeros((*values.shape, 1 + max(k for k, _ in layers.values())), dtype=np.uint8)
    for lobe, (layer, label) in layers.items():
        planes[..., layer][values == lobe] = label
    image = sitk.GetImageFromArray(planes, isVector=planes.shape[-1] > 1)
    if planes.shape[-1] == 1:
        image = sitk.GetImageFromArray(planes[..., 0])
    image.CopyInformation(lobes)
    for index, (lobe, (layer, label)) in enumerate(layers.items()):
        image.SetMetaData(f"Segment{index}_LabelValue", str(label))
        image.SetMetaData(f"Segment{index}_Layer", str(layer))
        image.SetMetaData(f"Segment{index}_Name", lobe.full_name)
    return image


@pytest.mark.parametrize(
    "layers",
    [
        {Lobe.RLL: (0, 1), Lobe.RUL: (0, 2), Lobe.LUL: (0, 3), Lobe.LLL: (0, 4), Lobe.RML: (0, 5)},
        {Lobe.RLL: (0, 1), Lobe.RUL: (1, 1), Lobe.LUL: (1, 2), Lobe.LLL: (0, 2), Lobe.RML: (2, 1)},
    ],
    ids=["one layer", "three layers"],
)
def test_slicer_segmentation(tmp_path, lobes, layers):
    path = tmp_path / "Segmentation.seg.nrrd"
    sitk.WriteImage(segmentation(lobes, layers), str(path), True)
    found, names = masks.read_lobes(path)
    assert sorted(names.values()) == sorted(lobe.full_name for lobe in Lobe)
    assert segment_names(found) == names
    assert same(to_lobes(found), lobes)


def test_folder_of_masks_as_totalsegmentator_writes_them(tmp_path, lobes):
    words = {"U": "upper", "M": "middle", "L": "lower"}
    for lobe in Lobe:
        side = "left" if lobe.is_left else "right"
        name = f"lung_{words[lobe.name[1]]}_lobe_{side}.nii.gz"
        sitk.WriteImage(lobes == int(lobe), str(tmp_path / name))
    sitk.WriteImage(lobes > 9, str(tmp_path / "heart.nii.gz"))
    assert same(to_lobes(masks.read_lobes(tmp_path)[0]), lobes)
    (tmp_path / "empty").mkdir()
    with pytest.raises(LobeError, match="holds no lobe masks: give a label file, or a folder"):
        masks.read_lobes(tmp_path / "empty")


def test_written_lobes_come_back(tmp_path, lobes):
    writing.write_image(lobes, tmp_path / "lobes.nii.gz")
    assert same(to_lobes(files.read_labels(tmp_path / "lobes.nii.gz"), "dram"), lobes)
    assert SCHEMES["dram"] == {int(lobe): lobe for lobe in Lobe}
