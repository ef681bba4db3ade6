"""Lobe-wise severity scores (Table I b of the paper) and the fractions they stand for.

This is the only table of scores in the project: library, training and Slicer module read it here.
"""

from __future__ import annotations

from collections.abc import Iterable

MAX_SCORE = 5
"""Highest score of a lobe; five lobes make a total of 0 to 25."""

SCORE_INTERVALS: tuple[tuple[float, float], ...] = (
    (0.0, 0.0),
    (0.01, 0.05),
    (0.05, 0.25),
    (0.25, 0.50),
    (0.50, 0.75),
    (0.75, 1.00),
)
"""Lesion fraction (lower, upper) for each score 0..5; the bounds r_l, r_u of equation 1."""

SCORE_CUTS: tuple[float, ...] = tuple(lower for lower, _ in SCORE_INTERVALS[1:])
"""A fraction's score is the number of these cuts that it reaches."""

SCORE_COUNTS_TRAINING: tuple[int, ...] = (410, 401, 401, 226, 131, 41)
"""Lobes of each score 0..5 in the paper's training set (Table I b); they add up to 5 * 322."""

TOTAL_SCORE_NAME = "CTSS (5 lobes × 0–5)"
"""How the total is called in every output; other scores carry the name CTSS as well."""


def score_to_interval(score: int) -> tuple[float, float]:
    """Return the lesion fraction ``(lower, upper)`` in [0, 1] that a score stands for.

    Raises:
        ValueError: If ``score`` is not one of 0..5.
    """
    if not 0 <= score <= MAX_SCORE or score != int(score):
        message = f"a lobe's severity score is a whole number from 0 to {MAX_SCORE}, not {score!r}"
        raise ValueError(message)
    return SCORE_INTERVALS[int(score)]


def fraction_to_score(fraction: float) -> int:
    """Return the score 0..5 of a lobe of which ``fraction`` (0..1) is lesion.

    Raises:
        ValueError: If ``fraction`` is outside [0, 1] or not a number.
    """
    if not 0.0 <= fraction <= 1.0:
        message = f"a lesion fraction lies between 0 and 1, not at {fraction!r}"
        raise ValueError(message)
    return sum(fraction >= cut for cut in SCORE_CUTS)


def total_score(scores: Iterable[int | None]) -> int | None:
    """Return the sum of the lobe scores (0..25), or None as soon as one lobe has none."""
    total = 0
    for score in scores:
        if score is None:
            return None
        total += score
    return total
