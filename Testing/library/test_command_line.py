import json
import shutil
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


@pytest.mark.parametrize(
    ("after", "raised", "status"),
    [("lobes.csv", KeyboardInterrupt, 130), ("report.json", OSError(28, "No space left"), 1)],
)
def test_earlier_results_stay_if_the_new_ones_do_not_get_their_places(
    case, tmp_path, monkeypatch, after, raised, status
):
    assert _segment(case, tmp_path, "--maps") == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    replace = Path.replace

    def fail(path, target):
        replace(path, target)
        if target == tmp_path / after and not target.with_name("failed").exists():
            (tmp_path / "failed").touch()
            raise raised

    monkeypatch.setattr(Path, "replace", fail)
    assert _segment(case, tmp_path) == status
    (tmp_path / "failed").unlink()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.fixture
def no_computing(monkeypatch):
    """Let the commands end where the long computations begin."""

    def computing(*_, **__):
        pytest.fail("the computing began")

    for module, name in (
        ("pipeline", "LesionPipeline.run"),
        ("lobes.providers", "provide_lobes"),
        ("phantom", "make_phantom"),
    ):
        monkeypatch.setattr(f"DRAMLesionLib.{module}.{name}", computing)


@pytest.mark.parametrize(
    ("command", "output", "says"),
    [
        ("segment", "afile", "a file stands where a folder should be"),
        ("segment", "afile/out", "a file stands where a folder should be"),
        ("segment", "n" * 300, "the path is too long"),
        ("segment", "taken", "lesions.nii.gz: a folder stands where a file should be"),
        ("lobes", "afile/lobes.nii.gz", "a file stands where a folder should be"),
        ("lobes", "taken/lesions.nii.gz", "a folder stands where a file should be"),
        ("lobes", "lobes.txt", "unknown kind of image file"),
        ("lobes", f"{'n' * 300}.nii.gz", "the path is too long"),
        ("phantom", "afile", "a file stands where a folder should be"),
        ("phantom", "n" * 300, "the path is too long"),
    ],
)
def test_an_output_that_cannot_be_made_is_told_before_the_computing(
    case, tmp_path, capsys, no_computing, command, output, says
):
    (tmp_path / "afile").touch()
    (tmp_path / "taken" / "lesions.nii.gz").mkdir(parents=True)
    ct = [] if command == "phantom" else [str(case / "ct scan.nrrd")]
    assert command_line.main([command, *ct, "-o", str(tmp_path / output)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("dramlesion: ")
    assert says in error
    assert sorted(_names(tmp_path)) == ["afile", "taken"]


@pytest.mark.parametrize("command", ["segment", "lobes", "phantom"])
def test_too_little_room_is_told_before_the_computing(
    case, tmp_path, capsys, monkeypatch, no_computing, command
):
    usage = type(shutil.disk_usage(tmp_path))(10**9, 10**9 - 9000, 9000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    ct = [] if command == "phantom" else [str(case / "ct scan.nrrd")]
    name = "x.nii.gz" if command == "lobes" else "x"
    assert command_line.main([command, *ct, "-o", str(tmp_path / name)]) == 1
    assert "0 MB are free; make room or choose another place" in capsys.readouterr().err
    assert _names(tmp_path) == set()


@pytest.mark.parametrize("maps", [False, True])
def test_the_estimate_of_the_room_is_enough_and_not_absurd(case, tmp_path, maps):
    assert _segment(case, tmp_path, *["--maps"] * maps) == 0
    used = sum(path.stat().st_size for path in tmp_path.iterdir())
    voxels = sitk.ReadImage(str(case / "ct scan.nrrd")).GetNumberOfPixels()
    asked = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(output.writing, "check_writable", lambda _, needed: asked.append(needed))
        output.check_output(tmp_path, voxels, maps)
    assert used < asked[0] < used + 6e6


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "not enough memory for this CT"),
        (RuntimeError("std::bad_alloc"), "not enough memory for this CT"),
        (RuntimeError("Failed to allocate memory for image."), "not enough memory for this CT"),
        (PermissionError(13, "Permission denied", "a\x1b[31mb"), "a [31mb: Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_whatever_the_system_says_is_one_line(case, tmp_path, capsys, monkeypatch, error, says):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("DRAMLesionLib.pipeline.LesionPipeline.run", fail)
    assert _segment(case, tmp_path) == 1
    assert capsys.readouterr().err.startswith(f"dramlesion: {says}")


def test_a_mistake_of_the_program_is_not_hidden(case, tmp_path, monkeypatch):
    def fail(*_, **__):
        message = "shapes differ"
        raise RuntimeError(message)

    monkeypatch.setattr("DRAMLesionLib.pipeline.LesionPipeline.run", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        _segment(case, tmp_path)


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
        _, error = process.communicate(timeout=300)
    assert process.returncode == 143
    assert "nothing was written" in error
    assert _names(tmp_path / "out") == set()


def test_phantom_and_lobes_commands(tmp_path, capsys):
    folder = tmp_path / "phantom"
    assert command_line.main(["phantom", "-o", str(folder), "--seed", "2", "--spacing", "4"]) == 0
    assert {"ct.nii.gz", "lobes.nii.gz", "lesions.nii.gz", "truth.json"} <= _names(folder)
    out = tmp_path / "lobes.nii.gz"
    assert command_line.main(["lobes", str(folder / "ct.nii.gz"), "-o", str(out)]) == 0
    assert set(sitk.GetArrayFromImage(sitk.ReadImage(str(out))).ravel()) == {0, 1, 2, 3, 4, 5}
    assert "confidence: LUL" in capsys.readouterr().out


def test_an_impossible_spacing_is_wrong_usage(tmp_path):
    with pytest.raises(SystemExit) as stop:
        command_line.main(["phantom", "-o", str(tmp_path), "--spacing", "0"])
    assert stop.value.code == 2
