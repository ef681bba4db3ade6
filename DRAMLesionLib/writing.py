"""The one writer: a file or a folder of results appears whole, or not at all.

Everything that the library, the batch, the module and the training leave on a disk goes through
here. A file is written beside its place under a name that tells who writes it, verified, flushed to
the disk, and renamed. A folder of results has a *marker*, a file that is taken away first and comes
last: where it is, everything beside it belongs together. What a killed run has left is cleaned by
the next one that writes there. A folder that only one run may use is locked.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import getpass
import json
import os
import shutil
import socket
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from DRAMLesionLib.errors import InputError, OutputError
from DRAMLesionLib.integrity import damage
from DRAMLesionLib.paths import SUFFIXES, image_suffix, readable_name

if TYPE_CHECKING:
    import SimpleITK as sitk

_PREFIX, _PART = ".dramlesion-", ".part"
_HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"
"""Eight digits that stand for this computer in the names of unfinished files."""

_OLD_S = 24 * 3600.0
"""Unfinished files of other computers are left-overs after a day without a change."""

_LOCK, _OWNER = ".dramlesion.lock", ".dramlesion.owner.json"
_numbers = count()

_REASONS = {
    errno.ENOSPC: "the disk is full; make room or choose another place",
    errno.EDQUOT: "the disk quota is used up; make room or choose another place",
    errno.EACCES: "you lack the permission; choose another place",
    errno.EPERM: "you lack the permission; choose another place",
    errno.EROFS: "the disk is read-only; choose another place",
    errno.ENAMETOOLONG: "the path is too long; choose a shorter one",
    errno.ENOTDIR: "a file stands where a folder should be; choose another place",
    errno.EEXIST: "a file stands where a folder should be; choose another place",
    errno.EISDIR: "a folder stands where a file should be; choose another name",
}


@contextmanager
def whole_file(path: Path | str, suffix: str | None = None) -> Iterator[Path]:
    """Give a place to write a file, which gets its name when it is whole.

    Args:
        path: The final name; its folder is made if it is missing.
        suffix: How the name of the unfinished file has to end; that of ``path`` if left out.

    Yields:
        Where to write.

    Raises:
        OutputError: If the file cannot be written, or what was written is damaged. Nothing is left
            behind, and ``path`` holds what it held before.
    """
    path = Path(path)
    readable_name(path)
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = _part(path.parent, path.suffix if suffix is None else suffix)
        try:
            yield part
            _verify(part, path)
            _flush(part)
            part.replace(path)
            _flush_folder(path.parent)
        finally:
            _remove(part)


@contextmanager
def whole_results(folder: Path | str, marker: str, owned: Sequence[str] = ()) -> Iterator[Path]:
    """Give a folder to write results into, which get their places when all are whole.

    Other files in ``folder`` are left alone.

    Args:
        folder: Final folder; made if it is missing.
        marker: The file that says that the results are complete.
        owned: Names that results of an earlier run may have; those that are not written anew are
            removed, so that what lies there always belongs together.

    Yields:
        An empty folder inside ``folder``.

    Raises:
        OutputError: If it cannot be written to, or what was written is damaged.
    """
    folder = Path(folder)
    readable_name(folder)
    with _told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        clean(folder)
        part = _part(folder, "")
        part.mkdir()
        try:
            yield part
            names = sorted(path.name for path in part.iterdir())
            if marker not in names:
                message = f"{folder}: the results lack {marker}"
                raise AssertionError(message)
            for name in names:
                _verify(part / name, folder / name)
                _flush(part / name)
            for name in (marker, *owned):
                (folder / name).unlink(missing_ok=True)
            _flush_folder(folder)
            for name in sorted(names, key=lambda name: name == marker):
                if name == marker:
                    _flush_folder(folder)
                (part / name).replace(folder / name)
            _flush_folder(folder)
        finally:
            _remove(part)


@contextmanager
def whole_folder(output: Path | str, marker: str) -> Iterator[Path]:
    """Give a folder to write into, which takes the place of ``output`` when all went well.

    Args:
        output: Final folder; one that holds results of an earlier run is replaced.
        marker: File by which results of an earlier run are known; it has to be written.

    Yields:
        The folder to write into.

    Raises:
        InputError: If ``output`` holds something else.
        OutputError: If it cannot be written, or what was written is damaged.
    """
    output = Path(output)
    readable_name(output)
    with _told(output):
        foreign = output.exists() and not (output / marker).is_file()
        if foreign and (not output.is_dir() or not _is_empty(output)):
            message = f"{output} holds other files: choose a folder that is new or empty"
            raise InputError(message)
        output.parent.mkdir(parents=True, exist_ok=True)
        clean(output.parent)
        part = _part(output.parent, "")
        part.mkdir()
        try:
            yield part
            for path in sorted(part.rglob("*")):
                if path.is_file():
                    _verify(path, output / path.relative_to(part))
                    _flush(path)
            old = _part(output.parent, "")
            if output.exists():
                output.rename(old)
            part.rename(output)
            _flush_folder(output.parent)
            _remove(old)
        finally:
            _remove(part)


def write_image(image: sitk.Image, path: Path | str) -> None:
    """Write an image, compressed; the suffix of ``path`` tells the format.

    Raises:
        InputError: If the suffix is that of no format.
        OutputError: If it cannot be written. Nothing is left behind.
    """
    import SimpleITK as sitk

    path = Path(path)
    suffix = image_suffix(path)
    if not suffix:
        message = f"{path}: unknown kind of image file; use one of {', '.join(SUFFIXES)}"
        raise InputError(message)
    with whole_file(path, suffix) as part:
        try:
            # the lowest level: a CT is written five times as fast, and hardly larger
            sitk.WriteImage(image, str(part), useCompression=True, compressionLevel=1)
        except RuntimeError as error:
            raise OutputError(_cannot_write(path, _space_left(path.parent))) from error


def write_bytes(content: bytes, path: Path | str) -> None:
    """Write bytes.

    Raises:
        OutputError: If they cannot be written. Nothing is left behind.
    """
    with whole_file(path) as part:
        part.write_bytes(content)


def write_text(text: str, path: Path | str) -> None:
    """Write text as UTF-8.

    Raises:
        OutputError: If it cannot be written. Nothing is left behind.
    """
    write_bytes(text.encode("utf-8"), path)


def write_json(content: object, path: Path | str) -> None:
    """Write JSON, indented, keys in the order given; numbers that JSON has not are refused.

    Raises:
        OutputError: If it cannot be written. Nothing is left behind.
        ValueError: If ``content`` holds NaN or an infinity.
    """
    write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", path)


def check_writable(path: Path | str, needed_bytes: float = 0.0) -> None:
    """Find out before a long computation that its results could not be written.

    Args:
        path: Folder of the results, or a file to be; nothing is made.
        needed_bytes: How much room the results need.

    Raises:
        OutputError: If the folder cannot be made or written to, the path is too long, or the disk
            is too full.
    """
    path = Path(path)
    readable_name(path)
    with _told(path):
        is_folder = path.is_dir()  # a path that is too long raises here
        nearest = path if is_folder else path.parent
        while not nearest.exists():
            nearest = nearest.parent
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "no folder")
        probe = _part(nearest, "")
        try:
            probe.touch()
        finally:
            _remove(probe)
        free = shutil.disk_usage(nearest).free
    if free < needed_bytes:
        message = (
            f"cannot write to {path}: the results need {needed_bytes / 1e6:.0f} MB, and "
            f"{free / 1e6:.0f} MB are free; make room or choose another place"
        )
        raise OutputError(message)


@contextmanager
def locked(folder: Path | str, tell: Callable[[str], object] = lambda _: None) -> Iterator[None]:
    """Keep a folder for one run; made if it is missing.

    The lock is the operating system's, so it ends with the process however that ends.

    Args:
        folder: What the run works on.
        tell: Called with a line when a run that held the folder before has not ended by itself.

    Raises:
        OutputError: If another run holds the folder, with its owner, computer, process and since
            when; or if it cannot be written to.
    """
    from filelock import FileLock, Timeout

    folder = Path(folder)
    owner = folder / _OWNER
    with _told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / _LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            message = (
                f"{folder} is in use by another run ({_who(owner)}): wait for it, stop it, or "
                "choose another folder"
            )
            raise OutputError(message) from error
    try:
        if owner.is_file():
            tell(f"the run before in {folder} ({_who(owner)}) was killed; this one goes on")
        clean(folder)
        write_json(_myself(), owner)
        yield
    finally:
        with contextlib.suppress(OSError):
            owner.unlink(missing_ok=True)
        # its empty file stays: who removed it could take it from under a third run
        lock.release()


def clean(folder: Path) -> None:
    """Remove what killed runs have left unfinished in a folder."""
    with contextlib.suppress(OSError):
        for path in folder.glob(f"{_PREFIX}*{_PART}*"):
            if _is_abandoned(path):
                _remove(path)


def _part(folder: Path, suffix: str) -> Path:
    """Return a short name of an unfinished file that tells who writes it."""
    return folder / f"{_PREFIX}{_HOST}-{os.getpid()}-{next(_numbers)}{_PART}{suffix}"


def _is_abandoned(path: Path) -> bool:
    host, _, rest = path.name.removeprefix(_PREFIX).partition("-")
    process = rest.partition("-")[0]
    if host == _HOST and process.isdigit():
        return int(process) != os.getpid() and not _is_alive(int(process))
    return time.time() - path.stat().st_mtime > _OLD_S


def _is_alive(process: int) -> bool:
    if os.name == "nt":
        import ctypes

        # asking by a signal would end it there
        handle = ctypes.windll.kernel32.OpenProcess(0x1000, False, process)  # type: ignore[attr-defined,unused-ignore]
        if handle:
            ctypes.windll.kernel32.CloseHandle(handle)  # type: ignore[attr-defined,unused-ignore]
        return bool(handle)
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it lives and belongs to somebody else
        return True
    return True


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what the operating system says about a place into one clear line."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise OutputError(_cannot_write(path, reason)) from error


def _cannot_write(path: Path, reason: str) -> str:
    return f"cannot write to {path}: {reason}"


def _verify(part: Path, path: Path) -> None:
    """Refuse a file that did not get onto the disk as it should have: ITK does not tell.

    Raises:
        OutputError: If it is missing or damaged.
    """
    found = damage(part) if part.is_file() else "missing"
    if found:
        raise OutputError(
            _cannot_write(path, f"what was written is {found}; {_space_left(path.parent)}")
        )


def _space_left(folder: Path) -> str:
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < 1e6:
        return _REASONS[errno.ENOSPC]
    return f"{free / 1e6:.0f} MB are free on that disk; is it writable, and in order?"


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Flush the names in a folder, where the system can (Windows cannot)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


def _myself() -> dict[str, object]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may have no name for its user
        user = "unknown"
    since = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    return {"user": user, "host": socket.gethostname(), "process": os.getpid(), "since": since}


def _who(owner: Path) -> str:
    """Say who holds or held a folder, as far as its owner file tells."""
    try:
        content = json.loads(owner.read_text(encoding="utf-8"))
        return (
            f"{content['user']} on {content['host']}, process {content['process']}, "
            f"since {content['since']}"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return "of an unknown owner"
