"""Axial slices that are normal or diseased, as samples that hang on their number alone.

See :mod:`Training.dataset.sampling` for how samples are drawn, and
:class:`Training.config.SliceSetConfig` for where the labels come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.images.windows import SliceWindow, lung_window
from DRAMLesionLib.lobes import Lobe
from Training.config import SliceSetConfig
from Training.dataset.augmentation import stretch_contrast
from Training.dataset.cache import LABELS, LESION, CachedCase
from Training.dataset.sampling import augmentation_rng, shuffled

IMAGE, LOBES = "segmentation/image", "segmentation/lobes"
UNKNOWN = 255
"""Label of pixels that nobody knows."""

LEAST_SHARE = 1e-3
"""Share of a slice's lungs above which its lesions count (ε; ours)."""


@dataclass(frozen=True)
class LabelledSlice:
    """One axial slice.

    Attributes:
        case: Its scan.
        k: Its place in the scan.
        window: What the networks see of it.
        diseased: Whether there is a lesion in it.
    """

    case: CachedCase
    k: int
    window: SliceWindow
    diseased: bool

    def image(self) -> np.ndarray:
        """Return the whole slice, (j, i) float32 windowed to [0, 1]."""
        return self.case.load(IMAGE)[self.k].astype(np.float32)

    def lungs(self) -> np.ndarray:
        """Return its lungs, (j, i) bool."""
        lungs: np.ndarray = self.case.load(LOBES)[self.k] > 0
        return lungs


def find_slices(
    cases: Sequence[CachedCase], config: SliceSetConfig, stride: int
) -> list[LabelledSlice]:
    """Return the slices of prepared cases whose label is known; all windows are of one size.

    Args:
        cases: Prepared cases; with ``truth_of_phantoms``, those of
            :func:`Training.methods.supervised.true_cases`.
        config: Settings.
        stride: Edges of the windows are a multiple of this.

    Raises:
        InputError: If there is no normal or no diseased one.
    """
    lungs = {case.name: np.asarray(case.load(LOBES)) > 0 for case in cases}
    seen = [case for case in cases if lungs[case.name].any()]
    windows = [lung_window(lungs[case.name], config.size, stride) for case in seen]
    edge = max((max(window.size) for window in windows), default=config.size)
    found = []
    for case in seen:
        window = lung_window(lungs[case.name], edge, stride)
        counts = lungs[case.name].sum(axis=(1, 2))
        for k in np.flatnonzero(counts >= max(1, config.least_lung)):
            diseased = _label(case, int(k), int(counts[k]), config)
            if diseased is not None:
                found.append(LabelledSlice(case, int(k), window, diseased))
    for kind, name in ((False, "normal"), (True, "diseased")):
        if not any(one.diseased == kind for one in found):
            message = (
                f"no slice of the prepared cases is known to be {name}: methods that learn from "
                "slices need lobes with score 0, and others with a higher score"
            )
            raise InputError(message)
    return found


def _label(case: CachedCase, k: int, lung_voxels: int, config: SliceSetConfig) -> bool | None:
    """Tell whether a slice is diseased; None if nobody knows."""
    if config.labels == "weak":
        return weak_label(case, k)
    lesion = int(np.count_nonzero(case.load(LABELS)[k] == LESION))
    if lesion and lesion < LEAST_SHARE * lung_voxels:
        return None
    return lesion > 0


def weak_label(case: CachedCase, k: int) -> bool | None:
    """Tell from weak labels whether a slice of a case is diseased; None if they do not say.

    A label of the slice itself counts before those of its lobes. A lobe with a lesion need not have
    it in every slice that it is cut by: such slices are candidates, and the classes that the
    methods learn overlap.

    Args:
        case: The case.
        k: Plane of the final network's grid.
    """
    regions = case.regions
    plane = _fine_plane(case, k)
    for one in regions:
        first, stop = one.planes or (0, 0)
        if first <= plane < stop and (one.upper == 0 or one.lower > 0):
            return one.lower > 0
    clear = case.clear
    ill = {lobe for lobe, score in case.scores.items() if score}
    ill |= {lobe for one in regions if one.planes is None and one.lower > 0 for lobe in one.lobes}
    cut = {Lobe(int(value)) for value in np.unique(case.load(LOBES)[k]) if value}
    if cut & (ill - clear):
        return True
    return False if cut <= clear else None


def _fine_plane(case: CachedCase, k: int) -> int:
    """Return the plane of the regression grid, which labels of slices are on, nearest to one."""
    grids = case.meta["grids"]
    here, fine = grids["segmentation"], grids["regression"]
    z = here["origin"][2] + k * here["spacing"][2]
    return round((z - fine["origin"][2]) / fine["spacing"][2])


class SlicePictures(Dataset):
    """Slices, as many normal as diseased ones.

    A sample is a dictionary: ``image`` (1, n, n) float32 in [0, 1], 0 outside the lungs; ``lungs``
    (1, n, n) bool; ``diseased``, ``item`` (number of the slice) and ``place`` (a random number in
    [0, 1]); with targets ``target`` (1, n, n) uint8, 0 none, 1 lesion, 255 unknown.

    Args:
        items: The slices.
        config: Settings.
        seed: See :mod:`Training.dataset.sampling`.
        augment: Whether samples are changed and shuffled; otherwise sample n is slice n.
        targets: (slices, n, n) uint8 on the windows, if there are any.
    """

    def __init__(
        self,
        items: Sequence[LabelledSlice],
        config: SliceSetConfig,
        seed: int,
        augment: bool,
        targets: np.ndarray | None = None,
    ) -> None:
        self.items, self.config, self.seed = items, config, seed
        self.augment, self.targets = augment, targets
        self._by_label = [
            [n for n, item in enumerate(items) if item.diseased == kind] for kind in (False, True)
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> dict[str, Any]:
        number = self._item(position)
        item = self.items[number]
        rng = augmentation_rng(position, self.seed)
        farthest = self.config.shift if self.augment else 0
        shift = [int(n) for n in rng.integers(-farthest, farthest + 1, size=2)]
        start = (item.window.start[0] + shift[0], item.window.start[1] + shift[1])
        window = SliceWindow(start, item.window.size)
        lungs = window.cut(item.lungs())
        image = torch.from_numpy(window.cut(item.image()))
        if self.augment:
            image = stretch_contrast(image, rng, self.config.contrast)
        parts = {"image": image * torch.from_numpy(lungs), "lungs": torch.from_numpy(lungs)}
        if self.targets is not None:
            moved = SliceWindow((shift[0], shift[1]), item.window.size).cut(self.targets[number])
            parts["target"] = torch.from_numpy(moved)
        if self.augment and self.config.flip and rng.random() < 0.5:
            parts = {name: torch.flip(part, [-1]) for name, part in parts.items()}
        return {
            **{name: part[None] for name, part in parts.items()},
            "diseased": torch.tensor(item.diseased),
            "item": torch.tensor(number),
            "place": torch.tensor(rng.random(), dtype=torch.float32),
        }

    def _item(self, position: int) -> int:
        if not self.augment:
            return position
        # every second sample is diseased, so that a batch has both
        group = self._by_label[position % 2]
        return group[shuffled(position // 2, len(group), self.seed + position % 2)]
