import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference

from Training import metrics
from Training.metrics import Confusion, ProbabilityHistogram

EMPTY, FULL = np.zeros((2, 3), dtype=bool), np.ones((2, 3), dtype=bool)


def _masks(seed, shape=(5, 6, 7)):
    generator = np.random.default_rng(seed)
    return generator.random(shape) < 0.3, generator.random(shape) < 0.4


def test_overlaps_by_hand():
    pred = np.array([1, 1, 1, 0, 0, 0, 0, 0], dtype=bool)
    truth = np.array([1, 0, 0, 1, 0, 0, 0, 0], dtype=bool)
    assert metrics.iou(pred, truth) == 1 / 4
    assert metrics.dice(pred, truth) == 2 / 5
    assert metrics.ppv(pred, truth) == 1 / 3
    assert metrics.sensitivity(pred, truth) == 1 / 2
    assert metrics.specificity(pred, truth) == 4 / 6


@pytest.mark.parametrize("seed", range(3))
def test_overlaps_agree_with_scikit_learn(seed):
    pred, truth = _masks(seed)
    a, b = truth.ravel(), pred.ravel()
    assert metrics.iou(pred, truth) == pytest.approx(reference.jaccard_score(a, b))
    assert metrics.dice(pred, truth) == pytest.approx(reference.f1_score(a, b))
    assert metrics.ppv(pred, truth) == pytest.approx(reference.precision_score(a, b))
    assert metrics.sensitivity(pred, truth) == pytest.approx(reference.recall_score(a, b))
    assert metrics.specificity(pred, truth) == pytest.approx(reference.recall_score(~a, ~b))


@pytest.mark.parametrize(
    ("pred", "truth", "overlap", "ppv", "sensitivity", "specificity"),
    [
        (EMPTY, EMPTY, 1.0, math.nan, math.nan, 1.0),
        (FULL, EMPTY, 0.0, 0.0, math.nan, 0.0),
        (EMPTY, FULL, 0.0, math.nan, 0.0, math.nan),
        (FULL, FULL, 1.0, 1.0, 1.0, math.nan),
    ],
)
def test_degenerate_overlaps(pred, truth, overlap, ppv, sensitivity, specificity):
    assert metrics.iou(pred, truth) == metrics.dice(pred, truth) == overlap
    for found, wanted in (
        (metrics.ppv(pred, truth), ppv),
        (metrics.sensitivity(pred, truth), sensitivity),
        (metrics.specificity(pred, truth), specificity),
    ):
        assert found == pytest.approx(wanted, nan_ok=True)


def test_a_region_limits_the_count_and_parts_add_up():
    pred, truth = _masks(7)
    region = np.zeros(pred.shape, dtype=bool)
    region[:2] = True
    parts = Confusion.of(pred, truth, region) + Confusion.of(pred, truth, ~region)
    assert parts == Confusion.of(pred, truth)
    assert Confusion.of(pred, truth, region) == Confusion.of(pred[:2], truth[:2])


def test_masks_that_are_none_are_refused():
    with pytest.raises(ValueError, match="bool and of one shape"):
        metrics.iou(EMPTY, EMPTY.astype(np.uint8))
    with pytest.raises(ValueError, match="bool and of one shape"):
        metrics.dice(EMPTY[:1], EMPTY)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40),
)
def test_average_precision_agrees_with_scikit_learn_ties_included(pairs):
    probability = np.array([value / 5 for value, _ in pairs])
    truth = np.array([lesion for _, lesion in pairs])
    found = metrics.average_precision(probability, truth)
    histogram = ProbabilityHistogram.of(probability, truth)
    if truth.any():
        wanted = reference.average_precision_score(truth, probability)
        assert found == pytest.approx(wanted)
        assert histogram.average_precision() == pytest.approx(wanted)
    else:
        assert math.isnan(found)
        assert math.isnan(histogram.average_precision())


def test_histograms_add_up_and_give_the_curve():
    generator = np.random.default_rng(3)
    probability = (generator.integers(0, 1000, 4000) + 0.5) / 1000
    truth = generator.random(4000) < probability
    parts = [slice(900), slice(900, None)]
    first, second = (ProbabilityHistogram.of(probability[s], truth[s]) for s in parts)
    whole = first + second
    precision, recall, _ = reference.precision_recall_curve(truth, probability)
    found_precision, found_recall = whole.precision_recall()
    # theirs goes from the lowest threshold to an end point of its own
    np.testing.assert_allclose(found_precision, precision[-2::-1])
    np.testing.assert_allclose(found_recall, recall[-2::-1])
    assert whole.average_precision() == pytest.approx(
        reference.average_precision_score(truth, probability), abs=1e-6
    )
    assert whole.calibration_error() < 0.05


