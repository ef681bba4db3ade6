"""Changes to DICOM files that tests have written: of their fields, or of their bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pydicom


def image_paths(folder: Path) -> list[Path]:
    """Return the files of a series in the order of its slices."""
    return sorted(folder.glob("*.dcm"), key=lambda path: path.stem[-3:])


def edit(paths: list[Path], change: Callable[[pydicom.Dataset], object], **options) -> None:
    """Change the data set of each file."""
    for path in paths:
        dataset = pydicom.dcmread(path)
        change(dataset)
        dataset.save_as(path, **options)


def replace(paths: list[Path], old: bytes, new: bytes) -> None:
    """Change bytes of each file, as no writer of DICOM would."""
    for path in paths:
        content = path.read_bytes()
        assert old in content
        assert len(old) == len(new)
        path.write_bytes(content.replace(old, new))
