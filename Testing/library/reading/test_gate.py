"""What the gate lets through, what it refuses and why, and that nothing gets past it."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.reading import claim, files, gate
from DRAMLesionLib.reading.notes import UNPLACED, notes
from Testing.library import simple_chest as chest
from Testing.library.simple_chest import message, same

# --- NIfTI --------------------------------------------------------------------------------------


def nifti(path: Path, ct: sitk.Image, *edits: tuple, kind: int = sitk.sitkInt16) -> Path:
    """Write a CT as NIfTI and edit its header: (place, format, values)."""
    plain = path.with_name("plain.nii")
    sitk.WriteImage(sitk.Cast(ct, kind), str(plain))
    content = bytearray(plain.read_bytes())
    plain.unlink()
    for place, form, *numbers in edits:
        struct.pack_into("<" + form, content, place, *numbers)
    path.write_bytes(gzip.compress(bytes(content)) if path.name.endswith(".gz") else content)
    return path


def codes(path: Path) -> list[str]:
    return [warning.code for warning in files.read_ct(path)[1]]


NO_CODES = (252, "2h", 0, 0)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_nifti_that_does_not_say_how_it_lies(tmp_path, ct, suffix):
    path = nifti(tmp_path / f"a.{suffix}", ct, NO_CODES)
    found, (warning,) = files.read_ct(path)
    assert warning.code == "no-orientation"
    assert "left and right, and the lobes with them, may be exchanged" in warning.message
    assert str(path) not in warning.message
    assert chest.values(found).tolist() == chest.values(ct).tolist()


def flipped(ct: sitk.Image) -> tuple:
    """Return an edit that turns the first axis of the matrix round."""
    x, y, z = ct.GetSpacing()
    return (280, "12f", x, 0, 0, 0, 0, -y, 0, 0, 0, 0, z, 0)


def test_nifti_whose_two_orientations_contradict_each_other(tmp_path, ct):
    path = nifti(tmp_path / "a.nii.gz", ct, (252, "2h", 1, 1), flipped(ct))
    text = message(path)
    assert "says in two ways how its axes lie in the body: LPS (qform) and RPS (sform)" in text
    # one of the two alone is no contradiction
    assert codes(nifti(tmp_path / "b.nii.gz", ct, (252, "2h", 0, 1), flipped(ct))) == []
    assert codes(nifti(tmp_path / "c.nii.gz", ct, (252, "2h", 1, 0), flipped(ct))) == []


def test_nifti_with_two_places_is_told(tmp_path, ct):
    path = nifti(tmp_path / "a.nii.gz", ct, (268, "3f", 900, 0, 0))
    assert codes(path) == ["orientation-contradiction"]


@pytest.mark.parametrize("value", [0.0, -3.0, np.nan, np.inf])
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_nifti_without_spacing(tmp_path, ct, value, axis):
    path = nifti(tmp_path / "a.nii.gz", ct, (76 + 4 * axis, "f", value))
    assert "does not say how large its voxels are: convert it again" in message(path)


def test_nifti_whose_spacings_contradict_each_other(tmp_path, ct):
    path = nifti(tmp_path / "a.nii.gz", ct, (88, "f", 2.5))
    text = message(path)
    assert "5 x 5 x 2.5 mm (pixdim) and 5 x 5 x 5 mm (sform)" in text
    assert codes(nifti(tmp_path / "b.nii.gz", ct, (88, "f", 5.0001))) == []


@pytest.mark.parametrize("kind", [sitk.sitkFloat32, sitk.sitkFloat64])
@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nifti_with_numbers_that_are_none(tmp_path, ct, suffix, kind, value):
    values = chest.values(ct).astype(np.float64)
    # the last voxel: all of the stream is looked at
    values[-1, -1, -1] = value
    path = tmp_path / f"a.{suffix}"
    sitk.WriteImage(sitk.Cast(chest.changed(ct, values), kind), str(path))
    assert "has voxels that are not a number or infinite; replace them" in message(path)
    with pytest.raises(InputError, match="not a number or infinite"):
        files.read_labels(path)


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        ((108, "f", 0.0), "says that the voxels begin at byte 0, where they cannot"),
        ((108, "f", 348.0), "begin at byte 348"),
        ((108, "f", np.nan), "begin at byte nan"),
        ((108, "f", 1e30), "begin at byte 1e+30"),
        ((108, "f", 352.5), "begin at byte 352.5"),
        ((72, "h", 8), "voxels of type 4 and 8 bits, which there are not"),
        ((72, "h", 32), "voxels of type 4 and 32 bits"),
        ((70, "h", 999), "voxels of type 999 and 16 bits"),
        ((112, "f", np.nan), "it scales its voxels by nan and 0"),
        ((40, "h", 0), "its header tells of no voxels"),
        ((40, "h", 9), "its header tells of no voxels"),
        ((42, "h", -70), "its header tells of -70 x 60 x 50 voxels"),
        ((42, "h", 700), "is cut short: 10 % of its data are there"),
        ((46, "h", 40), "holds more voxels than its header says"),
        ((40, "6h", 5, 32767, 32767, 32767, 32767, 32767), "voxels, more than any CT has"),
        ((344, "4s", b"abcd"), "its header is not that of a NIfTI file"),
        ((0, "i", 347), "is cut short, damaged, or not what its name says"),
        ((256, "f", np.nan), "about the place of its voxels are no numbers, or no rotation"),
        ((256, "f", 3.0), "are no numbers, or no rotation"),
        ((280, "f", np.nan), "are no numbers, or no rotation"),
        ((280, "9f", *[0.0] * 9), "are no numbers, or no rotation"),
        ((70, "2h", 128, 24), "has several values a voxel, like a colour picture"),
    ],
)
@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_nifti_headers_that_cannot_be(tmp_path, ct, suffix, edit, text):
    assert text in message(nifti(tmp_path / f"a.{suffix}", ct, edit))


def test_nifti_vectors(tmp_path, ct):
    path = tmp_path / "a.nii.gz"
    sitk.WriteImage(sitk.Compose([ct, ct, ct]), str(path))
    assert "has 3 values a voxel, like a colour picture or a vector field" in message(path)
    with pytest.raises(InputError, match="has 3 values a voxel"):
        files.read_labels(path)


def test_a_description_that_is_no_utf8_does_not_matter(tmp_path, ct):
    lobes = chest.lobes(ct)
    edit = (148, "8s", "Zürich".encode("latin-1"))
    assert same(files.read_ct(nifti(tmp_path / "a.nii.gz", ct, edit))[0], ct)
    path = nifti(tmp_path / "b.nii.gz", lobes, edit, kind=sitk.sitkInt16)
    assert same(files.read_labels(path), lobes)


def test_compressed_or_not_is_told_by_the_content(tmp_path, ct):
    path = nifti(tmp_path / "a.nii", ct)
    shutil.copy(path, tmp_path / "b.nii.gz")
    assert same(files.read_ct(tmp_path / "b.nii.gz")[0], ct)
    (tmp_path / "c.nii").write_bytes(gzip.compress(path.read_bytes()))
    assert "its name does not say so: rename it to .nii.gz" in message(tmp_path / "c.nii")
    shutil.copy(path, tmp_path / "d.Nii")
    assert "a mix of small and capital letters: rename it to .nii" in message(tmp_path / "d.Nii")


@pytest.mark.parametrize("suffix", ["hdr", "img.gz"])
def test_pairs(tmp_path, ct, suffix):
    path = tmp_path / f"a.{suffix}"
    sitk.WriteImage(ct, str(path))
    assert same(files.read_ct(path)[0], ct)
    data = tmp_path / ("a.img" if suffix == "hdr" else "a.img.gz")
    content = data.read_bytes()
    data.write_bytes(content[: len(content) // 2])
    assert "is cut short" in message(path)
    data.unlink()
    assert "there are 0 called a.img: give both" in message(tmp_path / f"a.{suffix}") or (
        "does not exist" in message(path)
    )


def test_analyze_has_no_orientation(tmp_path, ct):
    sitk.WriteImage(ct, str(tmp_path / "a.hdr"))
    header = bytearray((tmp_path / "a.hdr").read_bytes())
    header[344:348] = b"\0\0\0\0"
    (tmp_path / "a.hdr").write_bytes(bytes(header[:348]))
    assert codes(tmp_path / "a.hdr") == ["no-orientation"]


# --- NRRD ---------------------------------------------------------------------------------------

SPACE = "space: LPS\nspace directions: (5,0,0) (0,5,0) (0,0,5)\nspace origin: (0,0,0)\n"


def nrrd(path: Path, volume: np.ndarray, fields: str, encoding="raw", sizes="") -> Path:
    """Write a NRRD file with the given fields."""
    sizes = sizes or "dimension: 3\nsizes: " + " ".join(map(str, volume.shape[::-1])) + "\n"
    head = f"NRRD0004\ntype: short\n{sizes}endian: little\nencoding: {encoding}\n{fields}\n"
    data = volume.astype("<i2").tobytes()
    path.write_bytes(head.encode() + (gzip.compress(data) if encoding == "gzip" else data))
    return path


@pytest.mark.parametrize(
    "fields",
    [
        SPACE.replace("LPS", "scanner-xyz"),
        SPACE.replace("space: LPS", "space dimension: 3"),
        "spacings: 5 5 5\n",
    ],
)
def test_nrrd_that_does_not_say_how_it_lies(tmp_path, volume, fields):
    assert codes(nrrd(tmp_path / "a.nrrd", volume, fields)) == ["no-orientation"]


def test_nrrd_that_says_so(tmp_path, volume):
    for space in ("LPS", "RAS", "left-anterior-superior"):
        assert codes(nrrd(tmp_path / "a.nrrd", volume, SPACE.replace("LPS", space))) == []


@pytest.mark.parametrize("fields", ["", "space: LPS\n", "spacings: nan nan nan\n"])
def test_nrrd_without_spacing(tmp_path, volume, fields):
    assert "does not say how large its voxels are" in message(
        nrrd(tmp_path / "a.nrrd", volume, fields)
    )


def test_nrrd_in_centimetres(tmp_path, volume):
    path = nrrd(tmp_path / "a.nrrd", volume, SPACE + 'space units: "cm" "cm" "cm"\n')
    assert "measures its voxels in 'cm', which are no millimetres" in message(path)


@pytest.mark.parametrize(
    ("sizes", "axes", "kinds"),
    [
        ("1 70 60 50", "none (5,0,0) (0,5,0) (0,0,5)", "list domain domain domain"),
        ("70 60 50 1", "(5,0,0) (0,5,0) (0,0,5) none", "domain domain domain list"),
    ],
)
def test_nrrd_with_a_list_axis_of_one(tmp_path, volume, sizes, axes, kinds):
    fields = f"kinds: {kinds}\nspace: LPS\nspace directions: {axes}\nspace origin: (1,2,3)\n"
    path = nrrd(tmp_path / "a.nrrd", volume, fields, sizes=f"dimension: 4\nsizes: {sizes}\n")
    found, warnings = files.read_ct(path)
    assert np.array_equal(chest.values(found), volume)
    assert found.GetSpacing() == (5, 5, 5)
    assert found.GetOrigin() == (1, 2, 3)
    assert warnings == []


@pytest.mark.parametrize("field", ["kinds", "units", "measurement frame", "sizes", "foo"])
@pytest.mark.parametrize("length", [1100, 5000])
def test_nrrd_lines_that_would_corrupt_memory(tmp_path, volume, field, length):
    path = nrrd(tmp_path / "a.nrrd", volume, SPACE + f"{field}: " + '"x"' * (length // 3) + "\n")
    assert "is damaged: its header has a line of" in message(path)


def test_nrrd_segments_may_have_long_descriptions(tmp_path, volume):
    lines = SPACE + "# " + "x" * 3000 + "\nSegmentation_ConversionParameters:=" + "y" * 3000 + "\n"
    found, _ = files.read_ct(nrrd(tmp_path / "a.nrrd", volume, lines))
    assert np.array_equal(chest.values(found), volume)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ((b"sizes: 70 60 50", b"sizes: 70 60 5e9"), "tells of no voxels"),
        ((b"sizes: 70 60 50", b"sizes: 70 60 -50"), "tells of 70 x 60 x -50 voxels"),
        ((b"sizes: 70 60 50", b"sizes: 700 600 500"), "is cut short: 0 % of its data"),
        ((b"sizes: 70 60 50", b"sizes: 70 60 40"), "holds more voxels than its header says"),
        ((b"sizes: 70 60 50", b"sizes: 99999 99999 999"), "more than any CT has"),
        ((b"dimension: 3", b"dimension: 4"), "3 sizes and 4 axes"),
        ((b"type: short", b"type: block"), "has voxels of type 'block' in the encoding 'raw'"),
        ((b"encoding: raw", b"encoding: bzip2"), "save it as raw or gzip"),
        ((b"endian: little", b"endian: l\xe4ttle"), "its header is no UTF-8 text"),
        ((b"endian: little", b"line skip: 5"), "skips a part of its data"),
        ((b"NRRD0004", b"NARD0004"), "is cut short, damaged, or not what its name says"),
    ],
)
def test_nrrd_headers_that_cannot_be(tmp_path, volume, change, text):
    path = nrrd(tmp_path / "a.nrrd", volume, SPACE)
    path.write_bytes(path.read_bytes().replace(*change))
    assert text in message(path)


def test_detached_nrrd(tmp_path, ct, volume):
    for encoding, data in (("raw", "a.raw"), ("gzip", "a.raw.gz")):
        path = tmp_path / "a.nhdr"
        nrrd(path, volume, SPACE + f"data file: {data}\n", encoding)
        head, _, voxels = path.read_bytes().partition(b"\n\n")
        path.write_bytes(head + b"\n")
        (tmp_path / data).write_bytes(voxels)
        found = files.read_ct(path)[0]
        assert np.array_equal(chest.values(found), volume)
        (tmp_path / data).write_bytes(voxels[: len(voxels) // 2])
        assert "is cut short" in message(path)
    path.write_bytes(head.replace(b"a.raw.gz", b"a%03d.raw 1 9 1"))
    assert "has its voxels in several files: save it as one" in message(path)


# --- MetaImage ----------------------------------------------------------------------------------


def meta(path: Path, volume: np.ndarray, **changes: str | None) -> Path:
    """Write a MetaImage, detached if its name ends in .mhd, with changed fields."""
    fields: dict[str, str | None] = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "0 0 0",
        "AnatomicalOrientation": "RAI",
        "ElementSpacing": "5 5 5",
        "DimSize": " ".join(map(str, volume.shape[::-1])),
        "ElementType": "MET_SHORT",
    }
    detached = path.suffix == ".mhd"
    last = {"ElementDataFile": f"{path.stem}.raw" if detached else "LOCAL"}
    data = volume.astype("<i2").tobytes()
    if changes.get("CompressedData") == "True":
        data = zlib.compress(data)
        changes = {"CompressedDataSize": str(len(data))} | changes
    head = "".join(
        f"{key} = {value}\n"
        for key, value in (fields | changes | last).items()
        if value is not None
    )
    path.write_bytes(head.encode() + (b"" if detached else data))
    if detached:
        path.with_suffix(".raw").write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", ["mha", "mhd"])
@pytest.mark.parametrize("packed", ["True", "False"])
def test_metaimage_is_whole_or_refused(tmp_path, volume, suffix, packed):
    path = meta(tmp_path / f"a.{suffix}", volume, CompressedData=packed)
    found, warnings = files.read_ct(path)
    assert np.array_equal(chest.values(found), volume)
    assert warnings == []
    data = path if suffix == "mha" else path.with_suffix(".raw")
    content = data.read_bytes()
    data.write_bytes(content[: len(content) * 2 // 3])
    assert "is cut short" in message(path)


def test_metaimage_with_damaged_voxels_beside_it(tmp_path, volume):
    path = meta(tmp_path / "a.mhd", volume, CompressedData="True")
    data = path.with_suffix(".raw")
    content = bytearray(data.read_bytes())
    for place in range(len(content) // 2, len(content) // 2 + 200):
        content[place] ^= 0x55
    data.write_bytes(bytes(content))
    assert "is cut short or damaged" in message(path)


@pytest.mark.parametrize("suffix", ["mha", "mhd"])
def test_metaimage_with_a_wrong_length_of_its_stream(tmp_path, volume, suffix):
    # the reader takes so many bytes, whatever comes of it
    path = meta(tmp_path / f"a.{suffix}", volume, CompressedData="True", CompressedDataSize="99")
    assert "is cut short or damaged" in message(path)
    path = meta(tmp_path / f"a.{suffix}", volume, CompressedData="True", CompressedDataSize="-1")
    assert "does not say how long its compressed voxels are" in message(path)
    path = meta(tmp_path / f"a.{suffix}", volume, CompressedData="True", CompressedDataSize=None)
    if suffix == "mha":
        assert "does not say how long its compressed voxels are" in message(path)
    else:
        assert np.array_equal(chest.values(files.read_ct(path)[0]), volume)


def test_metaimage_that_does_not_say_how_it_lies(tmp_path, volume):
    path = meta(tmp_path / "a.mha", volume, TransformMatrix=None)
    assert codes(path) == ["no-orientation"]
    path = meta(tmp_path / "b.mha", volume, TransformMatrix=None, Orientation="1 0 0 0 1 0 0 0 1")
    assert codes(path) == []


@pytest.mark.parametrize(
    ("matrix", "letters", "expected"),
    [
        ("-1 0 0 0 -1 0 0 0 1", "LPI", []),
        ("-1 0 0 0 -1 0 0 0 1", "RAI", ["orientation-contradiction"]),
        ("1 0 0 0 1 0 0 0 1", "LPS", []),
        ("1 0 0 0 1 0 0 0 1", "???", []),
        ("0 1 0 0 0 -1 -1 0 0", "ASL", []),
    ],
)
def test_metaimage_matrix_against_letters(tmp_path, volume, matrix, letters, expected):
    path = meta(tmp_path / "a.mha", volume, TransformMatrix=matrix, AnatomicalOrientation=letters)
    assert codes(path) == expected


@pytest.mark.parametrize("spacing", [None, "0 5 5", "nan 5 5"])
def test_metaimage_without_spacing(tmp_path, volume, spacing):
    assert "does not say how large its voxels are" in message(
        meta(tmp_path / "a.mha", volume, ElementSpacing=spacing)
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"NDims": "100"}, "tells of 100 axes and 3 sizes"),
        ({"NDims": "-1"}, "tells of -1 axes and 3 sizes"),
        ({"NDims": "3 3"}, "tells of 3 3 axes"),
        ({"NDims": "100", "DimSize": "1 " * 100}, "tells of 100 axes and 100 sizes"),
        ({"DimSize": "70 60 0"}, "tells of 70 x 60 x 0 voxels"),
        ({"DimSize": "9999 9999 9999"}, "more than any CT has"),
        ({"DimSize": "70 60 500"}, "is cut short: 10 % of its data"),
        ({"DimSize": "70 60 5"}, "holds more voxels than its header says"),
        ({"TransformMatrix": "1 0 0"}, "its header has '1 0 0' for TransformMatrix"),
        ({"TransformMatrix": "1 " * 500}, "for TransformMatrix"),
        ({"Offset": "a b c"}, "its header has 'a b c' for Offset"),
        ({"ElementType": "MET_OTHER"}, "has voxels of type 'MET_OTHER'"),
        ({"ElementNumberOfChannels": "3"}, "has 3 values a voxel, like a colour picture"),
        ({"HeaderSize": "5000000000000"}, "says to skip a part of its data"),
        ({"Comment": "x" * 5000}, "is cut short, damaged, or not what its name says"),
        ({"DimSize ": "70 60 50"}, "is cut short, damaged, or not what its name says"),
    ],
)
def test_metaimage_headers_that_cannot_be(tmp_path, volume, changes, text):
    assert text in message(meta(tmp_path / "a.mha", volume, **changes))


def test_a_comment_that_is_no_utf8_does_not_matter(tmp_path, volume):
    path = meta(tmp_path / "a.mha", volume, Comment="Koln")
    path.write_bytes(path.read_bytes().replace(b"Koln", b"K\xf6ln"))
    assert np.array_equal(chest.values(files.read_ct(path)[0]), volume)


# --- files that are none, and files that claim much ---------------------------------------------


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha", "a"])
def test_pipes_and_sockets_do_not_hang(tmp_path, name):
    os.mkfifo(tmp_path / name)
    assert "is no file but a pipe, a socket, a device" in message(tmp_path / name)
    (tmp_path / name).unlink()
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(tmp_path / name))
        assert "is no file but a pipe, a socket" in message(tmp_path / name)


def test_voxels_in_a_pipe_beside_the_header(tmp_path, volume):
    path = meta(tmp_path / "a.mhd", volume)
    path.with_suffix(".raw").unlink()
    os.mkfifo(path.with_suffix(".raw"))
    with pytest.raises(InputError, match=r"a\.raw is no file but a pipe"):
        files.read_ct(path)


def test_names_that_are_no_utf8(tmp_path, ct):
    folder = os.fsencode(tmp_path)
    nifti(tmp_path / "a.nii", ct)
    os.rename(tmp_path / "a.nii", folder + b"/\xe4.nii")  # noqa: PTH104
    with pytest.raises(InputError, match="has a name that is no UTF-8 text: rename it"):
        files.read_ct(Path(os.fsdecode(folder + b"/\xe4.nii")))


def test_names_that_are_too_long(tmp_path):
    with pytest.raises(InputError, match="give a shorter, direct path"):
        files.read_ct(tmp_path / ("a" * 300 + ".nii"))
    with pytest.raises(InputError, match="give a shorter, direct path"):
        files.read_ct(tmp_path.joinpath(*["b" * 200] * 40) / "a.nii")


def test_small_files_that_claim_much(tmp_path):
    empty = np.zeros((0, 0, 0))
    sizes = "dimension: 3\nsizes: 1200 1200 1200\n"
    path = nrrd(tmp_path / "a.nrrd", empty, SPACE, "gzip", sizes)
    assert "claims 3295 MB of voxels and has 0 kB" in message(path)
    path = nrrd(tmp_path / "a.nrrd", empty, SPACE, "gzip", sizes.replace("1200", "400"))
    assert "is cut short: 0 % of its data are there" in message(path)


def test_streams_that_go_on_and_on_are_not_unpacked_to_their_end(tmp_path, ct, monkeypatch):
    path = nifti(tmp_path / "a.nii.gz", ct)
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content + bytes(200 << 20), 1))
    unpacked = []
    unpack = gate._unpack

    def counted(*arguments):
        for block in unpack(*arguments):
            unpacked.append(len(block))
            yield block

    monkeypatch.setattr(gate, "_unpack", counted)
    assert "holds more voxels than its header says" in message(path)
    assert sum(unpacked) < 20 << 20


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.mhd"])
def test_bytes_put_between_the_voxels(tmp_path, ct, volume, name):
    path = tmp_path / name
    if "nii" in name:
        nifti(path, ct)
    else:
        nrrd(path, volume, SPACE) if "nrrd" in name else meta(path, volume)
    data = path.with_suffix(".raw") if name == "a.mhd" else path
    content = data.read_bytes()
    packed = name.endswith("gz")
    content = gzip.decompress(content) if packed else content
    for inside, text in ((b"\1", "holds more voxels than its header says"), (b"", None)):
        changed = content[:5000] + inside + content[5000:] + (b"" if inside else b"\n\0\0")
        data.write_bytes(gzip.compress(changed) if packed else changed)
        if text:
            assert text in message(path)
        else:
            assert np.array_equal(chest.values(files.read_ct(path)[0]), volume)


def test_label_maps_that_hold_next_to_nothing(tmp_path):
    sizes = "dimension: 3\nsizes: 1200 1200 1200\n"
    path = nrrd(tmp_path / "a.nrrd", np.zeros((0, 0, 0)), SPACE, "gzip", sizes)
    with pytest.raises(InputError, match="claims 3295 MB of voxels and has 0 kB"):
        files.read_labels(path)


def test_several_gzip_parts_in_one_file(tmp_path, ct):
    content = gzip.decompress(nifti(tmp_path / "a.nii.gz", ct).read_bytes())
    parts = (content[:1000], content[1000:50_000], content[50_000:])
    (tmp_path / "a.nii.gz").write_bytes(b"".join(map(gzip.compress, parts)))
    assert same(files.read_ct(tmp_path / "a.nii.gz")[0], ct)


def test_memory_that_does_not_suffice_is_no_damage(tmp_path, ct, monkeypatch):
    path = nifti(tmp_path / "a.nii.gz", ct)

    def fail(self):
        raise MemoryError

    monkeypatch.setattr(sitk.ImageFileReader, "Execute", fail)
    assert "does not fit into memory: crop it to the chest" in message(path)


def test_no_reader_that_was_not_asked_for(tmp_path):
    sitk.WriteImage(sitk.Image(20, 20, 20, sitk.sitkInt16), str(tmp_path / "a.vtk"))
    assert "is of an unknown kind: give a NIfTI" in message(tmp_path / "a.vtk")


# --- label maps ---------------------------------------------------------------------------------


def test_labels_without_a_place_are_read_only_on_demand(tmp_path, ct):
    lobes = chest.lobes(ct)
    path = nifti(tmp_path / "a.nii.gz", lobes, NO_CODES)
    with pytest.raises(InputError, match="does not say how its axes lie in the body: save it"):
        files.read_labels(path)
    found = files.read_labels(path, unplaced=True)
    assert [note.code for note in notes(found)] == [UNPLACED]
    assert np.array_equal(chest.values(found), chest.values(lobes))


def test_labels_that_went_through_floats(tmp_path, ct):
    lobes = chest.lobes(ct)
    for factor in (1.000001, 0.99999):
        image = sitk.Cast(lobes, sitk.sitkFloat32) * factor
        sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
        assert same(files.read_labels(tmp_path / "a.nrrd"), lobes)
    sitk.WriteImage(sitk.Cast(lobes, sitk.sitkFloat32) * 1.01, str(tmp_path / "a.nrrd"))
    with pytest.raises(InputError, match="it has fractions, like a probability map"):
        files.read_labels(tmp_path / "a.nrrd")


def test_letters_of_axes():
    assert claim.letters(np.eye(3)) == "LPS"
    assert claim.letters(np.diag([-1.0, -1.0, 1.0])) == "RAS"
    assert claim.letters(np.eye(3)[:, [2, 0, 1]]) == "SLP"


@pytest.mark.parametrize(
    ("name", "line"), [("a.nrrd", rb"(?m)^space origin:.*\n"), ("a.mha", rb"(?m)^Offset =.*\n")]
)
def test_a_file_that_does_not_say_where_it_lies(tmp_path, ct, name, line):
    path = tmp_path / name
    sitk.WriteImage(ct, str(path))
    content = path.read_bytes()
    path.write_bytes(re.sub(line, b"", content, count=1))
    assert len(path.read_bytes()) < len(content)
    (warning,) = files.read_ct(path)[1]
    assert warning.code == "no-origin"
    assert "masks that other programs made may not fit" in warning.message


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_places_that_no_scanner_sees_are_refused(tmp_path, ct, name):
    path = tmp_path / name
    sitk.WriteImage(ct, str(path))
    content = path.read_bytes()
    line = rb"space origin: (1e30,0,0)" if name.endswith("nrrd") else rb"Offset = 1e30 0 0"
    path.write_bytes(re.sub(rb"(?m)^(space origin:|Offset =).*$", line, content, count=1))
    assert "farther away than any scanner can see" in message(path)
    with pytest.raises(InputError, match="farther away"):
        files.read_labels(path)


def test_zeros_that_no_voxel_takes_are_told(tmp_path, ct):
    path = tmp_path / "a.nii"
    sitk.WriteImage(ct, str(path))
    path.write_bytes(path.read_bytes() + b"\0" * 64)
    (warning,) = files.read_ct(path)[1]
    assert warning.code == "surplus-bytes"
    assert "holds 64 bytes more than its header tells of" in warning.message
    sitk.WriteImage(chest.lobes(ct), str(path))
    path.write_bytes(path.read_bytes() + b"\0" * 7)
    (note,) = notes(files.read_labels(path))
    assert note.message == (
        "The label map holds 7 bytes more than its header tells of: if they do not stand at the "
        "end, voxels are shifted."
    )
