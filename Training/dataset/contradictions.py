"""Labels of a scan that contradict each other or the scan, each named in one sentence.

What can be used is used as it stands: the loss meets two labels that differ half way. What cannot,
such as a slice that the CT lacks, is an error of the case.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.lesions.severity import score_to_interval
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.reading.markups import Point
from Training.dataset.cache import UNKNOWN
from Training.dataset.scores import Problem, Scores
from Training.dataset.voxel_labels import is_axial
from Training.dataset.weak_labels import RegionLabel

_TOLERANCE = 0.01
"""Of a share: a label is a reader's, and outlines have edges."""


def check_labels(
    name: str,
    ct: sitk.Image,
    lobes: np.ndarray,
    labels: Sequence[RegionLabel],
    scores: Scores,
    voxels: np.ndarray | None,
    points: Sequence[Point],
) -> list[Problem]:
    """Check the labels of a case against each other.

    Args:
        name: Of the case.
        ct: The scan.
        lobes: (k, j, i) labels of :class:`Lobe` on its grid.
        labels: Of regions.
        scores: Of lobes.
        voxels: (k, j, i) uint8 on the same grid: what a person has outlined (0, 1, 255); None if
            nothing.
        points: That a person has placed.
    """
    found = _slices(ct, lobes, labels)
    if any(fatal for _, fatal in found):
        return [Problem(name, message, fatal) for message, fatal in found]
    intervals = [_interval(lobe, score) for lobe, score in scores.items() if score is not None]
    everything = [*intervals, *labels]
    notes = [message for message, _ in found]
    notes += _regions(lobes, everything)
    notes += _points(ct, lobes, everything, voxels, points)
    if voxels is not None:
        notes += _outlined(lobes, everything, voxels)
    return [Problem(name, message, fatal=False) for message in notes]


def inside(lobes: np.ndarray, label: RegionLabel) -> np.ndarray:
    """Return the lung voxels of a region, (k, j, i) bool.

    Args:
        lobes: (k, j, i) labels of :class:`Lobe` on the grid of the CT.
        label: The region.
    """
    if not label.is_slice:
        return np.isin(lobes, label.lobes)
    result = np.zeros(lobes.shape, dtype=bool)
    result[label.slice_number] = lobes[label.slice_number] > 0
    return result


def _interval(lobe: Lobe, score: int) -> RegionLabel:
    return RegionLabel(lobe.name, *score_to_interval(score))


def _said(label: RegionLabel) -> str:
    """Return what a label says of its region."""
    return f"the label '{label}'" if label.region not in Lobe.__members__ else f"'{label}'"


def _slices(
    ct: sitk.Image, lobes: np.ndarray, labels: Sequence[RegionLabel]
) -> list[tuple[str, bool]]:
    """Name slices that there are not; each with whether nothing can be made of it."""
    slices = [label for label in labels if label.is_slice]
    if slices and not is_axial(ct):
        message = (
            "has labels of slices, but the slices of the CT do not lie across the patient's axis: "
            "label lobes or lungs instead"
        )
        return [(message, True)]
    found = []
    for label in slices:
        if label.slice_number >= len(lobes):
            message = (
                f"has a label of {label.region}, but the CT has the slices 0 to {len(lobes) - 1}: "
                "correct the number, counted from 0 in the file's own order"
            )
            found.append((message, True))
        elif not lobes[label.slice_number].any():
            found.append((f"has a label of {label.region}, which has no lung: left out", False))
    return found


def _regions(lobes: np.ndarray, labels: Sequence[RegionLabel]) -> list[str]:
    """Name intervals that no lesion can meet together."""
    sizes = {lobe: int((lobes == lobe).sum()) for lobe in Lobe}
    whole = [label for label in labels if not label.is_slice]
    notes = []
    for number, label in enumerate(whole):
        for other in whole[:number]:
            if set(other.lobes) == set(label.lobes) and _apart(
                (label.lower, label.upper), (other.lower, other.upper)
            ):
                notes.append(f"{_said(other)} and {_said(label)} contradict each other")
        parts = [one for one in whole if set(one.lobes) < set(label.lobes)]
        if parts and _apart((label.lower, label.upper), implied := _implied(label, parts, sizes)):
            low, high = (100 * share for share in implied)
            notes.append(
                f"{_said(label)} contradicts the labels of its parts, which leave {low:.1f} to "
                f"{high:.1f} % of it"
            )
    clear = {lobe for label in whole if label.upper == 0 for lobe in label.lobes}
    for label in labels:
        if label.is_slice and label.lower > 0 and label.slice_number < len(lobes):
            there = {Lobe(n) for n in np.unique(lobes[label.slice_number]) if n}
            if there and there <= clear:
                notes.append(f"{_said(label)} lies in lobes that are said to be free of lesions")
    return notes


