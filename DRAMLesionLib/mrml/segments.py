"""Segments as arrays on the grid of the CT, and back, sharing one label map a layer."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from DRAMLesionLib.images import boxes
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.lobes.terminology import (
    LESION_TERM,
    LOBE_TERMS,
    LUNG_TERM,
    TERMINOLOGY_TAG,
    VESSEL_TERM,
    Term,
)
from DRAMLesionLib.mrml import volumes

LABEL_MAP = "Binary labelmap"
"""Name of the representation that holds voxels."""

SURFACE = "Closed surface"
"""Name of the representation that 3D views show."""

_SAME_PLACE = 1e-3

LOBE_COLOURS = {
    Lobe.LUL: (38, 166, 154),
    Lobe.LLL: (156, 190, 80),
    Lobe.RUL: (126, 87, 194),
    Lobe.RML: (222, 112, 180),
    Lobe.RLL: (176, 137, 104),
}
"""Colours of lobes side by side, apart from each other and from lesions and vessels.

Slicer's own list has one brown for lobes of both sides.
"""


@dataclass(frozen=True)
class SegmentSpec:
    """What a segment is before it has any voxels.

    Attributes:
        id: ID of the segment, the same in every scene.
        name: What users read.
        label: Its value in the label map of its layer.
        term: Coded name.
        colour: Red, green, blue (0 to 255).
        fill: Opacity of its area in slice views.
        outline: Opacity of its outline in slice views.
        opacity_3d: Opacity of its surface.
        shown: Whether it is visible when it is made.
    """

    id: str
    name: str
    label: int
    term: Term
    colour: tuple[int, int, int]
    fill: float = 0.25
    outline: float = 1.0
    opacity_3d: float = 1.0
    shown: bool = True


LESION_SEGMENTS = (
    SegmentSpec("ground_glass", "Ground glass", 1, LESION_TERM, (255, 196, 61)),
    SegmentSpec("consolidation", "Consolidation", 2, LESION_TERM, (225, 60, 45)),
    SegmentSpec("mixed", "Mixed lesion", 3, LESION_TERM, (240, 128, 40)),
    SegmentSpec("vessels", "Lung vessels", 4, VESSEL_TERM, (90, 155, 230), 0.2, 0.6, 0.6, False),
)
"""First layer of a result; labels 1 to 3 are those of ``lesions.nii.gz``."""

LOBE_SEGMENTS = tuple(
    SegmentSpec(
        f"lobe_{lobe.name}",
        lobe.full_name.capitalize(),
        int(lobe),
        LOBE_TERMS[lobe],
        LOBE_COLOURS[lobe],
        fill=0.0,
        outline=0.7,
        opacity_3d=0.15,
    )
    for lobe in Lobe
)
"""Second layer of a result; the labels are those of :class:`Lobe`."""

VESSEL_LABEL, LESION_LABEL = 1, 2
"""Labels of a pseudo-label, as the training reads them."""

PSEUDOLABEL_SEGMENTS = (
    SegmentSpec("lesion", "Lesion (pseudo-label)", LESION_LABEL, LESION_TERM, (255, 120, 50)),
    SegmentSpec("vessel", "Vessel (pseudo-label)", VESSEL_LABEL, VESSEL_TERM, (90, 155, 230)),
)

LUNGS_SEGMENT = SegmentSpec(
    "lungs", "Lobes (mask for editing)", 1, LUNG_TERM, (177, 122, 101), 0.0, 0.5, 0.1, False
)
"""Where a pseudo-label may be edited; a layer of its own, since lesions lie inside it."""


Box = tuple[list[int], list[int]]
"""First and last + 1 index (k, j, i) of a part of a grid."""


def put_layer(
    node: Any,
    specs: Sequence[SegmentSpec],
    values: np.ndarray,
    ct: Any,
    box: Box | None = None,
) -> None:
    """Fill the segments of one layer, which share a label map; make those that are not there.

    Name, colour and visibility of a segment that is there already stay as the user has them.

    Args:
        node: Segmentation node.
        specs: Segments of the layer.
        values: (k, j, i) uint8 labels on the grid of ``ct``.
        ct: The CT's volume node.
        box: The part of the grid to store; what is not 0 if left out.
    """
    image = oriented_image(values, ct, box)
    segmentation = node.GetSegmentation()
    for spec in specs:
        segment = segmentation.GetSegment(spec.id)
        is_new = segment is None
        if is_new:
            segment = _new_segment(spec)
        segment.SetLabelValue(spec.label)
        segment.AddRepresentation(LABEL_MAP, image)
        if is_new:
            segmentation.AddSegment(segment, spec.id)
            _set_display(node.GetDisplayNode(), spec)
    # surfaces of other voxels: whoever shows them makes them anew
    segmentation.RemoveRepresentation(SURFACE)


def add_missing(node: Any, specs: Sequence[SegmentSpec]) -> None:
    """Add the segments that somebody has removed, empty."""
    for spec in specs:
        if node.GetSegmentation().GetSegment(spec.id) is None:
            node.GetSegmentation().AddSegment(_new_segment(spec), spec.id)
            _set_display(node.GetDisplayNode(), spec)


def _new_segment(spec: SegmentSpec) -> Any:
    segment = slicer.vtkSegment()
    segment.SetName(spec.name)
    segment.SetColor(*(c / 255.0 for c in spec.colour))
    segment.SetTag(TERMINOLOGY_TAG, spec.term.entry())
    return segment


def _set_display(display: Any, spec: SegmentSpec) -> None:
    display.SetSegmentVisibility(spec.id, spec.shown)
    display.SetSegmentOpacity2DFill(spec.id, spec.fill)
    display.SetSegmentOpacity2DOutline(spec.id, spec.outline)
    display.SetSegmentOpacity3D(spec.id, spec.opacity_3d)


def oriented_image(values: np.ndarray, ct: Any, box: Box | None = None) -> Any:
    """Return a vtkOrientedImageData with a part of ``values``, at its place on the CT's grid."""
    low, high = box or bounding_box(values)
    image = slicer.vtkOrientedImageData()
    image.SetExtent(low[2], high[2] - 1, low[1], high[1] - 1, low[0], high[0] - 1)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    matrix = vtk.vtkMatrix4x4()
    ct.GetIJKToRASMatrix(matrix)
    image.SetImageToWorldMatrix(matrix)
    view = array_view(image)
    view[:] = values[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return image


def bounding_box(values: np.ndarray) -> Box:
    """Return first and last + 1 index (k, j, i) of what is not 0; one voxel where nothing is."""
    box = boxes.bounding_box(values != 0)
    return [part.start for part in box], [max(part.stop, 1) for part in box]


def array_view(image: Any) -> np.ndarray:
    """Return the voxels of a vtkImageData as (k, j, i), sharing its memory."""
    i, j, k = image.GetDimensions()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(k, j, i)


def offset_on(image: Any, ct: Any) -> tuple[int, int, int] | None:
    """Return where the first voxel of a label map lies on the grid of the CT, as (k, j, i).

    Returns:
        None if the two grids do not coincide.
    """
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    relative = np.linalg.inv(volumes.ijk_to_ras(ct)) @ slicer.util.arrayFromVTKMatrix(matrix)
    start = np.array(image.GetExtent()[::2]) + relative[:3, 3]
    if np.abs(relative[:3, :3] - np.eye(3)).max() > _SAME_PLACE:
        return None
    if np.abs(start - np.round(start)).max() > _SAME_PLACE * 10:
        return None
    i, j, k = (round(float(s)) for s in start)
    return k, j, i


def shift(node: Any, matrix: np.ndarray) -> None:
    """Move the voxels of a segmentation, as hardening a transform does.

    Args:
        node: Segmentation node.
        matrix: 4x4, from where they are in RAS mm to where they belong.
    """
    segmentation = node.GetSegmentation()
    moved: list[Any] = []
    for identifier in segmentation.GetSegmentIDs():
        image = node.GetBinaryLabelmapInternalRepresentation(identifier)
        if image is None or any(image is other for other in moved):
            continue
        own = vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(own)
        image.SetImageToWorldMatrix(
            slicer.util.vtkMatrixFromArray(matrix @ slicer.util.arrayFromVTKMatrix(own))
        )
        moved.append(image)
    segmentation.RemoveRepresentation(SURFACE)


def mask_of(node: Any, segment_id: str, ct: Any) -> np.ndarray:
    """Return a segment as a (k, j, i) bool array on the grid of the CT; nothing if it is gone."""
    result = np.zeros(volumes.shape(ct), dtype=bool)
    _put_labels(node, {segment_id: 1}, ct, result)
    return result


def labels_of(node: Any, specs: Iterable[SegmentSpec], ct: Any) -> np.ndarray:
    """Return segments as one (k, j, i) uint8 label array on the grid of the CT.

    Where segments overlap, the first of ``specs`` wins.
    """
    labels = np.zeros(volumes.shape(ct), dtype=np.uint8)
    _put_labels(node, {spec.id: spec.label for spec in reversed(tuple(specs))}, ct, labels)
    return labels


def _put_labels(node: Any, wanted: Mapping[str, int], ct: Any, result: np.ndarray) -> None:
    """Write labels where segments are; of segments that overlap, the last of ``wanted`` wins."""
    same_transform = node.GetTransformNodeID() == ct.GetTransformNodeID()
    for image, values in _by_image(node, wanted):
        parts = _overlap(image, ct, result.shape) if same_transform else None
        if parts is None:
            for identifier in values.values():
                mask = slicer.util.arrayFromSegmentBinaryLabelmap(node, identifier, ct) > 0
                result[mask] = wanted[identifier]
            continue
        here, there = parts
        view = array_view(image)[there]
        table = np.zeros(max(256, int(view.max(initial=0)) + 1), dtype=result.dtype)
        for value, identifier in values.items():
            table[value] = wanted[identifier]
        found = table[view]
        result[here] = np.where(found, found, result[here])


def _by_image(node: Any, wanted: Mapping[str, int]) -> Iterator[tuple[Any, dict[int, str]]]:
    """Return the label maps of segments, each with the IDs by the value that they have in it."""
    groups: list[tuple[Any, dict[int, str]]] = []
    for identifier in wanted:
        segment = node.GetSegmentation().GetSegment(identifier)
        if segment is None:
            continue
        image = node.GetBinaryLabelmapInternalRepresentation(identifier)
        if image is None or image.GetNumberOfPoints() == 0 or image.IsEmpty():
            continue
        value = int(segment.GetLabelValue())
        known = next((values for other, values in groups if other is image), None)
        if known is None:
            groups.append((image, {value: identifier}))
        else:
            known[value] = identifier
    return iter(groups)


def _overlap(
    image: Any, ct: Any, whole: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]] | None:
    """Return where a label map lies on the CT's grid, and that part of the label map.

    Returns:
        None if the grids do not coincide.
    """
    start = offset_on(image, ct)
    if start is None:
        return None
    here, there = [], []
    for first, size, limit in zip(start, array_view(image).shape, whole, strict=True):
        low, high = max(first, 0), max(min(first + size, limit), max(first, 0))
        here.append(slice(low, high))
        there.append(slice(low - first, high - first))
    return tuple(here), tuple(there)


