"""What files are called: suffixes of volumes, and the case that a path stands for."""

from __future__ import annotations

import errno
import os
import unicodedata
from pathlib import Path

from DRAMLesionLib.errors import InputError

SUFFIXES = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".nhdr", ".mha", ".mhd")
"""What volumes are called, CTs as well as label maps; longer suffixes first."""


def image_suffix(path: Path | str) -> str:
    """Return the suffix of :data:`SUFFIXES` that a path ends with, in any case, or nothing."""
    name = Path(path).name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def case_name(path: Path) -> str | None:
    """Return the case that a volume or a DICOM folder holds; None if it is neither.

    Names are compared in Unicode's composed form (NFC): the same umlaut is stored in two ways,
    depending on the system that wrote it.
    """
    if path.name.startswith("."):
        return None
    if path.is_dir():
        return unicodedata.normalize("NFC", path.name)
    suffix = image_suffix(path)
    return unicodedata.normalize("NFC", path.name[: -len(suffix)]) if suffix else None


def mask_name(path: Path) -> str | None:
    """Return the case that a mask belongs to, a single DICOM file (SEG) among them; None if none.

    See :func:`case_name`.
    """
    if path.suffix.lower() == ".dcm" and not path.is_dir() and not path.name.startswith("."):
        return unicodedata.normalize("NFC", path.name[: -len(".dcm")]) or None
    return case_name(path)


def existing(path: Path | str) -> Path:
    """Return ``path`` if there is something that can be read.

    Raises:
        InputError: If it does not exist, may not be read, or its name is no text.
    """
    path = Path(path)
    readable_name(path)
    try:
        exists = path.exists()
        readable = exists and os.access(path, os.R_OK)
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            message = f"{path} cannot be opened ({error.strerror}): give a shorter, direct path"
            raise InputError(message) from error
        exists, readable = True, False
    if not exists:
        message = f"{path} does not exist: check the path"
        raise InputError(message)
    if not readable:
        message = f"{path} cannot be read: you lack the permission"
        raise InputError(message)
    return path


def content_of(path: Path) -> bytes:
    """Return the content of a small file.

    Raises:
        OSError: If it cannot be read, or is a pipe or a device, which might never end.
    """
    if not (path.is_file() or path.is_dir()) and path.exists():
        raise OSError(errno.EINVAL, "it is a pipe or a device")
    return path.read_bytes()


def readable_name(path: Path) -> None:
    """Refuse a path that is not UTF-8: the readers in C++ end the process on it.

    Raises:
        InputError: If the path cannot be written as UTF-8.
    """
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        shown = str(path).encode("utf-8", "replace").decode("utf-8")
        message = f"{shown} has a name that is no UTF-8 text: rename it"
        raise InputError(message) from error
