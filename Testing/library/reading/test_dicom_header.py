"""Headers of DICOM files that claim too much, say too little, or are no text."""

from __future__ import annotations

import os
import socket
import struct
import tracemalloc
import zlib

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.reading import dicom_header, files
from Testing.library import simple_chest as chest
from Testing.library.reading.dicom_edits import edit, image_paths, replace
from Testing.library.simple_chest import message, same


def deflate(folder) -> None:
    for path in image_paths(folder):
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        pydicom.dcmwrite(path, dataset, enforce_file_format=True)


@pytest.mark.parametrize("shown", ["MONOCHROME2", "MONOCHROME1"])
def test_deflated_syntax(tmp_path, ct, volume, shown):
    chest.write_series(tmp_path, volume, PhotometricInterpretation=shown)
    deflate(tmp_path)
    assert same(files.read_ct(tmp_path)[0], ct)
    cut = image_paths(tmp_path)[-1]
    cut.write_bytes(cut.read_bytes()[:-40])
    assert f"1 DICOM image(s) are cut short or damaged ({cut.name})" in message(tmp_path)


def test_big_endian_syntax(tmp_path, ct, volume):
    chest.write_series(tmp_path, volume)
    for path in image_paths(tmp_path):
        dataset = pydicom.dcmread(path)
        dataset.PixelData = dataset.pixel_array.astype(">u2").tobytes()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=False)
    assert same(files.read_ct(tmp_path)[0], ct)


def test_deflated_file_that_unpacks_without_end(tmp_path, volume, monkeypatch):
    chest.write_series(tmp_path, volume[:5])
    deflate(tmp_path)
    path = image_paths(tmp_path)[2]
    content = path.read_bytes()
    start = 132 + 12 + struct.unpack_from("<I", content, 140)[0]
    unpacked = zlib.decompress(content[start:], -zlib.MAX_WBITS) + bytes(20_000_000)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    path.write_bytes(content[:start] + packer.compress(unpacked) + packer.flush())
    monkeypatch.setattr(dicom_header, "_MAX_INFLATED", 1_000_000)
    assert f"1 DICOM image(s) are cut short or damaged ({path.name})" in message(tmp_path)


