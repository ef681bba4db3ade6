"""A reader's points in the scene, and the result that follows them.

The points are two lists of Markups, *lesion* and *background*, which belong to a result as its maps
do: they are saved with the scene, and stay on the CT under a transform. The map that the threshold
acts on is corrected in place; what the network said of the lobes is kept beside it, in a volume of
its own, and every correction is computed from that.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.images import boxes
from DRAMLesionLib.lesions.clicks import Click, ScanClicks, by_lobe
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.mrml import display, scores, segments, volumes
from DRAMLesionLib.mrml.result import (
    BEFORE_CLICKS,
    CLICKS,
    POINTS,
    PSEUDOLABEL,
    Result,
    drop_map_before_clicks,
    make_node,
)
from DRAMLesionLib.reading.markups import BACKGROUND, COLOURS, LESION, Point

_ORDER = "clickOrder"
"""Parameter with the points in the order in which they came: role and ID in its list."""


@dataclass(frozen=True)
class Placed:
    """A point of a list in the scene.

    Attributes:
        role: Of its list, a key of :data:`POINTS`.
        id: Its ID in that list.
        click: The voxel of the CT that it lies in.
    """

    role: str
    id: str
    click: Click


def points_node(result: Result, role: str) -> Any:
    """Return a list of points, made where it is missing: ``lesionPoints``, ``backgroundPoints``."""
    node = result.get(role)
    if node is not None:
        return node
    node, kind = make_node(result, role), POINTS[role]
    # the kind is in the label of each point, and so in every file that Slicer writes
    node.SetControlPointLabelFormat(f"{kind}-%d")
    node.SetAndObserveTransformNodeID(result.ct.GetTransformNodeID())
    display = node.GetDisplayNode()
    for set_colour in (display.SetColor, display.SetSelectedColor):
        set_colour(*COLOURS[kind])
    display.SetPointLabelsVisibility(False)
    return node


def placed(result: Result) -> list[Placed]:
    """Return the points of a result in the order in which they came.

    Points that are being placed, or whose place was taken back, are left out.

    Raises:
        InputError: If a transform above the CT cannot be included.
    """
    found: dict[tuple[str, str], Placed] = {}
    for role in POINTS:
        node = result.get(role)
        for number in _defined(node):
            identifier = node.GetNthControlPointID(number)
            place = [0.0, 0.0, 0.0]
            node.GetNthControlPointPositionWorld(number, place)
            click = Click(_voxel(result.ct, place), POINTS[role] == LESION)
            found[role, identifier] = Placed(role, identifier, click)
    known = [tuple(entry) for entry in json.loads(result.node.GetParameter(_ORDER) or "[]")]
    order = [key for key in known if key in found] + [key for key in found if key not in known]
    if order != known:
        result.node.SetParameter(_ORDER, json.dumps(order))
    return [found[key] for key in order]


def _defined(node: Any) -> list[int]:
    """Return the numbers of the points of a list that have their place; None is no list."""
    if node is None:
        return []
    numbers = range(node.GetNumberOfControlPoints())
    return [n for n in numbers if node.GetNthControlPointPositionStatus(n) == node.PositionDefined]


def remove_last(result: Result) -> bool:
    """Take the point that came last out of its list; returns whether there was one."""
    points = placed(result)
    if points:
        node = result.get(points[-1].role)
        node.RemoveNthControlPoint(node.GetNthControlPointIndexByID(points[-1].id))
    return bool(points)


def remove_all(result: Result) -> None:
    """Take all points away."""
    for role in POINTS:
        node = result.get(role)
        if node is not None:
            node.RemoveAllControlPoints()


def add_points(result: Result, points: Sequence[Point]) -> None:
    """Add points, from a file for instance; one that is there already is left out."""
    there = {one.click for one in placed(result)}
    for point in points:
        x, y, z = point.place
        world = (-x, -y, z)
        if Click(_voxel(result.ct, world), point.lesion) in there:
            continue
        role = next(role for role, kind in POINTS.items() if kind == point.kind)
        points_node(result, role).AddControlPointWorld(vtk.vtkVector3d(*world))


def points_of(result: Result) -> list[Point]:
    """Return the points as files have them: LPS mm in the space of the CT's image."""
    found = []
    for one in placed(result):
        node = result.get(one.role)
        place = [0.0, 0.0, 0.0]
        node.GetNthControlPointPositionWorld(node.GetNthControlPointIndexByID(one.id), place)
        found.append(Point((-place[0], -place[1], place[2]), one.click.lesion))
    return found


