"""Samples of the regression: the lobes that a label ties together, with all that is known of them.

The network sees one lobe chunk at a time. The share of a region that spans several lobes is known
from all of their chunks together, so they come in one sample, and the loss sees the sum over them,
weighted by voxels of the lungs (ours; the papers have labels of single lobes or images alone). It
is exact, holds no state, and so a run that was killed goes on as if it had not been. With scores
alone every sample is one lobe, as in :class:`Training.dataset.sampling.LobeChunks`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.lesions import chunks
from DRAMLesionLib.lesions.severity import fraction_to_score
from DRAMLesionLib.lobes import Lobe
from Training.config import RegressionConfig
from Training.dataset.cache import VOXELS, CachedCase
from Training.dataset.regions import Region
from Training.dataset.sampling import augmentation_rng, cut_lobe, draw_map, drawn_item
from Training.learning.losses import inverse_frequency_weights

DISEASED, VOXELS_ALONE = 6, 7
"""Groups beside the scores 0 to 5: 'diseased' of no known share, and voxels without a region."""

_SURELY = 0.9
"""Width of an interval that says hardly more than that there is a lesion."""


@dataclass(frozen=True)
class Item:
    """Lobes of a case that labels tie together.

    Attributes:
        case: The prepared case.
        lobes: Its lobes.
        regions: Labels of them.
    """

    case: CachedCase
    lobes: tuple[Lobe, ...]
    regions: tuple[Region, ...]

    @property
    def group(self) -> int:
        """What it is drawn with: the score of its widest label, or one of the two constants."""
        if not self.regions:
            return VOXELS_ALONE
        # a slice says less than a lobe
        widest = max(self.regions, key=lambda one: (one.planes is None, len(one.lobes), one.upper))
        if widest.upper - widest.lower > _SURELY or (widest.planes and widest.upper > 0):
            return DISEASED
        return fraction_to_score((widest.lower + widest.upper) / 2.0)


def find_items(case: CachedCase) -> Iterator[Item]:
    """Yield the items of a case; lobes without a label are in none."""
    regions = case.regions
    left = [lobe for lobe in case.boxes if lobe in case.known]
    while left:
        group = {left[0]}
        while (
            more := {lobe for one in regions if group & set(one.lobes) for lobe in one.lobes}
            - group
        ):
            group |= more
        lobes = tuple(lobe for lobe in left if lobe in group)
        mine = tuple(one for one in regions if set(one.lobes) & group)
        if mine or set(lobes) & case.outlined:
            yield Item(case, lobes, mine)
        left = [lobe for lobe in left if lobe not in group]


class LabelledChunks(Dataset):
    """Lobe chunks with their labels, as many as a label needs at a time.

    A sample is a dictionary, c chunks (at most ``most_chunks``; the rest is 0), r labels, n the
    edge of a chunk:

    * ``image``, ``vessels`` (c, n, n, n) float32, ``mask`` (c, n, n, n) bool, ``affine`` (c, 3, 3);
    * ``present`` (c) bool, ``clear`` (c) bool: lobes without lesions;
    * ``whole`` (r, c) float32: share of each lobe in the voxels of a region, 0 for slices;
    * ``lower``, ``upper``, ``weight`` (r) float32, the weight 0 where there is no label: the slices
      of a sample weigh as much as one other label together (ours);
    * ``own`` (c) int64: the narrowest label that holds a whole lobe; -1 if there is none;
    * with slices, ``planes`` (r, c, n) float32: voxels of a slice in each plane of a chunk;
    * with labelled voxels, ``lesion`` and ``background`` (c, n, n, n) float32: how many of them lie
      in a voxel of the chunk.

    Args:
        cases: Prepared cases.
        config: Settings of the regression.
        seed: See :mod:`Training.dataset.sampling`.
        augment: Whether samples are changed and shuffled; otherwise sample n is item n.

    Raises:
        InputError: If the cases have no label.
    """

    def __init__(
        self, cases: Sequence[CachedCase], config: RegressionConfig, seed: int, augment: bool
    ) -> None:
        self.config, self.seed, self.augment = config, seed, augment
        self.items = [item for case in cases for item in find_items(case)]
        if not self.items:
            message = "no lobe of the prepared cases has a score to train on, or another label"
            raise InputError(message)
        self.has_voxels = has_voxels(cases)
        self._slices = any(one.planes for item in self.items for one in item.regions)
        self._chunks = max(len(item.lobes) for item in self.items)
        self._labels = max(1, *(len(item.regions) for item in self.items))
        groups = [item.group for item in self.items]
        self.weights = inverse_frequency_weights(groups, config.loss_scale)
        self._groups = [
            [n for n, item in enumerate(self.items) if item.group == group]
            for group in self.weights
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        number, rng = position, None
        if self.augment:
            number = drawn_item(position, self._groups, self.seed, self.config.balance)
            rng = augmentation_rng(position, self.seed)
        item = self.items[number]
        parts, sizes = [], []
        for lobe in item.lobes:
            part, voxels = self._chunk(item, lobe, rng)
            parts.append({**part, "affine": draw_map(rng, self.config)})
            sizes.append(voxels)
        stacked = {
            name: _padded(torch.stack([part[name] for part in parts]), self._chunks)
            for name in parts[0]
            if name != "planes"
        }
        volumes = ("image", "mask", "vessels", "lesion", "background")
        sample = {name: x[:, 0] if name in volumes else x for name, x in stacked.items()}
        if self._slices:
            planes = torch.stack([part["planes"][..., 0, 0] for part in parts], dim=1)
            filled = torch.zeros(self._labels, self._chunks, planes.shape[-1])
            filled[: planes.shape[0], : planes.shape[1]] = planes
            sample["planes"] = filled
        return {**sample, **self._intervals(item, sizes)}

    def _chunk(
        self, item: Item, lobe: Lobe, rng: np.random.Generator | None
    ) -> tuple[dict[str, Tensor], int]:
        """Return the parts of a chunk, and how many voxels its lobe has."""
        box, size = item.case.boxes[lobe], self.config.chunk.size
        inside = item.case.load("regression/lobes")[box] == lobe
        others: dict[str, Tensor] = {}
        if self.has_voxels:
            others = _voxels(item.case, lobe, box, size)
        if self._slices:
            others["planes"] = _planes(item.regions, inside, box[0].start, size)
        return cut_lobe(item.case, lobe, box, self.config, rng, others), int(inside.sum())

    def _intervals(self, item: Item, sizes: Sequence[int]) -> dict[str, Tensor]:
        """Return what is known of the shares of an item's lobes."""
        whole = torch.zeros(self._labels, self._chunks)
        bounds = torch.zeros(3, self._labels)
        present = torch.arange(self._chunks) < len(item.lobes)
        slices = sum(one.planes is not None for one in item.regions)
        total = len(item.regions) - slices + min(1, slices)
        weight = self.weights[item.group] if self.config.balance == "loss" else 1.0
        for n, one in enumerate(item.regions):
            share = 1.0 if one.planes is None else 1.0 / slices
            bounds[:, n] = torch.tensor([one.lower, one.upper, weight * share / total])
            if one.planes is None:
                row = torch.tensor(
                    [
                        float(size) if lobe in one.lobes else 0.0
                        for lobe, size in zip(item.lobes, sizes, strict=True)
                    ]
                )
                whole[n, : len(sizes)] = row / row.sum()
        clear = [lobe in item.case.clear for lobe in item.lobes]
        return {
            "present": present,
            "clear": _padded(torch.tensor(clear), self._chunks),
            "whole": whole,
            "own": _padded(torch.tensor([_own(item, lobe) for lobe in item.lobes]), self._chunks),
            "lower": bounds[0],
            "upper": bounds[1],
            "weight": bounds[2],
        }


