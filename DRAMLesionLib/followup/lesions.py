"""Which lesion of the later scan is which of the earlier one, and what has become of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from DRAMLesionLib.followup.model import KINDS, Change, Event, LesionChange, Point, Timepoint
from DRAMLesionLib.followup.registration import Registration
from DRAMLesionLib.followup.uncertainty import SEEN_ML, border_ml, breath_ml, of_change
from DRAMLesionLib.images import geometry
from DRAMLesionLib.images.boxes import bounding_box
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.report.model import LESION_LABELS

LEAST_ML = 0.05
"""Smaller lesions are counted by lobe, but are not followed one by one."""

_MATCH_MM = 2.0
"""Voxels on which lesions of both scans are laid over each other."""

_REACH_MM = 4.0
"""So far apart two outlines of one lesion may lie: the error of the registration."""

_SHARE = 0.25
"""So much of the smaller of two lesions has to lie within the reach of the other."""

_LABEL_OF = {name.replace(" ", "_"): label for label, name in LESION_LABELS.items()}


@dataclass(frozen=True)
class _Parts:
    """The lesions of one scan, numbered from 1; arrays are by number, what stands at 0 is empty.

    Attributes:
        labels: Image with the numbers, on the grid of the CT.
        ml: Volumes.
        kinds: ml by number and lesion label 0..3.
        lobes: ml by number and lobe 0..5.
        sd: By how much the volume is off, ml.
        air: Share of air, 0 to 1.
        middle: Centres, LPS mm.
        kept: Numbers of those that are followed.
    """

    labels: sitk.Image
    ml: np.ndarray
    kinds: np.ndarray
    lobes: np.ndarray
    sd: np.ndarray
    air: np.ndarray
    middle: np.ndarray
    kept: np.ndarray


def match(earlier: Timepoint, later: Timepoint, found: Registration) -> list[LesionChange]:
    """Follow each lesion from the earlier scan to the later one.

    Returns:
        What has changed first, the largest change in ml on top; then what is unchanged, the
        largest lesion on top; then what the other CT does not reach.
    """
    before, after = _parts(earlier), _parts(later)
    grid = geometry.working_grid(found.expansion, _MATCH_MM)
    old = geometry.array(geometry.resample(before.labels, grid, "nearest"))
    new = geometry.array(
        sitk.Resample(after.labels, grid, found.transform, sitk.sitkNearestNeighbor, 0)
    )
    old = np.where(np.isin(old, before.kept), old, 0)
    new = np.where(np.isin(new, after.kept), new, 0)
    groups = _groups(old, new, before.kept, after.kept)
    follower = _Follower(earlier, later, found, before, after, _overlay(old, new, grid, found))
    changes = [follower.change(*group) for group in groups]
    return sorted(changes, key=_order)


def _order(lesion: LesionChange) -> tuple[int, float]:
    if lesion.event == "outside":
        return 2, -max(lesion.change.earlier_ml, lesion.change.later_ml)
    if lesion.changed:
        return 0, -abs(lesion.change.ml)
    return 1, -max(lesion.change.earlier_ml, lesion.change.later_ml)


def _parts(scan: Timepoint) -> _Parts:
    lesion = geometry.array(scan.lesions)
    where = geometry.array(scan.lobes)
    lesion[where == 0] = 0
    box = bounding_box(lesion > 0, margin=1)
    numbers = np.zeros(lesion.shape, dtype=np.int32)
    numbers[box], count = ndimage.label(lesion[box] > 0, np.ones((3, 3, 3)))
    inside, voxel_ml = numbers[box].ravel(), geometry.voxel_ml(scan.ct)

    def table(labels: np.ndarray, width: int) -> np.ndarray:
        code = inside * width + labels[box].ravel()
        return np.bincount(code, minlength=(count + 1) * width).reshape(count + 1, width) * voxel_ml

    kinds = table(lesion, len(LESION_LABELS) + 1)
    ml = kinds[:, 1:].sum(axis=1)
    hu = sitk.GetArrayViewFromImage(scan.ct)[box].ravel()
    size = np.maximum(np.bincount(inside, minlength=count + 1), 1)
    mean = np.bincount(inside, weights=hu, minlength=count + 1) / size
    middle = _middles(numbers, box, count, size, scan.ct)
    return _Parts(
        labels=geometry.image_like(numbers, scan.ct),
        ml=ml,
        kinds=kinds,
        lobes=table(where, len(Lobe) + 1),
        sd=border_ml(numbers[box], scan.ct.GetSpacing(), count),
        air=np.clip(-mean / 1000.0, 0.0, 1.0),
        middle=middle,
        kept=np.flatnonzero(ml >= LEAST_ML),
    )


def _middles(
    numbers: np.ndarray,
    box: tuple[slice, slice, slice],
    count: int,
    size: np.ndarray,
    ct: sitk.Image,
) -> np.ndarray:
    """Return the centre of each lesion in LPS mm, (count + 1, 3)."""
    inside = numbers[box]
    index = np.zeros((count + 1, 3))
    for column, axis in enumerate((2, 1, 0)):
        shape = [1, 1, 1]
        shape[axis] = -1
        places = np.broadcast_to(
            np.arange(box[axis].start, box[axis].stop, dtype=float).reshape(shape), inside.shape
        )
        sums = np.bincount(inside.ravel(), weights=places.ravel(), minlength=count + 1)
        index[:, column] = sums / size
    turn = np.array(ct.GetDirection()).reshape(3, 3)
    return np.array(ct.GetOrigin()) + (index * ct.GetSpacing()) @ turn.T


def _groups(
    old: np.ndarray, new: np.ndarray, before: np.ndarray, after: np.ndarray
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield earlier and later lesions that belong together."""
    parent = {("old", int(n)): ("old", int(n)) for n in before}
    parent |= {("new", int(n)): ("new", int(n)) for n in after}

    def root(node: tuple[str, int]) -> tuple[str, int]:
        while parent[node] != node:
            node = parent[node]
        return node

    for a, b in _pairs(old, new):
        parent[root(("old", a))] = root(("new", b))
    groups: dict[tuple[str, int], tuple[list[int], list[int]]] = {}
    for side, number in parent:
        pair = groups.setdefault(root((side, number)), ([], []))
        pair[side == "new"].append(number)
    yield from groups.values()


