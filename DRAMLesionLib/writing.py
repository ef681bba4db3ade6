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
import re
import shutil
import socket
import stat
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from DRAMLesionLib.errors import InputError, OutputError
from DRAMLesionLib.integrity import damage
from DRAMLesionLib.memory import is_out_of_memory
from DRAMLesionLib.paths import SUFFIXES, image_suffix, readable_name

if TYPE_CHECKING:
    import SimpleITK as sitk

_PREFIX, _PART, _WAS = ".dramlesion-", ".part", ".was."
_DETACHED = (".nhdr", ".mhd")

_LONGEST_RESULT = "x" * 40
_OLD_S = 24 * 3600.0
"""Unfinished files of other computers are left-overs after a day without a change."""

_LOCK, _OWNER = ".dramlesion.lock", ".dramlesion.owner.json"
_numbers = count()
_unfinished_folders: dict[Path, Path] = {}
"""Folders that are being written, and what they will be called."""

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
    errno.EFBIG: "files of that size are not allowed here; choose another place",
    errno.EIO: "the disk does not work; choose another place",
}


@contextmanager
def whole_file(path: Path | str, suffix: str | None = None) -> Iterator[Path]:
    """Give a place to write a file, which gets its name when it is whole.

    Inside a folder that :func:`whole_results` or :func:`whole_folder` has given it is written as it
    is: the folder as a whole is verified and flushed.

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
        if _is_unfinished(path):
            yield path
            return
        clean(path.parent)
        part = _part(path.parent, path.suffix if suffix is None else suffix)
        try:
            yield part
            put(part, path)
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
        OutputError: If it cannot be written to, or what was written is damaged. What was there
            before is there again.
    """
    folder = Path(folder)
    readable_name(folder)
    with _told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        clean(folder)
        with unfinished(folder, folder) as part:
            yield part
            names = sorted(path.name for path in part.iterdir())
            if marker not in names:
                message = f"{folder}: the results lack {marker}"
                raise AssertionError(message)
            others = {name for name in (*names, *owned) if name != marker}
            order = (*sorted(others), marker)
            with exchanged({folder / n: part / n if n in names else None for n in order}):
                pass


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
        OutputError: If it cannot be written, or what was written is damaged. What was there before
            is there again.
    """
    output = Path(output)
    readable_name(output)
    with _told(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        clean(output.parent)  # may bring back what a killed run had set aside
        foreign = output.exists() and not (output / marker).is_file()
        if foreign and (not output.is_dir() or not _is_empty(output)):
            message = f"{output} holds other files: choose a folder that is new or empty"
            raise InputError(message)
        with unfinished(output.parent, output) as part:
            yield part
            if not (part / marker).is_file():
                message = f"{output}: the results lack {marker}"
                raise AssertionError(message)
            for path in sorted(part.rglob("*")):
                if path.is_file():
                    _verify(path, output / path.relative_to(part))
                    _flush(path)
                else:
                    _flush_folder(path)
            _take_the_place(part, output)


@contextmanager
def unfinished(parent: Path, final: Path) -> Iterator[Path]:
    """Make a hidden folder to write into, and remove it in the end, if it is still there.

    Args:
        parent: Where it is made.
        final: Where its files will be; messages name that.

    Raises:
        OutputError: If it cannot be written to.
    """
    with _told(final):
        part = _part(parent, "")
        part.mkdir()
        _unfinished_folders[part] = final
        try:
            yield part
        finally:
            del _unfinished_folders[part]
            _remove(part)


def temporary_folder(parent: Path) -> Path:
    """Make a hidden folder that only this user reads, for files of this process.

    Who asks for it removes it; if the process is killed before, the next one to ask here does.

    Raises:
        OutputError: If it cannot be made.
    """
    with _told(parent):
        clean(parent)
        folder = _part(parent, "")
        folder.mkdir(mode=0o700)
    return folder


def put(new: Path, place: Path) -> None:
    """Put a finished file into its place, on the same disk, once it is sure to be on it.

    Raises:
        OSError: If that cannot be done.
        OutputError: If the file is damaged.
    """
    _verify(new, place)
    _flush(new)
    new.replace(place)
    _flush_folder(place.parent)


@contextmanager
def exchanged(files: Mapping[Path, Path | None]) -> Iterator[None]:
    """Put files into their places; put back what was there if that or the body fails.

    What was there is taken away in the reverse order, so that the last of ``files`` can be the
    marker of the others: it is the first to go and the last to come.

    Args:
        files: The file to be put at each place, on the same disk; None leaves the place empty.

    Raises:
        OSError: If it cannot be done, or a folder stands at one of the places.
        OutputError: If one of the files is damaged.
    """
    for place, new in files.items():
        if new is not None:
            _verify(new, place)
            _flush(new)
    *_, marker = files
    old: dict[Path, Path] = {}
    put: list[Path] = []
    # each noted before it is done: an interruption may come in between
    try:
        for place in reversed(list(files)):
            if place.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(place))
            if os.path.lexists(place):
                old[place] = _part(place.parent, "")
                place.replace(old[place])
        for place, new in files.items():
            if place == marker:
                _flush_folders(files)
            if new is not None:
                put.append(place)
                place.parent.mkdir(parents=True, exist_ok=True)
                new.replace(place)
        _flush_folders(files)
        yield
    except BaseException:
        for place in reversed(put):
            _remove(place)
        for place, aside in reversed(old.items()):
            with contextlib.suppress(OSError):  # not yet taken away
                aside.replace(place)
        raise
    for aside in old.values():
        _remove(aside)


def write_image(image: sitk.Image, path: Path | str, *, compressed: bool = True) -> None:
    """Write an image; the suffix of ``path`` tells the format.

    Args:
        image: The image.
        path: Its place.
        compressed: Whether its voxels are; not worth the wait for a file that is soon removed.

    Raises:
        InputError: If the suffix is that of no format, or of one with two files.
        OutputError: If it cannot be written. Nothing is left behind.
        MemoryError: If the memory does not do.
    """
    import SimpleITK as sitk

    path = Path(path)
    suffix = writable_suffix(path)
    with whole_file(path, suffix) as part:
        try:
            # the lowest level: a CT is written five times as fast, and hardly larger
            sitk.WriteImage(image, str(part), useCompression=compressed, compressionLevel=1)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise MemoryError from error
            raise OutputError(_cannot_write(path, _space_left(path.parent))) from error


def writable_suffix(path: Path | str) -> str:
    """Return the suffix by which an image is to be written.

    Raises:
        InputError: If it is that of no format, or of a header with its voxels in a second file:
            the two cannot appear at once.
    """
    suffix = image_suffix(path)
    if suffix in SUFFIXES and suffix not in _DETACHED:
        return suffix
    kinds = ", ".join(suffix for suffix in SUFFIXES if suffix not in _DETACHED)
    problem = "needs a second file for its voxels" if suffix else "unknown kind of image file"
    message = f"{path}: {problem}; use one of {kinds}"
    raise InputError(message)


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


def append_text(text: str, path: Path | str) -> None:
    """Add lines to a log, as UTF-8; a kill may cut the last one off, which readers pass over.

    Raises:
        OutputError: If it cannot be written.
    """
    path = Path(path)
    with _told(path), path.open("a", encoding="utf-8") as file:
        file.write(text)


def write_json(content: object, path: Path | str) -> None:
    """Write JSON, indented, keys in the order given; numbers that JSON has not are refused.

    Raises:
        OutputError: If it cannot be written. Nothing is left behind.
        ValueError: If ``content`` holds NaN or an infinity.
    """
    write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", path)


def check_writable(path: Path | str, needed_bytes: float = 0.0, *, is_file: bool = False) -> None:
    """Find out before a long computation that its results could not be written.

    Args:
        path: Folder of the results; nothing is made.
        needed_bytes: How much room the results need.
        is_file: ``path`` is a file to be.

    Raises:
        OutputError: If the folder cannot be made or written to, the path is too long, something
            else stands there, or the disk is too full.
    """
    path = Path(path)
    readable_name(path)
    with _told(path):
        kind = _kind(path)
        if is_file and kind == stat.S_IFDIR:
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not is_file and kind not in (None, stat.S_IFDIR):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        nearest = path.parent if is_file else path
        # the longest of the names that will be made
        _kind(_part(nearest, path.suffix) if is_file else _part(nearest, "") / _LONGEST_RESULT)
        while _kind(nearest) is None:
            nearest = nearest.parent
        probe = _part(nearest, "")
        try:
            probe.touch()
        finally:
            _remove(probe)
        free = shutil.disk_usage(nearest).free
    if free < needed_bytes:
        message = (
            f"cannot write to {path}: the results need about {max(needed_bytes / 1e6, 1):.0f} MB, "
            f"and {free / 1e6:.0f} MB are free; make room or choose another place"
        )
        raise OutputError(message)


def check_image_writable(path: Path | str, needed_bytes: float = 0.0) -> None:
    """Find out before a long computation that an image could not be written.

    Raises:
        InputError: If the suffix is none for writing, see :func:`writable_suffix`.
        OutputError: See :func:`check_writable`.
    """
    writable_suffix(path)
    check_writable(path, needed_bytes, is_file=True)


@contextmanager
def locked(
    folder: Path | str, tell: Callable[[str], object] = lambda _: None, wait_s: float = 0.0
) -> Iterator[None]:
    """Keep a folder for one run; made if it is missing.

    The lock is the operating system's, so it ends with the process however that ends.

    Args:
        folder: What the run works on.
        tell: Called with a line when a run that held the folder before has not ended by itself.
        wait_s: How long another run may go on holding the folder.

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
            lock.acquire(timeout=wait_s)
        except NotImplementedError as error:
            reason = "its disk cannot keep a second run away (no locks); choose another place"
            raise OutputError(_cannot_write(folder, reason)) from error
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
    """Remove what killed runs have left unfinished in a folder.

    A folder that such a run had set aside to put a new one in its place is put back.
    """
    with contextlib.suppress(OSError):
        for path in folder.glob(f"{_PREFIX}*{_PART}*"):
            if not _is_abandoned(path):
                continue
            _, was, name = path.name.partition(_PART + _WAS)
            if was and not os.path.lexists(folder / name):
                path.rename(folder / name)
            else:
                _remove(path)


