"""The headless script: under plain Python, and as Slicer runs it."""

from __future__ import annotations

import csv
import json
import os
import runpy
import shutil
import signal
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
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    sys.argv = [str(SCRIPT), *arguments]
    try:
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(SCRIPT), run_name="__main__")
    finally:
        sys.argv = before
        for number, handler in handlers.items():
            signal.signal(number, handler)
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


@pytest.fixture
def counted(monkeypatch):
    """Scans that were really computed; the pipeline gives them all the same result."""
    from DRAMLesionLib import LesionPipeline

    done, kept = [], []

    def once(pipeline, image, *given, **named):
        done.append(image.GetSize())
        if not kept:
            kept.append(whole(pipeline, image, *given, **named))
        return kept[0]

    whole = LesionPipeline.run
    monkeypatch.setattr(LesionPipeline, "run", once)
    return done


@pytest.fixture
def one_scan(scans):
    shutil.rmtree(scans / "2 empty")
    (scans / "3.nii.gz").unlink()
    return scans


def test_only_a_result_of_the_same_scan_lobes_weights_and_options_is_done(
    one_scan, run, counted, tmp_path
):
    weights = tmp_path / "weights"
    shutil.copytree(run.weights, weights)
    given = words(one_scan, run)
    given[given.index(str(run.weights))] = str(weights)
    lobes = tmp_path / "lobes" / "1 gut.nrrd"

    def again(*more):
        counted.clear()
        assert start([*given, *more]) == 0
        return len(counted)

    assert again() == 1
    assert again() == 0
    origin = json.loads((tmp_path / "out" / "1 gut" / "report.json").read_text())["origin"]
    assert len(origin["scan"]) == len(origin["lobes"]) == 64
    assert "gut" not in json.dumps(origin)
    (one_scan / "1 gut.nrrd").touch()  # another time alone is no other scan
    assert again() == 0
    changed = sitk.ReadImage(str(one_scan / "1 gut.nrrd")) + 1
    sitk.WriteImage(changed, str(one_scan / "1 gut.nrrd"))
    assert again() == 1
    sitk.WriteImage(run.lobes, str(lobes), useCompression=True)
    assert again() == 1
    card = weights / "segmentation.json"
    card.write_text(card.read_text() + "\n")
    assert again() == 1
    assert again("--maps") == 1
    assert again("--maps") == 0
    (tmp_path / "out" / "1 gut" / "vessels.nii.gz").unlink()
    assert again("--maps") == 1
    assert again("--maps", "--again") == 1
    report = tmp_path / "out" / "1 gut" / "report.json"
    report.write_text(report.read_text().replace(origin["version"], "0.0.0"))
    assert again("--maps") == 1


def test_of_two_scans_of_one_name_neither_is_lost(one_scan, run, counted):
    sitk.WriteImage(run.ct, str(one_scan / "1 gut.nii.gz"))
    sitk.WriteImage(run.lobes, str(one_scan / "1 gut.seg.nrrd"))
    assert start(words(one_scan, run)) == 1
    found = rows(one_scan.parent / "out")
    assert [(row["scan"], row["status"]) for row in found] == [
        ("1 gut.nii.gz", "failed"),
        ("1 gut.nrrd", "failed"),
    ]
    assert {row["reason"] for row in found} == {"2 scans are called 1 gut: rename all but one"}
    assert counted == []


def test_of_two_lobe_masks_of_one_name_none_is_guessed(one_scan, run, counted):
    sitk.WriteImage(run.lobes, str(one_scan.parent / "lobes" / "1 gut.nii.gz"))
    assert start(words(one_scan, run)) == 1
    assert rows(one_scan.parent / "out")[0]["reason"].startswith("2 lobe masks are called 1 gut")
    assert counted == []


def test_a_second_start_on_one_output_is_refused(one_scan, run, counted, capsys):
    from DRAMLesionLib.writing import locked

    with locked(one_scan.parent / "out"):
        assert start(words(one_scan, run)) == 1
    assert "in use by another run (" in capsys.readouterr().err
    assert counted == []
    assert not (one_scan.parent / "out" / "summary.csv").exists()


