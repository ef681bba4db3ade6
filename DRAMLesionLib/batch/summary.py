"""The table of all scans, and what runs note so that each of them can make the same table."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from DRAMLesionLib import tables, typed, writing
from DRAMLesionLib.batch.settings import NOTES, SUMMARY, Row, Scan, Settings
from DRAMLesionLib.errors import DRAMLesionError, InputError

DONE, FAILED, OPEN = "done", "failed", "open"
"""Values of the column ``status``."""

LOBES = ("LUL", "LLL", "RUL", "RML", "RLL", "total")
FIELDS = ("volume_ml", "lesion_ml", "lesion_percent", "score")
COLUMNS = (
    "scan",
    "status",
    "reason",
    *(f"{lobe}_{field}" for lobe in LOBES for field in FIELDS),
    "lobes_source",
    "warnings",
    "version",
)

_BOM = "\ufeff"


@dataclass(frozen=True)
class _Failure:
    """A note on a scan that could not be done."""

    scan: str
    reason: str
    decisive: dict[str, Any]


def done_row(scan: Scan, folder: Path) -> Row:
    """Return the row of a finished scan, from its ``report.json``.

    Raises:
        OSError: If there is none.
        ValueError, KeyError: If it is none.
    """
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    row: Row = {"scan": scan.title, "status": DONE, "reason": ""}
    for entry in (*report["lobes"], *report["totals"]):
        if entry["name"] in LOBES:
            for field in FIELDS:
                value = entry[field]
                row[f"{entry['name']}_{field}"] = "" if value is None else value
    row["lobes_source"] = report["lobes_source"]
    row["warnings"] = " | ".join(warning["message"] for warning in report["warnings"])
    row["version"] = report["version"]
    return row


def failed_row(scan: Scan, reason: str) -> Row:
    """Return the row of a scan that could not be done."""
    return {"scan": scan.title, "status": FAILED, "reason": reason}


def write_summary(rows: Iterable[Row], output: Path) -> None:
    """Write ``summary.csv``, whole or not at all.

    Text that is not ASCII alone begins with a byte order mark: without it spreadsheets take UTF-8
    for something else; pandas passes over it.

    Raises:
        OutputError: If it cannot be written.
    """
    text = tables.csv_text(COLUMNS, rows)
    writing.write_text(text if text.isascii() else _BOM + text, output / SUMMARY)


def note_failure(scan: Scan, row: Row, settings: Settings) -> None:
    """Note for other runs that a scan failed; a disk that takes no note takes no result either."""
    note = {"scan": scan.title, "reason": row["reason"], "decisive": settings.decisive}
    with contextlib.suppress(DRAMLesionError):
        writing.write_json(note, _note(scan, settings))


def forget_failures(scans: Iterable[Scan], settings: Settings) -> None:
    """Remove the notes on scans that are tried again."""
    for scan in scans:
        with contextlib.suppress(OSError):
            _note(scan, settings).unlink(missing_ok=True)


def collected(scans: Sequence[Scan], settings: Settings) -> list[Row]:
    """Return the rows of all scans as the disk has them, whichever runs have done them.

    Scans are not read: a result counts if weights, options and version are those of ``settings``.
    """
    return [_on_disk(scan, settings) for scan in scans]


def _on_disk(scan: Scan, settings: Settings) -> Row:
    from DRAMLesionLib.report.origin import origin_in

    if scan.problem:
        return failed_row(scan, scan.problem)
    try:
        failure = typed.read_json(_note(scan, settings), _Failure)
    except InputError:  # there is none
        pass
    else:
        if failure.decisive == settings.decisive:
            return failed_row(scan, failure.reason)
    folder = settings.output / scan.name
    made = origin_in(folder) or {}
    if all(made.get(name) == value for name, value in settings.decisive.items()):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return done_row(scan, folder)
    return {"scan": scan.title, "status": OPEN, "reason": "no run has done it yet"}


def _note(scan: Scan, settings: Settings) -> Path:
    # names may be as long as the disk allows
    name = hashlib.sha256(scan.title.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return settings.output / NOTES / "failed" / f"{name}.json"
