"""Whether a CT fits into the memory of this computer."""

import ctypes
import os
import sys

BASE_BYTES = 1.5e9
"""Interpreter, PyTorch and networks."""

BYTES_A_VOXEL = 32
"""CT, maps, labels and copies of them on the grid of the CT."""


def neededBytes(voxels: int) -> float:
    """About what a run needs, besides Slicer itself."""
    return BASE_BYTES + BYTES_A_VOXEL * voxels


def totalBytes() -> float | None:
    """Memory of this computer; None if it cannot be told."""
    if sys.platform == "win32":
        return _totalOnWindows()
    try:
        return float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _totalOnWindows() -> float | None:
    class MemoryStatus(ctypes.Structure):
        _fields_ = (
            ("dwLength", ctypes.c_ulong),
            ("dwMemoryLoad", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in ("total", "a", "b", "c", "d", "e", "f")),
        )

    status = MemoryStatus()
    status.dwLength = ctypes.sizeof(status)
    ok = ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
    return float(status.total) if ok else None
