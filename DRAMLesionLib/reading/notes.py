"""What reading has found out about a label map, carried along with the image into the report."""

from __future__ import annotations

from collections.abc import Iterable

import SimpleITK as sitk

from DRAMLesionLib.errors import ScanWarning

_PREFIX = "Note:"

UNPLACED = "labels-unplaced"
"""Code of the note that the place of the labels in the body is not known."""


def add_notes(image: sitk.Image, warnings: Iterable[ScanWarning]) -> None:
    """Attach warnings to an image; each one once."""
    known = notes(image)
    for warning in warnings:
        if warning not in known:
            image.SetMetaData(f"{_PREFIX}{len(known)}:{warning.code}", warning.message)
            known.append(warning)


def notes(image: sitk.Image) -> list[ScanWarning]:
    """Return the warnings that are attached to an image, in their order."""
    keys = [key.split(":", 2) for key in image.GetMetaDataKeys() if key.startswith(_PREFIX)]
    keys.sort(key=lambda parts: int(parts[1]))
    return [ScanWarning(parts[2], image.GetMetaData(":".join(parts))) for parts in keys]
