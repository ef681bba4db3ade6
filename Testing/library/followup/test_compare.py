import datetime
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from DRAMLesionLib.errors import InputError, ScanWarning
from DRAMLesionLib.followup import compare as comparing
from DRAMLesionLib.followup.compare import compare, lobe_changes
from DRAMLesionLib.lesions.severity import fraction_to_score
from DRAMLesionLib.lobes import Lobe
from Testing.library.followup.conftest import EARLIER, LATER
from Testing.library.followup.pairs import box_scan, report_of, unmoved

A, B = (6, 6, 6), (40, 40, 40)
STILL = dict.fromkeys(Lobe, 1.0)
DAY = datetime.date(2026, 3, 1)


@pytest.fixture
def boxes(monkeypatch):
    """Two scans that lie over each other as they are: a lesion has grown, one is new."""
    earlier, later = box_scan((A, 8, 1)), box_scan((A, 14, 1), (B, 10, 2))
    monkeypatch.setattr(comparing, "register", lambda *_: unmoved(earlier))
    return earlier, later


def codes(comparison):
    return [warning.code for warning in comparison.warnings]


class TestPhantomPair:
    """What was put into a phantom that breathes comes out again."""

    @pytest.mark.parametrize(
        ("lobe", "verdict"),
        [("LLL", "grown"), ("RUL", "shrunk"), ("LUL", "grown"), ("RLL", "unchanged")],
    )
    def test_the_verdict_of_each_lobe(self, compared, lobe, verdict):
        assert compared[0].lobe(lobe).lesion.verdict == verdict

    def test_volumes_are_those_of_each_ct_as_it_is(self, pair, compared):
        for phantom, which in zip(pair, ("earlier", "later"), strict=True):
            lobes, lesions = (
                sitk.GetArrayFromImage(image) for image in (phantom.lobes, phantom.lesions)
            )
            voxels = np.count_nonzero(lesions[lobes == Lobe.LLL])
            change = compared[0].lobe("LLL").lesion
            assert getattr(change, f"{which}_ml") == pytest.approx(voxels * 0.125)

    def test_new_and_gone_lesions_are_where_they_were_put(self, compared):
        lesions = compared[0].lesions
        new = {lesion.lobes[0] for lesion in lesions if lesion.event == "new" and lesion.changed}
        gone = {lesion.lobes[0] for lesion in lesions if lesion.event == "gone" and lesion.changed}
        assert "LUL" in new
        assert "RUL" in gone
        assert not new & {"RUL", "RLL", "RML"}
        assert not gone & {"LUL", "LLL", "RML"}

    def test_scores_and_the_breath_are_told(self, compared):
        comparison = compared[0]
        assert comparison.lobe("LLL").earlier_score == EARLIER[Lobe.LLL]
        assert comparison.lobe("LUL").later_score == fraction_to_score(0.0) + LATER[Lobe.LUL]
        assert codes(comparison) == ["other-breath"]
        assert "less in the later CT" in comparison.warnings[0].message

    def test_what_has_changed_most_comes_first(self, compared):
        changed = [abs(one.change.ml) for one in compared[0].lesions if one.changed]
        assert changed == sorted(changed, reverse=True)
        assert changed


class TestLobes:
    def test_counts_worked_out_by_hand(self, boxes):
        rows = {row.name: row for row in lobe_changes(*boxes, STILL)}
        right, left, total = rows["RUL"], rows["LUL"], rows["total"]
        assert right.lesion.earlier_ml == pytest.approx(8**3 * 0.008)
        assert right.lesion.later_ml == pytest.approx(14**3 * 0.008)
        assert right.percents == pytest.approx((100 * 512 / 108000, 100 * 2744 / 108000))
        assert left.kinds["consolidation"].ml == pytest.approx(8.0)
        assert left.kinds["ground_glass"].verdict == "unchanged"
        assert total.lesion.ml == pytest.approx(right.lesion.ml + left.lesion.ml)
        assert total.status == "without LLL, RML, RLL"

    def test_a_lobe_that_one_scan_lacks_has_no_numbers(self, boxes):
        earlier, later = boxes
        report = report_of(
            later.ct, sitk.Cast(later.lobes == Lobe.RUL, sitk.sitkUInt8) * 3, later.lesions
        )
        rows = {
            row.name: row for row in lobe_changes(earlier, replace(later, report=report), STILL)
        }
        assert rows["LUL"].lesion is None
        assert "later CT" in rows["LUL"].status
        assert rows["total"].lesion.earlier_ml == rows["RUL"].lesion.earlier_ml


