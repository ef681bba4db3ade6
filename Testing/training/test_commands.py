"""What the commands of the training say and leave when they are stopped or cannot go on."""

import errno
import os
import signal
import time
from pathlib import Path

import pytest

import Training as training_package
from DRAMLesionLib.writing import locked
from Testing.training.small_cache import write_small_cache
from Training.__main__ import main

TINY = Path(training_package.__file__).with_name("configs") / "tiny.yaml"


@pytest.fixture
def output(tmp_path):
    write_small_cache(tmp_path / "cache")
    return tmp_path


def _regression(output):
    words = ["regression", "--config", str(TINY), "--data", str(output), "--output", str(output)]
    settings = ("regression.vessels=frangi", "regression.loop.steps=2")
    return main([*words, *(word for text in settings for word in ("--set", text))])


def _commands(output):
    place = ["--output", str(output)]
    stage = [*place, "--config", str(TINY), "--data", str(output)]
    study = [*stage, "--test", str(output)]
    return {
        **{name: [name, *stage] for name in ("prepare", "regression", "export", "all")},
        "ablate": ["ablate", *study],
        "departures": ["departures", *study],
        "phantoms": ["phantoms", *place, "--count", "1"],
        "synthesis": ["synthesis", *place, "--count", "1", "--scans", "a.nii.gz"],
        "benchmark": ["benchmark", *place, "--size", "small"],
    }


def test_no_two_commands_work_on_one_output(output, capsys):
    before = sorted(output.rglob("*"))
    with locked(output):
        for name, words in _commands(output).items():
            assert main(words) == 1, name
            said = capsys.readouterr().err
            assert said.startswith(f"training: {output} is in use by another run ("), name
            assert f"process {os.getpid()}, since 20" in said
            assert said.count("\n") == 1
    assert [p for p in sorted(output.rglob("*")) if p.name[0] != "."] == before
    assert _regression(output) == 0


def test_the_other_processes_of_torchrun_leave_the_lock_to_the_first(output, monkeypatch):
    from Training.__main__ import _alone

    monkeypatch.setenv("RANK", "1")
    with locked(output), _alone(output):
        assert not (output / "config.yaml").exists()


def test_what_a_killed_run_has_left_is_cleaned(output):
    left = output / "cache" / "case-0" / "segmentation" / ".dramlesion-0-0-0.part.npy"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    assert _regression(output) == 0
    assert not left.exists()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk is full"),
        (MemoryError(), "the memory did not do: use smaller batches"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "the memory did not do"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
            "the memory did not do: use smaller batches, patches or chunks, fewer workers",
        ),
    ],
)
def test_a_full_disk_and_no_memory_end_in_one_line(output, capsys, monkeypatch, error, words):
    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("Training.learning.engine.torch.save", fail)
        assert _regression(output) == 1
    lines = capsys.readouterr().err.splitlines()
    said = [line for line in lines if line and "sample" not in line]  # the bar apart
    assert len(said) == 1
    assert said[0].startswith("training: ")
    assert words in said[0]
    assert not list((output / "regression").glob("*checkpoint*"))
    assert not list((output / "regression").glob("*.part*"))
    assert _regression(output) == 0


def test_an_error_of_the_system_names_file_and_reason(output, capsys, monkeypatch):
    def fail(*_):
        raise PermissionError(errno.EACCES, "Permission denied", "somewhere")

    monkeypatch.setattr("Training.learning.engine.make_fabric", fail)
    assert _regression(output) == 1
    assert "training: cannot read or write somewhere: Permission denied" in capsys.readouterr().err


def test_a_mistake_of_the_program_is_not_hidden(output, monkeypatch):
    def fail(*_):
        message = "shapes do not fit"
        raise RuntimeError(message)

    monkeypatch.setattr("Training.learning.engine.make_fabric", fail)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        _regression(output)


def test_too_little_room_is_told_before_the_work(output, capsys, monkeypatch):
    usage = type("Usage", (), {"free": 10_000})
    monkeypatch.setattr("DRAMLesionLib.writing.shutil.disk_usage", lambda _: usage)
    assert _regression(output) == 1
    assert "make room or choose another place" in capsys.readouterr().err
    assert not (output / "regression" / "log.jsonl").exists()
    assert main(["phantoms", "--output", str(output), "--count", "2", "--spacing", "4"]) == 1
    assert "the results need about 1 MB" in capsys.readouterr().err


def test_sigterm_ends_a_command_as_ctrl_c_does(output, capsys, monkeypatch):
    def work(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(20)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("Training.stages.phantoms.make_phantoms", work)
    assert main(["phantoms", "--output", str(output), "--count", "1"]) == 130
    assert "the next run goes on from here" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before
    with locked(output):
        pass