def _voxel(ct: Any, world: Sequence[float]) -> tuple[int, int, int]:
    i, j, k = (np.linalg.inv(volumes.ijk_to_world(ct)) @ (*world, 1.0))[:3]
    return round(float(k)), round(float(j)), round(float(i))


def state(result: Result) -> list[list[int]]:
    """Return all clicks as they are now, wherever they lie: k, j, i and 1 for lesion.

    Raises:
        InputError: If a transform above the CT cannot be included.
    """
    return _plain([one.click for one in placed(result)])


def _followed(result: Result) -> dict[str, list[list[int]]]:
    """Return the clicks that map and pseudo-label follow, by lobe; "0" for those in no lobe."""
    return json.loads(result.node.GetParameter(CLICKS) or "{}")


def is_followed(result: Result) -> bool:
    """Tell whether map and pseudo-label are as the points say."""
    return sorted(click for own in _followed(result).values() for click in own) == state(result)


def count(result: Result) -> tuple[int, int, int]:
    """Return how many points there are: on lesion, on background, and of both in no lobe."""
    numbers = {kind: len(_defined(result.get(role))) for role, kind in POINTS.items()}
    return numbers[LESION], numbers[BACKGROUND], len(_followed(result).get("0", []))


class Follower:
    """Lets map, pseudo-label, table and chart of a result follow its points.

    Holds what does not hang on the points, so that a click costs little. Make another one when
    :attr:`current` is false.

    Args:
        result: A complete result.
    """

    def __init__(self, result: Result) -> None:
        self._result = result
        self._segments = self._mtime()
        lobes = result.lobes()
        self._shape = lobes.shape
        self._box = boxes.bounding_box(lobes > 0)
        self._lobes = np.ascontiguousarray(lobes[self._box])
        vessels = segments.mask_of(result.get("segmentation"), "vessels", result.ct)
        self._vessels = np.ascontiguousarray(vessels[self._box]) & (self._lobes > 0)
        self._voxels = {lobe: np.count_nonzero(self._lobes == lobe) for lobe in Lobe}
        self._ready: tuple[Any, ScanClicks] | None = None
        self._image: Any = None
        self._stamp = 0
        self._is_edited = False

    def _mtime(self) -> list[int]:
        """Return when each lobe, the vessels and the CT were changed last."""
        node = self._result.get("segmentation")
        names = (*(spec.id for spec in segments.LOBE_SEGMENTS), "vessels")
        images = [node.GetBinaryLabelmapInternalRepresentation(name) for name in names]
        images.append(self._result.ct.GetImageData())
        return [image.GetMTime() if image is not None else 0 for image in images]

    def fits(self, result: Result) -> bool:
        """Tell whether this is for a result, and its lobes and CT are what they were."""
        same = result.node is self._result.node
        return same and self._result.complete and self._mtime() == self._segments

    def follow(self) -> None:
        """Bring everything to where the points are now; those in no lobe change nothing.

        Raises:
            InputError: If two points of different kind lie in one voxel, a transform above the CT
                cannot be included, or the map as the network made it was removed from the scene.
        """
        result = self._result
        start = np.array([part.start for part in self._box])
        clicks = [_shifted(one.click, -start) for one in placed(result)]
        wanted = {str(lobe): own for lobe, own in by_lobe(self._lobes, clicks).items()}
        now = {lobe: _plain([_shifted(one, start) for one in own]) for lobe, own in wanted.items()}
        before = _followed(result)
        changed = sorted(lobe for lobe in now | before if now.get(lobe) != before.get(lobe))
        self._correct({int(lobe): wanted.get(lobe, []) for lobe in changed if lobe != "0"})
        result.node.SetParameter(CLICKS, json.dumps(now) if now else "")
        if not set(now) - {"0"}:
            drop_map_before_clicks(result)

    def _correct(self, clicks: dict[int, list[Click]]) -> None:
        """Correct some lobes by all their clicks, from the map as the network made it."""
        if not clicks:
            return
        result = self._result
        scan = self._scan()
        corrected = {lobe: scan.corrected(lobe, own) for lobe, own in clicks.items()}
        node = result.get(result.map_role)
        values = slicer.util.arrayFromVolume(node)[self._box]
        labels = self._labels()
        threshold = np.float32(result.threshold)
        fingerprint = segments.Fingerprint.parse(result.fingerprint("pseudolabel"))
        for box, inside, new in corrected.values():
            part, label, vessel = values[box], labels[box], self._vessels[box]
            is_lesion = new > threshold
            # where the map crosses the threshold; what was painted by hand elsewhere stays
            flipped = inside & (is_lesion != (part > threshold))
            where = np.nonzero(flipped)
            after = vessel[where] * np.uint8(segments.VESSEL_LABEL)
            after[is_lesion[where]] = segments.LESION_LABEL
            self._note(fingerprint, box, where, label[where], after)
            label[where] = after
            part[inside] = new[inside]
        for own in clicks.values():
            self._obey(own, labels, fingerprint)
        slicer.util.arrayFromVolumeModified(node)
        self._image.GetPointData().GetScalars().Modified()
        self._image.Modified()
        self._stamp = self._image.GetMTime()
        lesion = result.get("pseudolabel").GetSegmentation().GetSegment("lesion")
        lesion.Modified()  # slice views draw anew when a segment, not when its label map, changes
        if not self._is_edited:
            result.accept("pseudolabel", fingerprint.text)
        self._count(labels)

    def _obey(
        self,
        clicks: Sequence[Click],
        labels: np.ndarray,
        fingerprint: segments.Fingerprint,
    ) -> None:
        """Let the pseudo-label have each click on its side, even where it was painted over."""
        for click in clicks:
            vessel = segments.VESSEL_LABEL * int(self._vessels[click.voxel])
            wanted = segments.LESION_LABEL if click.lesion else vessel
            now = int(labels[click.voxel])
            if (now == segments.LESION_LABEL) == click.lesion:
                continue
            number = self._numbers([np.array([v]) for v in click.voxel])
            fingerprint.remove(now, number)
            fingerprint.add(wanted, number)
            labels[click.voxel] = wanted

    def _note(
        self,
        fingerprint: segments.Fingerprint,
        box: boxes.Slices,
        where: Sequence[np.ndarray],
        before: np.ndarray,
        after: np.ndarray,
    ) -> None:
        """Let the fingerprint follow voxels of a lobe's box that change."""
        numbers = self._numbers([w + part.start for w, part in zip(where, box, strict=True)])
        for label in (segments.VESSEL_LABEL, segments.LESION_LABEL):
            fingerprint.remove(label, numbers[before == label])
            fingerprint.add(label, numbers[after == label])

    def _numbers(self, voxels: Sequence[np.ndarray]) -> np.ndarray:
        """Return indices in the whole grid from (k, j, i) in the box around the lobes."""
        k, j, i = (v + part.start for v, part in zip(voxels, self._box, strict=True))
        return (k * self._shape[1] + j) * self._shape[2] + i

    def _scan(self) -> ScanClicks:
        """Return CT and map as the network made it, ready for clicks."""
        original = self._original()
        node = self._result.get(BEFORE_CLICKS)
        if self._ready is None or self._ready[0] is not node:
            ct = self._result.ct
            spacing = np.linalg.norm(volumes.ijk_to_world(ct)[:3, :3], axis=0)[::-1].tolist()
            hu = slicer.util.arrayFromVolume(ct)[self._box]
            self._ready = (node, ScanClicks(hu, original, self._lobes, self._vessels, spacing))
        return self._ready[1]

    def _original(self) -> np.ndarray:
        """Return the map as the network made it, in the box; kept from the first click on."""
        result = self._result
        node = result.get(BEFORE_CLICKS)
        low = [part.start for part in self._box]
        if node is None:
            if set(_followed(result)) - {"0"}:
                message = (
                    f"the map of {result.ct.GetName()} as it was before the clicks was removed "
                    "from the scene: Apply computes it anew"
                )
                raise InputError(message)
            values = slicer.util.arrayFromVolume(result.get(result.map_role))[self._box]
            node = make_node(result, BEFORE_CLICKS)
            # before there are voxels: a new display would look for a window among all of them
            display.show_as_heat_map(node)
            slicer.util.updateVolumeFromArray(node, values)
            volumes.place(node, result.ct, low)
            result.node.SetParameter(BEFORE_CLICKS, json.dumps(low))
        original = slicer.util.arrayFromVolume(node)
        if original.shape != self._lobes.shape or low != json.loads(
            result.node.GetParameter(BEFORE_CLICKS)
        ):
            message = (
                f"the lobes of {result.ct.GetName()} were changed after the first click: take the "
                "points away, or Apply computes the map anew"
            )
            raise InputError(message)
        return original

    def prepare(self) -> None:
        """Do what the first point would have to wait for."""
        self._labels()

    def _labels(self) -> np.ndarray:
        """Return the pseudo-label in the box, to be written into; brought there if need be."""
        result = self._result
        node = result.get("pseudolabel")
        image = node.GetBinaryLabelmapInternalRepresentation("lesion")
        if image is None or image is not self._image or image.GetMTime() != self._stamp:
            if self._is_in_place(image):
                stored = result.fingerprint("pseudolabel")
                self._is_edited = self._print_of(segments.array_view(image)) != stored
            else:
                self._is_edited = result.is_edited("pseudolabel")
                box = ([part.start for part in self._box], [part.stop for part in self._box])
                specs = segments.PSEUDOLABEL_SEGMENTS
                segments.put_layer(node, specs, result.pseudolabel(), result.ct, box)
                image = node.GetBinaryLabelmapInternalRepresentation("lesion")
            self._image, self._stamp = image, image.GetMTime()
        return segments.array_view(self._image)

    def _is_in_place(self, image: Any) -> bool:
        """Tell whether both segments of the pseudo-label are stored in the box, and in one map."""
        node = self._result.get("pseudolabel")
        for spec in segments.PSEUDOLABEL_SEGMENTS:
            segment = node.GetSegmentation().GetSegment(spec.id)
            own = node.GetBinaryLabelmapInternalRepresentation(spec.id) if segment else None
            if own is None or own is not image or segment.GetLabelValue() != spec.label:
                return False
        first = tuple(part.start for part in self._box)
        is_there = segments.offset_on(image, self._result.ct) == first
        return is_there and segments.array_view(image).shape == self._lobes.shape

    def _print_of(self, labels: np.ndarray) -> str:
        """Return the fingerprint of a pseudo-label that lies in the box."""
        made = segments.Fingerprint({})
        for spec in segments.PSEUDOLABEL_SEGMENTS:
            made.add(spec.label, self._numbers(np.nonzero(labels == spec.label)))
        return made.text

    def _count(self, labels: np.ndarray) -> None:
        """Count the pseudo-label by lobe, and show that."""
        result = self._result
        ml = volumes.voxel_ml(result.ct)
        lesion = np.bincount(self._lobes[labels == segments.LESION_LABEL], minlength=6)
        rows = scores.untyped_rows(
            {lobe: float(self._voxels[lobe] * ml) for lobe in Lobe},
            {lobe: float(lesion[lobe] * ml) for lobe in Lobe},
            scores.rows_of_report(result.report),
        )
        result.set_rows(rows, PSEUDOLABEL)


def _shifted(click: Click, by: np.ndarray) -> Click:
    k, j, i = (int(a + b) for a, b in zip(click.voxel, by, strict=True))
    return Click((k, j, i), click.lesion)


def _plain(clicks: Sequence[Click]) -> list[list[int]]:
    """Return clicks as JSON holds them, in an order of their own."""
    return sorted([*click.voxel, int(click.lesion)] for click in clicks)
