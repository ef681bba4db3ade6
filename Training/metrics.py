"""How a segmentation, a map or a score agrees with the truth, and how sure that is.

What cannot be told from the data is NaN, never a number that looks like one: means leave NaN out
and say over how many they go. The rules, one for each degenerate case:

=======================  ===========================================================
IoU, Dice                1 where both are empty, 0 where only one is
PPV                      NaN where nothing was predicted
sensitivity              NaN where the truth is empty
specificity              NaN where everything is lesion
average precision        NaN where the truth is empty
kappa                    NaN without pairs, and where both give one and the same score
interval                 NaN for fewer than two scans, or if most resamples are NaN
Wilcoxon                 p = 1 where no pair differs, NaN without pairs
Bland–Altman             NaN spread for fewer than two pairs
lobe not assessable      its pair is left out and counted (:func:`assessable`)
=======================  ===========================================================
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

T = TypeVar("T")

SCORES = 6
"""Severity scores 0 to 5."""

NAN = math.nan


@dataclass(frozen=True)
class Confusion:
    """Voxels by prediction and truth; confusions of parts add up to that of the whole.

    Attributes:
        tp: Lesion in both.
        fp: Lesion in the prediction alone.
        fn: Lesion in the truth alone.
        tn: Lesion in neither.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    @classmethod
    def of(
        cls, prediction: np.ndarray, truth: np.ndarray, region: np.ndarray | None = None
    ) -> Confusion:
        """Count voxels.

        Args:
            prediction: Bool array.
            truth: Bool array of the same shape.
            region: Bool array: only voxels in it count; all if left out.

        Raises:
            ValueError: If the shapes differ or an array is not bool.
        """
        arrays = [prediction, truth] if region is None else [prediction, truth, region]
        for array in arrays:
            if array.dtype != np.bool_ or array.shape != truth.shape:
                message = (
                    f"masks must be bool and of one shape, not "
                    f"{[f'{a.dtype} {a.shape}' for a in arrays]}"
                )
                raise ValueError(message)
        if region is not None:
            prediction, truth = prediction[region], truth[region]
        both = int(np.count_nonzero(prediction & truth))
        predicted, true = int(np.count_nonzero(prediction)), int(np.count_nonzero(truth))
        return cls(both, predicted - both, true - both, truth.size - predicted - true + both)

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(
            self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn
        )

    @property
    def iou(self) -> float:
        """Intersection over union; 1 where both are empty."""
        union = self.tp + self.fp + self.fn
        return self.tp / union if union else 1.0

    @property
    def dice(self) -> float:
        """Dice coefficient; 1 where both are empty."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else 1.0

    @property
    def ppv(self) -> float:
        """Share of the predicted lesion that is one."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def sensitivity(self) -> float:
        """Share of the true lesion that was found."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> float:
        """Share of the lesion-free voxels that were left alone."""
        return _ratio(self.tn, self.tn + self.fp)

    def figures(self) -> dict[str, float]:
        """Return all five, by name."""
        names = ("dice", "iou", "ppv", "sensitivity", "specificity")
        return {name: getattr(self, name) for name in names}


def iou(pred: np.ndarray, truth: np.ndarray) -> float:
    """Return the intersection over union of two bool arrays of one shape; 1 if both are empty."""
    return Confusion.of(pred, truth).iou


def dice(pred: np.ndarray, truth: np.ndarray) -> float:
    """Return the Dice coefficient of two bool arrays of one shape; 1 if both are empty."""
    return Confusion.of(pred, truth).dice


def ppv(pred: np.ndarray, truth: np.ndarray) -> float:
    """Return the positive predictive value of two bool arrays; NaN if nothing was predicted."""
    return Confusion.of(pred, truth).ppv


def sensitivity(pred: np.ndarray, truth: np.ndarray) -> float:
    """Return the sensitivity of two bool arrays; NaN if the truth is empty."""
    return Confusion.of(pred, truth).sensitivity


def specificity(pred: np.ndarray, truth: np.ndarray) -> float:
    """Return the specificity of two bool arrays; NaN if everything is lesion."""
    return Confusion.of(pred, truth).specificity


def average_precision(probability: np.ndarray, truth: np.ndarray) -> float:
    """Return the area under the precision–recall curve, as steps without interpolation.

    Args:
        probability: Any shape, larger means lesion; equal values are one threshold.
        truth: Bool array of the same shape; NaN is returned if it is empty.
    """
    values, positive = np.ravel(probability), np.ravel(truth).astype(bool)
    if not positive.any():
        return NAN
    order = np.argsort(-values, kind="stable")
    values, positive = values[order], positive[order]
    last_of_value = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)
    true_positives = np.cumsum(positive)[last_of_value]
    precision = true_positives / (last_of_value + 1)
    gained = np.diff(true_positives, prepend=0) / true_positives[-1]
    return float((precision * gained).sum())


@dataclass(frozen=True)
class ProbabilityHistogram:
    """Voxels by probability and truth, for curves over more voxels than fit in memory.

    Attributes:
        lesion: (bins,) voxels that are lesion, by probability; bins of equal width over [0, 1].
        other: (bins,) voxels that are not.
        total: (bins,) sum of the probabilities in each bin.
    """

    lesion: np.ndarray
    other: np.ndarray
    total: np.ndarray

    @classmethod
    def of(
        cls, probability: np.ndarray, truth: np.ndarray, bins: int = 1000
    ) -> ProbabilityHistogram:
        """Count voxels.

        Args:
            probability: Any shape, in [0, 1].
            truth: Bool array of the same shape.
            bins: How many.
        """
        values = np.ravel(probability).astype(np.float64)
        positive = np.ravel(truth).astype(bool)
        place = np.clip((values * bins).astype(np.int64), 0, bins - 1)
        return cls(
            np.bincount(place[positive], minlength=bins),
            np.bincount(place[~positive], minlength=bins),
            np.bincount(place, values, minlength=bins),
        )

    def __add__(self, other: ProbabilityHistogram) -> ProbabilityHistogram:
        return ProbabilityHistogram(
            self.lesion + other.lesion, self.other + other.other, self.total + other.total
        )

    def precision_recall(self) -> tuple[np.ndarray, np.ndarray]:
        """Return precision and recall at every threshold, from the highest to the lowest.

        Thresholds at which no voxel lies are left out. Both arrays are empty where the truth is.
        """
        found = np.cumsum(self.lesion[::-1])
        each = (self.lesion + self.other)[::-1]
        called = np.cumsum(each)
        if found[-1] == 0:
            return np.empty(0), np.empty(0)
        some = each > 0
        return found[some] / called[some], found[some] / found[-1]

    def average_precision(self) -> float:
        """Return :func:`average_precision` with the probabilities rounded to the bins."""
        precision, recall = self.precision_recall()
        if len(recall) == 0:
            return NAN
        return float((precision * np.diff(recall, prepend=0.0)).sum())

    def calibration(self, groups: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return mean probability, share of lesion and voxels in groups of equal width.

        Each is (groups,); the first two are NaN where a group is empty.

        Raises:
            ValueError: If the bins cannot be shared out to the groups.
        """
        if len(self.lesion) % groups:
            message = f"{len(self.lesion)} bins cannot be shared out to {groups} groups"
            raise ValueError(message)
        lesion, other, total = (
            array.reshape(groups, -1).sum(axis=1) for array in (self.lesion, self.other, self.total)
        )
        voxels = lesion + other
        with np.errstate(invalid="ignore"):
            return total / voxels, lesion / voxels, voxels

    def calibration_error(self, groups: int = 10) -> float:
        """Return the expected calibration error: mean distance of the two, weighted by voxels."""
        mean, share, voxels = self.calibration(groups)
        return _ratio(float(np.nansum(np.abs(mean - share) * voxels)), float(voxels.sum()))


