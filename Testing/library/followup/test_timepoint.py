import json

import pytest
import SimpleITK as sitk

from DRAMLesionLib import writing
from DRAMLesionLib.errors import InputError
from DRAMLesionLib.followup.timepoint import Given, from_results, read, with_results
from Testing.library.followup.pairs import box_scan, write_results

A, B = (6, 6, 6), (40, 40, 40)


@pytest.fixture
def scan():
    return box_scan((A, 8, 1))


@pytest.fixture
def results(scan, tmp_path):
    return write_results(tmp_path / "results", scan)


def test_results_come_back_as_they_were_written(scan, results):
    there = from_results(results, scan.ct)
    assert there.warnings == ()
    assert there.report.row("RUL").lesion_ml == scan.report.row("RUL").lesion_ml
    assert there.report.weights == scan.report.weights
    assert there.report.version == "1.2.3"
    assert there.report.row("RML").status.startswith("not assessable: no voxel")


def test_edited_lesions_are_counted_and_told(scan, results):
    edited = box_scan((A, 8, 1), (B, 4, 1))
    writing.write_image(edited.lesions, results / "lesions.nii.gz")
    there = from_results(results, scan.ct)
    assert [warning.code for warning in there.warnings] == ["edited"]
    assert there.report.row("LUL").lesion_ml == pytest.approx(4**3 * 0.008)


def test_another_ct_is_refused(results):
    other = box_scan((A, 8, 1), hu=-500)
    with pytest.raises(InputError, match="its voxels differ"):
        from_results(results, other.ct, "later")


def test_a_ct_of_another_grid_is_refused(results):
    with pytest.raises(InputError, match="not lie on the grid of the later CT"):
        from_results(results, box_scan(spacing=2.1).ct, "later")


def test_labels_that_mean_nothing_are_refused(scan, results):
    writing.write_image(scan.lesions * 7, results / "lesions.nii.gz")
    with pytest.raises(InputError, match="has the label 7, but labels go from 0 to 3"):
        from_results(results, scan.ct)


@pytest.mark.parametrize("name", ["lobes.nii.gz", "lesions.nii.gz"])
def test_a_missing_image_is_named(scan, results, name):
    (results / name).unlink()
    with pytest.raises(InputError, match=name):
        from_results(results, scan.ct)


def test_a_damaged_report_is_named(scan, results):
    content = json.loads((results / "report.json").read_text(encoding="utf-8"))
    del content["lobes_source"]
    (results / "report.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="lobes_source"):
        from_results(results, scan.ct)


def test_results_of_versions_without_a_checksum_are_taken(scan, results):
    content = json.loads((results / "report.json").read_text(encoding="utf-8"))
    del content["grid"]["voxels"]
    (results / "report.json").write_text(json.dumps(content))
    assert from_results(results, scan.ct).warnings == ()


class TestGiven:
    def test_results_need_their_ct(self, results):
        with pytest.raises(InputError, match="name it with --later-ct"):
            Given(results, None, "later").check()

    def test_a_ct_has_no_other_ct(self, results):
        with pytest.raises(InputError, match="holds no results"):
            Given(results / "lobes.nii.gz", results / "lobes.nii.gz", "earlier").check()

    def test_results_are_loaded_without_any_network(self, scan, results, tmp_path):
        sitk.WriteImage(scan.ct, str(tmp_path / "ct.nii.gz"))
        seen = []
        given = Given(results, tmp_path / "ct.nii.gz", "earlier")
        found = read(given)
        there = with_results(given, found, lambda: pytest.fail("no network"), seen.append)
        assert there.taken is None
        assert there.report.row("RUL").lesion_ml == scan.report.row("RUL").lesion_ml
        assert seen[-1] == 1.0
