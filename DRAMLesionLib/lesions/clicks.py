"""A reader's clicks correct a map: what looks like the clicked place, near it, follows.

The networks are not asked again. In the lobe of a click every voxel has a similarity to the click:
by distance, and by how its smoothed density lies between that of the click and that of the lobe's
other tissue. The change of the map's logit is the combination of these similarities that brings
each clicked voxel to its side and is smallest elsewhere (the mean of a Gaussian process about the
network's answer). So the order of the clicks makes no difference, a click that is taken away
leaves no trace when the map is computed anew from the network's own, and nothing changes outside
the lobes with clicks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from scipy.special import expit
from torch.nn import functional

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.images.boxes import Slices, bounding_box

LOWEST_HU, HIGHEST_HU = -1050.0, 100.0
"""Densities beyond these say no more about a lung."""


@dataclass(frozen=True)
class Click:
    """A voxel that a reader has called lesion or not.

    Attributes:
        voxel: (k, j, i) on the grid of the CT.
        lesion: Whether there is a lesion.
    """

    voxel: tuple[int, int, int]
    lesion: bool


@dataclass(frozen=True)
class ClickConfig:
    """How far a click reaches, in space and in density. Chosen on phantoms of seeds 93000 to 93011.

    Attributes:
        spacing: Edge in mm, about, of the grid on which similarities are computed.
        smoothing: Standard deviation in mm of the smoothing of the density.
        reach: Distance in mm at which similarity has fallen to 0.6, for a click that stands out.
        distinct: A click stands out if its density differs so much, in HU, from that of the lobe's
            other tissue; the reach of one that differs less is shorter in proportion.
        least_reach: Share of the reach that a click has however little it stands out.
        contrast: Share of the difference between the click and the lobe's other tissue at which
            similarity has fallen to 0.6, on the way to that tissue.
        least_contrast: The same in HU at least, where the difference is small or unknown.
        beyond: HU at which similarity has fallen to 0.6, on the way away from that tissue.
        vessel: Factor of the similarity of a vessel to a lesion that is clicked beside vessels.
        certainty: Logit at which the network's answer counts as certain; a click goes as far to the
            other side.
        ball: Radius in mm of what follows a click whatever it looks like.
    """

    spacing: float = 2.0
    smoothing: float = 2.0
    reach: float = 50.0
    distinct: float = 160.0
    least_reach: float = 0.2
    contrast: float = 0.5
    least_contrast: float = 30.0
    beyond: float = 300.0
    vessel: float = 0.3
    certainty: float = 2.2
    ball: float = 1.5


DEFAULT = ClickConfig()


class LobeClicks:
    """One lobe of a scan, ready for clicks: what does not hang on them is computed once.

    Args:
        hu: (k, j, i) HU of a box around the lobe.
        probability: The network's map there, 0 to 1; it is not changed.
        inside: bool, the lobe.
        vessels: bool, the vessels.
        spacing: Millimetres of a voxel along (k, j, i).
        config: Settings.
    """

    def __init__(
        self,
        hu: np.ndarray,
        probability: np.ndarray,
        inside: np.ndarray,
        vessels: np.ndarray,
        spacing: Sequence[float],
        config: ClickConfig = DEFAULT,
    ) -> None:
        self._config = config
        self._map, self._inside = probability, inside
        self._spacing = np.asarray(spacing, dtype=np.float64)
        self._step = np.maximum(1, np.round(config.spacing / self._spacing)).astype(int)
        share = _means(inside, self._step)
        self._there = share > 0
        edge = self._spacing * self._step
        sigma = config.smoothing / edge
        dense = _means(
            np.where(inside, np.clip(hu.astype(np.float32), LOWEST_HU, HIGHEST_HU), np.float32(0)),
            self._step,
        )
        weight = ndimage.gaussian_filter(share, sigma, truncate=3.0)
        dense = ndimage.gaussian_filter(dense, sigma, truncate=3.0)
        self._density = (dense / np.maximum(weight, 1e-3))[self._there]
        self._vessel = (_means(vessels & inside, self._step) > 0.5 * share)[self._there]
        coarse = (_means(np.where(inside, probability, 0), self._step) / np.maximum(share, 1e-3))[
            self._there
        ]
        self._places = np.argwhere(self._there).astype(np.float32) * edge.astype(np.float32)
        self._number = np.full(self._there.shape, -1)
        self._number[self._there] = np.arange(len(self._places))
        self._tissue = {
            lesion: self._usual(((coarse > 0.5) == lesion) & ~self._vessel)
            for lesion in (True, False)
        }

    def _usual(self, which: np.ndarray) -> float | None:
        """Return the usual density of some voxels, None if there are hardly any."""
        return float(np.median(self._density[which])) if which.sum() > 20 else None

    def correct(self, clicks: Sequence[Click]) -> np.ndarray:
        """Return the map with the lobe corrected by clicks.

        Args:
            clicks: Voxels of the lobe, in indices of the box.

        Returns:
            (k, j, i) float32, 0 to 1: 1 at a click on lesion, 0 at one on background, and unchanged
            outside the lobe.

        Raises:
            InputError: If a click lies outside the lobe, or two of different kind on one voxel.
        """
        result = self._map.astype(np.float32, copy=True)
        clicks = sorted(set(clicks), key=lambda click: (click.voxel, click.lesion))
        if not clicks:
            return result
        self._check(clicks)
        change = self._change(clicks)
        box = bounding_box(change != 0)
        if box[0].stop:
            self._add(result, change, box)
        for click in clicks:
            self._put_ball(result, click)
        for click in clicks:  # a ball beside another click leaves that one alone
            result[click.voxel] = float(click.lesion)
        return result

    def _check(self, clicks: Sequence[Click]) -> None:
        kinds: dict[tuple[int, int, int], bool] = {}
        for click in clicks:
            shape = self._inside.shape
            is_there = all(0 <= v < n for v, n in zip(click.voxel, shape, strict=True))
            if not is_there or not self._inside[click.voxel]:
                message = f"the click at voxel {click.voxel} (k, j, i) lies outside its lobe"
                raise InputError(message)
            if kinds.setdefault(click.voxel, click.lesion) != click.lesion:
                message = (
                    f"voxel {click.voxel} (k, j, i) is clicked as lesion and as background; take "
                    "one of the two away"
                )
                raise InputError(message)

    def _change(self, clicks: Sequence[Click]) -> np.ndarray:
        """Return what is added to the logit, on the coarse grid, float32."""
        at = [self._number[tuple(np.array(click.voxel) // self._step)] for click in clicks]
        similar = np.stack(
            [self._similarity(n, click.lesion) for n, click in zip(at, clicks, strict=True)]
        )
        wanted = np.array([self._wanted(click) for click in clicks])
        among = similar[:, at].T.astype(np.float64)
        amounts = np.linalg.lstsq(among + _RIDGE * np.eye(len(at)), wanted, rcond=None)[0]
        # clicks of different kind side by side ask for much; their balls see to it that they obey
        most = 2.0 * self._config.certainty
        amounts = np.clip(amounts, -most, most)
        change = np.zeros(self._there.shape, dtype=np.float32)
        added = amounts.astype(np.float32) @ similar
        added[np.abs(added) < _NOTHING] = 0.0
        change[self._there] = added
        return change

    def _wanted(self, click: Click) -> float:
        """Return what has to be added to the logit at a click."""
        certain = self._config.certainty
        sign = 1.0 if click.lesion else -1.0
        now = float(_logit(self._map[click.voxel], certain))
        return sign * max(certain - sign * now, 0.0)

    def _similarity(self, at: int, lesion: bool) -> np.ndarray:
        """Return how similar each voxel of the lobe is to one of them, 0 to 1, float32."""
        config = self._config
        # lesion is denser than what surrounds it: that way lies the other tissue
        sign = -1.0 if lesion else 1.0
        away = sign * (self._density - self._density[at])
        other = self._tissue[not lesion]
        gap = 0.0 if other is None else sign * (other - self._density[at])
        towards = max(config.contrast * gap, config.least_contrast)
        squared = np.square(away / np.where(away > 0, towards, config.beyond))
        reach = config.reach * np.clip(gap / config.distinct, config.least_reach, 1.0)
        squared += np.square((self._places - self._places[at]) / reach).sum(axis=1)
        similar = np.exp(-0.5 * squared)
        if lesion and not self._vessel[at]:
            similar[self._vessel] *= config.vessel
        return similar.astype(np.float32)

    def _add(self, result: np.ndarray, change: np.ndarray, box: Slices) -> None:
        """Add a change on the coarse grid to the logit of the map, in place."""
        wide = [slice(max(s.start - 1, 0), s.stop + 1) for s in box]
        part = torch.from_numpy(np.ascontiguousarray(change[tuple(wide)]))[None, None]
        fine = functional.interpolate(
            part, scale_factor=self._step.astype(float).tolist(), mode="trilinear"
        )[0, 0].numpy()
        start = [s.start * n for s, n in zip(wide, self._step, strict=True)]
        place = tuple(slice(a, a + n) for a, n in zip(start, fine.shape, strict=True))
        inside = self._inside[place]
        fine = fine[tuple(slice(0, n) for n in inside.shape)]
        where = inside & (fine != 0)
        values = result[place][where]
        logit = _logit(values, self._config.certainty)
        moved = values + expit(logit + fine[where]) - expit(logit)
        result[place][where] = np.clip(moved, 0.0, 1.0)

    def _put_ball(self, result: np.ndarray, click: Click) -> None:
        """Give a click its value, and what lies within a ball around it and the lobe."""
        reach = np.floor(self._config.ball / self._spacing).astype(int)
        low = np.maximum(np.array(click.voxel) - reach, 0)
        high = np.minimum(np.array(click.voxel) + reach + 1, result.shape)
        place = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        axes = [np.arange(a, b) - v for a, b, v in zip(low, high, click.voxel, strict=True)]
        far = sum(
            np.square(axis * size).reshape([-1 if n == m else 1 for m in range(3)])
            for n, (axis, size) in enumerate(zip(axes, self._spacing, strict=True))
        )
        ball = (far <= self._config.ball**2) & self._inside[place]
        result[place][ball] = float(click.lesion)


_RIDGE = 0.05
"""Keeps clicks on nearly one place from asking for amounts without bound."""

_NOTHING = 0.1
"""What is less than this is not added to a logit."""


def _means(values: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Return the means of blocks, float32; what a block at the edge lacks counts as 0."""
    for axis, size in enumerate(step):
        starts = np.arange(0, values.shape[axis], size)
        values = np.add.reduceat(values, starts, axis=axis, dtype=np.float32) / np.float32(size)
    return values


