"""On which day a DICOM series was taken, and whether two are of one patient. No more is kept."""

from __future__ import annotations

import datetime
import hashlib
from pathlib import Path

from DRAMLesionLib.reading.dicom import series_files
from DRAMLesionLib.reading.dicom_header import quiet_parser

_DATES = ("AcquisitionDate", "SeriesDate", "StudyDate")
"""Which say when, the best first."""


def when_and_who(
    folder: Path, series_uid: str | None = None
) -> tuple[datetime.date | None, str | None]:
    """Return the day of a series, and a sum of the patient's identifier.

    Args:
        folder: Searched with its subfolders.
        series_uid: Which series, where there are several.

    Returns:
        None for what the files do not say. The sum is for comparing two series alone: identifiers
        are easily guessed from it.

    Raises:
        InputError: If there is no usable series or more than one.
    """
    import pydicom

    file = min(series_files(folder, series_uid))
    with quiet_parser():
        header = pydicom.dcmread(
            file, stop_before_pixels=True, specific_tags=[*_DATES, "PatientID"]
        )
    days = (_day(str(header.get(name, "") or "")) for name in _DATES)
    patient = str(header.get("PatientID", "") or "").strip()
    return (
        next((day for day in days if day is not None), None),
        hashlib.sha256(patient.encode()).hexdigest() if patient else None,
    )


def _day(text: str) -> datetime.date | None:
    """Return a date as DICOM writes it; None if it is none."""
    digits = text.strip().replace(".", "")
    if len(digits) != 8 or not digits.isdigit():
        return None
    try:
        return datetime.date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None
