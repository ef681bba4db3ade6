"""Moving the threshold of the (refined) dRAM, fast enough to follow a slider.

Voxels are sorted by value once. A move then touches only the voxels between the old threshold and
the new one, and the table needs no voxel at all.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import slicer

from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.mrml import scores, segments, volumes
from DRAMLesionLib.mrml.result import PSEUDOLABEL, Result, put_pseudolabel

STEPS = 100
"""Thresholds are multiples of 1 / STEPS."""

LOWEST = 5
"""Step of the lowest threshold: what lies below it need not be sorted, which is most of a lung."""


class ThresholdPreview:
    """The pseudo-label of a result while its threshold moves.

    Args:
        result: A complete result; a pseudo-label that was edited by hand is replaced.
        is_edited: Whether it was, if that is known already: to find out takes a look at all voxels.
    """

    def __init__(self, result: Result, is_edited: bool | None = None) -> None:
        for _step in self._prepare(result, may_replace=True, is_edited=is_edited):
            pass

    @classmethod
    def in_steps(
        cls, result: Result, may_replace: bool = False
    ) -> Generator[None, None, ThresholdPreview | None]:
        """Return a preview, made step by step, so that a window stays usable.

        Args:
            result: A complete result.
            may_replace: Whether a pseudo-label that was edited by hand is replaced.

        Returns:
            None, and nothing has changed, if it was edited and may not be replaced.
        """
        made = cls.__new__(cls)
        is_edited = True if may_replace else None
        is_ready = yield from made._prepare(result, may_replace, is_edited)
        return made if is_ready else None

    def _prepare(
        self, result: Result, may_replace: bool, is_edited: bool | None = None
    ) -> Generator[None, None, bool]:
        self._result = result
        self._step = min(max(round(result.threshold * STEPS), LOWEST), STEPS)
        lobes = result.lobes()
        box = segments.bounding_box(lobes)
        self._low, self._shape = box[0], lobes.shape
        inside = tuple(slice(a, b) for a, b in zip(*box, strict=True))
        yield
        # in one step until the stamp is taken: what is painted later is noticed by it
        if is_edited or not self._can_go_on(box, is_edited):
            if not may_replace and result.is_edited("pseudolabel"):
                return False
            put_pseudolabel(result, self._step / STEPS)
        node = result.get("pseudolabel")
        self._image = node.GetBinaryLabelmapInternalRepresentation("lesion")
        self._labels = segments.array_view(self._image)
        self._stamp = self._image.GetMTime()
        self._print = segments.Fingerprint.parse(result.fingerprint("pseudolabel"))
        yield
        vessels = segments.mask_of(result.get("segmentation"), "vessels", result.ct)
        self._vessel = vessels[inside] & (lobes[inside] > 0)
        self._ml = volumes.voxel_ml(result.ct)
        self._rows = scores.rows_of_report(result.report)
        yield
        values = slicer.util.arrayFromVolume(result.get(result.map_role))
        self._sort(np.ascontiguousarray(lobes[inside]), np.ascontiguousarray(values[inside]))
        return True

    def _can_go_on(self, box: segments.Box, is_edited: bool | None) -> bool:
        """Tell whether the pseudo-label is stored as this class wants it, and as it was made."""
        result = self._result
        node = result.get("pseudolabel")
        images = [
            node.GetBinaryLabelmapInternalRepresentation(spec.id)
            for spec in segments.PSEUDOLABEL_SEGMENTS
            if node.GetSegmentation().GetSegment(spec.id) is not None
        ]
        if len(images) < 2 or images[0] is None or images[0] is not images[1]:
            return False
        size = [high - low for low, high in zip(*box, strict=True)]
        placed = segments.offset_on(images[0], result.ct) == tuple(box[0])
        fits = placed and list(segments.array_view(images[0]).shape) == size
        if not fits or result.threshold != self._step / STEPS:
            return False
        return not (result.is_edited("pseudolabel") if is_edited is None else is_edited)

    def _sort(self, lobes: np.ndarray, values: np.ndarray) -> None:
        """Sort the voxels of the lobes by the number of thresholds that lie below their value."""
        where = np.flatnonzero(lobes)
        of_lobe = lobes.ravel()[where]
        below = _thresholds_below(values.ravel()[where])
        counts = np.bincount(
            of_lobe.astype(np.uint16) * (STEPS + 2) + below, minlength=6 * (STEPS + 2)
        ).reshape(-1, STEPS + 2)
        self._lobe_voxels = counts.sum(axis=1)
        # [lobe, step]: voxels above the threshold of a step
        self._above = counts[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
        high = np.flatnonzero(below > LOWEST)
        below = below[high]
        order = np.argsort(below, kind="stable")
        self._sorted = where[high[order]].astype(np.int32)
        self._starts = np.searchsorted(below[order], np.arange(STEPS + 3), side="left")

    @property
    def current(self) -> bool:
        """Whether nobody else has changed the pseudo-label since the last move."""
        node = self._result.get("pseudolabel")
        if node is None or self._result.ct is None:
            return False
        image = node.GetBinaryLabelmapInternalRepresentation("lesion")
        return image is self._image and image.GetMTime() == self._stamp

    def move(self, threshold: float) -> None:
        """Show the pseudo-label, the table and the chart at another threshold (0.05 to 1)."""
        step = min(max(round(threshold * STEPS), LOWEST), STEPS)
        low, high = sorted((step, self._step))
        # lesion at a step: more than `step` thresholds lie below the value
        changed = self._sorted[self._starts[low + 1] : self._starts[high + 1]]
        if changed.size:
            self._change(changed, lesion=step < self._step)
        self._step = step
        ml, above = self._ml, self._above[:, step]
        rows = scores.untyped_rows(
            {lobe: float(self._lobe_voxels[lobe] * ml) for lobe in Lobe},
            {lobe: float(above[lobe] * ml) for lobe in Lobe},
            self._rows,
        )
        self._result.set_rows(rows, PSEUDOLABEL, step / STEPS)

    def _change(self, changed: np.ndarray, lesion: bool) -> None:
        flat = self._labels.reshape(-1)
        vessel = self._vessel.reshape(-1)[changed]
        numbers = self._global(changed)
        if lesion:
            flat[changed] = segments.LESION_LABEL
            self._print.remove(segments.VESSEL_LABEL, numbers[vessel])
            self._print.add(segments.LESION_LABEL, numbers)
        else:
            flat[changed] = vessel.astype(np.uint8) * segments.VESSEL_LABEL
            self._print.remove(segments.LESION_LABEL, numbers)
            self._print.add(segments.VESSEL_LABEL, numbers[vessel])
        self._image.GetPointData().GetScalars().Modified()
        self._image.Modified()
        self._stamp = self._image.GetMTime()
        # slice views draw anew when a segment, not when its label map, has changed
        node = self._result.get("pseudolabel")
        node.GetSegmentation().GetSegment(segments.PSEUDOLABEL_SEGMENTS[0].id).Modified()
        self._result.accept("pseudolabel", self._print.text)

    def _global(self, local: np.ndarray) -> np.ndarray:
        """Return indices in the whole grid from indices in the box around the lobes."""
        k, j, i = np.unravel_index(local, self._labels.shape)
        _, rows, columns = self._shape
        return ((k + self._low[0]) * rows + (j + self._low[1])) * columns + (i + self._low[2])


def _thresholds_below(values: np.ndarray) -> np.ndarray:
    """Return for each value (float32, 0 to 1) how many thresholds k / STEPS are lower, as uint8."""
    thresholds = np.append(np.arange(STEPS + 1) / STEPS, np.inf).astype(np.float32)
    below = (values * np.float32(STEPS)).astype(np.uint8)
    # rounding may have lost one: two looks at the thresholds themselves make it exact
    for _ in range(2):
        below += thresholds[below] < values
    return below
