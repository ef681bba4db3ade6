"""Values on their way between Python and Qt, converted and refused as PythonQt does it."""

from __future__ import annotations

import enum
import os
from typing import Any, ClassVar

import numpy as np


class EnumValue(int):
    """A Qt enum or flag value that is an int, as in PythonQt; it remembers the PySide member."""

    member: enum.Enum

    def __new__(cls, member: enum.Enum) -> EnumValue:
        value = super().__new__(cls, member.value)
        value.member = member
        return value

    def _combined(self, other: int, combine: Any) -> int:
        if isinstance(self.member, enum.Flag):
            kind = type(self.member)
            right = other.member if isinstance(other, EnumValue) else kind(int(other))
            if isinstance(right, kind):
                return EnumValue(combine(self.member, right))
        return combine(int(self), int(other))

    def __or__(self, other: int) -> int:
        return self._combined(other, lambda a, b: a | b)

    def __and__(self, other: int) -> int:
        return self._combined(other, lambda a, b: a & b)

    def __xor__(self, other: int) -> int:
        return self._combined(other, lambda a, b: a ^ b)

    def __invert__(self) -> int:
        return EnumValue(~self.member) if isinstance(self.member, enum.Flag) else ~int(self)

    __ror__ = __or__
    __rand__ = __and__


class Converter:
    """Wrapping of results and unwrapping of arguments; the facade layer plugs its types in."""

    facade_of: ClassVar[Any] = None  # PySide object -> facade
    object_of: ClassVar[Any] = None  # facade or facade class -> PySide object or class, else None
    guarded: ClassVar[Any] = None  # Python callable -> callable that catches what it raises
    is_qt: ClassVar[Any] = None  # whether a value is a PySide object


def wrap(value: Any) -> Any:
    """What Python sees of a value that came from Qt: ints for enums, tuples for lists."""
    if isinstance(value, enum.Enum):
        return EnumValue(value)
    if isinstance(value, (list, tuple)):
        return tuple(wrap(item) for item in value)
    if Converter.is_qt(value):
        return Converter.facade_of(value)
    return value


def unwrap(value: Any) -> Any:
    """What Qt gets of a Python argument.

    Raises:
        ValueError: for paths and numpy integers, which PythonQt does not convert.
    """
    if isinstance(value, EnumValue):
        return value.member
    if isinstance(value, os.PathLike) or (
        isinstance(value, np.generic) and not isinstance(value, (float, int, str, bytes))
    ):
        message = (
            f"Qt takes no {type(value).__name__}: convert {value!r} to str, int or float first"
        )
        raise ValueError(message)
    if isinstance(value, (list, tuple)):
        return [unwrap(item) for item in value]
    qt_object = Converter.object_of(value)
    if qt_object is not None:
        return qt_object
    if callable(value) and not isinstance(value, type):
        return Converter.guarded(value)
    return value


_NUMBERS = ("int", "uint", "double", "float", "qlonglong", "qreal")


def property_value(type_name: str, is_enum: bool, value: Any) -> Any:
    """A value for a property of Qt type `type_name`.

    Raises:
        TypeError: if PythonQt would not convert it.
    """
    number = isinstance(value, (bool, int, float))
    if type_name in ("QVariant", "PyObject"):
        return unwrap(value)
    if type_name == "bool" and number:
        return bool(value)
    if type_name in _NUMBERS and number:
        return float(value) if type_name in ("double", "float", "qreal") else int(value)
    if type_name == "QString" and (isinstance(value, str) or number):
        return str(value)
    if type_name == "QStringList" and isinstance(value, (list, tuple)):
        if all(isinstance(item, str) for item in value):
            return list(value)
    elif is_enum and isinstance(value, int):
        return int(value)
    else:
        qt_object = Converter.object_of(value)
        if qt_object is not None and type(qt_object).__name__ == type_name.rstrip("*"):
            return qt_object
    message = f"does not accept an object of type {type(value).__name__} ({value!r})"
    raise TypeError(message)
