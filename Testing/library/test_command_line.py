import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import SimpleITK as sitk

from DRAMLesionLib import __main__ as command_line
from DRAMLesionLib.lobes.schemes import scheme_names
from DRAMLesionLib.phantom import make_phantom
from DRAMLesionLib.report import output
from Testing.library.small_weights import write_small_weights

ROOT = Path(__file__).resolve().parents[2]
ALWAYS = {
    "lesions.nii.gz",
    "vessels.nii.gz",
    "lobes.nii.gz",
    "lobes.csv",
    "report.json",
    "report.html",
}
MAPS = {"dram.nii.gz", "dram_refined.nii.gz", "lesion_probability.nii.gz"}


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A folder with a blank and an umlaut that holds a CT, its lobes and small weights."""
    folder = tmp_path_factory.mktemp("große Fälle")
    phantom = make_phantom(seed=5, spacing=4.0)
    sitk.WriteImage(phantom.ct, str(folder / "ct scan.nrrd"))
    sitk.WriteImage(phantom.lobes, str(folder / "lobes.nii.gz"))
    write_small_weights(folder / "weights")
    return folder


def _segment(case, out, *more):
    return command_line.main(
        [
            "segment",
            str(case / "ct scan.nrrd"),
            *("-o", str(out)),
            *("--lobes", str(case / "lobes.nii.gz")),
            *("--lobe-scheme", "dram"),
            *("--weights", str(case / "weights")),
            *("--device", "cpu"),
            *more,
        ]
    )


def _names(folder):
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def test_segment_writes_everything_on_the_grid_of_the_ct(case, tmp_path, capsys):
    assert _segment(case, tmp_path / "out", "--maps") == 0
    assert _names(tmp_path / "out") == ALWAYS | MAPS
    ct = sitk.ReadImage(str(case / "ct scan.nrrd"))
    for name in ("lesions", "vessels", "lobes", "dram"):
        image = sitk.ReadImage(str(tmp_path / "out" / f"{name}.nii.gz"))
        assert image.GetSize() == ct.GetSize()
        assert image.GetOrigin() == pytest.approx(ct.GetOrigin(), abs=1e-3)
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["weights"][0]["sha256"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Research use only" in page
    assert "ct scan" not in page
    assert "wrote" in capsys.readouterr().out


def test_maps_of_an_earlier_run_do_not_stay_beside_new_results(case, tmp_path):
    assert _segment(case, tmp_path, "--maps") == 0
    (tmp_path / "my notes.txt").write_text("keep")
    assert _segment(case, tmp_path) == 0
    assert _names(tmp_path) == ALWAYS | {"my notes.txt"}


def test_json_progress_is_one_object_a_line_and_grows(case, tmp_path, capsys):
    assert _segment(case, tmp_path, "--json-progress") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    fractions = [line["fraction"] for line in lines]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert {"read", "dRAM", "segmentation", "write"} <= {line["stage"] for line in lines}


def test_what_cannot_be_done_is_one_line_on_standard_error(case, tmp_path, capsys):
    assert command_line.main(["segment", str(tmp_path / "no.nii"), "-o", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no.nii" in error
    assert command_line.main(["lobes", str(case), "-o", str(tmp_path / "x.nii.gz")]) == 1
    assert _names(tmp_path) == set()


def test_wrong_usage_is_status_two(capsys):
    for words in ([], ["segment"], ["segment", "ct.nii", "-o", "x", "--device", "abacus"]):
        with pytest.raises(SystemExit) as stop:
            command_line.main(words)
        assert stop.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_the_command_line_knows_the_schemes_of_the_library():
    assert set(command_line.SCHEMES) == {"auto", *scheme_names()}


def test_a_failure_while_writing_leaves_nothing(case, tmp_path, monkeypatch):
    def broken(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(output.writing, "write_json", broken)
    assert _segment(case, tmp_path) == 1
    assert _names(tmp_path) == set()


def test_ctrl_c_while_writing_leaves_nothing(case, tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(output.writing, "write_json", interrupted)
    assert _segment(case, tmp_path) == 130
    assert _names(tmp_path) == set()
    assert "nothing was written" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without a signal")
def test_terminating_the_process_leaves_nothing(case, tmp_path):
    words = [
        *(sys.executable, "-m", "DRAMLesionLib", "segment", str(case / "ct scan.nrrd")),
        *("-o", str(tmp_path / "out"), "--weights", str(case / "weights"), "--json-progress"),
    ]
    with subprocess.Popen(  # noqa: S603
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["stage"] != "read":
                break
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "nothing was written" in error
    assert _names(tmp_path / "out") == set()


def test_phantom_and_lobes_commands(tmp_path, capsys):
    folder = tmp_path / "phantom"
    assert command_line.main(["phantom", "-o", str(folder), "--seed", "2", "--spacing", "4"]) == 0
    assert {"ct.nii.gz", "lobes.nii.gz", "lesions.nii.gz", "truth.json"} <= _names(folder)
    out = tmp_path / "lobes.nii.gz"
    assert command_line.main(["lobes", str(folder / "ct.nii.gz"), "-o", str(out)]) == 0
    assert set(sitk.GetArrayViewFromImage(sitk.ReadImage(str(out))).ravel()) == {0, 1, 2, 3, 4, 5}
    assert "confidence: LUL" in capsys.readouterr().out


def test_an_impossible_spacing_is_wrong_usage(tmp_path):
    with pytest.raises(SystemExit) as stop:
        command_line.main(["phantom", "-o", str(tmp_path), "--spacing", "0"])
    assert stop.value.code == 2
