"""A stack of CT slices: put in order, checked, read, and straightened to a volume in HU.

A stack is only right if its slices are: none missing, none twice, evenly spaced, along one line.
All of that is read from positions and orientations in the headers, never from file names or
instance numbers. Slices of a tilted gantry lie along a line that is not at right angles to them;
they are shifted to a rectangular grid.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.errors import InputError, ScanWarning
from DRAMLesionLib.images.geometry import AIR_HU, IDENTITY
from DRAMLesionLib.reading.dicom_header import Slice, shown
from DRAMLesionLib.reading.dicom_values import check_equal_values, check_rescale, read_plane

MAX_TILT_DEGREES = 35.0
MIN_TILT_MM = 1.0
"""A shift over the whole stack smaller than this is how positions are rounded, not a tilt."""

_TELLING = {
    "acquisition": "acquisitions",
    "acquisition_uid": "acquisitions",
    "kernel": "kernels",
    "thickness": "slice thicknesses",
    "image_type": "image types",
    "voltage": "tube voltages",
    "diameter": "reconstruction diameters",
    "contrast": "contrast agents",
    "description": "descriptions",
    "series_number": "series numbers",
    "frame_of_reference": "frames of reference",
    "study": "studies",
    "patient": "patients",
}
"""Header fields in which one scan or reconstruction differs from another, and what to call them."""

_SHOWN = ("acquisition", "kernel", "thickness", "voltage", "diameter")
"""Those whose values say nothing about a person."""

_PAUSES = {"acquired_at": 2.0, "acquired": 2.0, "content_time": 10.0}
"""Times of a header, and the pause in seconds that parts one scan from the next."""

_MIN_ALTERNATIONS = 3
"""Blocks of slices that follow each other do not alternate; where they meet, they may overlap."""


@dataclass(frozen=True)
class _Stack:
    """Slices in order, and where they lie.

    Attributes:
        slices: From first to last along the normal.
        axes: 3 x 3, columns are the directions of row, column and normal.
        offsets: (n, 3): position of each slice relative to the first, along ``axes``, in mm.
    """

    slices: tuple[Slice, ...]
    axes: np.ndarray
    offsets: np.ndarray

    @property
    def slope(self) -> np.ndarray:
        """In-plane shift along row and column for each mm along the normal."""
        return self.offsets[-1, :2] / self.offsets[-1, 2]

    @property
    def tilted(self) -> bool:
        """Whether the shift over the whole stack could be seen."""
        return bool(np.abs(self.offsets[-1, :2]).max() > MIN_TILT_MM)


def read_stack(
    slices: list[Slice], folder: Path, spared: Sequence[Slice] = ()
) -> tuple[sitk.Image, list[ScanWarning]]:
    """Read slices of one size and orientation as a volume.

    Args:
        slices: In any order; each has a position, an orientation and a pixel spacing.
        folder: What to call the input in errors.
        spared: Other images of the series, which are told where a slice is missing.

    Returns:
        The volume after rescaling (int16 or float32), and warnings. The first slice is the lowest
        along the normal of the slices.

    Raises:
        InputError: If slices are missing, double, uneven, damaged, or tilted beyond belief.
    """
    warnings = check_rescale(slices, folder)
    stack, found = _order(slices, folder, spared)
    image, mixed = _volume(stack, folder)
    return image, warnings + found + mixed + _tilt_warnings(stack)


def _order(
    slices: list[Slice], folder: Path, spared: Sequence[Slice]
) -> tuple[_Stack, list[ScanWarning]]:
    """Sort slices by position and check that they make one even stack."""
    slices, warnings = _without_copies(slices, folder)
    if len(slices) < 2:
        message = f"{folder} holds a single slice; give the whole series"
        raise InputError(message)
    axes = _axes(slices, folder)
    offsets = np.array([s.position for s in slices]) @ axes
    order = np.argsort(offsets[:, 2], kind="stable")
    offsets = offsets[order] - offsets[order[0]]
    stack = _Stack(tuple(slices[k] for k in order), axes, offsets)
    steps = np.diff(offsets[:, 2])
    usual = float(np.median(steps))
    if steps.min() < 0.05 * usual or usual < 1e-3:
        _refuse_doubles(stack, folder)
    _refuse_interleaved(stack, folder)
    _refuse_gaps(stack, steps, spared, folder)
    return stack, warnings + _unevenness(stack, usual, folder)


def _refuse_gaps(stack: _Stack, steps: np.ndarray, spared: Sequence[Slice], folder: Path) -> None:
    usual = float(np.median(steps))
    gaps = np.flatnonzero(steps > 1.5 * usual)
    if not len(gaps):
        return
    lost = int(np.round(steps[gaps] / usual - 1).sum())
    name = shown(stack.slices[gaps[0]].path.name)
    start = f"{folder}: {lost} slice(s) are missing"
    end = (
        f"({steps[gaps[0]]:.2f} mm to the next, {usual:.2f} mm elsewhere); copy or export the "
        "whole series"
    )
    if spared:
        end += f" ({len(spared)} of its images are of another kind, such as colour or localiser)"
    message = f"{start}, the first after {name} {end}"
    raise InputError(message, stored=f"{start} {end}")


def _unevenness(stack: _Stack, usual: float, folder: Path) -> list[ScanWarning]:
    """Compare positions with those of the even grid that the volume will have."""
    share = np.linspace(0.0, 1.0, len(stack.slices))[:, None]
    error = np.abs(stack.offsets - share * stack.offsets[-1])
    along, across = float(error[:, 2].max()), float(error[:, :2].max())
    if along > usual or across > 2.0:
        message = (
            f"{folder}: the slices are unevenly spaced, up to {max(along, across):.1f} mm from an "
            "even stack; use a reconstruction with constant spacing"
        )
        raise InputError(message)
    if along <= max(0.1, 0.05 * usual) and across <= 0.5:
        return []
    text = (
        f"The CT's slices are not quite evenly spaced: positions are up to "
        f"{max(along, across):.2f} mm off."
    )
    return [ScanWarning("uneven-slices", text)]


def _without_copies(slices: list[Slice], folder: Path) -> tuple[list[Slice], list[ScanWarning]]:
    """Drop files that are the same image twice: same place, same HU, whatever they call themselves.

    Identifiers prove nothing: some anonymisers give every image the same one.
    """
    places: dict[tuple[float, ...], list[Slice]] = {}
    for one in slices:
        place = np.round([*np.asarray(one.position), *np.asarray(one.orientation)], 4) + 0.0
        places.setdefault(tuple(place.tolist()), []).append(one)
    unique: list[Slice] = []
    for group in places.values():
        if len(group) == 1:
            unique += group
        else:
            unique += {_fingerprint(s, folder): s for s in reversed(group)}.values()
    warnings = []
    copies = len(slices) - len(unique)
    if copies:
        text = f"{copies} image(s) of the CT series are there twice; the copies were left out."
        warnings.append(ScanWarning("duplicate-slices", text))
    identifiers = [s.tags["sop"] for s in unique if s.tags["sop"]]
    if len(set(identifiers)) < len(identifiers):
        text = (
            "Different images of the CT series carry the same identifier (SOP Instance UID), as "
            "some anonymisers write: they were told apart by their positions."
        )
        warnings.append(ScanWarning("shared-identifiers", text))
    return unique, warnings


def _fingerprint(one: Slice, folder: Path) -> str:
    plane = np.ascontiguousarray(read_plane(one, folder), dtype=np.float64)
    return hashlib.sha256(plane.tobytes()).hexdigest()


def _refuse_doubles(stack: _Stack, folder: Path) -> None:
    number = int((np.diff(stack.offsets[:, 2]) < 1e-2).sum())
    which = next((f" ({_values(stack, name)})" for name in _differing(stack.slices)), "")
    start = f"{folder}: the series has different images at the same place, {number} times"
    end = "; keep the images of one reconstruction in the folder"
    message = f"{start}{which}{end}"
    raise InputError(message, stored=f"{start}{end}")


def _refuse_interleaved(stack: _Stack, folder: Path) -> None:
    """Refuse slices of two scans or reconstructions that alternate along the body.

    Raises:
        InputError: If they do. Blocks that follow each other, as in a scan step by step, do not.
    """
    slices = stack.slices
    for name in _differing(slices):
        if _alternations([_label(s, name) for s in slices]) >= _MIN_ALTERNATIONS:
            _refuse_mixture(f"different {_TELLING[name]}", _values(stack, name), folder)
    for name, pause in _PAUSES.items():
        if _alternations(_takes([_seconds(s.tags[name]) for s in slices], pause)) >= (
            _MIN_ALTERNATIONS
        ):
            _refuse_mixture("different times", "", folder)
    if _two_counts([s.tags["instance"] for s in slices]):
        _refuse_mixture("two separate runs of image numbers", "", folder)


def _refuse_mixture(what: str, values: str, folder: Path) -> None:
    start = f"{folder}: slices of {what}"
    end = (
        "alternate within the series, as if two scans or reconstructions were mixed; keep the "
        "images of one in the folder"
    )
    message = f"{start} ({values}) {end}" if values else f"{start} {end}"
    raise InputError(message, stored=f"{start} {end}")


def _differing(slices: Sequence[Slice]) -> list[str]:
    return [name for name in _TELLING if len({_label(s, name) for s in slices}) > 1]


def _label(one: Slice, name: str) -> str:
    """Return the value of a field, numbers without what rounding adds."""
    text = one.tags[name]
    if name not in ("thickness", "voltage", "diameter"):
        return text
    try:
        return f"{float(text):.2f}"
    except ValueError:
        return text


def _values(stack: _Stack, name: str) -> str:
    if name not in _SHOWN:
        return ""
    found = sorted({_label(s, name) or "none" for s in stack.slices})
    return f"{_TELLING[name]} {', '.join(found[:5])}"


def _alternations(labels: Sequence[object]) -> int:
    """Count how often labels come back along a stack; those of a single slice do not count."""
    often = Counter(labels)
    counted = [label for label in labels if often[label] > 1]
    changes = sum(a != b for a, b in pairwise(counted))
    return changes - max(0, len(set(counted)) - 1)


def _seconds(text: str) -> float | None:
    """Return a DICOM time (or date and time) as seconds since some midnight."""
    digits, _, fraction = text.partition(".")
    digits = digits[8:] if len(digits) >= 14 else digits
    if len(digits) < 6 or not digits[:6].isdigit():
        return None
    share = float(f"0.{fraction[:6]}") if fraction[:6].isdigit() else 0.0
    return 3600 * int(digits[:2]) + 60 * int(digits[2:4]) + int(digits[4:6]) + share


def _takes(times: list[float | None], pause: float) -> list[int]:
    """Number the takes of a scan: times between which nothing pauses belong together."""
    if any(time is None for time in times):
        return []
    values = np.array(times, dtype=float)
    order = np.argsort(values, kind="stable")
    takes = np.empty(len(values), dtype=int)
    takes[order] = np.cumsum(np.diff(values[order], prepend=values[order[0]]) > pause)
    return [int(take) for take in takes]


def _two_counts(numbers: list[str]) -> bool:
    """Tell whether image numbers along a stack zigzag between two counts, each in order."""
    if len(numbers) < 8 or not all(number.isdigit() for number in numbers):
        return False
    values = np.array([int(number) for number in numbers])
    even, odd = np.diff(values[::2]), np.diff(values[1::2])
    in_order = all((s > 0).all() or (s < 0).all() for s in (even, odd))
    jumps = np.diff(values)
    zigzag = (jumps[::2] > 0).all() and (jumps[1::2] < 0).all()
    zigzag = zigzag or ((jumps[::2] < 0).all() and (jumps[1::2] > 0).all())
    return bool(in_order and zigzag and np.abs(jumps).min() >= len(values) / 4)


def _axes(slices: list[Slice], folder: Path) -> np.ndarray:
    """Return the directions of row, column and normal as columns, made exactly orthonormal."""
    cosines = np.mean([np.asarray(s.orientation) for s in slices], axis=0)
    row, column = cosines[:3], cosines[3:]
    if max(abs(row @ row - 1), abs(column @ column - 1), abs(row @ column)) > 0.02:
        message = (
            f"{folder}: the slices have an impossible orientation (rows and columns are not at "
            "right angles); export the series again"
        )
        raise InputError(message)
    row = row / np.linalg.norm(row)
    column = column - (column @ row) * row
    column = column / np.linalg.norm(column)
    return np.stack([row, column, np.cross(row, column)], axis=1)


def _volume(stack: _Stack, folder: Path) -> tuple[sitk.Image, list[ScanWarning]]:
    """Read the voxels slice by slice, so that a damaged file can be named."""
    first = stack.slices[0]
    voxels = np.empty((len(stack.slices), first.size[1], first.size[0]), dtype=np.int16)
    for index, one in enumerate(stack.slices):
        plane = read_plane(one, folder)
        if plane.dtype.kind == "f" and voxels.dtype == np.int16:
            voxels = voxels.astype(np.float32)
        if voxels.dtype == np.int16 and plane.dtype != np.int16:
            plane = np.clip(plane, -32768, 32767)
        voxels[index] = plane
    warnings = check_equal_values(voxels, stack.slices, folder)
    image = sitk.GetImageFromArray(voxels)
    del voxels
    thickness = stack.offsets[-1, 2] / (len(stack.slices) - 1)
    pixel = np.median([s.spacing for s in stack.slices], axis=0)
    image.SetSpacing((*pixel.tolist(), float(thickness)))
    shift = np.zeros(3)
    if stack.tilted:
        image, shift = _straighten(image, stack, folder)
    image.SetOrigin((np.asarray(first.position) + stack.axes @ shift).tolist())
    image.SetDirection(stack.axes.ravel().tolist())
    return image, warnings


def _straighten(image: sitk.Image, stack: _Stack, folder: Path) -> tuple[sitk.Image, np.ndarray]:
    """Shift each slice within its plane to where it was, on a grid wide enough for all.

    Args:
        image: The stack as if it were rectangular; origin 0, identity direction.
        stack: Where the slices really lie.
        folder: For messages.

    Returns:
        The image on a rectangular grid, and the place of its first voxel in mm along the axes.
    """
    degrees = _tilt_degrees(stack)
    if degrees > MAX_TILT_DEGREES:
        message = (
            f"{folder}: the slices are shifted against each other by {degrees:.0f} degrees, more "
            "than a gantry can tilt; export the series again"
        )
        raise InputError(message)
    total = stack.offsets[-1]
    shift = np.array([min(0.0, total[0]), min(0.0, total[1]), 0.0])
    spacing, size = image.GetSpacing(), list(image.GetSize())
    for axis in (0, 1):
        size[axis] += math.ceil(abs(total[axis]) / spacing[axis] - 1e-6)
    transform = sitk.AffineTransform(3)
    transform.SetMatrix((1, 0, -stack.slope[0], 0, 1, -stack.slope[1], 0, 0, 1))
    straight = sitk.Resample(
        image,
        size,
        transform,
        sitk.sitkLinear,
        shift.tolist(),
        spacing,
        IDENTITY,
        AIR_HU,
        image.GetPixelID(),
    )
    return straight, shift


def _tilt_degrees(stack: _Stack) -> float:
    return math.degrees(math.atan(float(np.linalg.norm(stack.slope))))


def _tilt_warnings(stack: _Stack) -> list[ScanWarning]:
    if not stack.tilted:
        return []
    text = (
        f"The CT was taken with the gantry tilted by {_tilt_degrees(stack):.1f} degrees: its "
        "slices were shifted to a rectangular grid, which all results are on."
    )
    return [ScanWarning("gantry-tilt", text)]
