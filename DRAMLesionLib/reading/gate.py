"""The gate before the readers in C++: is a volume file what it says, and does it hold its voxels?

ITK reads a volume whose end is missing, or whose compressed voxels are damaged, without a word;
text headers that it does not expect corrupt its memory, a name that is no UTF-8 ends the process,
and a header of 400 bytes makes it ask for gigabytes. So a file is looked at here first, and what
it does not say about the place of its voxels is told.
"""

from __future__ import annotations

import stat
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.paths import image_suffix, readable_name
from DRAMLesionLib.reading import text_header
from DRAMLesionLib.reading.claim import Claim, HeaderError, check_length, surplus
from DRAMLesionLib.reading.nifti_header import HEADER_BYTES, nifti_claim

FORMATS = "a NIfTI, NRRD or MetaImage file, or a folder with one DICOM series"

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".pdf")
_GZIP = b"\x1f\x8b"
_PADDING = b"\0\r\n "
"""What may follow the voxels; anything else tells that some were put between them."""

_GZIP_BITS, _ANY_BITS = 16 + zlib.MAX_WBITS, 32 + zlib.MAX_WBITS
_BLOCK = 1 << 22
_SMALL, _SMALL_LABELS = 1 << 28, 1 << 30
_MAX_RATIO, _MAX_RATIO_LABELS = 200, 900
"""Real CTs shrink to a half or a quarter, label maps to a hundredth; what unpacks to more than so
many times its size, and to more than the numbers of bytes above, holds next to nothing."""

_SPLIT = "is cut short or damaged: copy or convert it again"


def inspect(path: Path, *, labels: bool = False) -> Claim:
    """Look at header and length of a volume file before it is read.

    Args:
        path: A file.
        labels: Whether it is to hold labels, which shrink more than HU.

    Returns:
        What the file claims; that its voxels are there, and are finite numbers where the reader
        would hide it if not, has been seen.

    Raises:
        InputError: With one sentence, if the file must not or cannot be read.
    """
    head = _head(path)
    try:
        claim = _claim(path, head)
        check_length(claim)
        more = _check_voxels(path, claim, labels=labels)
    except HeaderError as error:
        message = f"{path} {error}"
        raise InputError(message) from error
    except (OSError, zlib.error, EOFError) as error:
        message = f"{path} {_SPLIT}"
        raise InputError(message) from error
    return replace(claim, doubts=(*claim.doubts, surplus(more))) if more else claim


def regular(path: Path) -> int:
    """Return the length of a file that can be read like one.

    Raises:
        InputError: If its name is no text, or it is missing, a pipe, a socket or a device.
    """
    readable_name(path)
    try:
        state = path.stat()
    except OSError as error:
        message = f"{path} cannot be read ({error.strerror}): check the path"
        raise InputError(message) from error
    if not stat.S_ISREG(state.st_mode):
        message = f"{path} is no file but a pipe, a socket, a device or a folder: give {FORMATS}"
        raise InputError(message)
    return state.st_size


def _head(path: Path) -> bytes:
    """Return the beginning of a file, its kinds that are never a volume refused."""
    regular(path)
    name = path.name.lower()
    if name.endswith(_PICTURES):
        message = f"{path} is a picture, not a CT in Hounsfield units: give {FORMATS}"
        raise InputError(message)
    try:
        with path.open("rb") as file:
            head = file.read(text_header.MAX_HEADER)
    except OSError as error:
        message = f"{path} cannot be read ({error.strerror}): check the disk"
        raise InputError(message) from error
    if head[128:132] == b"DICM" or name.endswith((".dcm", ".ima")):
        message = f"{path} is a single DICOM file: give the folder that holds the whole series"
        raise InputError(message)
    return head


