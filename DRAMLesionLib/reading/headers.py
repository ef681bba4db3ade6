"""What the header of an image tells before a voxel is read: is it a volume, on a usable grid?

The part of the check of a CT that costs nothing, so that reading a file can begin with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.errors import InputError, ScanWarning
from DRAMLesionLib.images import geometry

Header: TypeAlias = sitk.Image | sitk.ImageFileReader
"""What tells a geometry: an image, or a reader that has read the image information only."""

MIN_COVERAGE_MM = 20.0
"""Less lung than this along any axis says nothing about a lobe."""

THICK_SLICES_MM = 5.0
MAX_SLICE_MM = 10.0
"""Slices further apart than the first get a warning, than the second an error."""

_FAR_MM = 1e5
"""A table moves by some metres; numbers beyond are no places."""

_TOLERANCE = 1e-3
"""How far direction cosines may be from orthonormal: files round them to about four digits."""


def check_geometry(header: Header, name: str = "the CT") -> list[ScanWarning]:
    """Check what a header tells, before any voxel is read.

    Args:
        header: An image, or a reader that has read the image information.
        name: What to call the input in an error.

    Returns:
        Warnings for the report.

    Raises:
        InputError: If the image is not a scalar volume with a usable grid.
    """
    check_volume(header, name)
    size, spacing = header.GetSize(), header.GetSpacing()
    extent = [n * s for n, s in zip(size, spacing, strict=True)]
    if max(extent) > 3000.0 or sorted(extent)[1] < 50.0:
        message = (
            f"{name} measures {by(extent)} mm, which is no human chest: its voxel spacing "
            f"({by(spacing)} mm) is wrong or not in millimetres; convert it again from DICOM"
        )
        raise InputError(message)
    if min(extent) < MIN_COVERAGE_MM:
        message = (
            f"{name} covers only {min(extent):.1f} mm along one axis; at least "
            f"{MIN_COVERAGE_MM:.0f} mm of lung are needed: give the whole scan"
        )
        raise InputError(message)
    if max(spacing) > MAX_SLICE_MM + 0.01:
        message = (
            f"{name} has slices {max(spacing):.1f} mm apart; lesions cannot be measured beyond "
            f"{MAX_SLICE_MM:.0f} mm: use a reconstruction with thinner slices"
        )
        raise InputError(message)
    warnings = []
    if max(spacing) > THICK_SLICES_MM + 0.01:
        text = (
            f"The CT has slices {max(spacing):.1f} mm apart: small lesions can be missed and "
            "volumes are less exact."
        )
        warnings.append(ScanWarning("thick-slices", text))
    if _never_set(header):
        text = (
            "The CT has voxels of exactly 1 x 1 x 1 mm at the origin, as files have that lost "
            "their geometry: volumes in ml, and left and right, are right only if that is true."
        )
        warnings.append(ScanWarning("default-geometry", text))
    return warnings


def check_volume(header: Header, name: str) -> None:
    """Check that something is a scalar volume on an orthonormal grid, of a CT or of labels.

    Raises:
        InputError: If it is not.
    """
    size = header.GetSize()
    if _components(header) > 1 or "complex" in _pixel_type(header):
        message = (
            f"{name} has {_components(header)} values a voxel, like a colour picture or "
            "a vector field; give an image with one value a voxel"
        )
        raise InputError(message)
    if header.GetDimension() > 3:
        message = (
            f"{name} has {header.GetDimension()} dimensions ({by(size)}), like a scan over time; "
            "split it and give one 3D volume"
        )
        raise InputError(message)
    if header.GetDimension() < 3 or min(size) < 2:
        message = f"{name} is a single slice ({by(size)} voxels); give the whole 3D scan"
        raise InputError(message)
    spacing = header.GetSpacing()
    if not all(math.isfinite(s) and s > 0 for s in spacing):
        message = f"{name} has an impossible voxel spacing ({by(spacing)} mm); convert it again"
        raise InputError(message)
    if not all(abs(place) <= _FAR_MM for place in header.GetOrigin()):
        message = (
            f"{name} says that it lies at {by(header.GetOrigin())} mm, farther away than any "
            "scanner can see; convert it again"
        )
        raise InputError(message)
    _check_direction(header, name)


def _components(header: Header) -> int:
    if isinstance(header, sitk.Image):
        return int(header.GetNumberOfComponentsPerPixel())
    return int(header.GetNumberOfComponents())


def _pixel_type(header: Header) -> str:
    return str(sitk.GetPixelIDValueAsString(header.GetPixelID())).lower()


def by(values: Iterable[float]) -> str:
    """Write sizes or spacings as ``70 x 60 x 50``."""
    return " x ".join(f"{value:.4g}" for value in values)


def _check_direction(header: Header, name: str) -> None:
    direction = np.array(header.GetDirection()).reshape(3, 3)
    error = np.abs(direction.T @ direction - np.eye(3)).max()
    if not error <= _TOLERANCE:
        message = (
            f"{name} has a sheared grid: its axes are not at right angles (direction cosines "
            f"{np.round(direction, 3).tolist()}); resample it to a rectangular grid first"
        )
        raise InputError(message)


def _never_set(header: Header) -> bool:
    return (
        header.GetSpacing() == (1.0, 1.0, 1.0)
        and not any(header.GetOrigin())
        and np.array_equal(np.abs(header.GetDirection()), geometry.IDENTITY)
        and sorted(header.GetSize())[1] >= 512
    )
