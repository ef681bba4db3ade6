"""DICOM segmentations (SEG) as label maps: binary, fractional and label map objects.

A SEG holds frames, each with its place in the body and mostly of one segment; empty ones are left
out. They are put on the regular grid that their positions span. Segments keep names and codes as a
Slicer segmentation has them, so that both are understood by the same rules.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.errors import InputError, ScanWarning
from DRAMLesionLib.reading.dicom_header import (
    holds_pixels,
    is_dicom,
    open_dataset,
    pixel_source,
    quiet_parser,
    shown,
)

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"

_STRUCTURES = "1.2.840.10008.5.1.4.1.1.481.3"
_SIDES = ("7771000", "24028007", "G-A101", "G-A100")
"""Left and right, in SNOMED CT and SNOMED RT."""

_MAX_VOXELS = 1 << 31
_MAX_INFLATED = 1 << 30
_MAX_WHOLE = 1 << 28
_OFF_GRID = 0.2
"""Share of the slice distance by which a frame may be off the grid."""

_OFF_AXIS = 0.5
"""Voxels by which frames may be shifted against each other within their plane."""

_CONTEXTS = (
    "Segmentation category and type - DICOM master list",
    "Anatomic codes - DICOM master list",
)
_TAG_SOP_CLASS = 0x00080016


@dataclass(frozen=True)
class _Grid:
    """Where frames lie.

    Attributes:
        axes: 3 x 3, columns are the directions of row, column and normal.
        origin: Centre of the first voxel, LPS mm.
        spacing: Millimetres between columns, rows and slices.
        planes: For each frame, its slice.
        count: Number of slices.
    """

    axes: np.ndarray
    origin: np.ndarray
    spacing: tuple[float, float, float]
    planes: np.ndarray
    count: int


def segmentation_in(folder: Path) -> Path | None:
    """Return the one DICOM SEG of a folder, None if it has none.

    Raises:
        InputError: If it holds several.
    """
    found = [path for path in sorted(folder.iterdir()) if path.is_file() and _is_seg(path)]
    if len(found) > 1:
        message = f"{folder} holds {len(found)} DICOM segmentations: give the path of one of them"
        raise InputError(message)
    return found[0] if found else None


def read_segmentation(path: Path) -> tuple[sitk.Image, list[ScanWarning]]:
    """Read a DICOM SEG.

    Args:
        path: The file.

    Returns:
        Image of unsigned integers with the fields of a Slicer segmentation (``Segment0_Name``,
        ``Segment0_LabelValue``, ``Segment0_Tags`` and so on): 0 outside, else the number of a
        segment. Where segments overlap, vectors with one value a layer. Fractional segments are cut
        at one half. And what a reader of the report has to know.

    Raises:
        InputError: If it is no SEG, is damaged, or its frames make no volume.
    """
    try:
        with quiet_parser():
            return _read(path)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # values are parsed when they are asked for, and fail in many ways
        message = f"{path} is damaged: copy or export it again"
        raise InputError(message) from error


def _read(path: Path) -> tuple[sitk.Image, list[ScanWarning]]:
    dataset, syntax = _open(path)
    kind = str(dataset.get("SegmentationType", "")).upper()
    if kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
        message = f"{path} is a DICOM segmentation of an unknown type ({shown(kind[:20])})"
        raise InputError(message)
    try:
        segments = {
            number: item
            for item in dataset.SegmentSequence
            if (number := int(item.SegmentNumber)) > 0
        }
        groups = _groups(dataset)
        owners = [] if kind == "LABELMAP" else [_owner(group) for group in groups]
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        message = f"{path} is damaged: it does not say what its frames show; export it again"
        raise InputError(message) from error
    if unknown := sorted(set(owners) - set(segments)):
        message = (
            f"{path} is damaged: it has frames of segment {unknown[0]}, which it does not "
            "describe; export it again"
        )
        raise InputError(message)
    grid = _grid(path, dataset, groups)
    if kind == "LABELMAP":
        _refuse_twice(path, grid.planes.tolist())
        order = list(range(len(groups)))
        layers = _label_map(dataset, grid, _frames(path, syntax, order))
        places = dict.fromkeys(segments, 0)
    else:
        _refuse_twice(path, list(zip(owners, grid.planes.tolist(), strict=True)))
        order = sorted(range(len(groups)), key=owners.__getitem__)
        layers, places = _layers(dataset, grid, owners, _frames(path, syntax, order))
    image = sitk.GetImageFromArray(
        layers[0] if len(layers) == 1 else np.stack(layers, axis=-1), isVector=len(layers) > 1
    )
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin.tolist())
    image.SetDirection(grid.axes.ravel().tolist())
    for index, (number, item) in enumerate(segments.items()):
        image.SetMetaData(f"Segment{index}_LabelValue", str(number))
        image.SetMetaData(f"Segment{index}_Layer", str(places.get(number, 0)))
        image.SetMetaData(f"Segment{index}_Name", shown(str(item.get("SegmentLabel", ""))))
        image.SetMetaData(f"Segment{index}_Tags", _entry(item))
    if kind != "FRACTIONAL":
        return image, []
    text = "The lobes' segmentation has fractions: what is at least half in a segment counts to it."
    return image, [ScanWarning("fractional-segments", text)]


def _is_seg(path: Path) -> bool:
    try:
        if not is_dicom(path):
            return False
        with path.open("rb") as file:
            dataset, *_ = open_dataset(file, _MAX_INFLATED, [_TAG_SOP_CLASS])
        with quiet_parser():
            return str(dataset.get("SOPClassUID", "")) in (SEGMENTATION, LABEL_MAP)
    except Exception:  # whatever a parser meets in damaged bytes: another file of the folder
        return False


def _open(path: Path) -> tuple[Dataset, str]:
    """Parse a file up to its pixels, and see that these are there."""
    damaged = f"{path} is cut short or damaged: copy or export it again"
    try:
        with path.open("rb") as file:
            large = path.stat().st_size > _MAX_WHOLE
            source = file if large else io.BytesIO(file.read())
            dataset, syntax, stream = open_dataset(source, _MAX_INFLATED)
            _refuse_others(path, dataset)
            frames = max(1, int(dataset.get("NumberOfFrames", 1) or 1))
            bits = dataset.Rows * dataset.Columns * frames * dataset.BitsAllocated
            there = holds_pixels(stream, syntax, bits)
    except InputError:
        raise
    except Exception as error:  # whatever a parser meets in damaged bytes
        raise InputError(damaged) from error
    if not there:
        raise InputError(damaged)
    return dataset, syntax


def _refuse_others(path: Path, dataset: Dataset) -> None:
    uid = dataset.get("SOPClassUID", "")
    if str(uid) in (SEGMENTATION, LABEL_MAP):
        return
    name = shown(str(getattr(uid, "name", uid))[:60]) or "of no class"
    message = f"{path} is no DICOM segmentation but another DICOM file ({name}): give a DICOM SEG"
    if str(uid) == _STRUCTURES:
        message += ", or convert the contours to a label map first"
    raise InputError(message)


def _groups(dataset: Dataset) -> list[list[Dataset]]:
    """Return for each frame the items that describe it: its own first, then what all share."""
    shared = list(dataset.get("SharedFunctionalGroupsSequence", []))
    frames = list(dataset.PerFrameFunctionalGroupsSequence)
    if len(frames) != int(dataset.get("NumberOfFrames", len(frames))):
        message = "the number of frames is contradictory"
        raise ValueError(message)
    return [[frame, *shared] for frame in frames]


def _group(items: list[Dataset], name: str) -> Dataset:
    return next(item[name].value[0] for item in items if item.get(name))


def _owner(items: list[Dataset]) -> int:
    try:
        return int(_group(items, "SegmentIdentificationSequence").ReferencedSegmentNumber)
    except StopIteration as error:
        message = "a frame belongs to no segment"
        raise ValueError(message) from error


def _grid(path: Path, dataset: Dataset, groups: list[list[Dataset]]) -> _Grid:
    """Find the regular grid of the frames.

    Raises:
        InputError: If a frame does not say where it lies, or they make no regular volume.
    """
    try:
        cosines = _numbers(groups, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
        positions = _numbers(groups, "PlanePositionSequence", "ImagePositionPatient", 3)
        pixels = _numbers(groups, "PixelMeasuresSequence", "PixelSpacing", 2)
        told = _told_distance(groups)
    except (StopIteration, AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        message = (
            f"{path} does not say where its frames lie in the body (position, orientation or pixel "
            "spacing is missing): export it again"
        )
        raise InputError(message) from error
    row, column = cosines[0, :3], cosines[0, 3:]
    skewed = max(abs(row @ row - 1), abs(column @ column - 1), abs(row @ column)) > 0.02
    if skewed or np.ptp(cosines, axis=0).max() > 0.01 or np.ptp(pixels, axis=0).max() > 1e-3:
        message = f"{path} mixes frames of different orientation or spacing: export it again"
        raise InputError(message)
    row = row / np.linalg.norm(row)
    column = column - (column @ row) * row
    column = column / np.linalg.norm(column)
    axes = np.stack([row, column, np.cross(row, column)], axis=1)
    offsets = positions @ axes
    offsets -= offsets[np.argmin(offsets[:, 2])]
    if np.abs(offsets[:, :2] / pixels[0, ::-1]).max() > _OFF_AXIS:
        message = (
            f"{path} has frames that are shifted against each other, as from a tilted gantry or in "
            "tiles: save the segmentation on a rectangular grid first"
        )
        raise InputError(message)
    step, planes = _steps(path, offsets[:, 2], told)
    count = int(planes.max()) + 1
    if count * int(dataset.Rows) * int(dataset.Columns) > _MAX_VOXELS:
        message = f"{path} has frames too far apart to make a volume: export it again"
        raise InputError(message)
    origin = positions[np.argmin(positions @ axes[:, 2])]
    return _Grid(axes, origin, (float(pixels[0, 1]), float(pixels[0, 0]), step), planes, count)


def _numbers(groups: list[list[Dataset]], sequence: str, name: str, count: int) -> np.ndarray:
    """Return (frames, count) finite numbers."""
    values = np.array([[float(v) for v in _group(items, sequence)[name].value] for items in groups])
    if values.shape != (len(groups), count) or not np.isfinite(values).all():
        message = f"{name} is no list of {count} numbers"
        raise ValueError(message)
    if name == "PixelSpacing" and values.min() <= 0:
        message = "the pixel spacing is not positive"
        raise ValueError(message)
    return values


def _told_distance(groups: list[list[Dataset]]) -> float | None:
    """Return what the file says about the distance of slices."""
    measures = _group(groups[0], "PixelMeasuresSequence")
    for name in ("SpacingBetweenSlices", "SliceThickness"):
        value = abs(float(measures.get(name, 0) or 0))
        if 0 < value < np.inf:
            return value
    return None


def _steps(path: Path, heights: np.ndarray, told: float | None) -> tuple[float, np.ndarray]:
    """Return the distance of slices, and the slice of each frame.

    Frames of empty slices are left out, so that gaps are multiples of the distance: of the one that
    the file tells if it fits, else of the smallest one, if that is the usual one.
    """
    levels, which = np.unique(np.round(heights, 3), return_inverse=True)
    if len(levels) == 1:
        return told or 1.0, np.zeros(len(heights), dtype=int)
    gaps = np.diff(levels)
    for guess in (told, float(gaps.min())):
        if not guess:
            continue
        numbers = np.concatenate([[0], np.cumsum(np.rint(gaps / guess))]).astype(int)
        step = float(levels[-1] / max(1, numbers[-1]))
        fits = np.abs(levels - numbers * step).max() <= _OFF_GRID * step
        usual = guess == told or np.median(np.diff(numbers)) == 1
        if fits and usual and (np.diff(numbers) > 0).all():
            return step, numbers[which]
    message = f"{path} has unevenly spaced frames: save the segmentation on a regular grid first"
    raise InputError(message)


def _frames(path: Path, syntax: str, order: list[int]) -> Iterator[np.ndarray]:
    """Decode frames one by one.

    Raises:
        InputError: If they cannot be decoded.
    """
    from pydicom.pixels import iter_pixels

    try:
        yield from iter_pixels(pixel_source(path, syntax), indices=order, raw=True)
    except Exception as error:  # decoders fail in many ways on damaged bytes
        message = (
            f"{path} is damaged, or compressed in a way that cannot be read: export it without "
            "compression"
        )
        raise InputError(message) from error


def _label_map(dataset: Dataset, grid: _Grid, frames: Iterator[np.ndarray]) -> list[np.ndarray]:
    kind = np.uint8 if dataset.BitsAllocated <= 8 else np.uint16
    volume = np.zeros((grid.count, dataset.Rows, dataset.Columns), dtype=kind)
    for plane, frame in zip(grid.planes, frames, strict=True):
        volume[plane] = frame
    return [volume]


def _layers(
    dataset: Dataset, grid: _Grid, owners: list[int], frames: Iterator[np.ndarray]
) -> tuple[list[np.ndarray], dict[int, int]]:
    """Put segments into as few layers as their overlaps allow.

    Args:
        dataset: The header.
        grid: Where frames lie.
        owners: The segment of each frame.
        frames: Decoded, sorted by segment.

    Returns:
        (k, j, i) segment numbers of each layer, and the layer of each segment.
    """
    shape = (grid.count, int(dataset.Rows), int(dataset.Columns))
    kind = np.uint8 if max(owners) < 256 else np.uint16
    half = 1.0
    if dataset.SegmentationType == "FRACTIONAL":
        half = float(dataset.get("MaximumFractionalValue", 255) or 255) / 2
    layers = [np.zeros(shape, dtype=kind)]
    places: dict[int, int] = {}
    for number in sorted(set(owners)):
        planes = [int(grid.planes[f]) for f, owner in enumerate(owners) if owner == number]
        mask = np.stack([next(frames) >= half for _ in planes])
        place = 0
        while layers[place][planes][mask].any():
            place += 1
            if place == len(layers):
                layers.append(np.zeros(shape, dtype=kind))
        for plane, where in zip(planes, mask, strict=True):
            layers[place][plane][where] = number
        places[number] = place
    return layers, places


def _refuse_twice(path: Path, places: list[Any]) -> None:
    if len(set(places)) < len(places):
        message = (
            f"{path} has two frames of one segment at the same place, like a segmentation over "
            "time: give one of a single time"
        )
        raise InputError(message)


def _entry(item: Dataset) -> str:
    """Return what a segment is, as Slicer serialises it in its terminology tag."""
    category = _code(item, "SegmentedPropertyCategoryCodeSequence")
    kind = _code(item, "SegmentedPropertyTypeCodeSequence")
    modifier = _modifier(item, "SegmentedPropertyType", "SegmentedPropertyTypeModifierCode")
    if not modifier:
        modifier = _modifier(item, "AnatomicRegion", "AnatomicRegionModifier")
    fields = (_CONTEXTS[0], category, kind, modifier or "^^", _CONTEXTS[1], "^^", "^^")
    return f"TerminologyEntry:{'~'.join(fields)}|"


def _modifier(item: Dataset, concept: str, name: str) -> str:
    """Return the modifier of a concept, the side if there are several."""
    for sequence in (f"{concept}CodeSequence", f"{concept}Sequence"):
        for parent in item.get(sequence, []):
            codes = [_serialised(code) for code in parent.get(f"{name}Sequence", [])]
            sides = [code for code in codes if code.split("^")[1] in _SIDES]
            if codes:
                return (sides or codes)[0]
    return ""


def _code(item: Dataset, sequence: str) -> str:
    found = list(item.get(sequence, []))
    return _serialised(found[0]) if found else "^^"


def _serialised(code: Dataset) -> str:
    value = code.get("CodeValue") or code.get("LongCodeValue") or ""
    parts = (code.get("CodingSchemeDesignator", ""), value, code.get("CodeMeaning", ""))
    return "^".join("".join(c for c in shown(str(p)) if c not in "^~|") for p in parts)