def _implied(
    label: RegionLabel, parts: Iterable[RegionLabel], sizes: dict[Lobe, int]
) -> tuple[float, float]:
    """Return the interval of a region's share that the labels of its parts leave."""
    bounds = dict.fromkeys(label.lobes, (0.0, 1.0))
    low = high = 0.0
    for part in sorted(parts, key=lambda one: len(one.lobes)):
        if len(part.lobes) == 1:
            old, lobe = bounds[part.lobes[0]], part.lobes[0]
            bounds[lobe] = (max(old[0], part.lower), max(min(old[1], part.upper), part.lower))
    size = max(sum(sizes[lobe] for lobe in label.lobes), 1)
    sides = {part.lobes: part for part in parts if len(part.lobes) > 1}
    for lobes in _partition(label.lobes, sides):
        voxels = sum(sizes[lobe] for lobe in lobes)
        least, most = (sum(sizes[lobe] * bounds[lobe][n] for lobe in lobes) for n in (0, 1))
        if lobes in sides:
            least = max(least, sides[lobes].lower * voxels)
            most = max(min(most, sides[lobes].upper * voxels), least)
        low, high = low + least, high + most
    return low / size, high / size


def _partition(
    lobes: tuple[Lobe, ...], sides: Iterable[tuple[Lobe, ...]]
) -> list[tuple[Lobe, ...]]:
    """Part lobes into the sides that have labels and the rest."""
    parts = list(sides)
    taken = {lobe for side in parts for lobe in side}
    return parts + [(lobe,) for lobe in lobes if lobe not in taken]


def _apart(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] > b[1] + _TOLERANCE or b[0] > a[1] + _TOLERANCE


def _points(
    ct: sitk.Image,
    lobes: np.ndarray,
    labels: Sequence[RegionLabel],
    voxels: np.ndarray | None,
    points: Sequence[Point],
) -> list[str]:
    """Name points outside the lungs, and points that another label calls otherwise."""
    outside, notes = {True: 0, False: 0}, []
    free = [label for label in labels if label.upper == 0]
    size = lobes.shape[::-1]
    for point in points:
        i, j, k = ct.TransformPhysicalPointToIndex(point.place)
        there = all(0 <= n < m for n, m in zip((i, j, k), size, strict=True))
        if not there or not lobes[k, j, i]:
            outside[point.lesion] += 1
            continue
        for label in free if point.lesion else []:
            if lobes[k, j, i] in label.lobes and (not label.is_slice or label.slice_number == k):
                notes.append(f"a lesion point lies in a region without lesions, {_said(label)}")
        if voxels is not None and voxels[k, j, i] not in (UNKNOWN, int(point.lesion)):
            notes.append(f"a {point.kind} point lies where the mask says the opposite")
    if outside[True]:
        notes.append(f"{outside[True]} lesion points lie outside of the lungs and teach nothing")
    if outside[False]:
        notes.append(f"{outside[False]} background points lie outside of the lungs")
    return [f"{note}{_times(notes.count(note))}" for note in dict.fromkeys(notes)]


def _times(count: int) -> str:
    return f" ({count} times)" if count > 1 else ""


def _outlined(lobes: np.ndarray, labels: Sequence[RegionLabel], voxels: np.ndarray) -> list[str]:
    """Name regions whose interval the mask does not allow."""
    notes = []
    if not (voxels == 1).any() and (voxels == UNKNOWN).any():
        notes.append(f"its mask has no lesion (1); {UNKNOWN} means that nobody looked there")
    for label in labels:
        if label.is_slice and label.slice_number >= len(lobes):
            continue
        here = voxels[inside(lobes, label)]
        if not here.size:
            continue
        least = float((here == 1).mean())
        most = least + float((here == UNKNOWN).mean())
        if _apart((label.lower, label.upper), (least, most)):
            share = f"{100 * least:.1f}" + (f" to {100 * most:.1f}" if most > least else "")
            notes.append(f"{_said(label)} contradicts the mask, which has {share} % of it")
    return notes
