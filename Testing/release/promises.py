"""What the README says: commands, targets of ``make``; and what the code imports."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_PACKAGES = {
    "skimage": "scikit-image",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "sklearn": "scikit-learn",
    "pydensecrf": "pydensecrf2",
    "shiboken6": "pyside6-essentials",
    "PySide6": "pyside6-essentials",
    "mpl_toolkits": "matplotlib",
    "pkg_resources": "setuptools",
}
"""Import names that are not those of their packages."""

_SLICER = {
    "slicer",
    "vtk",
    "vtkmodules",
    "qt",
    "ctk",
    "SampleData",
    "PyTorchUtils",
    "MRMLCorePython",
    "sitkUtils",
    "slicer_core",
    "vtkSegmentationCore",
    "vtkSegmentationCorePython",
    "Terminologies",
}
"""What the application brings, or the stand-in for it."""

_ASKED_FOR = {"totalsegmentator", "lungmask", "nnunetv2"}
"""What a user installs who asks for it by name; its absence is told."""

_EXTRAS = {
    "DRAMLesionLib": ("crf-reference", "cluster", "dicom"),
    "Training": ("crf-reference", "cluster", "training"),
    "DRAMLesion": (),
    "Testing": ("training", "test", "bench", "crf-reference", "cluster", "dicom"),
}
"""What may be imported in a package beside the dependencies of the library."""


def readme_commands(readme: Path = ROOT / "README.md") -> list[list[str]]:
    """Return the words of all commands in the README's ``sh`` blocks, in order."""
    text = readme.read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def inline_commands(readme: Path = ROOT / "README.md") -> list[list[str]]:
    """Return the words of all whole Python commands that stand inside of a line."""
    text = readme.read_text(encoding="utf-8")
    found = re.findall(r"`(python -m [^`]+)`", text)
    return [shlex.split(command) for command in found if "…" not in command]


def make_targets(makefile: Path = ROOT / "Makefile") -> set[str]:
    """Return the targets of a Makefile that a user would call."""
    return set(re.findall(r"^([a-z][a-z-]*):", makefile.read_text(encoding="utf-8"), re.MULTILINE))


def promised_targets(*documents: Path) -> set[str]:
    """Return the targets of ``make`` that documents name."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in documents)
    return set(re.findall(r"\bmake ([a-z][a-z-]*)\b(?=[^\n]*`|\s+#)", text))


def undeclared_imports(root: Path = ROOT) -> list[str]:
    """Name each import that no list of ``pyproject.toml`` brings for its package."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    found = []
    for package, allowed in _EXTRAS.items():
        lists = [project["dependencies"], *(extras.get(name, []) for name in allowed)]
        declared = {_package(requirement) for one in lists for requirement in one}
        for path in _sources(root / package):
            for name in sorted(_imported(path)):
                needed = _normal(_PACKAGES.get(name, name))
                if _is_foreign(name, path, root) and needed not in declared:
                    found.append(f"{path.relative_to(root)} imports {name}")
    return found


def bounds(root: Path = ROOT) -> dict[str, str]:
    """Return the requirement of each package that ``pyproject.toml`` names."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    return {_package(text): text for one in lists for text in one}


def pins(root: Path = ROOT) -> dict[str, str]:
    """Return the version of each package that ``constraints.txt`` pins."""
    lines = (root / "constraints.txt").read_text(encoding="utf-8").split()
    return {_normal(name): version for name, _, version in (line.partition("==") for line in lines)}


def _package(requirement: str) -> str:
    return _normal(re.split(r"[<>=!;\[ ]", requirement)[0])


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _sources(folder: Path) -> Iterator[Path]:
    git = shutil.which("git") or "git"
    listed = subprocess.run(  # noqa: S603 - our own command
        [git, "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    yield from (folder / name for name in listed.stdout.split("\n") if name)


def _imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def _is_foreign(name: str, path: Path, root: Path) -> bool:
    """Tell whether a module has to be installed."""
    if name in sys.stdlib_module_names or name in _SLICER or name in _ASKED_FOR:
        return False
    own = {p.name.removesuffix(".py") for folder in (root, path.parent) for p in folder.iterdir()}
    return name not in own | {"DRAMLesionPanel"}