def _pairs(old: np.ndarray, new: np.ndarray) -> set[tuple[int, int]]:
    """Return which earlier lesion lies over which later one."""
    return _within_reach(old, new) | {(a, b) for b, a in _within_reach(new, old)}


def _within_reach(wide: np.ndarray, own: np.ndarray) -> set[tuple[int, int]]:
    """Return (a, b) where enough of lesion b of ``own`` lies within the reach of a of ``wide``."""
    if not wide.any() or not own.any():
        return set()
    box = bounding_box((wide > 0) | (own > 0))
    wide, own = wide[box], own[box]
    distance, nearest = ndimage.distance_transform_edt(
        wide == 0, sampling=_MATCH_MM, return_indices=True
    )
    reached = np.where(distance <= _REACH_MM, wide[tuple(nearest)], 0)
    both = (reached > 0) & (own > 0)
    pairs, counts = np.unique(np.stack([reached[both], own[both]]), axis=1, return_counts=True)
    size = np.bincount(own.ravel())
    enough = counts >= _SHARE * size[pairs[1]]
    return {(int(a), int(b)) for a, b in pairs[:, enough].T}


@dataclass(frozen=True)
class _Overlay:
    """The voxels of one grid in the earlier CT's space that hold a lesion at either time.

    Attributes:
        old: Number of the earlier lesion, 0 none.
        new: Number of the later one.
        places: LPS mm of the earlier CT, (n, 3).
        expansion: Volume of the lung there, later over earlier.
    """

    old: np.ndarray
    new: np.ndarray
    places: np.ndarray
    expansion: np.ndarray


def _overlay(old: np.ndarray, new: np.ndarray, grid: sitk.Image, found: Registration) -> _Overlay:
    where = np.nonzero((old > 0) | (new > 0))
    places = np.stack(where[::-1], axis=1) * _MATCH_MM + grid.GetOrigin()
    expansion = geometry.array(geometry.resample(found.expansion, grid, "linear", 1.0))
    return _Overlay(old[where], new[where], places, expansion[where])


