"""Imports point one way, DRAMLesion → DRAMLesionLib ← Training; stages ignore each other."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = "DRAMLesionLib"

STAGES = {
    "checks",
    "dram",
    "io",
    "lesion_types",
    "lobes.estimate",
    "lobes.providers",
    "report",
    "segmentation",
    "vessels",
}
STRINGS_STAGES = {"pipeline", "output", "__main__", "mrml"}


def _modules(package):
    for path in sorted((ROOT / package).rglob("*.py")):
        yield path, ".".join(path.relative_to(ROOT).with_suffix("").parts)


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _stage(module):
    if not module.startswith(f"{LIBRARY}."):
        return None
    name = module.removeprefix(f"{LIBRARY}.")
    return next((s for s in STAGES if name == s or name.startswith(f"{s}.")), None)


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        (LIBRARY, ("Training", "Testing", "DRAMLesion", "slicer", "qt", "ctk")),
        ("Training", ("Testing", "DRAMLesion", "slicer", "qt", "ctk")),
        ("DRAMLesion", ("Training", "Testing")),
    ],
)
def test_packages_import_one_way(package, forbidden):
    wrong = [
        (str(path), name)
        for path, module in _modules(package)
        for name in _imports(path)
        if name.split(".")[0] in forbidden and not module.startswith(f"{LIBRARY}.mrml")
    ]
    assert wrong == []


def test_stages_do_not_import_each_other():
    wrong = []
    for path, module in _modules(LIBRARY):
        if module.removeprefix(f"{LIBRARY}.") in STRINGS_STAGES:
            continue
        own = _stage(module)
        if own is None:
            continue
        for name in _imports(path):
            other = _stage(name)
            # the providers are the door to the estimate
            if other and other != own and (own, other) != ("lobes.providers", "lobes.estimate"):
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
