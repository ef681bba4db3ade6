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
        ("batch", "followup"),
        ("pipeline", "mrml"),
        ("interchange",),
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
        ("tables", "typed"),
        ("paths", "devices"),
        ("memory",),
        ("errors", "version"),
    ),
    TRAINING: (
        ("__main__",),
        ("commands",),
        ("improvement", "studies"),
        ("slices",),
        ("evaluation",),
        ("methods",),
        ("stages",),
        ("synthesis",),
        ("dataset",),
        ("learning",),
        ("config", "metrics"),
        ("settings",),
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


def _is_view(node):
    """Whether an expression is a call of SimpleITK's view of an image's voxels."""
    name = getattr(node, "func", None)
    return getattr(name, "attr", getattr(name, "id", "")) == "GetArrayViewFromImage"


def _dangling_views(tree):
    """Lines with views of images that nobody need hold: SimpleITK's views do not hold them."""
    for node in ast.walk(tree):
        if _is_view(node):
            held = node.args[0]
            while isinstance(held, ast.Attribute):
                held = held.value
            if not isinstance(held, ast.Name):
                yield node.lineno
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.Lambda):
            yield from _views_that_outlive(function)


def _views_that_outlive(function):
    """Lines that give a view away, or use it after its image's name has got another value."""
    nodes = list(ast.walk(function))
    stores = [n for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
    loads = [n for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
    given = [n.value for n in nodes if isinstance(n, ast.Return | ast.Yield) and n.value]
    given += [function.body] if isinstance(function, ast.Lambda) else []
    yield from (value.lineno for value in given if _is_view(value))
    for node in nodes:
        if not (isinstance(node, ast.Assign) and _is_view(node.value)):
            continue
        views = {target.id for target in node.targets if isinstance(target, ast.Name)}
        yield from (v.lineno for v in given if isinstance(v, ast.Name) and v.id in views)
        image = getattr(node.value.args[0], "id", None)
        for store in stores:
            if store.id == image and store.lineno > node.lineno:
                last = max((n.lineno for n in loads if n.id in views), default=0)
                if last > store.lineno:
                    yield store.lineno


@pytest.mark.parametrize("package", [*FORBIDDEN, "Testing"])
def test_no_view_of_an_image_outlives_it(package):
    wrong = [
        f"{path}:{line}"
        for path, _ in _modules(package)
        for line in _dangling_views(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("a = sitk.GetArrayViewFromImage(read(path))", [1]),
        ("a = sitk.GetArrayViewFromImage(images[0])", [1]),
        ("a = GetArrayViewFromImage(x > 0).sum()", [1]),
        ("def f(self):\n a = sitk.GetArrayViewFromImage(self.ct)\n return a.max()", []),
        ("def f(ct):\n return sitk.GetArrayViewFromImage(ct)", [2]),
        ("def f(ct):\n a = sitk.GetArrayViewFromImage(ct)\n return a", [3]),
        ("def f(ct):\n a = sitk.GetArrayViewFromImage(ct)\n ct = g(ct)\n return a.max()", [3]),
        ("def f(ct):\n a = sitk.GetArrayViewFromImage(ct)\n m = a.max()\n ct = 0", []),
        ("f = lambda ct: sitk.GetArrayViewFromImage(ct)", [1]),
    ],
)
def test_views_that_may_dangle_are_found(code, lines):
    assert list(_dangling_views(ast.parse(code))) == lines


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
