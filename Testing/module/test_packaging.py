"""What the extension is made of: file lists, catalogue entry, resources, imports, attributes."""

from __future__ import annotations

import ast
import json
import re
import shutil
import struct
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from Testing.host import scan
from Testing.module import cmake_lists

ROOT = Path(__file__).resolve().parents[2]
MODULE, LIBRARY = ROOT / "DRAMLesion", ROOT / "DRAMLesionLib"
UI = MODULE / "Resources" / "UI" / "DRAMLesion.ui"
SOURCES = sorted(MODULE.rglob("*.py"))
MRML = sorted((LIBRARY / "mrml").glob("*.py"))


@pytest.mark.parametrize("folder", list(cmake_lists.PACKAGES))
def test_cmake_lists_what_is_on_the_disk(folder):
    """After adding a file: python -m Testing.module.cmake_lists."""
    for variable, names in cmake_lists.on_disk(folder).items():
        assert cmake_lists.listed(folder, variable) == names


def test_the_module_installs_what_the_library_needs_and_slicer_lacks():
    """Ranges stand in pyproject.toml; the module says them again, for Slicer's own installer."""
    source = ast.parse((MODULE / "DRAMLesionPanel" / "dependencies.py").read_text())
    said = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in source.body
        if isinstance(node, ast.Assign) and node.targets[0].id in ("TORCH", "OTHERS", "TRAINING")
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bundled = ("numpy", "scipy", "SimpleITK", "pydicom")
    needed = {line for line in project["dependencies"] if re.split("[<>=]", line)[0] not in bundled}
    assert {said["TORCH"], *said["OTHERS"]} == needed
    # matplotlib and scikit-learn are for the evaluation, which the module never starts
    assert set(said["TRAINING"]) < set(project["optional-dependencies"]["training"])


INSTALLED = """
import sys
sys.path.insert(0, {folder!r})
import DRAMLesionLib
assert DRAMLesionLib.__file__.startswith({folder!r}), DRAMLesionLib.__file__
from DRAMLesionLib import pipeline, weights
from DRAMLesionLib.lesions import types
from DRAMLesionLib.report import chart, html
for name in ("regression", "segmentation"):
    weights.load_network(weights.BUNDLED, name)
types.ReferenceTable.load(None)
from Training.commands import improvement
from Training.config import load_config
from Training.improvement import improve
load_config(improvement.DEFAULT)
print("complete")
"""


def test_the_installed_extension_is_complete(tmp_path):
    """What CMake lists, copied as it installs it, and nothing else."""
    beside = {name: tmp_path / name for name in ("DRAMLesionLib", "Training")}
    for folder, target in {"DRAMLesion": tmp_path, **beside}.items():
        for variable in cmake_lists.on_disk(folder):
            for name in cmake_lists.listed(folder, variable):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / folder / name, target / name)
    assert (tmp_path / "DRAMLesion.py").is_file()
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", INSTALLED.format(folder=str(tmp_path))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "complete", done.stderr


def test_the_extension_is_named_as_its_catalogue_entry():
    text = (ROOT / "CMakeLists.txt").read_text()
    assert "project(DRAMLesion)" in text
    for key in ("HOMEPAGE", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS"):
        assert f"set(EXTENSION_{key} " in text
    for url in re.findall(r"raw\.githubusercontent\.com/[^/]+/[^/]+/main/([^\"\s]+)", text):
        assert (ROOT / url).is_file(), url
    raw = (ROOT / "DRAMLesion.json").read_bytes()
    assert b"\r" not in raw
    entry = json.loads(raw)
    known = {"$schema", "build_dependencies", "build_subdirectory", "category"}
    known |= {"scm_revision", "scm_type", "scm_url", "tier"}
    assert {"$schema", "category", "scm_url"} <= set(entry) <= known
    assert (entry["category"], entry["build_dependencies"]) == ("Segmentation", ["PyTorch"])
    assert entry["scm_url"] in text
    assert (ROOT / "LICENSE").is_file()


@pytest.mark.parametrize("name", ["DRAMLesion", "DRAMLesionPhantom"])
def test_icons_are_square_png(name):
    head = (MODULE / "Resources" / "Icons" / f"{name}.png").read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", head[16:]) == (128, 128)


def test_segments_are_coded_as_the_terminology_file_has_them():
    pytest.importorskip("slicer")
    from DRAMLesionLib.mrml import segments

    path = MODULE / "Resources" / "Terminologies" / "DRAMLesion.term.json"
    known = {}
    for category in json.loads(path.read_text())["SegmentationCodes"]["Category"]:
        for kind in category["Type"]:
            modifiers = {m["CodeValue"] for m in kind.get("Modifier", [])}
            known[category["CodeValue"], kind["CodeValue"]] = modifiers
    specs = (*segments.LESION_SEGMENTS, *segments.LOBE_SEGMENTS, *segments.PSEUDOLABEL_SEGMENTS)
    for spec in (*specs, segments.LUNGS_SEGMENT):
        modifiers = known[spec.term.category.value, spec.term.type.value]
        assert spec.term.modifier is None or spec.term.modifier.value in modifiers


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_nothing_heavy_is_imported_with_the_module(path):
    allowed = {"qt", "slicer", "vtk", "ctk", "DRAMLesionPanel", *sys.stdlib_module_names}
    if path.parent.name == "Scripts":
        allowed = set(sys.stdlib_module_names)
    for node in ast.parse(path.read_text()).body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        assert [name for name in names if name.split(".")[0] not in allowed] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_attribute_exists_in_the_application(path):
    assert scan.source_refusals(path, UI) == []


@pytest.mark.parametrize(
    "path", sorted((LIBRARY / "mrml").glob("*.py")), ids=lambda path: path.stem
)
def test_every_attribute_of_the_mrml_layer_exists_in_the_application(path):
    assert scan.source_refusals(path) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_texts_for_people_are_translated(path):
    """What is set as a text, tool tip or title comes out of `_()` or a variable, never bare."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            for target in node.targets:
                if isinstance(target, ast.Attribute) and isinstance(node.value.value, str):
                    shown = target.attr in ("text", "toolTip", "title", "windowTitle", "helpText")
                    assert not (shown and node.value.value), (path.name, node.lineno)
