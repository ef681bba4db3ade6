"""Files: CTs and label maps read, images and reports written.

The only module of the library that knows paths and formats. Reading says in one sentence what is
wrong with a file; whether its content is a usable chest CT is for
:mod:`DRAMLesionLib.reading.checks`. What headers tell of a patient is dropped here.
"""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.errors import InputError, ScanWarning
from DRAMLesionLib.images.geometry import AIR_HU
from DRAMLesionLib.paths import existing, image_suffix
from DRAMLesionLib.reading import headers
from DRAMLesionLib.reading.dicom import DicomSeries, list_series, read_series
from DRAMLesionLib.reading.dicom_values import quiet
from DRAMLesionLib.reading.segments import flatten_layers, segment_names

__all__ = [
    "DicomSeries",
    "list_series",
    "read_ct",
    "read_labels",
]

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".pdf")
_FORMATS = "a NIfTI, NRRD or MetaImage file, or a folder with one DICOM series"
_INT16_MAX = 32767


def read_ct(
    path: Path | str, series_uid: str | None = None
) -> tuple[sitk.Image, list[ScanWarning]]:
    """Read a CT.

    Args:
        path: NIfTI, NRRD or MetaImage file, or a folder with a DICOM series (searched with its
            subfolders).
        series_uid: Which DICOM series, where a folder has several usable ones.

    Returns:
        The CT in HU on its own grid, int16 or float32, padding below -1024 set to -1024, without
        metadata; and what reading found. Not yet checked: see
        :func:`DRAMLesionLib.reading.checks.check_ct`.

    Raises:
        InputError: If it cannot be read, or its header rules it out.
    """
    path = existing(path)
    if path.is_dir():
        image, warnings = read_series(path, series_uid)
    else:
        image, warnings = _read_file(path, headers.check_geometry), []
    return _plain_hu(image), warnings


def read_labels(path: Path | str) -> sitk.Image:
    """Read a label map.

    Args:
        path: Any volume file with whole numbers; a Slicer ``.seg.nrrd``, also with overlapping
            segments in several layers (the later segment wins).

    Returns:
        3D image of unsigned integers. Names and codes of segments stay in its metadata, where
        :mod:`DRAMLesionLib.lobes.schemes` finds them.

    Raises:
        InputError: If it cannot be read or holds no labels.
    """
    path = existing(path)
    image = _read_label_file(path)
    for key in image.GetMetaDataKeys():
        if not key.startswith("Segment"):
            image.EraseMetaData(key)
    return image


