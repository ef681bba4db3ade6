"""A CT as a DICOM series: attributes and files of one slice, some, or all of them."""

from __future__ import annotations

import io
from pathlib import Path

import pydicom
import SimpleITK as sitk
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian

from Testing.fuzz import chest
from Testing.fuzz.damage import Rng, change_bytes, pick, replace_file
from Testing.fuzz.kinds import Change, Kind
from Testing.fuzz.volumes import read_ct
from Testing.library.simple_chest import write_series

_WRONG: dict[str, tuple[object, ...]] = {
    "PixelSpacing": (None, b"0\\0", b"4,5\\4,5", b"nan\\nan", b"4.5", b"9\\9", b"-4.5\\4.5"),
    "ImagePositionPatient": (None, b"0\\0\\0", b"nan\\0\\0", b"1\\2", b"-80\\-60\\1e30", b"a\\b"),
    "ImageOrientationPatient": (
        None, b"0\\0\\0\\0\\0\\0", b"1\\0\\0", b"1\\0\\0\\1\\0\\0", b"nan\\0\\0\\0\\1\\0",
    ),
    "RescaleSlope": (None, b"0", b"1e-30", b"nan", b"-1", b"2", b"x"),
    "RescaleIntercept": (None, b"-1e38", b"nan", b"0", b"5000", b"x"),
    "Rows": (0, 1, 27, 29, 60000),
    "Columns": (0, 1, 37, 39, 60000),
    "BitsAllocated": (0, 1, 8, 12, 32, 64),
    "BitsStored": (0, 8, 17),
    "HighBit": (0, 7, 99),
    "PixelRepresentation": (1, 7),
    "SamplesPerPixel": (0, 3, 255),
    "PhotometricInterpretation": (None, b"MONOCHROME1", b"RGB", b"YBR_FULL", b"\xff\xfe"),
    "NumberOfFrames": (b"0", b"2", b"-1", b"99999999"),
    "SOPInstanceUID": (None, b"1.2.3", b"\xff"),
    "SeriesInstanceUID": (None, b"1.2.3.4"),
    "SOPClassUID": (None, b"1.2.840.10008.5.1.4.1.1.4", b"1.2.840.10008.5.1.4.1.1.7"),
    "Modality": (None, b"MR", b"\xff\xfe"),
    "ImageType": (None, b"ORIGINAL\\PRIMARY\\LOCALIZER", b"\xff"),
}  # fmt: skip
"""What no attribute of a CT slice may say without a word; None takes it away."""

_HARMLESS: dict[str, tuple[bytes, ...]] = {
    "PatientName": (b"\xff\xfe\xfd", b"=" * 70, b""),
    "SeriesDescription": (b"\xff\xfe", b"x" * 5000, b"\x1b$B"),
    "InstanceNumber": (b"1", b"x", b"-99999999999"),
    "SpecificCharacterSet": (b"ISO_IR 192", b"banana"),
    "AcquisitionNumber": (b"2",),
}

_SYNTAXES = (
    b"1.2.840.10008.1.2",
    b"1.2.840.10008.1.2.2",
    b"1.2.840.10008.1.2.1.99",
    b"1.2.840.10008.1.2.4.70",
    b"1.2.3",
    b"\xff",
)


def _write(folder: Path) -> None:
    image = chest.ct()
    write_series(
        folder / "series",
        sitk.GetArrayFromImage(image),
        spacing=image.GetSpacing(),
        origin=image.GetOrigin(),
        uid="1.2.826.0.1.3680043.8.498.1",
    )
    # random in pydicom: the same series each time
    for number, path in enumerate(sorted((folder / "series").iterdir())):
        slice_ = pydicom.dcmread(path)
        slice_.SOPInstanceUID = f"1.2.826.0.1.3680043.8.498.2.{number}"
        slice_.file_meta.MediaStorageSOPInstanceUID = slice_.SOPInstanceUID
        slice_.save_as(path)


def _change(folder: Path, rng: Rng) -> Change:
    paths = sorted((folder / "series").iterdir())
    how = pick(rng, ("attribute", "attribute", "attribute", "bytes", "bytes", "file", "harmless"))
    if how == "file":
        return _change_files(paths, rng)
    if how == "bytes":
        return _change_bytes(pick(rng, paths), rng)
    values = _WRONG if how == "attribute" else _HARMLESS
    name = pick(rng, list(values))
    value = pick(rng, values[name])
    some = pick(rng, (1, 3, len(paths)))
    for path in _chosen(paths, some, rng):
        _set(path, name, value)
    # what all slices say alike is believed where it can be true
    alike = some == len(paths) and (name, value) in _SOUND_TOGETHER
    return Change(f"{name} = {value!r} in {some}", how == "attribute" and not alike)


_SOUND_TOGETHER = {("PixelSpacing", b"9\\9"), ("SeriesInstanceUID", b"1.2.3.4")}


def _chosen(paths: list[Path], count: int, rng: Rng) -> list[Path]:
    return [paths[int(n)] for n in rng.choice(len(paths), count, replace=False)]


def _set(path: Path, name: str, value: object) -> None:
    dataset = _dataset(path.read_bytes())
    tag = Tag(name)
    if value is None:
        if tag in dataset:
            del dataset[tag]
    elif isinstance(value, int):
        setattr(dataset, name, value)
    else:
        vr = pydicom.datadict.dictionary_VR(tag)
        raw = value if len(value) % 2 == 0 else value + b" "
        dataset[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(raw), raw, 0, False, True)
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=False)
    path.write_bytes(stream.getvalue())


def _dataset(data: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(data))


def _change_bytes(path: Path, rng: Rng) -> Change:
    data = path.read_bytes()
    if rng.random() < 0.2:
        syntax = ExplicitVRLittleEndian.encode()
        other = pick(rng, _SYNTAXES)[: len(syntax)].ljust(len(syntax), b"\0")
        path.write_bytes(data.replace(syntax, other, 1))
        return Change(f"transfer syntax {other!r}", guarded=True)
    voxels = len(data) - 2 * chest.SIZE[0] * chest.SIZE[1]
    changed, change = change_bytes(data, rng, voxels, checked=False)
    path.write_bytes(changed)
    # one slice with other voxels is another sound slice; a shorter one is none
    return Change(f"{change.what} of {path.name}", change.guarded)


def _change_files(paths: list[Path], rng: Rng) -> Change:
    how = pick(rng, ("remove", "copy", "other", "replace", "beside"))
    inner = int(rng.integers(2, len(paths) - 2))
    by_place = sorted(paths, key=lambda path: path.stem.rpartition("-")[2])
    path = by_place[inner]
    if how == "remove":
        path.unlink()
        return Change("a slice inside missing", guarded=True)
    if how == "replace":
        return replace_file(path, rng)
    if how == "beside":
        path.with_name("notes.bin").write_bytes(rng.bytes(3000))
        return Change("noise beside the slices", guarded=True)
    if how == "copy":
        path.with_name("copy.dcm").write_bytes(path.read_bytes())
        return Change("a slice twice", guarded=True)
    # another slice's voxels at this place: the chest of another scan
    other = _dataset(by_place[(inner + 9) % len(by_place)].read_bytes())
    here = _dataset(path.read_bytes())
    other.ImagePositionPatient = here.ImagePositionPatient
    other.save_as(path.with_name("second.dcm"))
    return Change("two different slices at one place", guarded=True)


KINDS = (Kind("ct-dicom", _write, _change, lambda folder: read_ct(folder / "series")),)