def test_a_summary_that_cannot_be_written_does_not_end_it(one_scan, run, counted, capsys):
    sitk.WriteImage(run.ct, str(one_scan / "4.nrrd"))
    (one_scan.parent / "out" / "summary.csv").mkdir(parents=True)
    assert start(words(one_scan, run)) == 1
    out = capsys.readouterr().out
    assert out.count("summary.csv: a folder stands where a file should be") == 2
    assert "2 of 2 scans done" in out
    assert len(counted) == 2


def test_reasons_name_no_folder_and_formulas_stay_text(one_scan, run, counted, monkeypatch):
    sitk.WriteImage(run.ct, str(one_scan / "=1+1.nrrd"))
    errors = {
        "=1+1": OSError(28, "No space left on device", "/mnt/Jane Doe/x/lesions.nii.gz"),
        "1 gut": RuntimeError(f"{one_scan}/1 gut.nrrd and /home/jane.doe/b.nrrd: bad\x1b[2J"),
    }
    errors["=1+1"].filename = str(one_scan.parent / "out" / "lesions.nii.gz")

    def fail(name, *_, **__):
        raise errors[name.name.removesuffix(".nrrd")]

    monkeypatch.setattr("DRAMLesionLib.reading.files.read_ct", fail)
    assert start(words(one_scan, run)) == 1
    found = {row["scan"]: row["reason"] for row in rows(one_scan.parent / "out")}
    assert found == {
        "1 gut": "RuntimeError: 1 gut.nrrd and b.nrrd: bad [2J",
        "'=1+1": "lesions.nii.gz: No space left on device",
    }


@pytest.mark.parametrize(
    ("error", "says"),
    [(MemoryError(), "not enough memory"), (RuntimeError("std::bad_alloc"), "not enough memory")],
)
def test_a_lack_of_memory_is_told_as_such(one_scan, run, monkeypatch, error, says):
    from DRAMLesionLib import LesionPipeline

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(LesionPipeline, "run", fail)
    assert start(words(one_scan, run)) == 1
    assert rows(one_scan.parent / "out")[0]["reason"].startswith(says)


def test_a_full_disk_is_told_as_such_before_the_computing(one_scan, run, counted, monkeypatch):
    usage = type(shutil.disk_usage(one_scan))(10**9, 10**9, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert start(words(one_scan, run)) == 1
    assert "0 MB are free; make room" in rows(one_scan.parent / "out")[0]["reason"]
    assert counted == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without a signal")
def test_terminating_it_leaves_nothing_half_written(one_scan, run):
    words_ = [sys.executable, str(SCRIPT), *words(one_scan, run)]
    with subprocess.Popen(words_, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        assert process.stdout.readline() == "1/1 1 gut\n"
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=600)
    assert process.returncode == 143
    assert "stopped; start again to go on" in said
    out = one_scan.parent / "out"
    assert {path.name for path in out.rglob("*") if path.is_file()} == {".dramlesion.lock"}


def test_a_sum_knows_what_a_header_keeps_in_other_files(tmp_path):
    from DRAMLesionLib.report.origin import content_sum

    image = sitk.Image(4, 4, 4, sitk.sitkInt16)
    for name in ("a.mhd", "b.nhdr", "c.nrrd"):
        sitk.WriteImage(image, str(tmp_path / name))
    for header, voxels in (("a.mhd", "a.raw"), ("b.nhdr", "b.raw")):
        before = content_sum(tmp_path / header)
        assert content_sum(tmp_path / header) == before
        (tmp_path / voxels).write_bytes(b"other")
        assert content_sum(tmp_path / header) != before
    before = content_sum(tmp_path / "c.nrrd")
    (tmp_path / "a.raw").write_bytes(b"again")
    assert content_sum(tmp_path / "c.nrrd") == before
    folder = tmp_path / "dicom" / "deep"
    folder.mkdir(parents=True)
    (folder / "1").write_bytes(b"one")
    sums = [content_sum(folder.parent)]
    (folder / "1").rename(folder / "2")
    sums.append(content_sum(folder.parent))
    (folder / "2").write_bytes(b"two")
    sums.append(content_sum(folder.parent))
    assert len(set(sums)) == 3


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
