"""Space-filling trees: bronchi with their arteries, and the veins between them.

The points that a lobe's tree has to supply are divided by planes again and again; each division is
a fork and each part's branch grows towards the middle of its points, as in volume-filling models of
the airway tree. A branch's width follows from the number of its ends (Murray's law).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Inside = Callable[[np.ndarray], np.ndarray]

MURRAY = 3.4
"""Exponent of the law: widths to this power add up where a branch divides."""


_MOST_GENERATIONS = 40
"""Points in one line with a tip cannot be divided; growth stops here at the latest."""


@dataclass(frozen=True)
class Tree:
    """Branches of one or more trees.

    Attributes:
        start: First ends, (n, 3) as (x, y, z) in mm.
        bend: Control points of the quadratic curve between the ends.
        end: Second ends.
        leaves: Number of ends that each branch supplies.
        parent_leaves: The same of the branch that it comes from.
    """

    start: np.ndarray
    bend: np.ndarray
    end: np.ndarray
    leaves: np.ndarray
    parent_leaves: np.ndarray

    def radii(self, tip: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the radius at both ends of each branch if the last branches have ``tip`` mm."""
        own = tip * self.leaves ** (1.0 / MURRAY)
        # a branch leaves its parent hardly wider than it will be
        return np.minimum(tip * self.parent_leaves ** (1.0 / MURRAY), 1.15 * own), own

    def select(self, chosen: np.ndarray) -> Tree:
        """Return the branches where ``chosen`` (n,) is true."""
        return Tree(
            self.start[chosen],
            self.bend[chosen],
            self.end[chosen],
            self.leaves[chosen],
            self.parent_leaves[chosen],
        )


def join(trees: list[Tree]) -> Tree:
    """Return all branches of several trees as one."""
    fields = ("start", "bend", "end", "leaves", "parent_leaves")
    return Tree(*(np.concatenate([getattr(tree, name) for tree in trees]) for name in fields))


def grow(
    rng: np.random.Generator,
    root: np.ndarray,
    direction: np.ndarray,
    points: np.ndarray,
    inside: Inside,
    reach: float = 0.22,
) -> Tree:
    """Grow a tree from ``root`` to every one of ``points``.

    Args:
        rng: Source of the irregularity.
        root: Where the tree begins, (3,) in mm.
        direction: In which direction it begins, (3,).
        points: What it has to reach, (n, 3) in mm.
        inside: Tells for (n, 3) places whether they belong to the lobe.
        reach: Share of the way to the middle of its points that a branch grows.

    Returns:
        The tree; ``leaves`` of the branches at the root add up to n.
    """
    branches: list[tuple[np.ndarray, ...]] = []
    tips, headings = root[None].astype(float), direction[None] / np.linalg.norm(direction)
    normals = np.cross(headings, [[0.31, 0.83, 0.47]])
    owner = np.zeros(len(points), dtype=np.int64)
    sizes = np.array([len(points)])
    for _ in range(_MOST_GENERATIONS):
        if not len(points):
            break
        side = _split(rng, points, owner, tips, headings, normals, sizes)
        child = owner * 2 + side
        counts = np.bincount(child, minlength=2 * len(tips))
        centre = _mean(points, child, counts)
        kept = counts > 0
        parent = np.repeat(np.arange(len(tips)), 2)
        end = _grow_ends(rng, tips[parent], centre, counts, inside, reach)
        start = tips[parent]
        length = np.linalg.norm(end - start, axis=1, keepdims=True)
        # the branch leaves its parent smoothly: bent towards the parent's direction
        bend = start + 0.5 * (end - start)
        bend = bend + 0.16 * length * (headings[parent] - (end - start) / np.maximum(length, 1e-6))
        end, bend = np.round(end * 1024) / 1024, np.round(bend * 1024) / 1024
        branches.append(tuple(a[kept] for a in (start, bend, end, counts, sizes[parent])))
        heading = (end - bend) / np.maximum(np.linalg.norm(end - bend, axis=1, keepdims=True), 1e-6)
        turned = np.cross(heading, normals[parent])
        going = counts > 1
        number = np.cumsum(going) - 1
        alive = going[child]
        points, owner = points[alive], number[child[alive]]
        tips, headings, normals, sizes = end[going], heading[going], turned[going], counts[going]
    return Tree(*(np.concatenate(column) for column in zip(*branches, strict=True)))


def _mean(points: np.ndarray, owner: np.ndarray, counts: np.ndarray) -> np.ndarray:
    sums = [np.bincount(owner, points[:, c], minlength=len(counts)) for c in range(3)]
    return np.stack(sums, axis=1) / np.maximum(counts, 1)[:, None]


def _split(
    rng: np.random.Generator,
    points: np.ndarray,
    owner: np.ndarray,
    tips: np.ndarray,
    headings: np.ndarray,
    normals: np.ndarray,
    sizes: np.ndarray,
) -> np.ndarray:
    """Return 0 or 1 for each point: on which side of its branch's dividing plane it lies."""
    centre = _mean(points, owner, sizes)
    away = points - centre[owner]
    towards = centre - tips
    towards = towards / np.maximum(np.linalg.norm(towards, axis=1, keepdims=True), 1e-6)
    # power iteration: the widest direction of each branch's points across the way to their middle
    normal = normals + 0.3 * rng.standard_normal(normals.shape)
    for _ in range(4):
        normal = normal - (normal * towards).sum(1, keepdims=True) * towards
        reach = (away * normal[owner]).sum(1)
        normal = np.stack(
            [np.bincount(owner, away[:, c] * reach, minlength=len(sizes)) for c in range(3)], axis=1
        )
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    along = (away * normal[owner]).sum(1)
    spread = np.sqrt(np.bincount(owner, along**2, minlength=len(sizes)) / sizes)
    # forks are uneven: the plane misses the middle
    shift = rng.normal(0.0, 0.7, len(sizes)) * spread
    side = (along > shift[owner]).astype(np.int64)
    lost = np.bincount(owner, side, minlength=len(sizes))
    uneven = (lost == 0) | (lost == sizes)
    if uneven.any():
        side = np.where(uneven[owner], (along > 0).astype(np.int64), side)
    return side


def _grow_ends(
    rng: np.random.Generator,
    start: np.ndarray,
    centre: np.ndarray,
    counts: np.ndarray,
    inside: Inside,
    reach: float,
) -> np.ndarray:
    way = centre - start
    length = np.linalg.norm(way, axis=1, keepdims=True)
    # large branches fork early and then run straight to the periphery, small ones fork late
    late = np.clip(1.0 - np.log(np.maximum(counts, 1)) / np.log(60.0), 0.0, 1.0)
    share = (reach + (0.5 - reach) * late) * rng.uniform(0.7, 1.3, len(counts))
    share = np.where(counts == 1, 1.0, share)[:, None]
    wander = (
        rng.standard_normal(way.shape) * 0.08 * length * np.where(counts == 1, 0.3, 1.0)[:, None]
    )
    end = start + share * way + share * wander
    for _ in range(2):
        outside = ~inside(end)
        end[outside] = 0.5 * (end[outside] + centre[outside])
    return end
