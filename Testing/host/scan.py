"""Reads a module's source and checks every attribute of Qt, CTK and Slicer that it uses.

Tests run only the lines that they reach; this looks at all of them. Types are inferred from plain
assignments (`self.x = qt.QPushButton()`), annotations and, for `self.ui.x`, `self._ui.x` and
`ui.x`, from the .ui file.
"""

from __future__ import annotations

import ast
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .api import UNLISTED, SlicerApi, slicer_api

_MODULES = ("qt", "ctk", "slicer")

# a property of the object, and a static method of the class (seen in the probes of the file)
_ALSO_STATIC = {("qt.QTimer", "singleShot")}


@dataclass(frozen=True)
class Use:
    """An attribute that a source uses.

    Attributes:
        line: where.
        owner: `qt`, `slicer.util`, `slicer.app`, or a class such as `qt.QPushButton`.
        name: the attribute, or a signature in case of a signal.
        kind: `get`, `set`, `call` or `signal`.
        arguments: number of positional arguments and the keywords of a call.
    """

    line: int
    owner: str
    name: str
    kind: str = "get"
    arguments: tuple[int, tuple[str, ...]] = (0, ())


def ui_classes(path: Path) -> dict[str, str]:
    """Class by widget name of a .ui file, such as {'applyButton': 'qt.QPushButton'}."""
    root = ElementTree.parse(path).getroot()  # noqa: S314  (a file of this repository)
    return {
        widget.get("name", ""): _qualified(widget.get("class", ""))
        for widget in root.iter("widget")
    }


def _qualified(name: str) -> str:
    if name.startswith("ctk"):
        return f"ctk.{name}"
    return f"slicer.{name}" if name.startswith(("qMRML", "qSlicer")) else f"qt.{name}"


