"""The one exception hierarchy of the library, and the warnings that end up in a report.

A message says what was wrong with which input and what to do about it. Everything that a user can
cause derives from :class:`DRAMLesionError`; the command line turns it into one line on standard
error, the Slicer module into a message box.
"""

from __future__ import annotations

from dataclasses import dataclass


class DRAMLesionError(Exception):
    """Base of all errors that the library raises on purpose.

    Attributes:
        stored: The message for tables and logs that are kept and passed on: without names of DICOM
            files, descriptions and identifiers, which may name a person.
    """

    def __init__(self, message: str = "", stored: str | None = None):
        super().__init__(message)
        self.stored = message if stored is None else stored


class InputError(DRAMLesionError):
    """A CT, a label file or a folder cannot be used as it is."""


class LobeError(InputError):
    """A lobe mask does not fit its CT or its labels cannot be told apart."""


class OutputError(DRAMLesionError):
    """A result cannot be written where it should be; nothing half-written is left."""


class WeightsError(DRAMLesionError):
    """Weights are missing, damaged, or do not fit the network that should load them."""


class OutOfMemory(DRAMLesionError):
    """The memory of the computer did not do; what was written before is whole."""


class MissingDependencyError(DRAMLesionError):
    """An optional package that the caller asked for is not installed."""


class ScansFailed(DRAMLesionError):
    """Some scans of a batch could not be done; the others are."""


class Cancelled(DRAMLesionError):
    """The caller's cancel function said stop; nothing was written."""


@dataclass(frozen=True)
class ScanWarning:
    """Something a reader of the report has to know, though the run could go on.

    Attributes:
        code: Short, stable, machine-readable name such as ``"thick-slices"``.
        message: One plain sentence that names the input, the finding and its consequence.
    """

    code: str
    message: str