def assessable(
    predicted: Sequence[int | None], true: Sequence[int | None]
) -> tuple[list[tuple[int, int]], int]:
    """Return the pairs (predicted, true) of lobes with both scores, and how many lack one."""
    pairs = [
        (p, t) for p, t in zip(predicted, true, strict=True) if p is not None and t is not None
    ]
    return pairs, len(predicted) - len(pairs)


def confusion_matrix(pairs: Sequence[tuple[int, int]], categories: int = SCORES) -> np.ndarray:
    """Count pairs (predicted, true) of scores: (true, predicted).

    Raises:
        ValueError: If a score is not 0 to ``categories`` - 1.
    """
    matrix = np.zeros((categories, categories), dtype=np.int64)
    for predicted, true in pairs:
        if not (0 <= predicted < categories and 0 <= true < categories):
            message = f"scores go from 0 to {categories - 1}, not ({predicted}, {true})"
            raise ValueError(message)
        matrix[true, predicted] += 1
    return matrix


def weighted_kappa(pairs: Sequence[tuple[int, int]], categories: int = SCORES) -> float:
    """Return Cohen's kappa with linear weights.

    Args:
        pairs: (predicted, true) scores from 0 to ``categories`` - 1.
        categories: Number of scores.

    Returns:
        1 for full agreement, 0 for what chance gives; NaN without pairs, and where all scores are
        one and the same: no chance to disagree tells nothing about agreement.
    """
    matrix = confusion_matrix(pairs, categories).astype(np.float64)
    if matrix.sum() == 0:
        return NAN
    matrix /= matrix.sum()
    distance = np.abs(np.subtract.outer(np.arange(categories), np.arange(categories)))
    expected = float((distance * np.outer(matrix.sum(axis=1), matrix.sum(axis=0))).sum())
    return 1.0 - float((distance * matrix).sum()) / expected if expected > 0 else NAN


