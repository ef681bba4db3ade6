"""Samples of the training, as a pure function of their number.

Sample ``n`` of a run is the same whatever was drawn before it, in whichever process: the seed and
``n`` decide about the item and its augmentation. So a killed run goes on as if it had not been
killed, and several processes share out the batches that one process would see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.images.boxes import mirrored
from DRAMLesionLib.images.intensity import window
from DRAMLesionLib.lesions import chunks
from DRAMLesionLib.lesions.severity import score_to_interval
from DRAMLesionLib.lobes import Lobe
from DRAMLesionLib.networks.unet import VALID_SHRINK
from Training.config import (
    PointsConfig,
    RegressionConfig,
    SegmentationTrainingConfig,
    VesselTrainingConfig,
)
from Training.dataset.augmentation import (
    draw_affine,
    draw_factor,
    draw_flips,
    stretch_contrast,
    thicken,
)
from Training.dataset.cache import LESION, UNKNOWN, VESSELS, VOXELS_OF_SCAN, CachedCase
from Training.learning.losses import inverse_frequency_weights

ZERO_PADDED_EDGE = 2
"""Voxels around a patch that bring its edge, 4 + 8 n, to a multiple of 8."""

_ORDER, _AUGMENT = 1, 2
"""Streams of randomness that share a seed."""

_DENSE = float(window(np.array(-500.0)))
"""From here on a voxel of a lesion-free lobe is vessel, wall or hilum and no lung."""


def shuffled(position: int, count: int, seed: int) -> int:
    """Return the item at a position of an endless sequence of shuffled epochs."""
    epoch, slot = divmod(position, count)
    return int(np.random.default_rng([seed, _ORDER, epoch]).permutation(count)[slot])


def augmentation_rng(position: int, seed: int) -> np.random.Generator:
    """Return the source of randomness of one sample."""
    return np.random.default_rng([seed, _AUGMENT, position])


class LobeChunks(Dataset):
    """Lobe chunks with the interval of their score.

    A sample is a dictionary: ``image`` (1, n, n, n) float32, ``mask`` (1, n, n, n) bool,
    ``vessels`` (1, n, n, n) float32 share of vessel, ``affine`` (3, 3), and the numbers ``lower``,
    ``upper``, ``weight``, ``score``.

    Args:
        cases: Prepared cases; lobes without a score are left out.
        config: Settings of the regression.
        seed: See the module.
        augment: Whether samples are changed and shuffled; otherwise sample n is item n.

    Raises:
        InputError: If no lobe of the cases has a score.
    """

    def __init__(
        self, cases: Sequence[CachedCase], config: RegressionConfig, seed: int, augment: bool
    ) -> None:
        self.config, self.seed, self.augment = config, seed, augment
        self.items = [
            (case, lobe, box, score)
            for case in cases
            for lobe, box in case.boxes.items()
            if (score := case.scores[lobe]) is not None
        ]
        if not self.items:
            message = "no lobe of the prepared cases has a score to train on"
            raise InputError(message)
        scores = [item[3] for item in self.items]
        self.weights = inverse_frequency_weights(scores, config.loss_scale)
        self._by_score = [
            [n for n, item in enumerate(self.items) if item[3] == score] for score in self.weights
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> dict[str, Any]:
        case, lobe, box, score = self.items[self._item(position)]
        rng = augmentation_rng(position, self.seed) if self.augment else None
        lower, upper = score_to_interval(score)
        weight = self.weights[score] if self.config.balance == "loss" else 1.0
        return {
            **cut_lobe(case, lobe, box, self.config, rng),
            "affine": draw_map(rng, self.config),
            "lower": torch.tensor(lower),
            "upper": torch.tensor(upper),
            "weight": torch.tensor(weight),
            "score": torch.tensor(score),
        }

    def _item(self, position: int) -> int:
        if not self.augment:
            return position
        return drawn_item(position, self._by_score, self.seed, self.config.balance)


def drawn_item(position: int, groups: Sequence[Sequence[int]], seed: int, balance: str) -> int:
    """Return the item of a sample.

    Args:
        position: Number of the sample.
        groups: Items from 0 on, parted by their score.
        seed: See the module.
        balance: ``loss`` draws all items equally often, ``sampling`` all groups.
    """
    if balance == "loss":
        return shuffled(position, sum(map(len, groups)), seed)
    # every run of as many samples as there are groups has each group once
    turn = shuffled(position, len(groups), seed)
    group = groups[turn]
    return group[shuffled(position // len(groups), len(group), seed + turn)]


def draw_map(rng: np.random.Generator | None, config: RegressionConfig) -> Tensor:
    """Return the (3, 3) map of the equivariance term for one chunk; none without randomness."""
    if rng is None:
        return torch.eye(3)
    return torch.from_numpy(draw_affine(rng, config.rotation, config.scale))


def cut_lobe(
    case: CachedCase,
    lobe: Lobe,
    box: chunks.Slices,
    config: RegressionConfig,
    rng: np.random.Generator | None,
    others: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Cut one lobe out of a case, augmented if there is a source of randomness.

    Args:
        case: The prepared case.
        lobe: The lobe.
        box: Its bounding box on the regression grid.
        config: Settings of the regression.
        rng: Source of randomness of the sample; None changes nothing.
        others: (channels, n, n or 1, n or 1) parts of the same chunk, flipped with it.

    Returns:
        ``image`` float32, ``mask`` bool and ``vessels`` float32, each (1, n, n, n), and the others.
    """
    settings, size = config.augmentation, config.chunk.size
    image = torch.from_numpy(case.load("regression/image")[box].astype(np.float32))
    inside = case.load("regression/lobes")[box] == lobe
    vessels = np.zeros(inside.shape, dtype=np.float32)
    if (found := case.vessels(config.vessels)) is not None:
        vessels = (found[box] > 0).astype(np.float32)
    share = chunks.resize(torch.from_numpy(vessels)[None, None], (size,) * 3)
    if rng is not None:
        image, inside = _jitter(image, inside, draw_factor(rng, settings.spacing_jitter))
        image = thicken(image, rng, settings.thick_slices)
        image = stretch_contrast(image, rng, settings.contrast)
    whole = (slice(None), slice(None), slice(None))
    chunk = chunks.cut_chunk(image, inside.astype(np.uint8) * np.uint8(lobe), lobe, whole, size)
    parts = {"image": chunk.image[0], "mask": chunk.mask[0], "vessels": share[0], **(others or {})}
    if rng is not None and (flips := draw_flips(rng, settings.flips)):
        parts = {name: torch.flip(part, flips) for name, part in parts.items()}
    return parts


