"""A stand-in for 3D Slicer over the real MRML of `slicer-core` and PySide6, to test the module.

`Host` is the application; `scan` reads a module's source. Import `Host` only where `missing()` is
None: it needs packages that plain library tests do not.
"""

from __future__ import annotations

import importlib.util


def missing() -> str | None:
    """Why the host cannot be used here; None if it can."""
    names = {"slicer_core": "slicer-core", "PySide6": "PySide6_Essentials"}
    absent = [name for module, name in names.items() if importlib.util.find_spec(module) is None]
    return f"not installed: {', '.join(absent)}" if absent else None
