"""The memory of this computer: what is free, and whether an error means that it did not do."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from DRAMLesionLib.errors import DRAMLesionError

_NO_LIMIT = 2**60
"""Control groups of version 1 call no limit a number near 2^63."""

_WORDS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "failed to allocate",
    "bad_alloc",
    "bad allocation",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that the memory of the processor or of a GPU did not do.

    torch and ITK have no type of their own for it, or one that is a RuntimeError.
    """
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in text for word in _WORDS)


def told(error: BaseException) -> str:
    """Return one sentence on an error that a user may cause; nothing for a mistake of the program.

    Those are the library's own errors, what the operating system says, and a lack of memory.
    """
    if isinstance(error, DRAMLesionError):
        return str(error)
    if is_out_of_memory(error):
        return "not enough memory for this CT; close other programs or use a computer with more"
    if isinstance(error, OSError):
        where = "" if error.filename is None else f"{error.filename}: "
        return f"{where}{error.strerror or error}"
    return ""


def free_bytes(root: Path = Path("/")) -> float | None:
    """Return how much memory this process can still have, or None if nobody tells.

    That is the least of what the computer has free, what the control groups of the process leave
    (a container or a batch system sets them), and what its address space may still grow by.

    Args:
        root: Where ``proc`` and ``sys`` are mounted.
    """
    found = [_available(root), *_groups(root), _address_space(root)]
    known = [size for size in found if size is not None]
    return max(min(known), 0.0) if known else None


def _available(root: Path) -> float | None:
    fields = _fields(root / "proc/meminfo")
    return 1024.0 * fields["MemAvailable:"] if "MemAvailable:" in fields else None


def _groups(root: Path) -> Iterator[float]:
    """Yield what each control group around the process leaves of its limit."""
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current")
                unused = "inactive_file"
            elif "memory" in controllers.split(","):
                base = root / "sys/fs/cgroup/memory"
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
                unused = "total_inactive_file"
            else:
                continue
            inside = base / path.strip("/")
            # in a container the path may be that of the host: then only the base is there
            for group in (inside, *inside.parents):
                limit, usage = (_number(group / name) for name in names)
                if limit is not None and usage is not None and limit < _NO_LIMIT:
                    # files in the cache go when memory is wanted
                    yield limit - usage + _fields(group / "memory.stat").get(unused, 0.0)
                if group == base:
                    break


def _address_space(root: Path) -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        pages = float((root / "proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return limit - pages * os.sysconf("SC_PAGE_SIZE")


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # not there, or "max"
        return None


def _fields(path: Path) -> dict[str, float]:
    """Return a file of lines that hold a name and a number."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return {}
    rows = (line.split() for line in lines)
    return {row[0]: float(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}
