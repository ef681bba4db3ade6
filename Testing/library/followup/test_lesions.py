import numpy as np
import pytest

from DRAMLesionLib.followup.lesions import match
from DRAMLesionLib.followup.uncertainty import COVERAGE, SHIFT, border_ml, breath_ml, of_change
from Testing.library.followup.pairs import box_scan, unmoved

A, B, C = (6, 6, 6), (40, 40, 40), (14, 6, 6)
"""Places of boxes: the first and the last a few voxels apart along x."""


def followed(earlier, later, **registration):
    return match(earlier, later, unmoved(earlier, **registration))


class TestEvents:
    def test_new_gone_and_unchanged(self):
        found = followed(box_scan((A, 8, 1), ((*C[:2], 40), 7, 1)), box_scan((A, 8, 1), (B, 10, 2)))
        assert [lesion.words for lesion in found] == ["new", "gone", "unchanged"]
        new, gone, same = found
        assert (new.change.earlier_ml, new.change.later_ml) == (0.0, pytest.approx(8.0))
        assert new.lobes == ("LUL",)
        assert new.kinds["consolidation"] == (0.0, pytest.approx(8.0))
        assert gone.change.ml == pytest.approx(-(7**3) * 0.008)
        assert same.change.ml == 0.0
        assert (same.earlier_count, same.later_count) == (1, 1)

    @pytest.mark.parametrize(("before", "after", "words"), [(8, 14, "grown"), (14, 8, "shrunk")])
    def test_grown_and_shrunk(self, before, after, words):
        (lesion,) = followed(box_scan((A, before, 1)), box_scan((A, after, 1)))
        assert lesion.words == words
        assert lesion.change.earlier_ml == pytest.approx(before**3 * 0.008)

    def test_what_is_within_the_uncertainty_is_no_growth(self):
        (lesion,) = followed(box_scan((A, 8, 1)), box_scan((A, 8, 1), ((8, 8, 14), 3, 1)))
        assert lesion.words == "unchanged"
        assert 0.0 < lesion.change.ml < lesion.change.uncertainty_ml

    def test_two_that_became_one_and_the_other_way_round(self):
        two, one = box_scan((A, 6, 1), (C, 6, 1)), box_scan((A, 14, 1))
        (merged,) = followed(two, one)
        (split,) = followed(one, two)
        assert merged.words == "merged, grown"
        assert (merged.earlier_count, merged.later_count) == (2, 1)
        assert split.words == "split, shrunk"
        assert split.change.ml == pytest.approx(-merged.change.ml)

    def test_what_the_other_ct_does_not_reach_has_no_verdict(self):
        small = box_scan((A, 8, 1), size=(60, 60, 30))
        whole = box_scan((A, 8, 1), (B, 8, 1))
        words = [lesion.words for lesion in followed(whole, small)]
        assert words == ["unchanged", "outside of the other CT"]
        words = [lesion.words for lesion in followed(small, whole)]
        assert words == ["unchanged", "outside of the other CT"]

    def test_specks_are_not_followed_and_a_faint_new_one_is_no_news(self):
        found = followed(box_scan((A, 8, 1)), box_scan((A, 8, 1), (B, 1, 1), ((6, 40, 6), 2, 1)))
        assert [lesion.words for lesion in found] == ["unchanged", "unchanged"]
        assert found[1].event == "new"

    def test_no_lesion_at_all(self):
        assert followed(box_scan(), box_scan()) == []


class TestPlaces:
    def test_the_place_is_the_same_in_both_scans(self):
        shift = (6.0, -4.0, 8.0)
        moved = box_scan(((9, 4, 10), 8, 1))
        (lesion,) = followed(box_scan((A, 8, 1)), moved, shift=shift)
        assert lesion.event == "same"
        assert lesion.earlier_mm == pytest.approx((19.0, 19.0, 19.0), abs=2.0)
        assert lesion.later_mm == pytest.approx(np.add(lesion.earlier_mm, shift))

    def test_lobes_of_a_lesion_across_the_fissure(self):
        (lesion,) = followed(box_scan(((24, 20, 20), 10, 1)), box_scan(((24, 20, 20), 10, 1)))
        assert lesion.lobes == ("RUL", "LUL")
        assert lesion.earlier_percent == pytest.approx(100.0 * 1000 / 60**3)


class TestUncertainty:
    def test_a_cube_worked_out_by_hand(self):
        labels = np.zeros((20, 20, 20), int)
        labels[5:15, 5:15, 5:15] = 1
        shift = SHIFT * np.hypot(1.5, 1.5)
        wanted = 6 * (10 * 1.5) ** 2 * shift * (2 / 3) / 1000
        assert border_ml(labels, (1.5, 1.5, 1.5), 1)[1] == pytest.approx(wanted)

    def test_thick_slices_count_by_their_own_faces(self):
        labels = np.zeros((20, 20, 20), int)
        labels[5:15, 5:15, 5:15] = 1
        sides = 4 * (10 * 10) * 5.0 * np.hypot(1.0, 1.5) + 2 * (10 * 10) * np.hypot(5.0, 1.5)
        wanted = sides * SHIFT * (2 / 3) / 1000
        assert border_ml(labels, (1.0, 1.0, 5.0), 1)[1] == pytest.approx(wanted)

    def test_the_area_of_a_ball_is_that_of_a_ball(self):
        k, j, i = np.ogrid[:60, :60, :60]
        ball = ((k - 29.5) ** 2 + (j - 29.5) ** 2 + (i - 29.5) ** 2 <= 20.0**2).astype(int)
        area = border_ml(ball, (1.0, 1.0, 1.0), 1)[1] * 1000 / (SHIFT * np.hypot(1.0, 1.5))
        assert area == pytest.approx(4 * np.pi * 20.0**2, rel=0.03)

    def test_another_breath_counts_by_the_air_in_the_lesion(self):
        assert breath_ml(10.0, 0.8, 0.6) == pytest.approx(1.2)
        assert breath_ml(10.0, 1.2, 0.6) == pytest.approx(1.2)
        assert breath_ml(10.0, 0.8, 0.0) == 0.0
        assert of_change(0.3, 0.4, 1.2) == pytest.approx(COVERAGE * 0.5 + 1.2)

    def test_ground_glass_pressed_together_by_the_breath_is_unchanged(self):
        before, after = box_scan((A, 16, 1)), box_scan((A, 14, 1))
        (still,) = match(before, after, unmoved(before))
        (breathed,) = match(before, after, unmoved(before, expansion=0.6))
        assert still.words == "shrunk"
        assert breathed.words == "unchanged"