def _read_file(path: Path, check: Callable[[headers.Header, str], object] | None) -> sitk.Image:
    """Read a volume file, its header checked before its voxels are read."""
    if path.suffix.lower() in _PICTURES:
        message = f"{path} is a picture, not a CT in Hounsfield units: give {_FORMATS}"
        raise InputError(message)
    with path.open("rb") as file:
        start = file.read(132)
    if start[128:] == b"DICM" or path.suffix.lower() in (".dcm", ".ima"):
        message = f"{path} is a single DICOM file: give the folder that holds the whole series"
        raise InputError(message)
    _refuse_cut_nifti(path)
    _refuse_damaged_stream(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with quiet():
            reader.ReadImageInformation()
            size = reader.GetSize()
            if len(size) > 3 and max(size[3:]) == 1:
                reader.SetExtractSize((*size[:3], *[0] * (len(size) - 3)))
            elif check is not None:
                check(reader, str(path))
            image = reader.Execute()
    except RuntimeError as error:
        raise InputError(_why_unreadable(path, str(error))) from error
    if check is not None:
        check(image, str(path))
    return image


def _why_unreadable(path: Path, reason: str) -> str:
    if "orthonormal" in reason:
        return (
            f"{path} has a sheared grid: its axes are not at right angles; resample it to a "
            "rectangular grid first"
        )
    if "allocate" in reason or "bad_alloc" in reason:
        return f"{path} does not fit into memory: crop it to the chest or use thicker slices"
    if "determine ImageIO" in reason and not image_suffix(path):
        return f"{path} is of an unknown kind: give {_FORMATS}"
    return f"{path} is cut short, damaged, or not what its name says: copy or convert it again"


def _refuse_cut_nifti(path: Path) -> None:
    """Refuse a NIfTI file with missing or damaged voxels, which ITK reads without a word.

    Raises:
        InputError: If bytes are missing, or the checksum of the compressed data is wrong.
    """
    compressed = path.name.lower().endswith(".gz")
    if not compressed and path.suffix.lower() != ".nii":
        return
    try:
        # a plain file need not be read to know its size
        length = _unpacked_length(path) if compressed else path.stat().st_size
        with gzip.open(path) if compressed else path.open("rb") as file:
            expected = _nifti_length(file.read(540))
    except (EOFError, OSError, zlib.error) as error:
        message = f"{path} is cut short or damaged: copy or convert it again"
        raise InputError(message) from error
    if expected is None:
        raise InputError(_why_unreadable(path, ""))
    if length < expected:
        message = (
            f"{path} is cut short: {100 * length / expected:.0f} % of its data are there; copy or "
            "convert it again"
        )
        raise InputError(message)


def _refuse_damaged_stream(path: Path) -> None:
    """Refuse a compressed NRRD or MetaImage file whose checksum is wrong: ITK does not look.

    Raises:
        InputError: If the compressed data are damaged or end too early.
    """
    with path.open("rb") as file:
        where = _compressed_part(file.read(1 << 20))
        if where is None:
            return
        start, window_bits = where
        file.seek(start)
        stream = zlib.decompressobj(window_bits)
        try:
            # small blocks: empty label maps unpack to a thousand times their size
            while not stream.eof and (block := file.read(1 << 16)):
                stream.decompress(block)
        except zlib.error as error:
            raise InputError(_why_unreadable(path, "")) from error
    if not stream.eof:
        raise InputError(_why_unreadable(path, ""))


def _compressed_part(head: bytes) -> tuple[int, int] | None:
    """Return offset and zlib window bits of the compressed voxels after a NRRD or MetaImage header.

    None if they are not compressed, or not in the same file.
    """
    if head.startswith(b"NRRD"):
        end = re.search(rb"\r?\n\r?\n", head)
        if end and re.search(rb"(?m)^encoding: *(gz|gzip)\s*$", head[: end.end()]):
            return end.end(), 16 + zlib.MAX_WBITS
        return None
    end = re.search(rb"ElementDataFile *= *LOCAL *\r?\n", head)
    if end and re.search(rb"(?m)^CompressedData *= *True", head[: end.end()]):
        return end.end(), zlib.MAX_WBITS
    return None


def _unpacked_length(path: Path) -> int:
    length = 0
    with gzip.open(path) as file:
        while block := file.read(1 << 22):
            length += len(block)
    return length


def _nifti_length(header: bytes) -> int | None:
    """Return how many bytes a NIfTI file must have at least; None if it is no NIfTI header."""
    for order in "<>":
        if header[:4] == struct.pack(f"{order}i", 348) and len(header) >= 348:
            dim = struct.unpack_from(f"{order}8h", header, 40)
            bits = struct.unpack_from(f"{order}h", header, 72)[0]
            offset = struct.unpack_from(f"{order}f", header, 108)[0]
        elif header[:4] == struct.pack(f"{order}i", 540) and len(header) >= 540:
            dim = struct.unpack_from(f"{order}8q", header, 16)
            bits = struct.unpack_from(f"{order}h", header, 14)[0]
            offset = struct.unpack_from(f"{order}q", header, 168)[0]
        else:
            continue
        voxels = int(np.prod([max(1, n) for n in dim[1 : dim[0] + 1]], dtype=np.int64))
        return int(offset) + voxels * bits // 8
    return None


def _plain_hu(image: sitk.Image) -> sitk.Image:
    """Return a CT as int16 or float32 without metadata and without padding below air."""
    values = sitk.GetArrayViewFromImage(image)
    whole = values.dtype.kind in "iub"
    low, high = float(values.min()), float(values.max())
    del values
    target = sitk.sitkInt16 if whole else sitk.sitkFloat32
    if np.isfinite(low) and np.isfinite(high) and (low < AIR_HU or (whole and high > _INT16_MAX)):
        image = sitk.Clamp(image, target, AIR_HU, float(_INT16_MAX) if whole else max(high, 0.0))
    elif image.GetPixelID() != target:
        image = sitk.Cast(image, target)
    for key in image.GetMetaDataKeys():
        image.EraseMetaData(key)
    return image


def _read_label_file(path: Path) -> sitk.Image:
    image = _read_file(path, None)
    if image.GetNumberOfComponentsPerPixel() > 1 and segment_names(image):
        image = flatten_layers(image)
    headers.check_volume(image, str(path))
    return _whole_numbers(image, path)


def _whole_numbers(image: sitk.Image, path: Path) -> sitk.Image:
    values = sitk.GetArrayViewFromImage(image)
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0 or high > 2**32 - 1:
        message = (
            f"{path} is no label map: its values go from {low:g} to {high:g}; give an image that "
            "has 0 outside and one whole number for each lobe"
        )
        raise InputError(message)
    fractions = values.dtype.kind == "f" and any((plane % 1).any() for plane in values)
    if fractions:
        message = f"{path} is no label map: it has fractions, like a probability map"
        raise InputError(message)
    target = sitk.sitkUInt8 if high < 256 else sitk.sitkUInt32
    if image.GetPixelID() == target:
        return image
    cast = sitk.Cast(image, target)
    for key in image.GetMetaDataKeys():
        cast.SetMetaData(key, image.GetMetaData(key))
    return cast
