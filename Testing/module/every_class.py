"""Compare every class of the stand-in with the API file: ``python -m Testing.module.every_class``.

It makes an object of each class, without parent and arguments, as no program makes them. Taken
apart beside other tests they have crashed Qt, so they live in this process, which ends without
taking anything apart. What was found is printed as JSON, in the last line.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from Testing.host.api import UNLISTED, slicer_api
from Testing.host.host import Host
from Testing.host.qt_layer import NotSuppliedError
from Testing.host.signals import qt_signals

_NOT_READ = {"Method", "SignalFacade", "method"}


def main() -> None:
    """Print what differs, and end the process."""
    Host().__enter__()
    made = {name: _instance(name) for name in slicer_api().class_names}
    objects = {name: obj for name, obj in made.items() if obj is not None}
    found = {
        "classes": len(objects),
        "surplus": {name: names for name, obj in objects.items() if (names := _surplus(name, obj))},
        "other members": [n for n, o in objects.items() if set(dir(o)) != slicer_api().members(n)],
        "signals": [(name, s) for name, obj in objects.items() for s in _signals(name, obj)],
        "properties": [(name, p) for name, obj in objects.items() for p in _properties(name, obj)],
    }
    sys.stdout.write(f"\n{json.dumps(found)}\n")
    sys.stdout.flush()
    os._exit(0)


def _instance(name: str) -> Any:
    """An object of a class that the file covers; None where the stand-in has no such class."""
    import ctk
    import qt
    import slicer

    module, _, short = name.partition(".")
    cls = getattr({"qt": qt, "ctk": ctk, "slicer": slicer}[module], short, None)
    if cls is None:
        return None
    arguments = {"QHeaderView": (qt.Qt.Horizontal,), "QTreeWidgetItem": ([],)}.get(short, ())
    try:
        return cls(*arguments)
    except (TypeError, ValueError, RuntimeError):
        return None  # static or abstract classes, and views that the layout manager makes


def _surplus(name: str, made: Any) -> list[str]:
    """Members that the application lacks, but code can use here."""
    behind = {n for n in dir(made._object) if not n.startswith("__")}
    beyond = behind - slicer_api().members(name) - set(UNLISTED)
    return sorted(n for n in beyond if hasattr(made, n))


def _signals(name: str, made: Any) -> list[str]:
    """Signals that are connected here alone, or in the application alone."""
    from PySide6.QtCore import QObject

    if not isinstance(made._object, QObject):
        return []
    listed = slicer_api().signals(name)
    found = qt_signals(type(made._object))
    return [s for s in found if made.connect(s, lambda: None) is not (s in listed)]


def _properties(name: str, made: Any) -> list[str]:
    """Properties that are methods or signals here."""
    wrong = []
    for member in slicer_api().properties(name) or ():
        try:
            value = getattr(made, member)
        except NotSuppliedError:
            continue
        if type(value).__name__ in _NOT_READ:
            wrong.append(member)
    return wrong


if __name__ == "__main__":
    main()