def _is_unfinished(path: Path) -> bool:
    return any(parent in _unfinished_folders for parent in path.parents)


def _take_the_place(part: Path, output: Path) -> None:
    """Rename a finished folder to ``output``; put the old one back if that fails."""
    old = _part(output.parent, f"{_WAS}{output.name}")
    try:
        if output.exists():
            output.rename(old)
        part.rename(output)
    except BaseException:
        with contextlib.suppress(OSError):  # not set aside, or replaced already
            old.rename(output)
        raise
    _flush_folder(output.parent)
    _remove(old)


def _part(folder: Path, suffix: str) -> Path:
    """Return a short, free name of an unfinished file that tells who writes it."""
    process = os.getpid()
    writer = f"{_PREFIX}{_host()}-{process}-{_birth(process)}"
    while True:
        path = folder / f"{writer}-{next(_numbers)}{_PART}{suffix}"
        if not os.path.lexists(path):
            return path


@cache
def _host() -> str:
    """Return eight digits for this computer, or container, in the names of unfinished files.

    Containers may share the name of their host, but do not see each other's processes.
    """
    try:
        processes = str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not Linux
        processes = ""
    return f"{zlib.crc32(f'{socket.gethostname()} {processes}'.encode()):08x}"


def _birth(process: int) -> str:
    """Return when a process began, in ticks since the start of the computer; 0 if nobody tells.

    Together with its number it stands for one process: numbers are given again, in containers
    often the same one.
    """
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        return text.rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "0"


