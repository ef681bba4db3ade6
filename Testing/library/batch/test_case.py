"""One scan of a batch: when it is done again, and what is refused."""

from __future__ import annotations

import json

import pytest
import SimpleITK as sitk

from DRAMLesionLib import __main__ as command_line
from DRAMLesionLib import writing
from DRAMLesionLib.batch.case import do_case
from DRAMLesionLib.batch.settings import Scan, Settings
from DRAMLesionLib.report import origin
from Testing.fuzz import chest
from Testing.library.small_weights import write_small_weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two CTs, lobes of the first, weights."""
    place = tmp_path_factory.mktemp("batch")
    (place / "in").mkdir()
    (place / "lobes").mkdir()
    write_small_weights(place / "weights")
    for name in ("a", "b ü"):
        sitk.WriteImage(chest.ct(), str(place / "in" / f"{name}.nii.gz"))
        sitk.WriteImage(chest.lobes(), str(place / "lobes" / f"{name}.nii.gz"))
    return place


def words(folder, out, *more):
    return [
        *("batch", str(folder / "in"), "-o", str(out), "--lobes", str(folder / "lobes")),
        *("--lobe-scheme", "dram", "--weights", str(folder / "weights"), "--device", "cpu"),
        *more,
    ]


def test_a_batch_gives_what_a_single_run_gives(folder, tmp_path, capsys):
    assert command_line.main(words(folder, tmp_path / "out", "--workers", "1")) == 0
    said = capsys.readouterr().out
    assert "1/2 a\n" in said
    assert "2 of 2 scans done; " in said
    single = ["segment", str(folder / "in" / "a.nii.gz"), "-o", str(tmp_path / "single")]
    single += ["--lobes", str(folder / "lobes" / "a.nii.gz"), "--lobe-scheme", "dram"]
    single += ["--weights", str(folder / "weights"), "--device", "cpu", "--json-progress"]
    assert command_line.main(single) == 0
    for name in ("lesions", "vessels", "lobes"):
        pair = [sitk.ReadImage(str(tmp_path / p / f"{name}.nii.gz")) for p in ("out/a", "single")]
        assert (sitk.GetArrayFromImage(pair[0]) == sitk.GetArrayFromImage(pair[1])).all()
    # umlauts: with a mark for spreadsheets
    text = (tmp_path / "out" / "summary.csv").read_bytes()
    assert text.startswith(b"\xef\xbb\xbfscan,status,reason,LUL_volume_ml")
    assert "b ü" in text.decode("utf-8-sig")
    assert 'href="b%20%C3%BC/report.html"' in (tmp_path / "out" / "cohort.html").read_text("utf-8")

    # nothing is done again, by whichever runner
    before = (tmp_path / "out" / "a" / "report.json").stat().st_mtime_ns
    capsys.readouterr()
    again = words(folder, tmp_path / "out", "--shard", "1/1", "--workers", "2", "--json-progress")
    assert command_line.main(again) == 0
    assert (tmp_path / "out" / "a" / "report.json").stat().st_mtime_ns == before
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(line["stage"] for line in lines) == ["a", "b ü"]
    assert lines[-1]["fraction"] == 1.0
    assert (tmp_path / "out" / "summary.csv").read_bytes() == text


def test_who_comes_second_does_not_write(folder, tmp_path, monkeypatch):
    sums = origin.weight_sums(folder / "weights")
    scan = Scan("a", "a", folder / "in" / "a.nii.gz", folder / "lobes" / "a.nii.gz")
    settings = Settings(tmp_path, folder / "weights", sums, lobe_scheme="dram", device="cpu")
    assert do_case(scan, settings)["status"] == "done"
    answers = iter([False, True])  # not there before the computing, there after it
    monkeypatch.setattr(origin, "is_made_from", lambda *_: next(answers))
    monkeypatch.setattr(writing, "whole_results", None)
    row = do_case(scan, settings)
    assert row["status"] == "done", row["reason"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"weight_sums": {"segmentation": "another"}}, "the weights of DRAMLesion"),
        ({"version": "99.0"}, "where the batch was started (99.0): install the same"),
    ],
)
def test_other_weights_or_versions_elsewhere_are_refused(folder, tmp_path, change, says):
    sums = origin.weight_sums(folder / "weights")
    settings = Settings(
        **{"output": tmp_path, "weights": folder / "weights", "weight_sums": sums, **change}
    )
    row = do_case(Scan("a", "a", folder / "in" / "a.nii.gz"), settings)
    assert row["status"] == "failed"
    assert says in row["reason"]


def test_a_ct_that_is_no_dicom_series_gets_no_dicom_results_and_says_so(folder, tmp_path):
    sums = origin.weight_sums(folder / "weights")
    settings = Settings(tmp_path, folder / "weights", sums, device="cpu", dicom="binary")
    row = do_case(Scan("a", "a", folder / "in" / "a.nii.gz"), settings)
    assert row["reason"].startswith("a.nii.gz is no folder with a DICOM series")
    assert not (tmp_path / "a").exists()


def test_a_scan_that_would_hide_the_summary_is_refused(tmp_path):
    from DRAMLesionLib.batch.settings import find_scans

    (tmp_path / "summary.csv").mkdir()
    (scan,) = find_scans(tmp_path, None, print)
    assert "rename it" in do_case(scan, Settings(tmp_path / "out"))["reason"]


def test_masks_may_be_single_dicom_files(tmp_path):
    from DRAMLesionLib.batch.settings import find_scans

    for name in ("in/a.nii.gz", "in/b.dcm", "lobes/a.dcm", "lobes/b.seg.nrrd"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (scan,) = find_scans(tmp_path / "in", tmp_path / "lobes", print)
    assert (scan.name, scan.lobes) == ("a", tmp_path / "lobes" / "a.dcm")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--shard", "5/4"], "5/4 is no part such as 1/4"),
        (["--shard", "0/4"], "0/4 is no part"),
        (["--shard", "one"], "one is no part"),
        (["--workers", "0"], "at least one worker"),
        (["--workers", "2", "--scheduler", "tcp://x:1"], "not allowed with"),
        (["--shard", "1/2", "--scheduler", "tcp://x:1"], "--shard is for job arrays"),
        (["--lobes", "/nowhere"], "--lobes: /nowhere is no folder"),
    ],
)
def test_wrong_usage_is_status_two(folder, tmp_path, capsys, more, says):
    with pytest.raises(SystemExit) as stop:
        command_line.main(words(folder, tmp_path / "out", *more))
    assert stop.value.code == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_without_scans_is_told(tmp_path, capsys):
    assert command_line.main(["batch", str(tmp_path), "-o", str(tmp_path / "out")]) == 1
    assert "holds no scan (.nii.gz" in capsys.readouterr().err