def _claim(path: Path, head: bytes) -> Claim:
    suffix = image_suffix(path)
    if suffix in (".nii", ".nii.gz"):
        return _one_nifti(path, head, suffix)
    if suffix in (".mha", ".mhd"):
        return text_header.meta_claim(head, path)
    if head.startswith(b"NRRD000"):
        return text_header.nrrd_claim(head, path)
    if suffix:
        raise HeaderError(text_header.DAMAGED)
    if path.name.lower().removesuffix(".gz").endswith((".hdr", ".img")):
        return _pair(path)
    message = f"is of an unknown kind: give {FORMATS}"
    raise HeaderError(message)


def _one_nifti(path: Path, head: bytes, suffix: str) -> Claim:
    packed = head.startswith(_GZIP)
    if packed and suffix == ".nii":
        message = "is compressed though its name does not say so: rename it to .nii.gz"
        raise HeaderError(message)
    if path.name[-len(suffix) :] not in (suffix, suffix.upper()):
        message = f"ends in a mix of small and capital letters: rename it to {suffix}"
        raise HeaderError(message)
    start = _unpacked_head(path) if packed else head[:HEADER_BYTES]
    return nifti_claim(start, path, pair=False, packed=packed)


def _pair(path: Path) -> Claim:
    """Find the header and the voxels of an Analyze or NIfTI pair."""
    stem = path.name.removesuffix(".gz").removesuffix(".GZ")[:-4]
    files = []
    for suffix in (".hdr", ".img"):
        names = [stem + suffix, stem + suffix + ".gz"]
        found = [path.with_name(name) for name in names if path.with_name(name).exists()]
        if len(found) != 1:
            message = (
                f"is one of a pair of files, of which there are {len(found)} called "
                f"{stem}{suffix}: give both, in one folder"
            )
            raise HeaderError(message)
        regular(found[0])
        files.append(found[0])
    header, data = files
    with header.open("rb") as file:
        packed = file.read(2) == _GZIP
    if packed:
        start = _unpacked_head(header)
    else:
        with header.open("rb") as file:
            start = file.read(HEADER_BYTES)
    with data.open("rb") as file:
        packed = file.read(2) == _GZIP and data.name.endswith(".gz")
    return nifti_claim(start, data, pair=True, packed=packed)


def _unpacked_head(path: Path) -> bytes:
    """Return the beginning of a gzip file."""
    head = b""
    for block in _unpack(path, 0, _GZIP_BITS):
        head += block
        if len(head) >= HEADER_BYTES:
            break
    return head[:HEADER_BYTES]


def _check_voxels(path: Path, claim: Claim, *, labels: bool) -> int:
    """See that the voxels are there, no more and no fewer.

    Returns:
        How many bytes of padding there are behind them.

    Raises:
        HeaderError: If not, or if some are no finite number though the reader would not say so.
    """
    if not claim.data.exists():
        message = (
            f"is only the header: {claim.data.name}, which holds its voxels, is missing; copy both "
            "into one folder"
        )
        raise HeaderError(message)
    length = regular(claim.data) - claim.start
    if claim.packing in ("gzip", "zlib"):
        small, ratio = (_SMALL_LABELS, _MAX_RATIO_LABELS) if labels else (_SMALL, _MAX_RATIO)
        if claim.length > max(small, ratio * length):
            message = (
                f"claims {claim.length >> 20} MB of voxels and has {max(length, 0) >> 10} kB: it "
                "is damaged or empty; convert it again"
            )
            raise HeaderError(message)
        length, tail = _count(claim, _unpacked(claim))
    elif claim.packing == "raw":
        length, tail = _look_at_raw(claim, length)
    else:
        _check_digits(claim, length)
        return 0
    length -= max(claim.skip, 0)
    if length < claim.length:
        message = (
            f"is cut short: {100 * max(length, 0) / claim.length:.0f} % of its data are there; "
            "copy or convert it again"
        )
        raise HeaderError(message)
    if length >= claim.length + _slice_bytes(claim) or tail.strip(_PADDING):
        message = (
            "holds more voxels than its header says: the header is damaged, or belongs to another "
            "file; convert it again"
        )
        raise HeaderError(message)
    return length - claim.length


