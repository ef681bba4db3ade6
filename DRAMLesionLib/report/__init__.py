"""The report: table of the lobes, key slices, and the files that carry them.

Numbers are in :mod:`model` and :mod:`data`, pictures in :mod:`pictures` and :mod:`drawing`, the
page in :mod:`html`. Nothing here writes files, and nothing here knows the patient.
"""

from __future__ import annotations

from DRAMLesionLib.report.data import to_csv, to_json
from DRAMLesionLib.report.html import to_html
from DRAMLesionLib.report.model import LESION_LABELS, LobeRow, Report, tabulate
from DRAMLesionLib.report.pictures import KeySlice, key_slices

__all__ = [
    "LESION_LABELS",
    "KeySlice",
    "LobeRow",
    "Report",
    "key_slices",
    "tabulate",
    "to_csv",
    "to_html",
    "to_json",
]
