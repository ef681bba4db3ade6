"""Surfaces of segments for the 3D views, made one after another and no finer than eyes can see.

Slicer's own conversion takes all segments at once and every voxel: seconds for a whole CT, in which
the window stands still.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from DRAMLesionLib.images import boxes
from DRAMLesionLib.mrml import segments
from DRAMLesionLib.mrml.result import PSEUDOLABEL, Result
from DRAMLesionLib.mrml.segments import SURFACE

FINE_MM, COARSE_MM = 1.0, 2.0
"""Size of the blocks that a surface is made from: of lesions and vessels, and of lobes."""

MOST_BLOCKS = 2e6
"""Where there would be more, the blocks are larger."""

_SMOOTHING = 20
_PASS_BAND = 0.05


def shown_nodes(result: Result) -> list[Any]:
    """Return the segmentations that belong into the 3D views: what the table counts, and lobes."""
    roles = ["segmentation"] + (["pseudolabel"] if result.source == PSEUDOLABEL else [])
    return [result.get(role) for role in roles]


def make_surfaces(result: Result) -> Iterator[float]:
    """Make the surfaces of a result that are not there, and yield the share done after each."""
    wanted = [
        (node, identifier)
        for node in shown_nodes(result)
        for identifier in node.GetSegmentation().GetSegmentIDs()
        if node.GetSegmentation().GetSegment(identifier).GetRepresentation(SURFACE) is None
    ]
    for number, (node, identifier) in enumerate(wanted, start=1):
        segment = node.GetSegmentation().GetSegment(identifier)
        if segment is not None:
            is_coarse = identifier.startswith("lobe_") or identifier == segments.LUNGS_SEGMENT.id
            surface = _surface(node, identifier, COARSE_MM if is_coarse else FINE_MM)
            segment.AddRepresentation(SURFACE, surface)
        yield number / len(wanted)
    for node in shown_nodes(result):
        display = node.GetDisplayNode()
        display.SetPreferredDisplayRepresentationName3D(SURFACE)
        display.SetVisibility3D(True)


def remove_surfaces(result: Result) -> None:
    """Take all surfaces of a result away."""
    for role in ("segmentation", "pseudolabel"):
        if result.get(role) is not None:
            result.get(role).GetSegmentation().RemoveRepresentation(SURFACE)


def _surface(node: Any, identifier: str, block_mm: float) -> vtk.vtkPolyData:
    """Return the surface of a segment in the coordinates of its label map; empty if it is empty."""
    image = node.GetBinaryLabelmapInternalRepresentation(identifier)
    value = node.GetSegmentation().GetSegment(identifier).GetLabelValue()
    if image is None or image.GetNumberOfPoints() == 0 or image.IsEmpty():
        return vtk.vtkPolyData()
    mask = segments.array_view(image) == value
    if not mask.any():
        return vtk.vtkPolyData()
    box = boxes.bounding_box(mask)
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    to_world = slicer.util.arrayFromVTKMatrix(matrix)
    spacing = np.linalg.norm(to_world[:3, :3], axis=0)[::-1]
    extent_mm = [(part.stop - part.start) * s for part, s in zip(box, spacing, strict=True)]
    block_mm = max(block_mm, float(np.cbrt(np.prod(extent_mm) / MOST_BLOCKS)))
    size = np.maximum(1, np.round(block_mm / spacing)).astype(int)
    first = np.array(image.GetExtent()[::2])[::-1] + [part.start for part in box]
    return _contour(_blocks(mask[box], size), size, first, to_world)


def _blocks(mask: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return the share of each block of voxels that lies in a mask, with a rim of empty blocks."""
    rest = [(0, -length % s) for length, s in zip(mask.shape, size, strict=True)]
    padded = np.pad(mask, rest)
    counts = np.zeros([n // s for n, s in zip(padded.shape, size, strict=True)], np.uint16)
    for first in np.ndindex(*size):
        counts += padded[tuple(slice(o, None, s) for o, s in zip(first, size, strict=True))]
    return np.pad(counts / np.float32(size.prod()), 1)


def _contour(
    shares: np.ndarray, size: np.ndarray, first: np.ndarray, to_world: np.ndarray
) -> vtk.vtkPolyData:
    """Return the surface around blocks, smoothed; what is thinner than a block stays visible."""
    grid = vtk.vtkImageData()
    grid.SetDimensions(*shares.shape[::-1])
    grid.SetSpacing(*(float(s) for s in size[::-1]))
    # middle of the first block, which the rim has pushed by one
    grid.SetOrigin(
        *(float(f + (s - 1) / 2 - s) for f, s in zip(first[::-1], size[::-1], strict=True))
    )
    grid.GetPointData().SetScalars(numpy_to_vtk(shares.ravel(), deep=True))
    contour = vtk.vtkFlyingEdges3D()
    contour.SetInputData(grid)
    contour.SetValue(0, 0.5 if size.prod() == 1 else 0.3)
    contour.ComputeNormalsOff()
    contour.ComputeGradientsOff()
    smooth = vtk.vtkWindowedSincPolyDataFilter()
    smooth.SetInputConnection(contour.GetOutputPort())
    smooth.SetNumberOfIterations(_SMOOTHING)
    smooth.SetPassBand(_PASS_BAND)
    smooth.BoundarySmoothingOff()
    smooth.NonManifoldSmoothingOn()
    smooth.NormalizeCoordinatesOn()
    move = vtk.vtkTransform()
    move.SetMatrix(slicer.util.vtkMatrixFromArray(to_world))
    placed = vtk.vtkTransformPolyDataFilter()
    placed.SetTransform(move)
    placed.SetInputConnection(smooth.GetOutputPort())
    normals = vtk.vtkPolyDataNormals()
    normals.SetInputConnection(placed.GetOutputPort())
    normals.SplittingOff()
    normals.ConsistencyOff()
    if np.linalg.det(to_world[:3, :3]) < 0:
        normals.FlipNormalsOn()
    normals.Update()
    return normals.GetOutput()
