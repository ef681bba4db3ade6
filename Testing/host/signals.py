"""Signals as PythonQt offers them: connected by signature, forgiving about arguments."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QMetaMethod, QObject

from .conversion import unwrap, wrap

slot_errors: list[BaseException] = []
"""What slots and timers raised since the host was started: Qt prints it, a test must look at it."""


def accepted_arguments(function: Callable[..., Any]) -> int | None:
    """How many positional arguments PythonQt hands to a callable at most; None for all."""
    code = getattr(function, "__code__", None) or getattr(
        getattr(function, "__func__", None), "__code__", None
    )
    if code is None or code.co_flags & inspect.CO_VARARGS:
        return None
    return code.co_argcount - (1 if inspect.ismethod(function) else 0)


# PySide chooses among the forms of a signal, such as clicked() and clicked(bool), by counting the
# parameters of the slot
_OF_ARITY: dict[int, Callable[[Callable[..., None]], Callable[..., None]]] = {
    0: lambda slot: lambda: slot(),
    1: lambda slot: lambda a: slot(a),
    2: lambda slot: lambda a, b: slot(a, b),
    3: lambda slot: lambda a, b, c: slot(a, b, c),
    4: lambda slot: lambda a, b, c, d: slot(a, b, c, d),
}


def guarded(function: Callable[..., Any], arguments: int | None = None) -> Callable[..., None]:
    """A slot: gives `function` as many arguments as it takes, prints and keeps its errors."""
    limit = accepted_arguments(function)

    def deliver(*values: Any) -> None:
        values = values if limit is None else values[:limit]
        try:
            function(*(wrap(value) for value in values))
        except Exception as error:
            traceback.print_exc()
            slot_errors.append(error)

    return deliver if arguments is None else _OF_ARITY[arguments](deliver)


def normalised(signature: str) -> str:
    """A signature without blanks, such as `valueChanged(double)`."""
    return signature.replace(" ", "")


_known_signals: dict[Any, dict[str, str]] = {}


def qt_signals(implementation: Any) -> dict[str, str]:
    """Signature to attribute for the signals that a PySide class really has."""
    if implementation not in _known_signals:
        _known_signals[implementation] = _read_signals(implementation)
    return _known_signals[implementation]


def _read_signals(implementation: Any) -> dict[str, str]:
    meta = implementation.staticMetaObject
    found = {}
    for index in range(meta.methodCount()):
        method = meta.method(index)
        if method.methodType() == QMetaMethod.MethodType.Signal:
            signature = bytes(method.methodSignature().data()).decode()
            found[signature] = signature.partition("(")[0]
    # PySide cannot declare MRML types in a signature: the stand-ins say which signal carries them
    aliases: dict[str, str] = getattr(implementation, "MRML_SIGNALS", {})
    return {key: name for key, name in found.items() if "PyObject" not in key} | aliases


class Connections:
    """Connections made through the layer, so that they can be undone by the same arguments."""

    @staticmethod
    def _table(sender: QObject) -> dict[str, list[tuple[Any, Any]]]:
        return sender.__dict__.setdefault("_host_connections", {})

    @classmethod
    def add(cls, sender: QObject, signature: str, attribute: str, function: Any) -> bool:
        """Connect; True as PythonQt returns it."""
        inside = signature.partition("(")[2].rstrip(")")
        deliver = guarded(function, len(inside.split(",")) if inside else 0)
        getattr(sender, attribute).connect(deliver)
        cls._table(sender).setdefault(attribute, []).append((function, deliver))
        return True

    @classmethod
    def remove(cls, sender: QObject, attribute: str, function: Any) -> bool:
        """Disconnect one callable, or all of them where `function` is None."""
        kept, found = [], False
        for known, deliver in cls._table(sender).get(attribute, []):
            if function is None or known == function:
                getattr(sender, attribute).disconnect(deliver)
                found = True
            else:
                kept.append((known, deliver))
        cls._table(sender)[attribute] = kept
        return found


class SignalFacade:
    """`button.clicked`: connect, disconnect, and emit by calling it."""

    def __init__(self, sender: QObject, signature: str, attribute: str):
        self._sender, self._signature, self._attribute = sender, signature, attribute

    def __repr__(self) -> str:
        return f"<qt signal {self._attribute} of {type(self._sender).__name__}>"

    def __call__(self, *arguments: Any) -> None:
        getattr(self._sender, self._attribute).emit(*(unwrap(value) for value in arguments))

    def connect(self, function: Callable[..., Any]) -> bool:
        """Connect a callable."""
        return Connections.add(self._sender, self._signature, self._attribute, function)

    def disconnect(self, function: Callable[..., Any] | None = None) -> bool:
        """Disconnect a callable, or everything."""
        return Connections.remove(self._sender, self._attribute, function)