def _logit(probability: np.ndarray | float, certain: float) -> np.ndarray:
    """Return the logit of a probability, between ``-certain`` and ``certain``."""
    least = 1.0 / (1.0 + np.exp(certain))
    inner = np.clip(np.asarray(probability, dtype=np.float32), least, 1.0 - least)
    return np.log(inner / (1.0 - inner))


class ScanClicks:
    """A scan ready for clicks; each lobe is made ready at its first click.

    Args:
        hu: (k, j, i) HU.
        probability: The network's map, 0 to 1; it is not changed.
        lobes: Labels of :class:`Lobe`.
        vessels: bool.
        spacing: Millimetres of a voxel along (k, j, i).
        config: Settings.
    """

    def __init__(
        self,
        hu: np.ndarray,
        probability: np.ndarray,
        lobes: np.ndarray,
        vessels: np.ndarray,
        spacing: Sequence[float],
        config: ClickConfig = DEFAULT,
    ) -> None:
        self._scan = (hu, probability, vessels)
        self._lobes, self._spacing, self._config = lobes, spacing, config
        self._ready: dict[int, tuple[Slices, np.ndarray, LobeClicks]] = {}

    def corrected(
        self, lobe: int, clicks: Sequence[Click]
    ) -> tuple[Slices, np.ndarray, np.ndarray]:
        """Return the box of a lobe, which voxels of the box are the lobe, and the map there.

        Args:
            lobe: Its label.
            clicks: All clicks of the lobe, in indices of the scan.

        Raises:
            InputError: If a click lies outside the lobe, or two of different kind on one voxel.
        """
        if lobe not in self._ready:
            inside = self._lobes == lobe
            box = bounding_box(inside)
            hu, probability, vessels = (values[box] for values in self._scan)
            ready = LobeClicks(hu, probability, inside[box], vessels, self._spacing, self._config)
            self._ready[lobe] = (box, inside[box], ready)
        box, inside, ready = self._ready[lobe]
        return box, inside, ready.correct([_in_box(click, box) for click in clicks])

    def correct(self, clicks: Sequence[Click]) -> tuple[np.ndarray, list[Click]]:
        """Return the map of the scan with all clicks, and the clicks that lie in no lobe.

        Args:
            clicks: In any order; those in no lobe change nothing.

        Returns:
            float32, changed in the lobes with clicks alone.

        Raises:
            InputError: If two clicks of different kind lie on one voxel.
        """
        result = self._scan[1].astype(np.float32, copy=True)
        by = by_lobe(self._lobes, clicks)
        lost = by.pop(0, [])
        for lobe, own in by.items():
            box, inside, values = self.corrected(lobe, own)
            result[box][inside] = values[inside]
        return result, lost


def by_lobe(lobes: np.ndarray, clicks: Sequence[Click]) -> dict[int, list[Click]]:
    """Return clicks by the label of their lobe; 0 for those in no lobe or outside the array."""
    found: dict[int, list[Click]] = {}
    for click in clicks:
        is_there = all(0 <= v < n for v, n in zip(click.voxel, lobes.shape, strict=True))
        found.setdefault(int(lobes[click.voxel]) if is_there else 0, []).append(click)
    return found


def _in_box(click: Click, box: Slices) -> Click:
    """Return a click in the indices of a box."""
    k, j, i = (int(v) - part.start for v, part in zip(click.voxel, box, strict=True))
    return Click((k, j, i), click.lesion)
