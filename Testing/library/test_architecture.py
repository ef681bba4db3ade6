"""Imports point one way, DRAMLesion → DRAMLesionLib ← Training, and down through the rooms."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY, TRAINING = "DRAMLesionLib", "Training"

ROOMS = {
    LIBRARY: (
        ("__main__",),
        ("pipeline", "mrml"),
        ("report",),
        ("phantom",),
        ("lesions",),
        ("vessels",),
        ("lobes",),
        ("weights",),
        ("networks",),
        ("reading",),
        ("images", "writing"),
        ("integrity",),
        ("paths", "devices", "tables", "typed"),
        ("errors", "version", "memory"),
    ),
    TRAINING: (
        ("__main__",),
        ("commands",),
        ("studies",),
        ("slices",),
        ("evaluation",),
        ("methods",),
        ("stages",),
        ("synthesis",),
        ("dataset",),
        ("learning",),
        ("config", "metrics"),
    ),
}
"""Rooms from top to bottom; those on one line do not know each other."""

FORBIDDEN = {
    LIBRARY: ("Training", "Testing", "DRAMLesion", "slicer", "qt", "ctk"),
    TRAINING: ("Testing", "DRAMLesion", "slicer", "qt", "ctk"),
    "DRAMLesion": ("Training", "Testing"),
}


def _modules(package):
    for path in sorted((ROOT / package).rglob("*.py")):
        yield path, ".".join(path.relative_to(ROOT).with_suffix("").parts)


def _imports(path):
    """Names of all imports of a file, those for type checkers alone included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # a name may be a module or something in one
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _room(package, module):
    """Return the room of a module: the part of its name that follows the package's."""
    parts = module.split(".")
    return parts[1] if parts[0] == package and len(parts) > 1 else None


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_import_one_way(package):
    wrong = [
        (str(path), name)
        for path, module in _modules(package)
        for name in _imports(path)
        if name.split(".")[0] in FORBIDDEN[package] and not module.startswith(f"{LIBRARY}.mrml")
    ]
    assert wrong == []


@pytest.mark.parametrize("package", ROOMS)
def test_every_file_and_folder_is_a_room(package):
    inside = {path.name.removesuffix(".py") for path in (ROOT / package).iterdir()}
    rooms = {room for line in ROOMS[package] for room in line}
    others = {"__init__", "__pycache__", "CMakeLists.txt", "bundled_weights", "configs"}
    assert inside - others == rooms


@pytest.mark.parametrize("package", ROOMS)
def test_no_arrow_between_rooms_runs_up(package):
    height = {room: -n for n, line in enumerate(ROOMS[package]) for room in line}
    wrong = []
    for path, module in _modules(package):
        own = _room(package, module)
        if own == "__init__":
            continue
        for name in _imports(path):
            other = _room(package, name)
            if other == "__version__" or (other in height and height[other] < height[own]):
                continue
            if name.startswith(f"{package}.") and other != own:
                wrong.append((module, name))
    assert wrong == []


def _loaded_by(code):
    """Names of the modules that are loaded after some code in a fresh interpreter."""
    code += "; import sys; print(*sys.modules)"
    out = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(out.stdout.split())


def test_the_library_and_its_command_line_load_without_torch():
    loaded = _loaded_by("import DRAMLesionLib, DRAMLesionLib.__main__ as m; m._parser()")
    assert "DRAMLesionLib.__main__" in loaded
    assert loaded & {"torch", "SimpleITK"} == set()


def test_the_numbers_of_a_report_load_without_what_draws_it():
    loaded = _loaded_by("import DRAMLesionLib.report.data")
    assert "DRAMLesionLib.report.model" in loaded
    assert loaded & {"jinja2", "PIL", "skimage"} == set()


def test_the_library_needs_nothing_of_slicer():
    loaded = _loaded_by(f"import {LIBRARY}.pipeline")
    assert "DRAMLesionLib.pipeline" in loaded
    assert loaded & {"slicer", "qt"} == set()