class ScanPatches(Dataset):
    """Patches of whole scans with their pseudo-labels.

    A sample is a dictionary: ``image`` (1, n + 88, ...) float32 (n + 4 with zero padding),
    ``labels`` (n, n, n) uint8 and ``region`` (n, n, n) bool, the voxels that count. Lobes without
    a label of any kind never count: nobody knows whether there is a lesion in them.

    Args:
        cases: Prepared cases with pseudo-labels.
        config: Settings of the segmentation.
        seed: See the module.
        augment: Whether patches are changed.

    Raises:
        InputError: If there are no cases.
    """

    def __init__(
        self,
        cases: Sequence[CachedCase],
        config: SegmentationTrainingConfig,
        seed: int,
        augment: bool,
    ) -> None:
        self.cases, self.config, self.seed, self.augment = list(cases), config, seed, augment
        if not self.cases:
            message = "there is no pseudo-label to train on: run the stage 'pseudolabels' first"
            raise InputError(message)

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        case = self.cases[shuffled(position, len(self.cases), self.seed)]
        rng = augmentation_rng(position, self.seed)
        settings, patch = self.config.augmentation, self.config.patch
        labels, lobes = case.load("segmentation/labels"), case.load("segmentation/lobes")
        scored = _without_unscored(case, lobes)
        centre = self._centre(case, labels, scored, rng)
        factor = draw_factor(rng, settings.spacing_jitter) if self.augment else 1.0
        around = VALID_SHRINK // 2 if self.config.padding == "valid" else ZERO_PADDED_EDGE
        seen = _window(centre, patch + 2 * around, factor)
        image = _cut(case.load("segmentation/image"), seen)
        target = _cut_nearest(labels, seen, around)
        region = self._region(case, _cut_nearest(lobes, seen, around))
        if self.augment:
            image = thicken(image, rng, settings.thick_slices)
            image = stretch_contrast(image, rng, settings.contrast)
            if flips := draw_flips(rng, settings.flips):
                image, target, region = (torch.flip(x, flips) for x in (image, target, region))
        return {"image": image[None], "labels": target, "region": region}

    def _region(self, case: CachedCase, lobes: Tensor) -> Tensor:
        """Return the voxels that count: those of scored lobes, and what lies around the lungs."""
        unscored = [lobe for lobe in Lobe if lobe not in case.known]
        everywhere = self.config.region == "patch"
        if everywhere and not set(unscored) <= set(case.boxes):
            # a lobe is missing in the mask, too: it cannot be told from what lies around the lungs
            everywhere = False
        counts = torch.full((len(Lobe) + 1,), True)
        counts[0] = everywhere
        counts[unscored] = False
        return counts[lobes.long()]

    def _centre(
        self, case: CachedCase, labels: np.ndarray, lobes: np.ndarray, rng: np.random.Generator
    ) -> list[int]:
        wanted, none = rng.random(), np.zeros(0, dtype=np.intp)
        chosen = none
        if wanted < self.config.lesion_centres:
            chosen = np.flatnonzero((labels == LESION) & (lobes > 0))
        elif wanted < self.config.lesion_centres + self.config.dense_centres:
            clear = clear_lobes(case, "lobes")
            dense = case.load("segmentation/image") > _DENSE
            chosen = np.flatnonzero(dense & np.isin(lobes, clear)) if clear else none
        if chosen.size:
            return _pick(chosen, labels.shape, rng)
        if self.config.centres == "lungs":
            lung = np.flatnonzero(lobes)
            if lung.size:
                return _pick(lung, labels.shape, rng)
        return [int(rng.integers(0, n)) for n in labels.shape]


