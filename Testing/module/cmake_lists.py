"""File lists of the CMakeLists, from the disk.

``python -m Testing.module.cmake_lists`` writes them anew; a test holds them against the disk.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"DRAMLesion": "MODULE", "DRAMLesionLib": "LIBRARY", "Training": "TRAINING"}
"""Folders, and what the variables of their lists begin with."""


def on_disk(folder: str) -> dict[str, list[str]]:
    """Return the files that a list must have, by variable."""
    prefix = PACKAGES[folder]
    names = sorted(
        path.relative_to(ROOT / folder).as_posix()
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and path.name != "CMakeLists.txt"
        and not path.name.startswith(".")
    )
    return {
        f"{prefix}_PYTHON_SCRIPTS": [name for name in names if name.endswith(".py")],
        f"{prefix}_PYTHON_RESOURCES": [name for name in names if not name.endswith(".py")],
    }


def listed(folder: str, variable: str) -> list[str]:
    """Return the files that a list has."""
    text = (ROOT / folder / "CMakeLists.txt").read_text()
    found = _pattern(variable).search(text)
    assert found is not None, f"{variable} is not in {folder}/CMakeLists.txt"
    return found.group(1).split()


def rewrite(folder: str) -> None:
    """Write the lists of a folder anew."""
    path = ROOT / folder / "CMakeLists.txt"
    text = path.read_text()
    for variable, names in on_disk(folder).items():
        lines = "".join(f"  {name}\n" for name in names)
        text = _pattern(variable).sub(lambda _, v=variable, x=lines: f"set({v}\n{x}  )", text)
    path.write_text(text)


def _pattern(variable: str) -> re.Pattern[str]:
    return re.compile(rf"set\({variable}\n(.*?)  \)", re.DOTALL)


if __name__ == "__main__":
    for name in PACKAGES:
        rewrite(name)
