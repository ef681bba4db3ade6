"""What a result was made from, so that a result of something else is not taken for it.

Sums and options alone: no path and no name of a file, since those carry names of people.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from DRAMLesionLib.report.output import DICOM, MAPS, MARKER, MASKS
from DRAMLesionLib.version import __version__

_DETACHED = re.compile(rb"(?im)^(?:ElementDataFile *=|data file:) *(.+?) *\r?$")
_HEADER_BYTES = 1 << 16


def origin_of(
    scan: Path, lobes: Path | None, weights: Path, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a result is made from, as it goes into ``report.json``.

    The device is none of it: a start on another computer gives the same result, up to rounding.

    Args:
        scan: File, or folder with a DICOM series.
        lobes: Label map of the lobes, if there is one.
        weights: Folder with the weights; their cards hold the sums of the tensors.
        options: What else decides about the result, in the types of JSON.

    Raises:
        OSError: If something cannot be read.
    """
    return {
        "scan": content_sum(scan),
        "lobes": None if lobes is None else content_sum(lobes),
        "weights": weight_sums(weights),
        "options": dict(options),
        "version": __version__,
    }


def weight_sums(weights: Path) -> dict[str, str]:
    """Return the sum of each card in a folder of weights; cards hold the sums of the tensors.

    Raises:
        OSError: If one cannot be read.
    """
    return {card.stem: content_sum(card) for card in sorted(weights.glob("*.json"))}


def is_made_from(folder: Path, origin: Mapping[str, Any]) -> bool:
    """Tell whether a folder has a complete result that was made from just this."""
    return origin_in(folder) == origin


def origin_in(folder: Path) -> dict[str, Any] | None:
    """Return what the complete result in a folder was made from; None if there is no such result.

    One that does not say it, as that of a single run, counts as none.
    """
    try:
        report = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        found = dict(report["origin"])
        names = [f"{n}.nii.gz" for n in ((*MASKS, *MAPS) if found["options"]["maps"] else MASKS)]
        names += DICOM if found["options"].get("dicom") else ()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    whole = all((folder / name).is_file() for name in names)
    return found if whole else None


def content_sum(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's files and their names in it.

    The voxels that a header keeps in files of their own are part of it.
    """
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            digest.update(f"{file.relative_to(path).as_posix()}\n{content_sum(file)}\n".encode())
        return digest.hexdigest()
    for file in (path, *_voxel_files(path)):
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _voxel_files(header: Path) -> Iterator[Path]:
    """Return the files that a NRRD or MetaImage header names, or may mean."""
    if header.suffix.lower() not in (".nhdr", ".mhd", ".nrrd", ".mha"):
        return
    with header.open("rb") as file:
        found = _DETACHED.search(file.read(_HEADER_BYTES))
    if found is None or found[1].upper() == b"LOCAL":
        return
    named = header.parent / found[1].decode("utf-8", "surrogateescape")
    if named.is_file():
        yield named
        return
    # a list or a pattern: whichever they are, they lie beside it
    yield from sorted(p for p in header.parent.iterdir() if p.is_file() and p != header)
