"""Paths that the user chooses, and clears again."""

from collections.abc import Callable
from typing import Any


def onPathChanged(edit: Any, handler: Callable[[str], None]) -> None:
    """Call handler with the path of a ctkPathLineEdit whenever it has changed, '' included.

    CTK tells a path only if it is valid, which an empty one is not: that a path was cleared shows
    in the validity alone.
    """

    def validityChanged(isValid: bool) -> None:
        if not isValid:
            handler(edit.currentPath)

    edit.connect("currentPathChanged(QString)", handler)
    edit.connect("validInputChanged(bool)", validityChanged)
