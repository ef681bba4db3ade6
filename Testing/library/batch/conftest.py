"""A folder of scans that are no CTs, for runs with a stand-in for the computing."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import pytest

from DRAMLesionLib.batch.run import Outcome, run_batch
from DRAMLesionLib.batch.settings import Settings, find_scans
from Testing.library.batch import stub


@dataclass
class Folder:
    """Scans, and what runs have made of them."""

    place: Path
    lines: list[str]

    @property
    def settings(self) -> Settings:
        return Settings(self.place / "out", weight_sums={"segmentation": "a sum"})

    def add(self, *names: str) -> None:
        (self.place / "in").mkdir(exist_ok=True)
        for name in names:
            (self.place / "in" / f"{name}.nii.gz").write_text(name)

    def scans(self):
        return find_scans(self.place / "in", None, self.lines.append)

    def run(self, runner, shard=None, progress=None) -> Outcome:
        return run_batch(
            self.scans(), self.settings, runner, self.lines.append, shard, progress, do=stub.do
        )

    def begun(self, name: str) -> int:
        return stub.times_done(name, self.settings)

    def rows(self) -> dict[str, dict[str, str]]:
        with (self.place / "out" / "summary.csv").open(encoding="utf-8-sig", newline="") as file:
            return {row["scan"]: row for row in csv.DictReader(file)}

    def results(self) -> dict[str, bytes]:
        """All files that a run is to leave, but those that it keeps for other runs."""
        out = self.place / "out"
        files = (path for path in out.rglob("*") if path.is_file())
        names = {path.relative_to(out).as_posix(): path for path in files}
        return {name: p.read_bytes() for name, p in names.items() if ".dramlesion" not in name}


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path, [])


@pytest.fixture
def other(tmp_path):
    """A second folder, to compare with."""
    (tmp_path / "other").mkdir()
    return Folder(tmp_path / "other", [])
