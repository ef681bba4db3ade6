"""The chaos sees half results, left-overs and processes that outlive their parent."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.chaos import run
from Testing.chaos.jobs import Job
from Testing.chaos.run import _Ended, left_overs, torture


class _Written(Job):
    """A job that writes one number; what is killed leaves what ``killed`` leaves."""

    name, mark = "written", "mark"

    def write_inputs(self):
        """Nothing."""

    def command(self, output):
        """Words for the stand-in of the runner."""
        return [str(output)]

    def results(self, output):
        """The number."""
        return {"number": (output / "number").read_text()}

    def done(self, output):
        """The number, where the marker is."""
        return {"": self.results(output)} if (output / "done").exists() else {}


def _runner(killed):
    """Return a stand-in for starting a process: finished, or killed on the way."""

    def start(job, output, kill=None):
        output.mkdir(exist_ok=True)
        if kill is not None:
            killed(output)
            return _Ended(-9, 1.0, 0.5, "mark\n")
        for path in output.glob("*.part"):
            path.unlink()
        (output / "number").write_text("7")
        (output / "done").touch()
        return _Ended(0, 1.0, 0.5, "mark\n")

    return start


def _nothing(output):
    pass


def _half_as_done(output):
    (output / "number").write_text("3")
    (output / "done").touch()


def _marker_alone(output):
    (output / "done").touch()


def _left(output):
    (output / ".dramlesion-1.part.nii").touch()


@pytest.mark.parametrize(
    ("killed", "problem"),
    [
        (_nothing, None),
        (_half_as_done, "counts as done: number differs"),
        (_marker_alone, "counts as done, but cannot be read"),
        (_left, "was left over"),
    ],
)
def test_what_a_kill_leaves_is_judged(killed, problem, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "_run", _runner(killed))
    outcome = torture(_Written(tmp_path / "job"), 5, seed=0)
    assert outcome.kills == 5
    assert 2 <= outcome.rounds <= 5
    if problem is None:
        assert outcome.problems == []
    else:
        assert any(problem in text for text in outcome.problems)
        assert all("SIG" in text or "left over" in text for text in outcome.problems)


def test_other_results_are_named(tmp_path, monkeypatch):
    number = iter(range(100))

    def start(job, output, kill=None):
        output.mkdir(exist_ok=True)
        (output / "number").write_text(str(next(number)))
        return _Ended(-9 if kill else 0, 1.0, 0.5, "")

    monkeypatch.setattr(run, "_run", start)
    outcome = torture(_Written(tmp_path / "job"), 1, seed=0)
    assert outcome.problems == [
        "written, round 0: number differs from the undisturbed run's",
    ]


def test_unfinished_files_are_left_overs_and_locks_are_not(tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    for name in (".dramlesion.lock", "report.json", ".case.json"):
        (output / name).touch()
    assert left_overs(output) == []
    (output / "maps").mkdir()
    for name in (".dramlesion-1-2-3.part.nii.gz", ".dramlesion.owner.json", "maps/a.npy.part"):
        (output / name).touch()
    (tmp_path / ".dramlesion-1-2-4.part").mkdir()
    assert len(left_overs(output)) == 4


def test_arrays_are_compared_by_their_values():
    ones = {"a": {"b": np.ones(3)}}
    assert run._compare(ones, {"a": {"b": np.ones(3)}}) == []
    assert run._compare(ones, {"a": {"b": np.array([1, 1, 2])}}) == [
        "a differs from the undisturbed run's"
    ]
