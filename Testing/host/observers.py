"""Observers of MRML objects that end with the widget that set them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, ClassVar

from PySide6.QtCore import QObject


class Observers:
    """Observers of one widget: removed together, and when Qt deletes the widget.

    None may be left when a scene goes: an observer that Python's garbage collector finds together
    with its node is called while both are taken apart.
    """

    live: ClassVar[weakref.WeakSet[Observers]] = weakref.WeakSet()

    def __init__(self, owner: QObject):
        self._set: list[tuple[Any, int]] = []
        self.live.add(self)
        # a bound method of the widget itself would be called too late
        owner.destroyed.connect(self.clear)

    def add(self, subject: Any, event: Any, callback: Callable[[], None]) -> None:
        """Call back at an event, without arguments."""
        self._set.append((subject, subject.AddObserver(event, lambda *_: callback())))

    def clear(self, *_arguments: Any) -> None:
        """Remove all."""
        for subject, tag in self._set:
            subject.RemoveObserver(tag)
        self._set.clear()

    @classmethod
    def clear_all(cls) -> None:
        """Remove the observers of all widgets."""
        for observers in list(cls.live):
            observers.clear()