class VesselPatches(Dataset):
    """Cubes of lungs without lesions with their vessels.

    A sample is a dictionary: ``image`` (1, n, n, n) float32, and without the border ``labels``
    uint8, 1 for vessel, and ``region`` bool, the voxels of lobes that are free of lesions.

    Args:
        cases: Prepared cases; those without such a lobe are left out.
        config: Settings of the vessel network.
        seed: See the module.
        augment: Whether cubes are changed.

    Raises:
        InputError: If no lobe is free of lesions.
    """

    def __init__(
        self, cases: Sequence[CachedCase], config: VesselTrainingConfig, seed: int, augment: bool
    ) -> None:
        self.config, self.seed, self.augment = config, seed, augment
        clear = [(case, clear_lobes(case, config.source)) for case in cases]
        self.items = [(case, lobes) for case, lobes in clear if lobes and case.has(VESSELS)]
        if not self.items:
            message = (
                "no prepared case has a lobe with score 0 and a reference to learn vessels from: "
                "switch vessels.enabled off or prepare.vessels on"
            )
            raise InputError(message)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        case, clear = self.items[shuffled(position, len(self.items), self.seed)]
        rng = augmentation_rng(position, self.seed)
        settings, border = self.config.augmentation, self.config.border
        vessels, lobes = case.load(VESSELS), case.load("regression/lobes")
        inside = np.isin(lobes, clear)
        on_vessel = rng.random() < self.config.vessel_centres
        places = np.flatnonzero(inside & (vessels > 0) if on_vessel else inside)
        if not places.size:
            places = np.flatnonzero(inside)
        factor = draw_factor(rng, settings.spacing_jitter) if self.augment else 1.0
        seen = _window(_pick(places, lobes.shape, rng), self.config.patch, factor)
        parts = {
            "image": _cut(case.load("regression/image"), seen)[None],
            "labels": _cut_nearest(vessels, seen, border),
            "region": _cut_nearest(inside.view(np.uint8), seen, border) > 0,
        }
        if self.augment:
            image = thicken(parts["image"][0], rng, settings.thick_slices)
            parts["image"] = stretch_contrast(image, rng, settings.contrast)[None]
            if flips := draw_flips(rng, settings.flips):
                parts = {name: torch.flip(part, flips) for name, part in parts.items()}
        return parts


