"""CTs and label maps read from files.

Reading says in one sentence what is wrong with a file; whether its content is a usable chest CT is
for :mod:`DRAMLesionLib.reading.checks`. What headers tell of a patient is dropped here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.errors import InputError, ScanWarning
from DRAMLesionLib.images.geometry import AIR_HU
from DRAMLesionLib.paths import existing
from DRAMLesionLib.reading import gate, headers
from DRAMLesionLib.reading.claim import Claim, Doubt
from DRAMLesionLib.reading.dicom import DicomSeries, list_series, read_series
from DRAMLesionLib.reading.dicom_header import is_dicom
from DRAMLesionLib.reading.dicom_seg import read_segmentation
from DRAMLesionLib.reading.dicom_values import quiet
from DRAMLesionLib.reading.notes import UNPLACED, add_notes
from DRAMLesionLib.reading.segments import Rank, copy_segments, flatten_layers, segment_indices

__all__ = [
    "DicomSeries",
    "list_series",
    "read_ct",
    "read_labels",
]

Check: TypeAlias = Callable[[headers.Header, str], object]

_INT16_MAX = 32767

_ROUNDING = 1e-3
"""Labels that went through arithmetic in floats are off by less."""


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
        claim = gate.inspect(path)
        warnings = _judge_ct(path, claim.doubts)
        image = _read_file(path, claim, headers.check_geometry)
    return _plain_hu(image), warnings


def read_labels(
    path: Path | str, *, rank: Rank | None = None, unplaced: bool = False
) -> sitk.Image:
    """Read a label map.

    Args:
        path: Any volume file with whole numbers; a Slicer ``.seg.nrrd``, also with overlapping
            segments in several layers; a DICOM SEG.
        rank: Called with name and tags of a segment: of two that overlap, the one with the higher
            rank gets what they share, of the same rank the later one.
        unplaced: Whether to read labels, too, whose file does not say where they lie in the body,
            with the note :data:`DRAMLesionLib.reading.notes.UNPLACED`.

    Returns:
        3D image of unsigned integers. Names and codes of segments stay in its metadata, where
        :mod:`DRAMLesionLib.lobes.schemes` finds them, and so do
        :mod:`DRAMLesionLib.reading.notes`.

    Raises:
        InputError: If it cannot be read or holds no labels.
    """
    path = existing(path)
    if is_dicom(path):
        image, found = read_segmentation(path)
    else:
        claim = gate.inspect(path, labels=True)
        found = _judge_labels(path, claim.doubts, unplaced=unplaced)
        image = _read_file(path, claim, None)
    if image.GetNumberOfComponentsPerPixel() > 1 and segment_indices(image):
        image, more = flatten_layers(image, str(path), rank)
        found += more
    headers.check_volume(image, str(path))
    image = _whole_numbers(image, path)
    for key in image.GetMetaDataKeys():
        if not key.startswith("Segment") and key.isascii():
            image.EraseMetaData(key)
    add_notes(image, found)
    return image


def _read_file(path: Path, claim: Claim, check: Check | None) -> sitk.Image:
    """Read a volume file that has passed the gate, its grid checked before its voxels are read."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(claim.reader)
    try:
        with quiet():
            reader.ReadImageInformation()
            size = reader.GetSize()
            if len(size) > 3 and max(size[3:]) == 1:
                reader.SetExtractSize((*size[:3], *[0] * (len(size) - 3)))
            elif check is not None:
                check(reader, str(path))
            image = reader.Execute()
    except (RuntimeError, MemoryError) as error:
        raise InputError(_why_unreadable(path, str(error) or "allocate")) from error
    if image.GetNumberOfComponentsPerPixel() == 1 and "vector" in image.GetPixelIDTypeAsString():
        image = _without_list_axis(image)
    if check is not None:
        check(image, str(path))
    return image


def _without_list_axis(image: sitk.Image) -> sitk.Image:
    """Return vectors of one value as a scalar image, as a list axis of length 1 makes them."""
    scalar = sitk.VectorIndexSelectionCast(image, 0)
    copy_segments(image, scalar)
    return scalar


def _why_unreadable(path: Path, reason: str) -> str:
    if "orthonormal" in reason:
        return (
            f"{path} has a sheared grid: its axes are not at right angles; resample it to a "
            "rectangular grid first"
        )
    if "allocate" in reason or "bad_alloc" in reason:
        return f"{path} does not fit into memory: crop it to the chest or use thicker slices"
    return f"{path} is cut short, damaged, or not what its name says: copy or convert it again"


def _judge_ct(path: Path, doubts: Iterable[Doubt]) -> list[ScanWarning]:
    """Refuse a CT whose place is not known well enough, and warn about the rest."""
    warnings = []
    for doubt in doubts:
        if doubt.severe:
            message = f"{path} {doubt.text}: convert it again from DICOM"
            raise InputError(message)
        consequence = doubt.consequence or (
            "left and right, and the lobes with them, may be exchanged: compare with the images "
            "of the hospital"
            if doubt.unplaced
            else "one of the two was used; masks that other programs made may not fit"
        )
        warnings.append(ScanWarning(doubt.code, f"The CT {doubt.text}: {consequence}."))
    return warnings


def _judge_labels(path: Path, doubts: Iterable[Doubt], *, unplaced: bool) -> list[ScanWarning]:
    """Refuse labels whose place is not known, or return what is to be told about them."""
    warnings = []
    for doubt in doubts:
        if doubt.unplaced and not unplaced:
            message = f"{path} {doubt.text}: save it again on the grid of its CT"
            raise InputError(message)
        code = UNPLACED if doubt.unplaced else doubt.code
        consequence = f": {doubt.consequence}" if doubt.consequence else ""
        warnings.append(ScanWarning(code, f"The label map {doubt.text}{consequence}."))
    return warnings


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


def _whole_numbers(image: sitk.Image, path: Path) -> sitk.Image:
    values = sitk.GetArrayViewFromImage(image)
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)) or round(low) < 0 or high > 2**32 - 1:
        message = (
            f"{path} is no label map: its values go from {low:g} to {high:g}; give an image that "
            "has 0 outside and one whole number for each lobe"
        )
        raise InputError(message)
    rounded = False
    if values.dtype.kind == "f":
        off = max(float(np.abs(plane - np.rint(plane)).max()) for plane in values)
        if off > _ROUNDING:
            message = f"{path} is no label map: it has fractions, like a probability map"
            raise InputError(message)
        rounded = off > 0
    target = sitk.sitkUInt8 if round(high) < 256 else sitk.sitkUInt32
    if image.GetPixelID() == target:
        return image
    cast = sitk.Cast(sitk.Round(image) if rounded else image, target)
    copy_segments(image, cast)
    return cast
