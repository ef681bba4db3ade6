"""A batch: scans to a runner, rows to the summary, a line to who watches."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

from DRAMLesionLib import writing
from DRAMLesionLib.batch import cohort
from DRAMLesionLib.batch.case import do_case
from DRAMLesionLib.batch.local import Do, Event
from DRAMLesionLib.batch.settings import NOTES, Progress, Row, Scan, Settings, Shard, Tell
from DRAMLesionLib.batch.summary import (
    DONE,
    FAILED,
    OPEN,
    collected,
    forget_failures,
    note_failure,
    write_summary,
)
from DRAMLesionLib.errors import DRAMLesionError

Runner = Callable[[Sequence[Scan], Settings, Do], Generator[Event, None, None]]
"""Does scans: yields each when it is begun, and again with its row when it is done."""

_SUMMARY_SHARE = 0.02
"""How much of its time a batch spends on the summary while it goes on."""

_WRITING_S = 600.0
_RECENT = 50
"""Scans by which the time left is told."""


@dataclass(frozen=True)
class Outcome:
    """How a batch has ended.

    Attributes:
        rows: Of all its scans, in their order.
        problem: Why there is no summary; empty if there is one.
    """

    rows: list[Row]
    problem: str = ""

    def count(self, status: str) -> int:
        """Return how many scans have a status."""
        return sum(row["status"] == status for row in self.rows)

    @property
    def line(self) -> str:
        """What came of it, in words."""
        text = f"{self.count(DONE)} of {len(self.rows)} scans done"
        waiting = self.count(OPEN)
        return f"{text}, {waiting} wait for other shards" if waiting else text


def run_batch(
    scans: Sequence[Scan],
    settings: Settings,
    runner: Runner,
    tell: Tell,
    shard: Shard | None = None,
    progress: Progress | None = None,
    do: Do = do_case,
) -> Outcome:
    """Do scans, and write the summary of all.

    Args:
        scans: All of them.
        settings: What to do with them.
        runner: Who does them.
        tell: Called with a line for who watches.
        shard: Which part to do; all if left out. The summary is that of all scans in any case.
        progress: Called when a scan is done.
        do: What does one scan.

    Returns:
        How it has ended.

    Raises:
        OutputError: If another run holds the folder of the results, or it cannot be written to.
    """
    output = settings.output
    own = shard.of(scans) if shard else list(scans)
    held = output / NOTES / f"shard-{shard.number}-of-{shard.count}" if shard else output
    with writing.locked(held, tell):
        forget_failures(own, settings)
        batch = _Batch(own, settings, tell, summary=shard is None)
        with batch.summary_at_the_end(), closing(runner(own, settings, do)) as events:
            for scan, row in events:
                batch.note(scan, row)
                if progress is not None and row is not None:
                    progress(scan.title, batch.share)
        if shard is None:
            return Outcome(batch.in_order(), batch.problem)
    # of shards that end at once, the last one sees all results
    with writing.locked(output / NOTES, wait_s=_WRITING_S):
        rows = collected(scans, settings)
        return Outcome(rows, _write(rows, settings))


class _Batch:
    """What has been done so far."""

    def __init__(
        self, scans: Sequence[Scan], settings: Settings, tell: Tell, summary: bool
    ) -> None:
        self._scans, self._settings, self._tell = scans, settings, tell
        self._summary = summary
        self._rows: dict[str, Row] = {}
        self._begun = 0
        self._failed = 0
        self._times = deque([time.monotonic()], maxlen=_RECENT)
        self._next_summary = 0.0
        self._written = 0
        self.problem = ""

    def note(self, scan: Scan, row: Row | None) -> None:
        """Take down that a scan was begun, or its row."""
        if row is None:
            self._begun += 1
            self._tell(f"{self._begun}/{len(self._scans)} {scan.title}")
            return
        self._rows[scan.title] = row
        self._times.append(time.monotonic())
        if row["status"] == FAILED:
            self._failed += 1
            note_failure(scan, row, self._settings)
        others = len(self._rows) < self._begun
        name = f"{scan.title}: " if others else ""
        self._tell(f"  {name}{row['status']} {row['reason']}".rstrip() + self._pace())
        if time.monotonic() >= self._next_summary and len(self._rows) < len(self._scans):
            self._write()
            if self.problem:
                self._tell(f"  {self.problem}")

    @property
    def share(self) -> float:
        """How much of the batch is done, 0 to 1."""
        return len(self._rows) / len(self._scans)

    def in_order(self) -> list[Row]:
        """Return the rows so far in the order of the scans."""
        return [self._rows[s.title] for s in self._scans if s.title in self._rows]

    @contextmanager
    def summary_at_the_end(self) -> Iterator[None]:
        """Write the summary of what was done until the body ended, however that was."""
        try:
            yield
        finally:
            if len(self._rows) > self._written:
                self._write()

    def _write(self) -> None:
        if not self._summary:
            return
        begun = time.monotonic()
        self.problem = _write(self.in_order(), self._settings)
        self._written = len(self._rows)
        now = time.monotonic()
        self._next_summary = now + (now - begun) / _SUMMARY_SHARE

    def _pace(self) -> str:
        """Say how fast it goes, how long it will take, and how many have failed."""
        left = len(self._scans) - len(self._rows)
        seconds = self._times[-1] - self._times[0]
        if not left or seconds < 1.0:
            return ""
        rate = (len(self._times) - 1) / seconds
        failed = f", {self._failed} failed" if self._failed else ""
        return f" ({3600 * rate:.0f} an hour, {_span(left / rate)} left{failed})"


def _write(rows: Sequence[Row], settings: Settings) -> str:
    """Write table and page; says why that failed, '' if it did not."""
    try:
        write_summary(rows, settings.output)
        cohort.write_page(rows, settings.output)
    except DRAMLesionError as error:
        return str(error)
    return ""


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
