"""The headless script: under plain Python, and as Slicer runs it."""

from __future__ import annotations

import csv
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import SimpleITK as sitk

from Testing.host import missing

if missing():
    pytest.skip(str(missing()), allow_module_level=True)

SCRIPT = Path(__file__).resolve().parents[2] / "DRAMLesion" / "Scripts" / "DRAMLesionBatch.py"


@pytest.fixture
def scans(run, tmp_path):
    """A good scan with lobes, a DICOM folder that is none, and a broken file."""
    folder = tmp_path / "in"
    (folder / "2 empty").mkdir(parents=True)
    (tmp_path / "lobes").mkdir()
    sitk.WriteImage(run.ct, str(folder / "1 gut.nrrd"))
    sitk.WriteImage(run.lobes, str(tmp_path / "lobes" / "1 gut.nrrd"))
    (folder / "3.nii.gz").write_bytes(b"no NIfTI at all")
    (folder / "notes.txt").write_text("not a scan")
    return folder


def words(scans, run):
    out = scans.parent / "out"
    given = ["--input", scans, "--output", out, "--lobes", scans.parent / "lobes"]
    given += ["--lobe-scheme", "dram", "--weights", run.weights, "--device", "cpu"]
    return [str(word) for word in given]


def rows(out):
    return list(csv.DictReader((out / "summary.csv").open(encoding="utf-8")))


def start(arguments):
    """Start the script as `python FILE args` does, in this process; returns the exit status."""
    before = sys.argv
    sys.argv = [str(SCRIPT), *arguments]
    try:
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(SCRIPT), run_name="__main__")
    finally:
        sys.argv = before
    return stop.value.code


def test_the_table_names_no_series_and_no_dicom_file(tmp_path):
    from Testing.library import simple_chest as chest

    volume = chest.values(chest.hu(chest.grid()))
    series = tmp_path / "in" / "case"
    uid = chest.write_series(series, volume, SeriesDescription="Mrs Miller")
    chest.write_series(series, volume, SeriesDescription="Mrs Miller", prefix="miller")
    given = ["--input", tmp_path / "in", "--output", tmp_path / "out"]
    assert start([str(word) for word in given]) == 1
    (row,) = rows(tmp_path / "out")
    assert row["reason"].startswith("case holds 2 usable CT series: choose one with --series UID")
    for path in series.glob("miller*"):
        path.write_bytes(path.read_bytes()[:-100])
    assert start([str(word) for word in given]) == 1
    (again,) = rows(tmp_path / "out")
    assert again["reason"].startswith("case: 50 DICOM image(s) are cut short or damaged; copy")
    for text in (row["reason"], again["reason"]):
        assert "iller" not in text
        assert uid not in text


def test_a_broken_scan_is_a_row_and_the_others_go_on(scans, run, capsys):
    assert start(words(scans, run)) == 1
    out = scans.parent / "out"
    found = {row["scan"]: row for row in rows(out)}
    assert list(found) == ["1 gut", "2 empty", "3"]
    assert [row["status"] for row in found.values()] == ["done", "failed", "failed"]
    assert found["3"]["reason"].startswith("3.nii.gz is ")
    assert str(scans) not in (out / "summary.csv").read_text()
    assert "2 empty" in found["2 empty"]["reason"]
    total = run.report["totals"][2]
    assert float(found["1 gut"]["total_lesion_percent"]) == total["lesion_percent"]
    assert int(found["1 gut"]["total_score"]) == total["score"]
    for name in ("lesions", "lobes", "vessels"):
        written = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "1 gut" / f"{name}.nii.gz")))
        assert (written == run.array(name)).all(), name
    assert not list(out.rglob("*.part"))
    assert not (out / "3").exists()
    assert "1 of 3 scans done" in capsys.readouterr().out

    # a second start leaves what is finished, tries again what failed, and drops what is gone
    before = (out / "1 gut" / "lesions.nii.gz").stat().st_mtime_ns
    shutil.rmtree(scans / "2 empty")
    (scans / "3.nii.gz").write_bytes(b"still none")
    assert start(words(scans, run)) == 1
    found = [(row["scan"], row["status"]) for row in rows(out)]
    assert found == [("1 gut", "done"), ("3", "failed")]
    (scans / "3.nii.gz").unlink()
    assert start(words(scans, run)) == 0
    assert [row["scan"] for row in rows(out)] == ["1 gut"]
    assert (out / "1 gut" / "lesions.nii.gz").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "arguments",
    [[], ["--input", "/nowhere", "--output", "x"], ["--device", "tpu"], ["--input", "{empty}"]],
)
def test_wrong_usage_is_status_2(arguments, tmp_path, capsys):
    given = [word.format(empty=tmp_path) for word in arguments]
    if given[:1] == ["--input"] and "--output" not in given:
        given += ["--output", str(tmp_path / "out")]
    assert start(given) == 2
    assert "usage:" in capsys.readouterr().err


def test_whatever_happens_slicer_is_told_to_end(host, tmp_path, monkeypatch):
    """An exception that escaped would leave the application waiting for ever."""
    for status, arguments in ((2, []), (1, ["--input", str(tmp_path), "--output", "/dev/null/x"])):
        (tmp_path / "a.nrrd").write_bytes(b"")
        host.app.exit_status = None
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        assert host.app.exit_status == status


def test_missing_packages_are_named(scans, run, monkeypatch, capsys):
    module = runpy.run_path(str(SCRIPT))
    monkeypatch.setitem(module["PACKAGES"], "no_such_module", "no-such-package")
    assert module["main"](words(scans, run)) == 1
    assert "pip install no-such-package" in capsys.readouterr().err
    assert not (scans.parent / "out").exists()


def test_it_runs_from_any_folder_without_the_library_on_the_path(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    code = f"import runpy; m = runpy.run_path({str(SCRIPT)!r}); m['makeImportable'](); "
    code += "import DRAMLesionLib; print(DRAMLesionLib.__version__)"
    out = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, check=True
    )
    assert out.stdout.strip()
