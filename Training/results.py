"""Folders of results that appear whole or not at all, and content that JSON can hold."""

from __future__ import annotations

import csv
import io
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from DRAMLesionLib.errors import InputError


@contextmanager
def whole_folder(output: Path, marker: str) -> Iterator[Path]:
    """Give a folder to write into, which takes the place of ``output`` when all went well.

    Args:
        output: Final folder; one that holds results of an earlier run is replaced.
        marker: File by which results of an earlier run are known.

    Yields:
        The folder to write into.

    Raises:
        InputError: If ``output`` holds something else, or cannot be written.
    """
    foreign = output.exists() and not (output / marker).is_file()
    if foreign and (not output.is_dir() or any(output.iterdir())):
        message = f"{output} holds other files: choose a folder that is new or empty"
        raise InputError(message)
    part = output.with_name(f".{output.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        yield part
        if output.exists():
            shutil.rmtree(output)
        part.rename(output)
    except OSError as error:
        message = f"cannot write to {output}: {error.strerror}; choose another output folder"
        raise InputError(message) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


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
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(plain(dict(row)) for row in rows)
    return text.getvalue()
