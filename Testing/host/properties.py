"""Qt properties for stand-ins written in Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PySide6.QtCore import Property


def stored(
    name: str, kind: Any, default: Any, then: Callable[[Any, Any], Any] | None = None
) -> Property:
    """A property that only remembers its value, and calls `then(self, value)` after a change."""
    key = f"_stored_{name}"

    def read(self: Any) -> Any:
        return self.__dict__.get(key, default)

    def write(self: Any, value: Any) -> None:
        changed = value != read(self)
        self.__dict__[key] = value
        if changed and then is not None:
            then(self, value)

    return Property(kind, read, write)


def passed_on(kind: Any, part: str, getter: str, setter: str) -> Property:
    """A property of a widget that one of its parts holds, such as the suffix of a spin box."""

    def read(self: Any) -> Any:
        return getattr(getattr(self, part), getter)()

    def write(self: Any, value: Any) -> None:
        getattr(getattr(self, part), setter)(value)

    return Property(kind, read, write)


__all__ = ["Property", "passed_on", "stored"]
