"""What the user is told when something goes wrong, in sentences."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import qt
import slicer
from slicer.i18n import tr as _


@dataclass
class Attempt:
    """Whether the block of a `telling` came to its end."""

    done: bool = False


@contextmanager
def telling(message: str, waitCursor: bool = False) -> Iterator[Attempt]:
    """Try something: if it fails, say so in a message box; what follows the block is run anyway.

    `slicer.util.tryWithErrorDisplay` raises again, so that what follows is left out, and a reason
    that the user can mend gets a traceback in the log as a fault of the program does.
    """
    attempt = Attempt()
    if waitCursor:
        slicer.app.setOverrideCursor(qt.Qt.WaitCursor)
    try:
        yield attempt
        attempt.done = True
    except Exception as error:
        if waitCursor:  # not over the message box
            slicer.app.restoreOverrideCursor()
            waitCursor = False
        tell(message, error)
    finally:
        if waitCursor:
            slicer.app.restoreOverrideCursor()


def tell(message: str, error: Exception) -> None:
    """Show what failed and why; the traceback of a fault of the program goes to the log as well."""
    text = f"{message}\n\n{sentence(reasonOf(error))}"
    if isExpected(error):
        slicer.util.errorDisplay(text, windowTitle=_("DRAMLesion"))
        return
    logging.error("DRAMLesion: %s", "".join(traceback.format_exception(error)))
    details = "".join(traceback.format_exception(error))
    slicer.util.errorDisplay(text, windowTitle=_("DRAMLesion"), detailedText=details)


def isExpected(error: Exception) -> bool:
    """Whether an error is a reason that the user can do something about."""
    from DRAMLesionLib.memory import told

    return bool(told(error)) and not isinstance(error, ImportError)


def reasonOf(error: Exception) -> str:
    """What an error says; errors that are none of ours say of what kind they are."""
    from DRAMLesionLib.memory import told

    isPlain = isinstance(error, ValueError)
    return told(error) or (str(error) if isPlain else f"{type(error).__name__}: {error}")


def sentence(text: str) -> str:
    """Begin with a capital, unless the first word is a name of the scene, a file or a program."""
    word = text.split(maxsplit=1)[0] if text.strip() else ""
    names = {node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLDisplayableNode")}
    isName = any(name and text.startswith(name) for name in names)
    isPlain = word.rstrip(":,").replace("'", "").isalpha() and word == word.lower()
    return text[:1].upper() + text[1:] if isPlain and not isName else text
