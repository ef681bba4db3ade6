"""Key slices: which planes of a scan show most, and what they look like.

Whatever way the CT was stored, pictures follow the radiological convention: axial slices are seen
from the feet (the patient's right on the left, anterior on top), coronal ones from the front (head
on top), sagittal ones from the patient's left (anterior on the left, head on top). All pictures of
a scan have one scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.images import geometry
from DRAMLesionLib.images.boxes import bounding_box
from DRAMLesionLib.lobes import LEFT_LOBES, RIGHT_LOBES, Lobe
from DRAMLesionLib.report import drawing
from DRAMLesionLib.report.model import LESION_LABELS

Plane = Literal["axial", "coronal", "sagittal"]

_AXIS: dict[Plane, int] = {"axial": 0, "coronal": 1, "sagittal": 2}  # of a (k, j, i) array
_LETTERS: dict[Plane, str] = {"axial": "RLAP", "coronal": "RLHF", "sagittal": "APHF"}
_ENDS: dict[Plane, str] = {"axial": "SI", "coronal": "PA", "sagittal": "LR"}  # growing, falling

_SEARCH_MM = 2.0  # grid on which planes are compared
_MARGIN_MM = 12.0  # around the lungs
_LUNGS_PX = 480  # width of an axial picture
_LAYERS_MM = (-1.0, 0.0, 1.0)  # averaged, so that thin slices look less noisy
_AXIAL_LEVELS = 3


@dataclass(frozen=True)
class KeySlice:
    """One plane of the scan, drawn once with outlines and once with the dRAM.

    Attributes:
        plane: ``"axial"``, ``"coronal"`` or ``"sagittal"``.
        position_mm: Where the plane cuts its axis, in the scan's LPS coordinates.
        lesion_cm2: Area of lesion in this plane, in square centimetres.
        width: Width of both pictures in pixels.
        height: Height of both pictures in pixels.
        outlined: PNG: CT, lobe borders, and lesions outlined in the colour of their type.
        heat: PNG: CT under the dRAM as a heat map; None if there is no dRAM.
    """

    plane: Plane
    position_mm: float
    lesion_cm2: float
    width: int
    height: int
    outlined: bytes
    heat: bytes | None

    @property
    def position(self) -> str:
        """Where the plane is, as a viewer in patient coordinates shows it: ``"I 132 mm"``."""
        growing, falling = tuple(_ENDS[self.plane])
        end = growing if self.position_mm >= 0 else falling
        return f"{end} {abs(self.position_mm):.0f} mm"


def key_slices(
    ct: sitk.Image,
    lobes: sitk.Image,
    lesions: sitk.Image,
    dram: sitk.Image | None = None,
) -> list[KeySlice]:
    """Choose and draw the slices on which most is to be seen.

    Three axial levels and one coronal plane with much lesion, and for each affected lung its
    sagittal plane with most lesion. In lungs without lesions: levels spread over their height, and
    the planes where the lungs are largest.

    Args:
        ct: CT in HU, any orientation.
        lobes: Labels of :class:`~DRAMLesionLib.lobes.Lobe` on any grid in the CT's space.
        lesions: Labels of :data:`~DRAMLesionLib.report.model.LESION_LABELS`, likewise.
        dram: Values 0..1, likewise; None draws no heat maps.

    Returns:
        Axial slices from head to foot, the coronal one, then sagittal ones, right lung first.
    """
    search = geometry.working_grid(lobes, _SEARCH_MM)
    where = geometry.array(geometry.resample(lobes, search, "nearest"))
    lesion = geometry.array(geometry.resample(lesions, search, "nearest")) != 0
    lesion &= where != 0
    box = _box(where != 0, search)
    scale = scale_of(box)
    scan = Scan(ct, lobes, lesions, dram, box, scale)
    return [
        scan.draw(plane, _position(plane, index, search), area)
        for plane, index, area in _choose(where, lesion)
    ]


def lungs_box(lobes: sitk.Image) -> np.ndarray:
    """Return the lower and upper LPS corner, mm, of what pictures show: (2, 3), order x, y, z."""
    search = geometry.working_grid(lobes, _SEARCH_MM)
    return _box(geometry.array(geometry.resample(lobes, search, "nearest")) != 0, search)


def scale_of(box: np.ndarray) -> float:
    """Return the millimetres in a pixel of the pictures that show a box."""
    return float(box[1, 0] - box[0, 0]) / _LUNGS_PX


def _choose(where: np.ndarray, lesion: np.ndarray) -> list[tuple[Plane, int, float]]:
    """Return (plane, index on the search grid, lesion area in cm²) of the planes to draw."""
    cm2 = (_SEARCH_MM / 10.0) ** 2
    chosen: list[tuple[Plane, int, float]] = []

    def add(plane: Plane, index: int) -> None:
        area = float(lesion.take(index, axis=_AXIS[plane]).sum()) * cm2
        chosen.append((plane, index, area))

    lung = where != 0
    for level in _axial_levels(_profile(lesion, "axial"), _profile(lung, "axial")):
        add("axial", level)
    add("coronal", _fullest(lesion, lung, "coronal"))
    for side in (RIGHT_LOBES, LEFT_LOBES):
        in_side = np.isin(where, side)
        if (lesion & in_side).any() or (in_side.any() and not lesion.any()):
            add("sagittal", _fullest(lesion & in_side, in_side, "sagittal"))
    return chosen


def _profile(mask: np.ndarray, plane: Plane) -> np.ndarray:
    """Return the voxels of ``mask`` in each plane, smoothed over three planes."""
    axis = _AXIS[plane]
    counts = mask.sum(axis=tuple(a for a in range(3) if a != axis))
    return np.convolve(counts, (0.25, 0.5, 0.25), mode="same")


def _fullest(lesion: np.ndarray, lung: np.ndarray, plane: Plane) -> int:
    """Return the plane with most lesion, without lesions the one with most lung."""
    return int(np.argmax(_profile(lesion if lesion.any() else lung, plane)))


def _axial_levels(lesion: np.ndarray, lung: np.ndarray) -> list[int]:
    """Return up to three levels, head first: those with most lesion, well apart from each other.

    Levels left over are spread over the lungs' height, so that a reader sees where nothing is.
    """
    inside = np.flatnonzero(lung)
    first, last = (int(inside[0]), int(inside[-1])) if inside.size else (0, len(lung) - 1)
    spread = [round(first + f * (last - first)) for f in (0.5, 0.7, 0.3)]
    gap = max(1, round(0.15 * (last - first)))
    by_lesion = [int(k) for k in np.argsort(-lesion, kind="stable") if lesion[k] > 0]
    levels: list[int] = []
    for level in (*by_lesion, *spread):
        if len(levels) < _AXIAL_LEVELS and all(abs(level - other) >= gap for other in levels):
            levels.append(level)
    return sorted(levels, reverse=True)


def _box(lung: np.ndarray, search: sitk.Image) -> np.ndarray:
    """Return the lower and upper LPS corner, mm, of what pictures show: (2, 3), order x, y, z."""
    shown = lung if lung.any() else np.ones_like(lung)
    ends = [(part.start, part.stop - 1) for part in reversed(bounding_box(shown))]
    index = np.array(ends, dtype=float).T
    corners = np.array(search.GetOrigin()) + index * _SEARCH_MM
    corners[0] -= _SEARCH_MM / 2.0 + _MARGIN_MM
    corners[1] += _SEARCH_MM / 2.0 + _MARGIN_MM
    return corners


def _position(plane: Plane, index: int, search: sitk.Image) -> float:
    axis = 2 - _AXIS[plane]
    return float(search.GetOrigin()[axis]) + index * _SEARCH_MM


@dataclass(frozen=True)
class Scan:
    """The images of one scan and what its pictures have in common.

    Attributes:
        ct: CT in HU, any orientation.
        lobes: Labels of :class:`~DRAMLesionLib.lobes.Lobe` on any grid in the CT's space.
        lesions: Labels of :data:`~DRAMLesionLib.report.model.LESION_LABELS`, likewise.
        dram: Values 0..1, likewise; None draws no heat maps.
        box: What pictures show, see :func:`lungs_box`.
        scale: Millimetres in a pixel.
    """

    ct: sitk.Image
    lobes: sitk.Image
    lesions: sitk.Image
    dram: sitk.Image | None
    box: np.ndarray
    scale: float

    def draw(
        self,
        plane: Plane,
        position_mm: float,
        lesion_cm2: float,
        marks: Sequence[tuple[str, Sequence[float]]] = (),
    ) -> KeySlice:
        """Draw one plane.

        Args:
            plane: Which way it is cut.
            position_mm: Where, LPS mm.
            lesion_cm2: What the caption says.
            marks: Texts to write at points in LPS mm, if those lie in the picture.
        """
        thick = self._grid(plane, position_mm, _LAYERS_MM)
        thin = self._grid(plane, position_mm, (0.0,))
        base = drawing.grey(_slice(self.ct, thick, plane, fill=drawing.WINDOW_HU[0]))
        lobes = _shares(self.lobes, [int(lobe) for lobe in Lobe], thin, plane)
        lesions = _shares(self.lesions, list(LESION_LABELS), thin, plane)
        outlined = drawing.with_outlines(base, lobes, lesions)
        heat = None
        if self.dram is not None:
            # on its own coarser grid the dRAM reaches a little beyond the lungs
            lung = np.clip(sum(lobes.values(), np.zeros((base.height, base.width))), 0.0, 1.0)
            heat = drawing.with_heat(base, lung * _slice(self.dram, thin, plane))
            heat = drawing.with_directions(heat, _LETTERS[plane], self.scale)
        outlined = drawing.with_directions(outlined, _LETTERS[plane], self.scale)
        places = [(text, self._pixel(plane, point, base.height)) for text, point in marks]
        outlined = drawing.with_marks(outlined, places)
        return KeySlice(
            plane=plane,
            position_mm=position_mm,
            lesion_cm2=lesion_cm2,
            width=base.width,
            height=base.height,
            outlined=drawing.png(outlined),
            heat=None if heat is None else drawing.png(heat),
        )

    def _pixel(self, plane: Plane, point: Sequence[float], height: int) -> tuple[float, float]:
        """Return column and row of a point."""
        at = (np.array(point) - self.box[0]) / self.scale
        across, down = (a for a in range(3) if a != 2 - _AXIS[plane])
        row = float(at[down])
        return float(at[across]), row if plane == "axial" else height - row

    def _grid(self, plane: Plane, position_mm: float, layers: Sequence[float]) -> sitk.Image:
        """Return an empty LPS grid of square pixels, a few layers thick, through the plane."""
        normal = 2 - _AXIS[plane]
        size = [max(1, round(float(e) / self.scale)) for e in self.box[1] - self.box[0]]
        spacing = [self.scale] * 3
        origin = self.box[0] + self.scale / 2.0
        size[normal] = len(layers)
        spacing[normal] = layers[1] - layers[0] if len(layers) > 1 else 1.0
        origin[normal] = position_mm + layers[0]
        grid = sitk.Image(size, sitk.sitkUInt8)
        grid.SetSpacing(spacing)
        grid.SetOrigin(origin.tolist())
        return grid


def _slice(image: sitk.Image, grid: sitk.Image, plane: Plane, fill: float = 0.0) -> np.ndarray:
    """Return ``image`` on ``grid`` as (row, column), averaged over layers, head or front on top."""
    near = _crop(image, grid)
    axis = _AXIS[plane]
    if near is None:
        shape = [n for a, n in enumerate(grid.GetSize()[::-1]) if a != axis]
        return np.full(shape, fill, dtype=np.float32)
    pixels = geometry.array(geometry.resample(near, grid, "linear", fill)).mean(axis=axis)
    return pixels if plane == "axial" else pixels[::-1]


def _shares(
    labels: sitk.Image, wanted: Sequence[int], grid: sitk.Image, plane: Plane
) -> dict[int, np.ndarray]:
    """Return for each label in the plane the share of each pixel that it covers."""
    near = _crop(labels, grid)
    if near is None:
        return {}
    present = set(np.unique(sitk.GetArrayViewFromImage(near)).tolist())
    return {
        label: _slice(sitk.Cast(near == label, sitk.sitkFloat32), grid, plane)
        for label in wanted
        if label in present
    }


def _crop(image: sitk.Image, grid: sitk.Image) -> sitk.Image | None:
    """Return the part of ``image`` around ``grid``, None if they do not meet.

    A whole scan has to be gone through for each of a dozen pictures otherwise.
    """
    size = np.array(image.GetSize())
    far = np.array(grid.GetSize()) - 1
    corners = [
        image.TransformPhysicalPointToContinuousIndex(
            grid.TransformIndexToPhysicalPoint([int(n) for n in np.where(corner, far, 0)])
        )
        for corner in np.ndindex(2, 2, 2)
    ]
    lower = np.maximum(np.floor(np.min(corners, axis=0)).astype(int) - 1, 0)
    upper = np.minimum(np.ceil(np.max(corners, axis=0)).astype(int) + 2, size)
    if (upper <= lower).any():
        return None
    (x0, y0, z0), (x1, y1, z1) = lower.tolist(), upper.tolist()
    return image[x0:x1, y0:y1, z0:z1]
