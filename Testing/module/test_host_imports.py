"""The stand-in's own files: none imports another that imports it."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

HOST = Path(__file__).parents[1] / "host"


def imported(path: Path) -> set[str]:
    """Files of the stand-in that a file of it imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            names |= {node.module} if node.module else {alias.name for alias in node.names}
    return {name for name in names if (HOST / f"{name}.py").is_file()}


def test_no_two_files_of_the_stand_in_import_each_other():
    arrows = {path.stem: imported(path) for path in HOST.glob("*.py")}
    assert {"parameter_types", "parameter_widgets"} <= arrows["parameter_node"]
    order = list(TopologicalSorter(arrows).static_order())  # raises CycleError where there is one
    assert order.index("parameter_types") < order.index("parameter_widgets")