def _is_abandoned(path: Path) -> bool:
    found = re.match(rf"{re.escape(_PREFIX)}([0-9a-f]{{8}})-(\d+)-(\d+)-", path.name)
    if found and found[1] == _host():
        process = int(found[2])
        return not _is_alive(process) or found[3] != _birth(process)
    everything = (path, *path.rglob("*")) if path.is_dir() else (path,)
    return time.time() - max(each.lstat().st_mtime for each in everything) > _OLD_S


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
    """Turn what the operating system says about a place into one clear line.

    What it says about a file elsewhere, which the caller may have read, passes.
    """
    try:
        yield
    except OSError as error:
        if not _concerns(error, path):
            raise
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise OutputError(_cannot_write(path, reason)) from error


def _concerns(error: OSError, path: Path) -> bool:
    named = [n for n in (error.filename, error.filename2) if isinstance(n, str | bytes)]
    names = [Path(os.fsdecode(name)) for name in named]
    return not names or any(
        name.is_relative_to(path)
        or path.is_relative_to(name)
        or any(part.startswith(_PREFIX) for part in name.parts)
        for name in names
    )


def _cannot_write(path: Path, reason: str) -> str:
    for parent in path.parents:
        if parent in _unfinished_folders:
            path = _unfinished_folders[parent] / path.relative_to(parent)
            break
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


def _kind(path: Path) -> int | None:
    """Return what stands at a path, as of :func:`stat.S_IFMT`; None if nothing does.

    Raises:
        OSError: If that cannot be told; a path that is too long, for one.
    """
    try:
        return stat.S_IFMT(path.stat().st_mode)
    except FileNotFoundError:
        return None


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folders(files: Iterable[Path]) -> None:
    for folder in {path.parent for path in files}:
        _flush_folder(folder)


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
    except (KeyError, OSError, ImportError):  # a container may have no name for its user
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