def bootstrap_interval(
    scans: Sequence[T],
    statistic: Callable[[Sequence[T]], float],
    repeats: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the percentile interval of a statistic, by drawing whole scans with replacement.

    The lobes and voxels of a patient depend on each other, patients do not; so scans are drawn.

    Args:
        scans: What is known about each scan.
        statistic: From a list of scans to a number; resamples for which it is NaN are left out.
        repeats: Resamples.
        level: Share of the resamples in the interval.
        seed: Of the draws.

    Returns:
        Ends of the interval; NaN for fewer than two scans, or if most resamples are NaN.
    """
    if len(scans) < 2:
        return NAN, NAN
    generator = np.random.default_rng(seed)
    draws = generator.integers(len(scans), size=(repeats, len(scans)))
    values = np.array([statistic([scans[n] for n in draw]) for draw in draws], dtype=float)
    values = values[np.isfinite(values)]
    if 2 * len(values) < repeats:
        return NAN, NAN
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Comparison:
    """Two methods on the same scans.

    Attributes:
        first: Name of a method.
        second: Name of the other.
        pairs: Scans for which both have a figure.
        difference: Mean of first minus second.
        p: Two-sided p of the Wilcoxon signed-rank test.
        p_corrected: The same times the number of comparisons (Bonferroni), at most 1.
    """

    first: str
    second: str
    pairs: int
    difference: float
    p: float
    p_corrected: float


def compare_methods(
    values: Mapping[str, Sequence[float]], reference: str | None = None
) -> list[Comparison]:
    """Test whether methods differ, scan by scan.

    Args:
        values: Figure of every scan by method, in the same order; NaN leaves the pair out.
        reference: Compare all others with this one; every two if left out.

    Raises:
        ValueError: If the methods have different numbers of scans.
    """
    if len({len(v) for v in values.values()}) > 1:
        message = f"the scans differ: { ({n: len(v) for n, v in values.items()}) }"
        raise ValueError(message)
    if reference is None:
        names = list(itertools.combinations(values, 2))
    else:
        names = [(reference, other) for other in values if other != reference]
    return [_compare(a, b, values[a], values[b], len(names)) for a, b in names]


def _compare(
    first: str, second: str, a: Sequence[float], b: Sequence[float], tests: int
) -> Comparison:
    from scipy.stats import wilcoxon

    differences = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    differences = differences[np.isfinite(differences)]
    if len(differences) == 0:
        return Comparison(first, second, 0, NAN, NAN, NAN)
    # pairs without a difference say nothing about its direction; the test drops them
    p = float(wilcoxon(differences).pvalue) if differences.any() else 1.0
    mean = float(differences.mean())
    return Comparison(first, second, len(differences), mean, p, bonferroni(p, tests))


def bonferroni(p: float, tests: int) -> float:
    """Return p times the number of tests, at most 1; NaN stays NaN."""
    return p if math.isnan(p) else min(1.0, p * tests)


@dataclass(frozen=True)
class BlandAltman:
    """Agreement of two measurements of the same quantity.

    Attributes:
        pairs: How many.
        bias: Mean of measured minus true.
        spread: Standard deviation of the differences (n - 1).
        low: Bias - 1.96 spread.
        high: Bias + 1.96 spread.
    """

    pairs: int
    bias: float
    spread: float
    low: float
    high: float


def bland_altman(measured: Sequence[float], true: Sequence[float]) -> BlandAltman:
    """Return bias and limits of agreement; pairs with a NaN are left out."""
    differences = np.asarray(measured, dtype=float) - np.asarray(true, dtype=float)
    differences = differences[np.isfinite(differences)]
    bias = float(differences.mean()) if len(differences) else NAN
    spread = float(differences.std(ddof=1)) if len(differences) > 1 else NAN
    return BlandAltman(len(differences), bias, spread, bias - 1.96 * spread, bias + 1.96 * spread)


def correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Return Pearson's correlation; NaN where one of the two does not vary."""
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return NAN
    return float(np.corrcoef(x, y)[0, 1])


def mean_defined(values: Sequence[float]) -> tuple[float, int]:
    """Return the mean of what is not NaN, and over how many it goes."""
    defined = [v for v in values if not math.isnan(v)]
    return (float(np.mean(defined)) if defined else NAN), len(defined)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else NAN
