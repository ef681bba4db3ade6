"""Counts of regions by hand."""

import numpy as np
import pytest

from Training.evaluation.counting import count_error, game


def _mask(shape, *boxes):
    mask = np.zeros(shape, dtype=bool)
    for box in boxes:
        mask[box] = True
    return mask


A, B, C = np.s_[0:2, 0:2], np.s_[0:2, 6:8], np.s_[6:8, 6:8]


@pytest.mark.parametrize(
    ("found", "truth", "error", "by_level"),
    [
        ((A, B), (A, B), 0, [0, 0, 0]),
        ((), (A, B), 2, [2, 2, 2]),
        ((A, B, C), (A,), 2, [2, 2, 2]),
        # as many, but one in another quarter
        ((A, B), (A, C), 0, [0, 2, 2]),
        ((), (), 0, [0, 0, 0]),
    ],
)
def test_counts_and_game_by_hand(found, truth, error, by_level):
    masks = _mask((8, 8), *found), _mask((8, 8), *truth)
    assert count_error(*masks) == error
    assert [game(*masks, level) for level in range(3)] == by_level


def test_cells_cover_sizes_that_they_do_not_divide():
    # 19 is no multiple of 16: the last rows and columns count as well
    found, none = _mask((19, 21), np.s_[18:19, 20:21]), np.zeros((19, 21), dtype=bool)
    assert game(found, none) == 1
    assert game(found, found) == 0
    assert game(_mask((3, 5), np.s_[0:1, 0:1]), none[:3, :5]) == 1


def test_regions_of_a_volume_are_counted_in_columns():
    found = _mask((4, 8, 8), np.s_[0:2, 0:2, 0:2], np.s_[3:4, 0:2, 0:2])
    truth = _mask((4, 8, 8), np.s_[0:4, 0:2, 0:2])
    assert count_error(found, truth) == 1
    assert game(found, truth, 1) == 1
