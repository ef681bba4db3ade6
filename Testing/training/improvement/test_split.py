"""Which cases are kept for validation, and that none ever changes its side."""

import json

import pytest

from DRAMLesionLib.errors import InputError
from Training.improvement.split import SPLIT, Split, extended, keep_split, read_split

NAMES = [f"case-{n:04d}" for n in range(1, 41)]
EMPTY = Split([], [])


@pytest.mark.parametrize(("count", "kept"), [(1, 1), (2, 1), (3, 1), (4, 2), (10, 3), (40, 12)])
def test_about_the_share_is_kept_and_two_cases_are_enough(count, kept):
    split = extended(EMPTY, NAMES[:count], 0.3)
    assert len(split.validation) == kept
    assert sorted([*split.validation, *split.training]) == NAMES[:count]


def test_no_case_ever_moves_however_the_set_grows(tmp_path):
    sides = {}
    for count in (2, 3, 7, 8, 20, 40):
        split = keep_split(tmp_path, NAMES[:count], 0.3)
        assert split == read_split(tmp_path)
        now = dict.fromkeys(split.validation, True) | dict.fromkeys(split.training, False)
        assert now.items() >= sides.items()
        sides = now
    assert len(sides) == 40
    before = (tmp_path / SPLIT).read_bytes()
    assert keep_split(tmp_path, NAMES[5:9], 0.9) == split, "nothing new: neither asked nor written"
    assert (tmp_path / SPLIT).read_bytes() == before


def test_cases_that_were_taken_away_and_come_back_have_their_side():
    split = extended(EMPTY, NAMES[:10], 0.3)
    assert extended(split, NAMES[:3], 0.3) == split


def test_the_order_in_which_names_come_changes_nothing():
    assert extended(EMPTY, NAMES[:9], 0.3) == extended(EMPTY, reversed(NAMES[:9]), 0.3)


def test_a_case_on_both_sides_and_a_damaged_file_are_refused(tmp_path):
    path = tmp_path / SPLIT
    path.write_text(json.dumps({"validation": ["a", "b"], "training": ["b"]}))
    with pytest.raises(InputError, match=r"split\.json has the case 'b' on both sides"):
        keep_split(tmp_path, ["a"], 0.3)
    path.write_text('{"validation": ["a"]')
    with pytest.raises(InputError, match=r"split\.json is damaged"):
        keep_split(tmp_path, ["a"], 0.3)