def has_voxels(cases: Sequence[CachedCase]) -> bool:
    """Tell whether a person has labelled voxels of a lobe in any of the cases."""
    return any(case.outlined for case in cases)


def _own(item: Item, lobe: Lobe) -> int:
    """Return the number of the narrowest label that holds all of a lobe; -1 if there is none."""
    wide = [
        (len(one.lobes), n)
        for n, one in enumerate(item.regions)
        if one.planes is None and lobe in one.lobes
    ]
    return min(wide)[1] if wide else -1


def _padded(x: Tensor, count: int) -> Tensor:
    """Return a tensor with ``count`` rows, the new ones 0."""
    more = torch.zeros((count - len(x), *x.shape[1:]), dtype=x.dtype)
    return torch.cat((x, more)) if len(more) else x


def _voxels(case: CachedCase, lobe: Lobe, box: chunks.Slices, size: int) -> dict[str, Tensor]:
    """Return how many labelled voxels of a lobe lie in each voxel of its chunk."""
    parts = {name: torch.zeros(1, size, size, size) for name in ("lesion", "background")}
    if not case.has(VOXELS) or lobe not in case.outlined:
        return parts
    inside = case.load("regression/lobes")[box] == lobe
    values = np.where(inside, case.load(VOXELS)[box], 255)
    ratio = values.size / size**3
    for name, value in (("lesion", 1), ("background", 0)):
        labelled = torch.from_numpy((values == value).astype(np.float32))[None, None]
        parts[name] = chunks.resize(labelled, (size,) * 3)[0] * ratio
    return parts


def _planes(regions: Sequence[Region], inside: np.ndarray, first: int, size: int) -> Tensor:
    """Return (labels, n, 1, 1): how many voxels of each slice lie in each plane of a chunk.

    A plane of the grid is read from the chunk as the map is when it is resized back.
    """
    voxels = torch.from_numpy(inside.sum(axis=(1, 2)).astype(np.float32))
    height = len(voxels)
    # resize of the identity: (n, height), how much each plane of the chunk gives to one of the grid
    shares = chunks.resize(torch.eye(size)[None, None, ..., None], (size, height, 1))[0, 0, ..., 0]
    result = torch.zeros(len(regions), size, 1, 1)
    for n, one in enumerate(regions):
        if one.planes is not None:
            start, stop = (min(max(plane - first, 0), height) for plane in one.planes)
            result[n, :, 0, 0] = shares[:, start:stop] @ voxels[start:stop]
    return result
