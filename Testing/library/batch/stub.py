"""What stands in for the computing: small whole results, made as settings and names say."""

from __future__ import annotations

import os
import signal
import time
import uuid

import SimpleITK as sitk

from DRAMLesionLib import writing
from DRAMLesionLib.batch.settings import Scan, Settings
from DRAMLesionLib.batch.summary import FIELDS, done_row, failed_row
from DRAMLesionLib.report.origin import content_sum, is_made_from


def do(scan: Scan, settings: Settings):
    """Write a result whose numbers hang on the scan's name; some names bring trouble.

    ``killer`` ends the process each time, ``once`` the first time, ``slow`` takes its time and
    ``broken`` fails.
    """
    folder = settings.output / scan.name
    if not settings.again and is_made_from(folder, _origin(scan, settings)):
        return done_row(scan, folder)
    _count(scan, settings)
    if "killer" in scan.name or ("once" in scan.name and times_done(scan.name, settings) == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if "slow" in scan.name:
        time.sleep(60.0)
    if "broken" in scan.name:
        return failed_row(scan, f"{scan.name} is broken")
    write(scan, settings)
    return done_row(scan, folder)


def write(scan: Scan, settings: Settings, percent: float | None = None) -> None:
    """Write the result."""
    folder = settings.output / scan.name
    percent = float(len(scan.name)) if percent is None else percent
    values = dict(zip(FIELDS, (1000.0, 10 * percent, percent, 2), strict=True))
    lobes = [{"name": name, **values} for name in ("LUL", "LLL", "RUL", "RML", "RLL")]
    report = {
        "lobes": lobes,
        "totals": [{"name": "total", **values, "score": 10}],
        "lobes_source": "given",
        "warnings": [],
        "version": settings.version,
        "origin": _origin(scan, settings),
    }
    with writing.whole_results(folder, "report.json") as part:
        for name in ("lesions", "vessels", "lobes"):
            writing.write_image(sitk.Image(2, 2, 2, sitk.sitkUInt8), part / f"{name}.nii.gz")
        writing.write_json(report, part / "report.json")


def times_done(name: str, settings: Settings) -> int:
    """Return how often a scan was begun, in whichever process."""
    return len(list((settings.output.parent / "begun").glob(f"{name}@*")))


def _origin(scan: Scan, settings: Settings):
    return {"scan": content_sum(scan.path), "lobes": None, **settings.decisive}


def _count(scan: Scan, settings: Settings) -> None:
    folder = settings.output.parent / "begun"
    folder.mkdir(exist_ok=True)
    (folder / f"{scan.name}@{uuid.uuid4().hex}").touch()