def checksum(labels: np.ndarray) -> str:
    """Return a short text that changes when any voxel of a label array changes."""
    return f"{zlib.crc32(labels.tobytes()):08x}"


@dataclass
class Fingerprint:
    """Running checksum of a label array, independent of how it is stored.

    Unlike :func:`checksum` it can follow a change without a look at the other voxels.

    Attributes:
        sums: For each label number of voxels and sum of scrambled indices modulo 2**64.
    """

    sums: dict[int, tuple[int, int]]

    @classmethod
    def of(cls, labels: np.ndarray) -> Fingerprint:
        """Return the fingerprint of an array; 0 is no label."""
        flat = labels.ravel()
        where = np.flatnonzero(flat)
        values = flat[where]
        made = cls({})
        for label in np.unique(values):
            made.add(int(label), where[values == label])
        return made

    @classmethod
    def parse(cls, text: str) -> Fingerprint:
        """Return the fingerprint that :attr:`text` stands for."""
        parts = [entry.split(":") for entry in text.split(";") if ":" in entry]
        return cls({int(label): (int(count), int(total, 16)) for label, count, total in parts})

    def add(self, label: int, indices: np.ndarray) -> None:
        """Note voxels that got a label."""
        self._change(label, indices, 1)

    def remove(self, label: int, indices: np.ndarray) -> None:
        """Note voxels that lost a label."""
        self._change(label, indices, -1)

    def _change(self, label: int, indices: np.ndarray, sign: int) -> None:
        if label == 0 or indices.size == 0:
            return
        count, total = self.sums.get(label, (0, 0))
        scrambled = indices.astype(np.uint64) + np.uint64(1)
        scrambled *= np.uint64(0x9E3779B97F4A7C15)
        scrambled ^= scrambled >> np.uint64(29)
        scrambled *= np.uint64(0xBF58476D1CE4E5B9)
        change = int(scrambled.sum(dtype=np.uint64))
        total = (total + sign * change) % 2**64
        self.sums[label] = (count + sign * int(indices.size), total)

    @property
    def text(self) -> str:
        """The fingerprint as text, "empty" where there is no label."""
        known = sorted((label, *sums) for label, sums in self.sums.items() if sums[0])
        entries = [f"{label}:{count}:{total:016x}" for label, count, total in known]
        return ";".join(entries) or "empty"


def lobe_specs() -> Mapping[Lobe, SegmentSpec]:
    """Return the segment of each lobe."""
    return dict(zip(Lobe, LOBE_SEGMENTS, strict=True))
