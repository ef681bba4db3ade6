import pytest

from DRAMLesionLib.lesions import severity


@pytest.mark.parametrize(
    ("fraction", "score"),
    [
        (0.0, 0),
        (0.0099, 0),
        (0.01, 1),
        (0.0499, 1),
        (0.05, 2),
        (0.2499, 2),
        (0.25, 3),
        (0.4999, 3),
        (0.5, 4),
        (0.7499, 4),
        (0.75, 5),
        (1.0, 5),
    ],
)
def test_the_cuts_are_those_of_table_one(fraction, score):
    assert severity.fraction_to_score(fraction) == score


def test_intervals_and_cuts_agree():
    assert severity.score_to_interval(0) == (0.0, 0.0)
    for score in range(1, 6):
        lower, upper = severity.score_to_interval(score)
        assert severity.fraction_to_score(lower) == score
        assert severity.fraction_to_score((lower + upper) / 2) == score
    assert sum(severity.SCORE_COUNTS_TRAINING) == 5 * 322


@pytest.mark.parametrize("bad", [-0.01, 1.01, float("nan")])
def test_a_fraction_outside_zero_to_one_is_refused(bad):
    with pytest.raises(ValueError, match="between 0 and 1"):
        severity.fraction_to_score(bad)


@pytest.mark.parametrize("bad", [-1, 6, 2.5])
def test_a_score_that_is_none_is_refused(bad):
    with pytest.raises(ValueError, match="whole number from 0 to 5"):
        severity.score_to_interval(bad)


def test_total_is_none_as_soon_as_a_lobe_has_none():
    assert severity.total_score([5, 5, 5, 5, 5]) == 25
    assert severity.total_score([1, 0, None, 2, 0]) is None