class TestRefusals:
    def test_the_wrong_order(self, boxes):
        earlier, later = (
            replace(scan, taken=DAY + datetime.timedelta(days=days))
            for scan, days in zip(boxes, (3, 0), strict=True)
        )
        with pytest.raises(InputError, match="exchange the two"):
            compare(earlier, later)
        assert compare(later, earlier)[0].days == 3

    def test_the_same_ct_twice(self, boxes):
        with pytest.raises(InputError, match="are the same, voxel by voxel"):
            compare(boxes[0], boxes[0])

    def test_one_without_lungs(self, boxes):
        empty = replace(boxes[1], lobes=sitk.Image(boxes[1].lobes.GetSize(), sitk.sitkUInt8))
        with pytest.raises(InputError, match="the later CT has no lung"):
            compare(boxes[0], empty)

    @pytest.mark.parametrize(("field", "value"), [("dice", 0.5), ("likeness", 0.05)])
    def test_lungs_that_do_not_fit(self, boxes, monkeypatch, field, value):
        found = replace(unmoved(boxes[0]), **{field: value})
        monkeypatch.setattr(comparing, "register", lambda *_: found)
        with pytest.raises(InputError, match="not of one person"):
            compare(*boxes)


class TestWarnings:
    def test_a_good_pair_has_none(self, boxes):
        assert codes(compare(*boxes)[0]) == []

    @pytest.mark.parametrize(
        ("field", "value", "code"),
        [
            ("dice", 0.9, "poor-registration"),
            ("likeness", 0.4, "poor-registration"),
            ("folded", 0.02, "folded-registration"),
        ],
    )
    def test_a_doubtful_registration(self, boxes, monkeypatch, field, value, code):
        found = replace(unmoved(boxes[0]), **{field: value})
        monkeypatch.setattr(comparing, "register", lambda *_: found)
        assert codes(compare(*boxes)[0]) == [code]

    @pytest.mark.parametrize(
        ("changes", "word"),
        [
            ({"weights": ({"name": "segmentation.safetensors", "sha256": "cd34"},)}, "weights"),
            ({"version": "1.2.2"}, "versions of DRAMLesion"),
            ({"parameters": {"segmentation": {"threshold": 0.4}}}, "settings"),
            ({"lobes_source": "estimated"}, "sources of the lobes"),
        ],
    )
    def test_results_made_in_different_ways(self, boxes, changes, word):
        later = boxes[1]
        report = report_of(later.ct, later.lobes, later.lesions, **changes)
        comparison, _ = compare(boxes[0], replace(later, report=report))
        (warning,) = comparison.warnings
        assert warning.code == "made-otherwise"
        assert f"different {word}," in warning.message

    def test_another_device_or_density_is_no_other_way(self, boxes):
        later = boxes[1]
        parameters = {"segmentation": {"threshold": 0.5}, "device": "cuda", "lungs": {"hu": -800}}
        report = report_of(later.ct, later.lobes, later.lesions, parameters=parameters)
        assert codes(compare(boxes[0], replace(later, report=report))[0]) == []

    def test_what_the_single_results_said_and_other_patients(self, boxes):
        edited = ScanWarning("edited", "The images were edited.")
        later = replace(boxes[1], warnings=(edited,), patient="b")
        comparison, _ = compare(replace(boxes[0], patient="a"), later)
        assert codes(comparison) == ["later-edited", "other-patient"]
        assert comparison.warnings[0].message == "In the later scan: The images were edited."

    def test_slices_much_thicker_than_before(self, monkeypatch):
        earlier, later = box_scan((A, 8, 1)), box_scan((A, 4, 1), size=(30, 30, 30), spacing=4.0)
        monkeypatch.setattr(comparing, "register", lambda *_: unmoved(earlier))
        assert codes(compare(earlier, later)[0]) == ["other-slices"]
