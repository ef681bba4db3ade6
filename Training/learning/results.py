"""Results as files hold them: content that JSON knows, and tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from DRAMLesionLib.tables import csv_text


def plain(value: Any) -> Any:
    """Return nested content as JSON knows it: None for NaN, numbers of Python, six digits."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return round(float(value), 6) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def csv_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Return columns of rows as CSV; what is not defined stays empty.

    Args:
        rows: Values by column.
        columns: Which ones; those of the first row if left out.
    """
    if columns is None:
        columns = list(rows[0]) if rows else []
    return csv_text(columns, (plain(dict(row)) for row in rows))
