"""What counts as better."""

import pytest

from Training.improvement.verdict import (
    CaseFigures,
    Figures,
    LobeFigures,
    compare,
    is_better,
    summarise,
)


def figures(dice=0.6, in_interval=8, clear=2.0):
    return Figures(
        dice=dice,
        dice_cases=0 if dice is None else 2,
        in_interval=in_interval,
        scored=15,
        clear_percent=clear,
        clear_lobes=0 if clear is None else 4,
    )


@pytest.mark.parametrize(
    ("after", "better"),
    [
        (figures(), False),
        (figures(dice=0.65), True),
        (figures(dice=0.605), False),
        (figures(in_interval=9), True),
        (figures(clear=1.0), True),
        (figures(clear=1.95), False),
        (figures(dice=0.65, in_interval=7), False),
        (figures(dice=0.58, in_interval=12), False),
        (figures(dice=0.595, in_interval=12), True),
        (figures(in_interval=12, clear=2.5), False),
        (figures(dice=0.7, in_interval=12, clear=1.0), True),
    ],
)
def test_none_is_worse_and_one_is_better(after, better):
    assert is_better(figures(), after) is better


def test_what_cannot_be_measured_takes_no_part():
    before = figures(dice=None, clear=None)
    assert is_better(before, figures(dice=None, in_interval=9, clear=None))
    assert not is_better(before, figures(dice=None, clear=None))


def test_a_network_that_was_not_trained_is_never_better():
    verdict = compare(figures(), figures(dice=0.9), trained=False)
    assert (verdict.trained, verdict.better) == (False, False)


def test_figures_of_cases_together():
    first = CaseFigures({"LUL": LobeFigures(0, 0.005), "RUL": LobeFigures(2, 0.3)}, dice=0.4)
    second = CaseFigures({"LUL": LobeFigures(0, 0.02), "RUL": LobeFigures(5, 1.0)}, dice=0.8)
    third = CaseFigures({"RML": LobeFigures(1, 0.01)})
    found = summarise([first, second, third])
    assert found.dice == pytest.approx(0.6)
    assert (found.dice_cases, found.in_interval, found.scored) == (2, 3, 5)
    assert found.clear_percent == pytest.approx(1.25)
    assert found.clear_lobes == 2
    empty = summarise([third])
    assert (empty.dice, empty.clear_percent) == (None, None)
