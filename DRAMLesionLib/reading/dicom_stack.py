"""A stack of CT slices: put in order, checked, read, and straightened to a volume in HU.

A stack is only right if its slices are: none missing, none twice, evenly spaced, along one line.
All of that is read from positions and orientations in the headers, never from file names or
instance numbers. Slices of a tilted gantry lie along a line that is not at right angles to them;
they are shifted to a rectangular grid.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.errors import InputError, ScanWarning
from DRAMLesionLib.images.geometry import AIR_HU, IDENTITY

MAX_TILT_DEGREES = 35.0
MIN_TILT_MM = 1.0
"""A shift over the whole stack smaller than this is how positions are rounded, not a tilt."""

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
_LOCALISER = {"LOCALIZER", "SCOUT", "TOPOGRAM"}
_PROJECTED = {"MIP", "MINIP", "PROJECTION IMAGE", "SCREEN SAVE", "VOLUME RENDERING", "VRT", "DOSE"}
_REFORMATTED = {"MPR", "CSA MPR", "CPR", "REFORMATTED", "CSA RESAMPLED"}


@dataclass(frozen=True)
class Slice:
    """One image file of a series, its voxels not read.

    Attributes:
        path: The file.
        tags: The header fields that :mod:`DRAMLesionLib.reading.dicom` asks for, by name; empty
            where
            missing.
        size: Columns, rows, frames.
        spacing: Millimetres between columns and between rows.
    """

    path: Path
    tags: dict[str, str]
    size: tuple[int, int, int]
    spacing: tuple[float, float]

    @property
    def position(self) -> np.ndarray | None:
        """Centre of the first voxel, LPS mm."""
        return _numbers(self.tags["position"], 3)

    @property
    def orientation(self) -> np.ndarray | None:
        """Directions of row and column, six cosines."""
        return _numbers(self.tags["orientation"], 6)

    @property
    def kind(self) -> str:
        """What the slice cannot be used for, or nothing: see :attr:`DicomSeries.left_out`."""
        types = {part.strip().upper() for part in self.tags["image_type"].split("\\")}
        if self.tags["modality"] not in ("CT", ""):
            return f"modality {self.tags['modality']}"
        if self.tags["sop_class"] == ENHANCED_CT or self.size[2] > 1:
            return "multi-frame"
        if self.tags["sop_class"] not in (CT_IMAGE, ""):
            return "no CT images"
        if types & _LOCALISER:
            return "localiser"
        if types & _PROJECTED or self.orientation is None or self.position is None:
            return "projections or pictures"
        if types & _REFORMATTED or {"DERIVED", "SECONDARY"} <= types:
            return "derived"
        return ""


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


def read_stack(slices: list[Slice], folder: Path) -> tuple[sitk.Image, list[ScanWarning]]:
    """Read slices of one size and orientation as a volume.

    Args:
        slices: In any order.
        folder: What to call the input in errors.

    Returns:
        The volume after rescaling (int16 or float32), and warnings. The first slice is the lowest
        along the normal of the slices.

    Raises:
        InputError: If slices are missing, double, uneven, damaged, or tilted beyond belief.
    """
    stack, warnings = _order(slices, folder)
    return _volume(stack, folder), warnings + _tilt_warnings(stack)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep ITK's remarks about files that are no images off the terminal."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def _numbers(text: str, count: int) -> np.ndarray | None:
    try:
        values = np.array([float(part) for part in text.split("\\")])
    except ValueError:
        return None
    return values if len(values) == count and np.isfinite(values).all() else None


def _order(slices: list[Slice], folder: Path) -> tuple[_Stack, list[ScanWarning]]:
    """Sort slices by position and check that they make one even stack."""
    slices, warnings = _without_copies(slices)
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
    gaps = np.flatnonzero(steps > 1.5 * usual)
    if len(gaps):
        lost = int(np.round(steps[gaps] / usual - 1).sum())
        message = (
            f"{folder}: {lost} slice(s) are missing, the first after "
            f"{stack.slices[gaps[0]].path.name} ({steps[gaps[0]]:.2f} mm to the next, "
            f"{usual:.2f} mm elsewhere); copy or export the whole series"
        )
        raise InputError(message)
    return stack, warnings + _unevenness(stack, usual, folder)


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


def _without_copies(slices: list[Slice]) -> tuple[list[Slice], list[ScanWarning]]:
    """Drop files that are the same image twice."""
    unique = list({s.tags["sop"] or str(s.path): s for s in slices}.values())
    copies = len(slices) - len(unique)
    if not copies:
        return slices, []
    text = f"{copies} image(s) of the CT series are there twice; the copies were left out."
    return unique, [ScanWarning("duplicate-slices", text)]


def _refuse_doubles(stack: _Stack, folder: Path) -> None:
    number = int((np.diff(stack.offsets[:, 2]) < 1e-2).sum())
    acquisitions = sorted({s.tags["acquisition"] for s in stack.slices} - {""})
    which = f" (acquisitions {', '.join(acquisitions[:5])})" if len(acquisitions) > 1 else ""
    message = (
        f"{folder}: the series has different images at the same place, {number} times{which}; "
        "keep the images of one reconstruction in the folder"
    )
    raise InputError(message)


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


def _volume(stack: _Stack, folder: Path) -> sitk.Image:
    """Read the voxels slice by slice, so that a damaged file can be named."""
    first = stack.slices[0]
    voxels = np.empty((len(stack.slices), first.size[1], first.size[0]), dtype=np.int16)
    for index, one in enumerate(stack.slices):
        plane = _read_plane(one, folder)
        if plane.dtype.kind == "f" and voxels.dtype == np.int16:
            voxels = voxels.astype(np.float32)
        if voxels.dtype == np.int16 and plane.dtype != np.int16:
            plane = np.clip(plane, -32768, 32767)
        voxels[index] = plane
    image = sitk.GetImageFromArray(voxels)
    del voxels
    thickness = stack.offsets[-1, 2] / (len(stack.slices) - 1)
    image.SetSpacing((*first.spacing, float(thickness)))
    shift = np.zeros(3)
    if stack.tilted:
        image, shift = _straighten(image, stack, folder)
    image.SetOrigin((np.asarray(first.position) + stack.axes @ shift).tolist())
    image.SetDirection(stack.axes.ravel().tolist())
    return image


def _read_plane(one: Slice, folder: Path) -> np.ndarray:
    try:
        with quiet():
            plane = sitk.GetArrayFromImage(sitk.ReadImage(str(one.path), imageIO="GDCMImageIO"))
    except RuntimeError as error:
        message = (
            f"{folder}: the image {one.path.name} is cut short or damaged, or compressed in a way "
            "that cannot be read; copy or export the series again"
        )
        raise InputError(message) from error
    return plane.reshape(one.size[1], one.size[0])


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
