"""The fuzz finds what it should, makes the same files again, and a short run holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from Testing.fuzz import made_up
from Testing.fuzz.registry import KINDS
from Testing.fuzz.run import fuzz
from Testing.fuzz.worker import make_case

HOLDS = ("ct-nifti-gz", "ct-meta-z", "lobes-nifti", "lobes-meta")
SEED, COUNT = 7, 24


def test_a_short_run_holds(tmp_path):
    cases = [(n, HOLDS[n % len(HOLDS)]) for n in range(COUNT)]
    result = fuzz(SEED, cases, keep=tmp_path / "kept")
    assert [(f.kind, f.number, f.outcome, f.change, f.details) for f in result.failures] == []
    assert sum(sum(counts.values()) for counts in result.counts.values()) == COUNT
    assert sum(counts["refused"] for counts in result.counts.values()) > COUNT / 4


@pytest.mark.parametrize("name", ["ct-nrrd-gz", "ct-dicom", "lobes-seg", "scores", "settings"])
def test_the_same_number_makes_the_same_file(name, tmp_path):
    kind = KINDS[name]
    made = []
    for n in (3, 3, 4):
        case, change = make_case(kind, 1, n, tmp_path)
        made.append((change.what, _content(case)))
    assert made[0] == made[1]
    assert made[0] != made[2]


def _content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"no file"
        for path in sorted(folder.rglob("*"))
    }


def test_each_outcome_is_told_and_the_file_kept(tmp_path):
    cases = list(enumerate(made_up.KINDS))
    told = []
    kinds = f"{made_up.__name__}:KINDS"
    result = fuzz(0, cases, keep=tmp_path, tell=told.append, time_limit=2.0, kinds=kinds)
    found = {name.removeprefix("made-up-"): list(c) for name, c in result.counts.items()}
    assert found == {name: [name] for name in made_up.EXPECTED}
    assert [failure.outcome for failure in told] == [
        "crash",
        "hang",
        "traceback",
        "unclear",
        "memory",
        "wrong",
    ]
    assert all(failure.change == "changed" for failure in told)
    kept = {path.name: (path / "file").read_bytes() for path in tmp_path.iterdir()}
    assert kept == {f"{f.kind}-0-{f.number}": b"changed" for f in told}
    assert "no message of ours" in told[2].details