@dataclass(frozen=True)
class _Follower:
    """What is known of both scans when groups of lesions are told."""

    earlier: Timepoint
    later: Timepoint
    found: Registration
    before: _Parts
    after: _Parts
    overlay: _Overlay

    def change(self, olds: list[int], news: list[int]) -> LesionChange:
        """Tell what has become of one group."""
        before, after, overlay = self.before, self.after, self.overlay
        here = np.isin(overlay.old, olds) | np.isin(overlay.new, news)
        parts, numbers = (before, olds) if olds else (after, news)
        volume = float(parts.ml[numbers].sum())
        # of something that is not there at both times nothing is pressed together
        spread = float(overlay.expansion[here].mean()) if olds and news and here.any() else 1.0
        air = float((parts.air[numbers] * parts.ml[numbers]).sum() / volume)
        limit = of_change(
            float(before.sd[olds].sum()),
            float(after.sd[news].sum()),
            breath_ml(volume, spread, air),
        )
        if not (olds and news):
            limit = max(limit, SEEN_ML)
        change = Change(float(before.ml[olds].sum()), float(after.ml[news].sum()), limit)
        place, other = self._places(here, olds, news)
        names = self._lobes(olds, news)
        return LesionChange(
            event=self._event(olds, news),
            lobes=names,
            change=change,
            kinds={
                kind: (
                    float(before.kinds[olds, _LABEL_OF[kind]].sum()),
                    float(after.kinds[news, _LABEL_OF[kind]].sum()),
                )
                for kind in KINDS
            },
            earlier_count=len(olds),
            later_count=len(news),
            earlier_percent=_percent(change.earlier_ml, self.earlier, names),
            later_percent=_percent(change.later_ml, self.later, names),
            earlier_mm=place,
            later_mm=other,
        )

    def _event(self, olds: list[int], news: list[int]) -> Event:
        if not news:
            there = self.found.transform
            points = [_point(there.TransformPoint(_point(self.before.middle[n]))) for n in olds]
            return "gone" if _inside(self.later.ct, points) else "outside"
        if not olds:
            back = self.found.affine.GetInverse()
            points = [_point(back.TransformPoint(_point(self.after.middle[n]))) for n in news]
            return "new" if _inside(self.earlier.ct, points) else "outside"
        if len(olds) == len(news) == 1:
            return "same"
        if len(olds) > 1 and len(news) > 1:
            return "regrouped"
        return "merged" if len(olds) > 1 else "split"

    def _places(
        self, here: np.ndarray, olds: list[int], news: list[int]
    ) -> tuple[Point | None, Point | None]:
        """Return one place of the body in both scans, LPS mm."""
        if not here.any():
            # too thin for a voxel of this grid, or outside of it
            middle = self.before.middle[olds[0]] if olds else self.after.middle[news[0]]
            return (_point(middle), None) if olds else (None, _point(middle))
        places = self.overlay.places[here]
        off = ((places - places.mean(axis=0)) ** 2).sum(axis=1)
        place = _point(places[np.argmin(off)])
        return place, _point(self.found.transform.TransformPoint(place))

    def _lobes(self, olds: list[int], news: list[int]) -> tuple[str, ...]:
        """Return the lobes that hold a tenth of the group at least, the largest part first."""
        ml = self.before.lobes[olds].sum(axis=0) + self.after.lobes[news].sum(axis=0)
        order = [n for n in np.argsort(-ml[1:], kind="stable") + 1 if ml[n] >= 0.1 * ml.sum()]
        return tuple(Lobe(int(n)).name for n in order)


def _point(values: Sequence[float] | np.ndarray) -> Point:
    x, y, z = (float(value) for value in values)
    return x, y, z


def _inside(ct: sitk.Image, points: list[Point]) -> bool:
    """Tell whether most of some points lie within a CT."""
    size = np.array(ct.GetSize())
    index = [ct.TransformPhysicalPointToContinuousIndex(p) for p in points]
    hit = ((np.array(index) > -0.5) & (np.array(index) < size - 0.5)).all(axis=1)
    return 2 * int(hit.sum()) >= len(points)


def _percent(ml: float, scan: Timepoint, lobes: tuple[str, ...]) -> float | None:
    volumes = [scan.report.row(name).volume_ml for name in lobes]
    total = sum(volume for volume in volumes if volume)
    return 100.0 * ml / total if total and None not in volumes else None
