"""CT nodes as images of the library, and arrays as nodes: always with the CT's own geometry.

A linear transform above the CT is part of its geometry; any other is refused with a reason. Results
are stored with the CT's own matrix below the CT's own transform, so that they stay on the CT
whatever happens to it afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from DRAMLesionLib.errors import InputError

_LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0])
_ORTHOGONAL = 1e-4


def ijk_to_ras(node: Any) -> np.ndarray:
    """Return the 4x4 matrix from voxel index to RAS mm, without the transforms above the node."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def ijk_to_world(node: Any) -> np.ndarray:
    """Return the 4x4 matrix from voxel index to world RAS mm, linear transforms included.

    Raises:
        InputError: If a transform above the node is not linear, or skews the volume.
    """
    matrix = ijk_to_ras(node)
    parent = node.GetParentTransformNode()
    if parent is None:
        return matrix
    if not parent.IsTransformToWorldLinear():
        message = (
            f"{node.GetName()} lies below the transform {parent.GetName()}, which is not linear "
            "(a tilted gantry gives one): in the Data module, right-click the volume and choose "
            "'Harden transform', then start again"
        )
        raise InputError(message)
    to_world = vtk.vtkMatrix4x4()
    parent.GetMatrixTransformToWorld(to_world)
    matrix = slicer.util.arrayFromVTKMatrix(to_world) @ matrix
    axes = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    if np.abs(axes.T @ axes - np.eye(3)).max() > _ORTHOGONAL:
        message = (
            f"the transform {parent.GetName()} skews {node.GetName()}: take the volume out of it, "
            "or harden it in the Data module"
        )
        raise InputError(message)
    return matrix


def image_from_volume(node: Any) -> sitk.Image:
    """Return a copy of a volume node as an image in world space.

    Args:
        node: vtkMRMLScalarVolumeNode or vtkMRMLLabelMapVolumeNode.

    Returns:
        The image, LPS, with the linear transforms above the node in its geometry.

    Raises:
        InputError: If there are no voxels, several values a voxel, or a transform that cannot be
            included.
    """
    if node.GetImageData() is None or node.GetImageData().GetNumberOfPoints() == 0:
        message = f"{node.GetName()} holds no voxels: load it again"
        raise InputError(message)
    values = slicer.util.arrayFromVolume(node)
    if values.ndim != 3:
        message = f"{node.GetName()} has several values a voxel (colour?): choose a CT"
        raise InputError(message)
    image = sitk.GetImageFromArray(values)
    set_geometry(image, ijk_to_world(node))
    return image


def set_geometry(image: sitk.Image, ijk_to_ras_matrix: np.ndarray) -> None:
    """Give an image the geometry of a 4x4 matrix from voxel index to RAS mm."""
    axes = _LPS_FROM_RAS @ ijk_to_ras_matrix[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    image.SetSpacing([float(s) for s in spacing])
    image.SetDirection((axes / spacing).ravel().tolist())
    image.SetOrigin((_LPS_FROM_RAS @ ijk_to_ras_matrix[:3, 3]).tolist())


def ras_matrix(image: sitk.Image) -> np.ndarray:
    """Return the 4x4 matrix from voxel index to RAS mm of an image."""
    matrix = np.eye(4)
    axes = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    matrix[:3, :3] = _LPS_FROM_RAS @ axes
    matrix[:3, 3] = _LPS_FROM_RAS @ np.array(image.GetOrigin())
    return matrix


def voxel_ml(node: Any) -> float:
    """Return the volume of a voxel in ml, linear transforms above the node included."""
    return float(abs(np.linalg.det(ijk_to_world(node)[:3, :3]))) / 1000.0


def shape(node: Any) -> tuple[int, int, int]:
    """Return the size of a volume node as (k, j, i)."""
    i, j, k = node.GetImageData().GetDimensions()
    return k, j, i


def new_image(size: tuple[int, int, int]) -> vtk.vtkImageData:
    """Return an image of float32 voxels to fill through :func:`view`; ``size`` is (k, j, i)."""
    image = vtk.vtkImageData()
    image.SetDimensions(*size[::-1])
    image.AllocateScalars(vtk.VTK_FLOAT, 1)
    return image


def view(image: vtk.vtkImageData) -> np.ndarray:
    """Return the voxels of an image as (k, j, i), sharing its memory and keeping it alive."""
    i, j, k = image.GetDimensions()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(k, j, i)


def put_map(node: Any, values: np.ndarray | vtk.vtkImageData, ct: Any) -> None:
    """Fill a volume node with values on the grid of the CT, below the CT's transform.

    Args:
        node: The volume node to fill.
        values: (k, j, i) as the CT has it, which are copied; or an image of :func:`new_image`,
            which the node takes over, so that a large map is in memory once.
        ct: The CT's volume node.

    Raises:
        ValueError: If the shape is not the CT's.
    """
    given = view(values).shape if isinstance(values, vtk.vtkImageData) else values.shape
    if given != shape(ct):
        message = f"{node.GetName()}: {given} voxels do not fit a CT of {shape(ct)}"
        raise ValueError(message)
    before = node.StartModify()
    try:
        if isinstance(values, vtk.vtkImageData):
            node.SetAndObserveImageData(values)
        else:
            slicer.util.updateVolumeFromArray(node, values)
        place(node, ct)
    finally:
        node.EndModify(before)


def place(node: Any, ct: Any, first: Sequence[int] = (0, 0, 0)) -> None:
    """Give a volume the matrix and the transform of the CT.

    Args:
        node: The volume node.
        ct: The CT's volume node.
        first: Voxel (k, j, i) of the CT at which the volume begins, where it is a part of it.
    """
    matrix = ijk_to_ras(ct)
    matrix[:3, 3] = (matrix @ (*first[::-1], 1.0))[:3]
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    node.SetAndObserveTransformNodeID(ct.GetTransformNodeID())