@pytest.mark.parametrize("sides", [(60000, 60000), (30000, 1), (1, 65535)])
def test_a_small_file_that_claims_much(tmp_path, volume, sides):
    chest.write_series(tmp_path, volume[:20])
    one = image_paths(tmp_path)[4]

    def claim(ds):
        ds.Rows, ds.Columns = sides
        ds.PixelData = bytes(100)

    edit([one], claim)
    tracemalloc.start()
    try:
        text = message(tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert f"1 DICOM image(s) are cut short or damaged ({one.name})" in text
    assert peak < 20e6


@pytest.mark.parametrize("samples", ["RGB", "YBR_FULL", "YBR_FULL_422", "PALETTE COLOR"])
def test_colour_image_in_a_series(tmp_path, ct, volume, samples):
    uid = chest.write_series(tmp_path, volume)
    colour = {"SamplesPerPixel": 1 if samples == "PALETTE COLOR" else 3}
    chest.write_series(
        tmp_path, volume[:1].repeat(3, axis=2), uid=uid, prefix="page",
        PhotometricInterpretation=samples, **colour,
    )  # fmt: skip
    page = next(tmp_path.glob("page*"))
    edit([page], lambda ds: setattr(ds, "Columns", volume.shape[2]))
    found, warnings = files.read_ct(tmp_path)
    assert same(found, ct)
    assert [w.code for w in warnings] == ["images-left-out"]


def test_colour_image_in_the_place_of_a_slice(tmp_path, volume):
    chest.write_series(tmp_path, volume)
    paths = image_paths(tmp_path)

    def paint(ds):
        grey = (ds.pixel_array // 16).astype(np.uint8)
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
        ds.PixelData = grey[..., None].repeat(3, axis=2).tobytes()

    edit(paths[25:26], paint)
    text = message(tmp_path)
    assert f"1 slice(s) are missing, the first after {paths[24].name}" in text
    assert text.endswith("(1 of its images are of another kind, such as colour or localiser)")


def test_only_colour_images(tmp_path, volume):
    chest.write_series(tmp_path, volume[:4].repeat(3, axis=2), SamplesPerPixel=3,
                       PhotometricInterpretation="YBR_FULL")  # fmt: skip
    edit(image_paths(tmp_path), lambda ds: setattr(ds, "Columns", volume.shape[2]))
    assert "holds no usable CT series, only" in message(tmp_path)
    assert "projections or pictures" in message(tmp_path)


def test_bytes_that_are_no_text(tmp_path, ct, volume):
    uid = chest.write_series(tmp_path, volume, SeriesDescription="chest XXXX")
    other = chest.write_series(tmp_path, volume, prefix="other", SeriesDescription="chest XXXX")
    replace(image_paths(tmp_path), b"XXXX", b"\xff\xfe\x1b\n")
    replace(sorted(tmp_path.glob("other*")), other.encode()[-6:], b"\xff\xfe\x80\x81\xc3\x28")
    assert same(files.read_ct(tmp_path, uid)[0], ct)
    text = message(tmp_path)
    assert "holds 2 usable CT series" in text
    assert text.isprintable()
    # a damaged file makes the bytes of all identifiers count
    path = next(tmp_path.glob("other*"))
    path.write_bytes(path.read_bytes()[:-50])
    assert "cut short or damaged" in message(tmp_path, series_uid=uid)


@pytest.mark.parametrize("field", ["ImagePositionPatient", "ImageOrientationPatient"])
def test_images_that_do_not_say_where_they_lie(tmp_path, volume, field):
    chest.write_series(tmp_path, volume)
    last = image_paths(tmp_path)[-1:]
    edit(last, lambda ds: delattr(ds, field))
    text = message(tmp_path)
    assert f"1 image(s) of the CT series do not say where they lie ({last[0].name})" in text
    edit(image_paths(tmp_path)[:-1], lambda ds: delattr(ds, field))
    text = message(tmp_path)
    assert "images without a position" in text
    assert "without positions (ImagePositionPatient, ImageOrientationPatient) slices cannot" in text


@pytest.mark.parametrize("spacing", ["5.0\\0.0", "0", "-5\\-5", "5.0", "5\\nan", "1e999\\5", ""])
@pytest.mark.parametrize("number", [1, 50])
def test_no_usable_pixel_spacing(tmp_path, volume, spacing, number):
    chest.write_series(tmp_path, volume)
    some = image_paths(tmp_path)[50 - number :]
    with pydicom.config.disable_value_validation():
        edit(some, lambda ds: setattr(ds, "PixelSpacing", spacing.split("\\")))
    text = message(tmp_path)
    assert f"{number} of 50 images have no usable pixel spacing" in text
    assert some[0].name in text


def test_pixel_spacing_missing_or_that_of_the_detector(tmp_path, volume):
    chest.write_series(tmp_path, volume, ImagerPixelSpacing=[5, 5])
    edit(image_paths(tmp_path), lambda ds: delattr(ds, "PixelSpacing"))
    text = message(tmp_path)
    assert "50 of 50 images have no usable pixel spacing (it is missing)" in text


def test_pixel_spacing_with_decimal_comma(tmp_path, volume):
    chest.write_series(tmp_path, volume)
    replace(image_paths(tmp_path), b"5.0\\5.0", b"5,0\\5,0")
    assert "no usable pixel spacing ('5,0\\5,0' is none)" in message(tmp_path)


def test_links_to_folders_are_followed_once(tmp_path, ct, volume):
    chest.write_series(tmp_path / "there", volume)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path / "there", target_is_directory=True)
    (tmp_path / "there" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "here" / "nowhere").symlink_to(tmp_path / "gone")
    found, warnings = files.read_ct(tmp_path / "here")
    assert same(found, ct)
    assert warnings == []


def test_pipes_and_sockets_are_passed_by(tmp_path, ct, volume):
    chest.write_series(tmp_path, volume)
    os.mkfifo(tmp_path / "pipe.dcm")
    listener = socket.socket(socket.AF_UNIX)
    before = os.getcwd()  # noqa: PTH109
    os.chdir(tmp_path)  # paths of sockets are short
    try:
        listener.bind("socket")
    finally:
        os.chdir(before)
    try:
        assert same(files.read_ct(tmp_path)[0], ct)
    finally:
        listener.close()


def test_long_paths(tmp_path, ct, volume):
    deep = tmp_path.joinpath(*["x" * 200] * 8)
    chest.write_series(deep, volume)
    assert same(files.read_ct(tmp_path)[0], ct)
    with pytest.raises(InputError, match="too long"):
        files.read_ct(tmp_path / ("y" * 300))


def test_names_that_are_no_utf8(tmp_path, ct, volume):
    chest.write_series(tmp_path, volume)
    os.mkdir(os.fsencode(tmp_path) + b"/\xff\xfe")  # noqa: PTH102
    with open(os.fsencode(tmp_path) + b"/\xff\xfe/notes\xff.txt", "wb") as file:  # noqa: PTH123
        file.write(b"nothing")
    assert same(files.read_ct(tmp_path)[0], ct)
    one = image_paths(tmp_path)[9]
    os.rename(one, os.fsencode(tmp_path) + b"/image\xff.dcm")  # noqa: PTH104
    text = message(tmp_path)
    assert "1 image(s) have a name or a folder that is no UTF-8 text (image?.dcm)" in text
    assert text.endswith("rename them")


def test_what_is_stored_names_no_file_and_no_series(tmp_path, volume):
    def stored() -> str:
        with pytest.raises(InputError) as caught:
            files.read_ct(tmp_path)
        return caught.value.stored

    first = chest.write_series(tmp_path, volume, SeriesDescription="Mrs Miller", prefix="miller-")
    chest.write_series(tmp_path, volume, SeriesDescription="Mrs Miller", prefix="miller-b")
    assert "2 usable CT series" in stored()
    for private in ("iller", first):
        assert private in message(tmp_path)
        assert private not in stored()
    for path in tmp_path.glob("miller-b*"):
        path.unlink()
    paths = image_paths(tmp_path)
    paths[5].rename(tmp_path / "aside")
    edit([tmp_path / "aside"], lambda ds: setattr(ds, "Modality", "OT"))
    assert "miller-" in message(tmp_path)
    assert "1 slice(s) are missing (10.00 mm" in stored()
    assert "iller" not in stored()
    edit(paths[6:8], lambda ds: delattr(ds, "PixelSpacing"))
    assert "2 of 49 images have no usable pixel spacing" in stored()
    assert "iller" not in stored()
    paths[6].write_bytes(paths[6].read_bytes()[:2000])
    assert "1 DICOM image(s) are cut short" in stored()
    assert "iller" not in stored()


@pytest.mark.parametrize("implicit", [False, True])
def test_claims_behind_the_pixels_are_bounded_by_the_file(tmp_path, ct, volume, implicit):
    chest.write_series(tmp_path, volume)
    path = sorted(tmp_path.iterdir())[20]
    if implicit:
        one = pydicom.dcmread(path)
        one.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        one.save_as(path, implicit_vr=True, little_endian=True)
    sound = path.read_bytes()
    # a trailing padding element, as some archives write it
    head = b"\xfc\xff\xfc\xff" + (b"" if implicit else b"OB\0\0")
    path.write_bytes(sound + head + (4).to_bytes(4, "little") + b"\0" * 4)
    assert same(files.read_ct(tmp_path)[0], ct)
    path.write_bytes(sound + head + (1_500_000_000).to_bytes(4, "little") + b"\1" * 40)
    assert "cut short or damaged" in message(tmp_path)


def test_pixels_are_no_more_than_rows_and_columns(tmp_path, ct, volume):
    chest.write_series(tmp_path / "padded", volume)
    for path in (tmp_path / "padded").iterdir():
        one = pydicom.dcmread(path)
        one.PixelData += b"\0\0\0\0"
        one.save_as(path)
    assert same(files.read_ct(tmp_path / "padded")[0], ct)
    chest.write_series(tmp_path / "narrower", volume)
    for path in (tmp_path / "narrower").iterdir():
        one = pydicom.dcmread(path)
        one.Columns -= 1
        one.save_as(path)
    assert "damaged" in message(tmp_path / "narrower")