def _dotted(node: ast.AST) -> str | None:
    """`self.ui.button` as text; None for anything but names and attributes."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value)
        return f"{base}.{node.attr}" if base else None
    return None


class _Types(ast.NodeVisitor):
    """Types of variables and attributes, each with one meaning in its function or class."""

    def __init__(self, ui: dict[str, str]):
        places = ("self.ui", "self._ui", "ui")
        self.known = {f"{place}.{name}": kind for place in places for name, kind in ui.items()}

    def _note(self, target: ast.AST, kind: str | None) -> None:
        name = _dotted(target)
        if name and kind:
            self.known[name] = kind

    def visit_Assign(self, node: ast.Assign) -> None:
        """`x = qt.QPushButton()`."""
        for target in node.targets:
            self._note(target, _constructed(node.value))
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """`x: qt.QPushButton = …`."""
        self._note(node.target, _class_name(node.annotation))
        self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> None:
        """`def f(x: qt.QPushButton)`."""
        if node.annotation is not None and _class_name(node.annotation):
            self.known[node.arg] = str(_class_name(node.annotation))


def _class_name(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        name: str | None = node.value
    else:
        name = _dotted(node)
    parts = (name or "").split(".")
    is_class = len(parts) == 2 and parts[0] in _MODULES and parts[1][:1] in "QqcP"
    return name if is_class else None


def _constructed(node: ast.AST) -> str | None:
    return _class_name(node.func) if isinstance(node, ast.Call) else None


def used_attributes(module_source: str, ui: dict[str, str] | None = None) -> list[Use]:
    """Every attribute of `qt`, `ctk`, `slicer` and of objects of known type that a source uses."""
    tree = ast.parse(module_source)
    types = _Types(ui or {})
    types.visit(tree)
    return sorted(set(_uses(tree, types.known)), key=lambda use: (use.line, use.owner, use.name))


def _uses(tree: ast.AST, known: dict[str, str]) -> Iterator[Use]:
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = _owner(node.func.value, known)
            if owner:
                yield from _call(node, owner)
        elif isinstance(node, ast.Attribute) and id(node) not in called:
            owner = _owner(node.value, known)
            if owner:
                kind = "set" if isinstance(node.ctx, ast.Store) else "get"
                yield Use(node.lineno, owner, node.attr, kind)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in _MODULES:
            for alias in node.names:
                yield Use(node.lineno, str(node.module), alias.name)


def _call(node: ast.Call, owner: str) -> Iterator[Use]:
    assert isinstance(node.func, ast.Attribute)
    name = node.func.attr
    has_star = any(isinstance(argument, ast.Starred) for argument in node.args)
    keywords = tuple(keyword.arg for keyword in node.keywords if keyword.arg)
    count = -1 if has_star else len(node.args)
    yield Use(node.lineno, owner, name, "call", (count, keywords))
    first = node.args[0] if node.args else None
    if name in ("connect", "disconnect") and isinstance(first, ast.Constant):
        yield Use(node.lineno, owner, str(first.value).replace(" ", ""), "signal")


def _owner(node: ast.AST, known: dict[str, str]) -> str | None:
    name = _dotted(node)
    if name is None:
        return _constructed(node)
    if name in known:
        return known[name]
    return name if name.split(".")[0] in _MODULES else None


def refusals(uses: list[Use], api: SlicerApi | None = None) -> list[str]:
    """What the application would refuse, one line each; classes outside the file are not judged."""
    api = api or slicer_api()
    return [f"line {use.line}: {reason}" for use in uses if (reason := _refusal(use, api))]


def _refusal(use: Use, api: SlicerApi) -> str | None:
    if use.owner in ("slicer.util", "slicer.packaging"):
        return _function_refusal(use, api.util if use.owner == "slicer.util" else api.packaging)
    if use.owner == "slicer.app":
        return None if use.name in api.application or use.kind == "signal" else _unknown(use)
    if use.owner == "slicer":
        classes = use.name.startswith(("vtk", "q", "ctk"))
        fine = classes or use.name in api.slicer_names or use.name in ("packaging", "testing")
        return None if fine else _unknown(use)
    if use.owner == "slicer.parameterNodeWrapper":
        return None if use.name in api.parameter_node_wrapper else _unknown(use)
    if not api.covers(use.owner):
        return None
    if use.kind == "signal":
        return None if use.name in api.signals(use.owner) else _unknown(use)
    if use.name not in api.members(use.owner) and use.name not in UNLISTED:
        return _unknown(use)
    properties = api.properties(use.owner)
    if properties is not None and use.kind == "set" and use.name not in properties:
        return None if use.name in UNLISTED else f"{use.owner}.{use.name} cannot be set"
    static = (use.owner, use.name) in _ALSO_STATIC
    if properties is not None and use.kind == "call" and use.name in properties and not static:
        return f"{use.owner}.{use.name} is a property, not a method"
    return None


def _unknown(use: Use) -> str:
    return f"{use.owner} has no {'signal' if use.kind == 'signal' else 'attribute'} '{use.name}'"


def _function_refusal(use: Use, functions: dict[str, str]) -> str | None:
    # classes of slicer.util, such as VTKObservationMixin, are not in the list of functions
    if use.name[:1].isupper():
        return None
    if use.name not in functions:
        return _unknown(use)
    if use.kind != "call" or use.arguments[0] < 0:
        return None
    count, keywords = use.arguments
    names, positional, open_ended = _parameters(functions[use.name])
    strange = [] if open_ended else [keyword for keyword in keywords if keyword not in names]
    if strange:
        return f"{use.owner}.{use.name} takes no {strange}"
    if count > positional:
        return f"{use.owner}.{use.name} takes {positional} positional arguments, not {count}"
    return None


def _parameters(signature: str) -> tuple[set[str], int, bool]:
    """Names, number of positional parameters, and whether any keyword is taken."""
    text = re.sub(r"<function .*? at 0x[0-9a-f]+>", "None", signature)
    arguments = ast.parse(f"def f{text}: pass").body[0].args  # type: ignore[attr-defined]
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    positional = len(arguments.posonlyargs) + len(arguments.args)
    open_positional = positional if arguments.vararg is None else 10**6
    return {argument.arg for argument in named}, open_positional, arguments.kwarg is not None


def source_refusals(path: Path, ui: Path | None = None) -> list[str]:
    """`refusals` of a file, with its .ui file."""
    source = path.read_text()
    return refusals(used_attributes(source, ui_classes(ui) if ui else None))


__all__ = ["Use", "refusals", "source_refusals", "ui_classes", "used_attributes"]