def _look_at_raw(claim: Claim, length: int) -> tuple[int, bytes]:
    """Return the length of voxels that are not compressed, and what is behind them."""
    if claim.skip == -1:
        return min(length, claim.length), b""
    if claim.floats is not None and length >= claim.length:
        _count(claim, _plain(claim))
    with claim.data.open("rb") as file:
        file.seek(claim.start + claim.length)
        return length, file.read(_slice_bytes(claim))


def _check_digits(claim: Claim, length: int) -> None:
    """See that there can be enough digits."""
    least = 2 * claim.length if claim.packing == "hex" else 2 * claim.length // claim.voxel - 1
    if length < least:
        message = f"is cut short: {100 * length / least:.0f} % of its data are there at most"
        raise HeaderError(message)


def _slice_bytes(claim: Claim) -> int:
    return int(np.prod(claim.shape[:2], dtype=np.int64)) * claim.voxel


def _count(claim: Claim, blocks: Iterator[bytes]) -> tuple[int, bytes]:
    """Count bytes, look at floats, and stop where a stream goes far beyond what it should hold.

    Returns:
        How many bytes there were, and those behind the voxels.
    """
    end = claim.skip + claim.length
    most = end + _slice_bytes(claim)
    length, rest, tail = 0, b"", b""
    for block in blocks:
        if claim.floats is not None:
            begin = max(0, claim.skip - length)
            rest = _check_finite(rest + block[begin : max(begin, end - length)], claim.floats)
        tail += block[max(0, end - length) :]
        length += len(block)
        if length >= most:
            break
    return length, tail


def _check_finite(values: bytes, kind: np.dtype) -> bytes:
    """Refuse numbers that are none, and return the bytes that are less than a number."""
    whole = len(values) - len(values) % kind.itemsize
    if not np.isfinite(np.frombuffer(values[:whole], kind)).all():
        message = (
            "has voxels that are not a number or infinite; replace them, for air by -1024 HU or, "
            "in a label map, by 0"
        )
        raise HeaderError(message)
    return values[whole:]


def _plain(claim: Claim) -> Iterator[bytes]:
    with claim.data.open("rb") as file:
        file.seek(claim.start)
        left = claim.length
        while left and (block := file.read(min(_BLOCK, left))):
            left -= len(block)
            yield block


def _unpacked(claim: Claim) -> Iterator[bytes]:
    bits = _ANY_BITS if claim.packing == "zlib" else _GZIP_BITS
    return _unpack(claim.data, claim.start, bits, claim.packed)


def _unpack(path: Path, start: int, window_bits: int, most: int | None = None) -> Iterator[bytes]:
    """Unpack a stream to its checksum, block by block and never more than a block at a time.

    Args:
        path: The file.
        start: Where the stream begins.
        window_bits: Which kind of stream, as :mod:`zlib` wants it.
        most: How many bytes to take from the file at most.

    Raises:
        EOFError: If it ends too early.
        zlib.error: If it is damaged.
    """
    left = path.stat().st_size if most is None else most
    with path.open("rb") as file:
        file.seek(start)
        stream, packed = zlib.decompressobj(window_bits), b""
        while True:
            if not packed:
                packed = file.read(min(1 << 18, left))
                left -= len(packed)
            block = stream.decompress(packed, _BLOCK)
            if not packed and not block and not stream.eof:
                raise EOFError
            yield block
            packed = stream.unconsumed_tail
            if stream.eof:
                packed = (stream.unused_data or file.read(1 << 18)).lstrip(b"\0")
                # a gzip file may have several parts, one behind the other
                if window_bits != _GZIP_BITS or not packed.startswith(_GZIP):
                    return
                stream = zlib.decompressobj(window_bits)