class PointPatches(Dataset):
    """Cubes around labelled voxels.

    A sample is a dictionary: ``image`` (1, n, n, n) float32, ``labels`` (1, n, n, n) uint8 (0
    background, 1 lesion, 255 unknown), and ``flip`` and ``quarters``, the transformation of the
    second branch (:class:`Training.learning.point_losses.Turn`).

    Args:
        cases: Prepared cases; those without a labelled voxel are left out.
        config: Settings.
        seed: See the module.

    Raises:
        InputError: If no voxel is labelled.
    """

    def __init__(self, cases: Sequence[CachedCase], config: PointsConfig, seed: int) -> None:
        self.config, self.seed = config, seed
        self.items = [
            case
            for case in cases
            if case.has(VOXELS_OF_SCAN) and (case.load(VOXELS_OF_SCAN) != UNKNOWN).any()
        ]
        if not self.items:
            message = (
                "no prepared case has a labelled voxel: put points into the folder 'points' of the "
                "data set, or masks into 'masks', and run the stage 'prepare'"
            )
            raise InputError(message)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        case = self.items[shuffled(position, len(self.items), self.seed)]
        rng = augmentation_rng(position, self.seed)
        labels, edge = case.load(VOXELS_OF_SCAN), self.config.patch
        # lesion and background alike, where there are both
        kinds = [value for value in (0, 1) if (labels == value).any()]
        places = np.flatnonzero(labels == kinds[int(rng.integers(len(kinds)))])
        middle = _pick(places, labels.shape, rng)
        seen = _window([n + int(rng.integers(-edge // 4, edge // 4 + 1)) for n in middle], edge, 1)
        image = stretch_contrast(
            _cut(case.load("segmentation/image"), seen), rng, self.config.contrast
        )
        # in eight bits 255 + 1 is 0, which is what lies beyond the volume
        known = _cut_nearest(labels + np.uint8(1), seen, 0) - torch.tensor(1, dtype=torch.uint8)
        quarters = int(rng.integers(0, 4)) if self.config.rotate else 0
        return {
            "image": image[None],
            "labels": known[None],
            "flip": torch.tensor(True),
            "quarters": torch.tensor(quarters),
        }


def clear_lobes(case: CachedCase, source: str) -> list[Lobe]:
    """Return the lesion-free lobes: those with score 0, or in a region without lesions.

    Args:
        case: The prepared case.
        source: ``scans`` wants the whole scan free of lesions.
    """
    clear = case.clear
    if source == "scans" and not clear >= set(Lobe):
        return []
    return [lobe for lobe in case.boxes if lobe in clear]


def _without_unscored(case: CachedCase, lobes: np.ndarray) -> np.ndarray:
    """Return the lobes, 0 where a lobe has no label."""
    counts = np.ones(len(Lobe) + 1, dtype=np.uint8)
    counts[[lobe for lobe in Lobe if lobe not in case.known]] = 0
    return lobes if counts.all() else lobes * counts[lobes]


def _pick(flat: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> list[int]:
    index = flat[int(rng.integers(0, flat.size))]
    return [int(n) for n in np.unravel_index(index, shape)]


def _jitter(image: Tensor, inside: np.ndarray, factor: float) -> tuple[Tensor, np.ndarray]:
    """Bring a lobe to a grid whose spacing is ``factor`` times larger (section IV-A)."""
    size = tuple(max(8, round(n / factor)) for n in image.shape)
    share = chunks.resize(torch.from_numpy(inside)[None, None].float(), (size[0], size[1], size[2]))
    values = chunks.resize(image[None, None], (size[0], size[1], size[2]))
    return values[0, 0], (share > 0.5)[0, 0].numpy()


@dataclass(frozen=True)
class _Window:
    """A cube of a volume that is brought to another number of voxels.

    Attributes:
        start: First voxel of the cube on each axis; may lie outside of the volume.
        extent: Its edge in voxels of the volume.
        size: Its edge in voxels after the change.
    """

    start: list[int]
    extent: int
    size: int


def _window(centre: list[int], size: int, factor: float) -> _Window:
    extent = max(8, round(size * factor))
    return _Window([middle - extent // 2 for middle in centre], extent, size)


def _cut(volume: np.ndarray, window: _Window) -> Tensor:
    """Return the cube; beyond the volume there is its mirror image, as at inference."""
    index = [
        mirrored(np.arange(start, start + window.extent), n)
        for start, n in zip(window.start, volume.shape, strict=True)
    ]
    cube = torch.from_numpy(volume[np.ix_(*index)].astype(np.float32))
    return chunks.resize(cube[None, None], (window.size,) * 3)[0, 0]


def _cut_nearest(volume: np.ndarray, window: _Window, margin: int) -> Tensor:
    """Return the nearest labels of the cube without its outer ``margin``; 0 beyond the volume."""
    picked = np.asarray(volume)
    positions = np.arange(margin, window.size - margin) + 0.5
    for axis, start in enumerate(window.start):
        # positions of voxel centres, counted from the first voxel's outer edge
        index = np.floor(start + positions * window.extent / window.size).astype(int)
        n = volume.shape[axis]
        picked = np.take(picked, np.clip(index, 0, n - 1), axis=axis)
        shape = [1, 1, 1]
        shape[axis] = index.size
        inside = (index >= 0) & (index < n)
        picked = picked * inside.reshape(shape).astype(picked.dtype)
    return torch.from_numpy(np.ascontiguousarray(picked))