def test_calibration_by_hand():
    histogram = ProbabilityHistogram.of(
        np.array([0.05, 0.05, 0.95, 1.0]), np.array([False, True, True, True])
    )
    mean, share, voxels = histogram.calibration()
    assert mean[0] == pytest.approx(0.05)
    assert share[0] == 0.5
    assert mean[9] == pytest.approx(0.975)
    assert share[9] == 1.0
    assert voxels.tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    assert np.isnan(mean[4])
    assert histogram.calibration_error() == pytest.approx((2 * 0.45 + 2 * 0.025) / 4)
    with pytest.raises(ValueError, match="shared out"):
        histogram.calibration(7)


@pytest.mark.parametrize("seed", range(3))
def test_kappa_agrees_with_scikit_learn(seed):
    generator = np.random.default_rng(seed)
    true = generator.integers(0, 6, 60)
    found = np.clip(true + generator.integers(-2, 3, 60), 0, 5)
    pairs = list(zip(found.tolist(), true.tolist(), strict=True))
    wanted = reference.cohen_kappa_score(true, found, labels=list(range(6)), weights="linear")
    assert metrics.weighted_kappa(pairs) == pytest.approx(wanted)
    matrix = reference.confusion_matrix(true, found, labels=list(range(6)))
    np.testing.assert_array_equal(metrics.confusion_matrix(pairs), matrix)


def test_degenerate_scores():
    assert math.isnan(metrics.weighted_kappa([]))
    assert math.isnan(metrics.weighted_kappa([(2, 2), (2, 2)]))
    assert metrics.weighted_kappa([(2, 2), (3, 3)]) == 1.0
    assert metrics.weighted_kappa([(2, 2), (2, 3)]) == 0.0
    assert metrics.assessable([1, None, 3], [1, 2, None]) == ([(1, 1)], 2)
    with pytest.raises(ValueError, match="0 to 5"):
        metrics.weighted_kappa([(6, 1)])


def test_the_interval_of_a_mean_agrees_with_scipy():
    values = np.random.default_rng(1).normal(3.0, 2.0, 80)
    low, high = metrics.bootstrap_interval(values.tolist(), lambda s: float(np.mean(s)))
    wanted = stats.bootstrap(
        (values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    assert low == pytest.approx(wanted.low, abs=0.1)
    assert high == pytest.approx(wanted.high, abs=0.1)
    assert (low, high) == metrics.bootstrap_interval(values.tolist(), lambda s: float(np.mean(s)))


def test_degenerate_intervals():
    assert all(map(math.isnan, metrics.bootstrap_interval([1.0], lambda s: s[0])))
    assert all(map(math.isnan, metrics.bootstrap_interval([1, 2, 3], lambda s: math.nan, 20)))
    same = metrics.bootstrap_interval([2.0, 2.0], lambda s: float(np.mean(s)), 20)
    assert same == (2.0, 2.0)


def test_paired_tests_agree_with_scipy_and_are_corrected():
    generator = np.random.default_rng(0)
    a = generator.random(25)
    values = {"a": a, "b": a - 0.1 * generator.random(25), "c": a + generator.normal(0, 0.1, 25)}
    every = metrics.compare_methods(values)
    assert [(c.first, c.second) for c in every] == [("a", "b"), ("a", "c"), ("b", "c")]
    for found in every:
        wanted = stats.wilcoxon(values[found.first], values[found.second]).pvalue
        assert found.p == pytest.approx(wanted)
        assert found.p_corrected == pytest.approx(min(1.0, 3 * wanted))
    assert every[0].difference == pytest.approx(float(np.mean(a - values["b"])))
    against = metrics.compare_methods(values, reference="c")
    assert [(c.first, c.second) for c in against] == [("c", "a"), ("c", "b")]


def test_degenerate_paired_tests():
    same, nothing = metrics.compare_methods(
        {"a": [1.0, 2.0], "b": [1.0, 2.0], "c": [math.nan] * 2}, reference="a"
    )
    assert (same.pairs, same.difference, same.p) == (2, 0.0, 1.0)
    assert nothing.pairs == 0
    assert math.isnan(nothing.p_corrected)
    with pytest.raises(ValueError, match="the scans differ"):
        metrics.compare_methods({"a": [1.0], "b": [1.0, 2.0]})


def test_bland_altman_by_hand():
    found = metrics.bland_altman([1.0, 4.0, 3.0, math.nan], [0.0, 1.0, 1.0, 1.0])
    assert (found.pairs, found.bias, found.spread) == (3, 2.0, 1.0)
    assert (found.low, found.high) == pytest.approx((2 - 1.96, 2 + 1.96))
    assert math.isnan(metrics.bland_altman([1.0], [0.0]).spread)
    assert math.isnan(metrics.bland_altman([], []).bias)


def test_means_and_correlations_say_what_they_cannot_tell():
    assert metrics.mean_defined([1.0, math.nan, 3.0]) == (2.0, 2)
    assert math.isnan(metrics.mean_defined([math.nan])[0])
    assert metrics.correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1.0)
    assert math.isnan(metrics.correlation([1, 1], [2, 4]))
