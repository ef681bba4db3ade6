"""Is a file whole? Lengths and checksums that the formats themselves carry.

ITK reads a volume whose end is missing, or whose compressed voxels are damaged, without a word. So
each file is looked at before it is read, and each one that was written before it gets its name.
"""

from __future__ import annotations

import gzip
import json
import re
import struct
import zlib
from collections.abc import Callable
from math import prod
from pathlib import Path

_BLOCK = 1 << 20


def damage(path: Path) -> str | None:
    """Say what is wrong with a file, told by what its own format knows.

    Args:
        path: A file of any kind; its name says which.

    Returns:
        A few words such as ``"cut short"``, or None if nothing is known to be wrong.
    """
    name = path.name.lower()
    check = next((check for suffix, check in _CHECKS.items() if name.endswith(suffix)), None)
    try:
        if check is None:
            return None
        return check(path) if path.stat().st_size else "empty"
    except EOFError:
        return "cut short"
    except (OSError, zlib.error, ValueError, struct.error):
        return "damaged"


def nifti_length(header: bytes) -> int | None:
    """Return how many bytes a NIfTI file must have at least; None if it is no NIfTI header."""
    for order in "<>":
        if header[:4] == struct.pack(f"{order}i", 348) and len(header) >= 348:
            dim = struct.unpack_from(f"{order}8h", header, 40)
            bits = struct.unpack_from(f"{order}h", header, 72)[0]
            offset = struct.unpack_from(f"{order}f", header, 108)[0]
        elif header[:4] == struct.pack(f"{order}i", 540) and len(header) >= 540:
            dim = struct.unpack_from(f"{order}8q", header, 16)
            bits = struct.unpack_from(f"{order}h", header, 14)[0]
            offset = struct.unpack_from(f"{order}q", header, 168)[0]
        else:
            continue
        # NaN and negative offsets are none
        offset = int(offset) if 0 <= offset < 2**40 else 0
        return offset + prod(max(1, n) for n in dim[1 : dim[0] + 1]) * bits // 8
    return None


def compressed_part(head: bytes) -> tuple[int, int] | None:
    """Return offset and zlib window bits of the compressed voxels after a NRRD or MetaImage header.

    None if they are not compressed, or not in the same file.
    """
    if head.startswith(b"NRRD"):
        end = re.search(rb"\r?\n\r?\n", head)
        if end and re.search(rb"(?m)^encoding: *(gz|gzip)\s*$", head[: end.end()]):
            return end.end(), 16 + zlib.MAX_WBITS
        return None
    end = re.search(rb"ElementDataFile *= *LOCAL *\r?\n", head)
    if end and re.search(rb"(?m)^CompressedData *= *True", head[: end.end()]):
        return end.end(), zlib.MAX_WBITS
    return None


def _gzipped(path: Path) -> str | None:
    """Read a gzip file to its end, where its checksum is."""
    length = 0
    with gzip.open(path) as file:
        head = file.read(540)
        length = len(head)
        while block := file.read(_BLOCK):
            length += len(block)
    if path.name.lower().endswith(".nii.gz"):
        return _nifti(head, length)
    return None


def _plain_nifti(path: Path) -> str | None:
    with path.open("rb") as file:
        return _nifti(file.read(540), path.stat().st_size)


def _nifti(head: bytes, length: int) -> str | None:
    expected = nifti_length(head)
    if expected is None:
        return "not what its name says"
    if length < expected:
        return f"cut short: {100 * length / expected:.0f} % of its data are there"
    return None


def _text_header(path: Path) -> str | None:
    """Unpack the compressed voxels of a NRRD or MetaImage file to their checksum."""
    with path.open("rb") as file:
        where = compressed_part(file.read(_BLOCK))
        if where is None:
            return None
        start, window_bits = where
        file.seek(start)
        stream = zlib.decompressobj(window_bits)
        # small blocks: empty label maps unpack to a thousand times their size
        while not stream.eof and (block := file.read(1 << 16)):
            stream.decompress(block)
    return None if stream.eof else "cut short"


def _png(path: Path) -> str | None:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            # of the pixels' own checksums only this takes notice
            picture.verify()
        with Image.open(path) as picture:
            picture.load()
    except SyntaxError:  # what Pillow says of a broken checksum
        return "damaged"
    return None


def _safetensors(path: Path) -> str | None:
    """Compare the length of the file with the offsets in its header."""
    with path.open("rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        if size > 1 << 27:
            return "damaged"
        header = json.loads(file.read(size))
    ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
    return None if path.stat().st_size == 8 + size + max(ends, default=0) else "cut short"


def _json(path: Path) -> str | None:
    json.loads(path.read_text(encoding="utf-8"))
    return None


_CHECKS: dict[str, Callable[[Path], str | None]] = {
    ".gz": _gzipped,
    ".nii": _plain_nifti,
    ".nrrd": _text_header,
    ".mha": _text_header,
    ".png": _png,
    ".safetensors": _safetensors,
    ".json": _json,
}
