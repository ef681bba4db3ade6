"""Plain content, as JSON and YAML files hold it, read into what the code expects of it.

The one mechanism for weights' cards, settings and the files of a run: types, optional values,
lists, tables, choices, nested dataclasses, and ranges where an annotation states one. What does not
fit is refused by a message that names the file, the field, what was found and what is wanted.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from DRAMLesionLib.errors import InputError
from DRAMLesionLib.paths import content_of

T = TypeVar("T")

_SHOWN = 60
"""Characters of a wrong value that a message quotes."""


@dataclass(frozen=True)
class Between:
    """A range, for ``Annotated[float, Between(0, 1)]``.

    Attributes:
        low: Least value.
        high: Largest value.
        step: What a value is a multiple of; 0 for anything.
    """

    low: float = -math.inf
    high: float = math.inf
    step: int = 0

    def holds(self, value: float) -> bool:
        """Tell whether a value lies in the range."""
        return self.low <= value <= self.high and not (self.step and value % self.step)

    def __str__(self) -> str:
        ends = [
            *([f"at least {self.low:g}"] if math.isfinite(self.low) else []),
            *([f"at most {self.high:g}"] if math.isfinite(self.high) else []),
        ]
        steps = [f"a multiple of {self.step}"] if self.step else []
        return " and ".join([*ends, *steps])


@dataclass(frozen=True)
class Filled:
    """A list with something in it, for ``Annotated[list[str], Filled()]``."""

    def holds(self, value: Sized) -> bool:
        """Tell whether there is something in the list."""
        return len(value) > 0

    def __str__(self) -> str:
        return "not empty"


@dataclass(frozen=True)
class FileName:
    """A name that stays in its folder, for ``Annotated[str, FileName()]``."""

    def holds(self, value: str) -> bool:
        """Tell whether a text is the name of a file or folder, and no path."""
        return bool(value) and value not in (".", "..") and not {"/", "\\", "\0"} & set(value)

    def __str__(self) -> str:
        return "a name without folders"


def build(
    kind: type[T],
    values: Any,
    source: str,
    *,
    required: Iterable[str] = (),
    others: bool = False,
) -> T:
    """Build a value from plain content.

    Args:
        kind: A dataclass, or an annotation such as ``dict[str, float]``. Fields that are left out
            keep their defaults.
        values: The content: dictionaries, lists, texts, numbers, true, false and null.
        source: What to name in an error, such as the path of the file.
        required: Names of fields that have a default, but have to be there.
        others: Whether fields that the dataclasses do not know are passed over.

    Raises:
        InputError: If a field is unknown or missing, or a value has another type or range.
    """
    result = _Reader(source, others).read(kind, values, "")
    if missing := [name for name in required if name not in values]:
        message = f"{source} lacks the field {missing[0]!r}"
        raise InputError(message)
    return typing.cast(T, result)


def arguments(function: Callable[..., Any], values: Any, source: str) -> dict[str, Any]:
    """Check keyword arguments of a function or class against its annotations.

    Args:
        function: What is to be called with them.
        values: The arguments by name, as a file holds them.
        source: What to name in an error.

    Returns:
        The arguments, fit for ``function(**arguments)``.

    Raises:
        InputError: If one is unknown, missing, or of another type or range.
    """
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    needed = [p.name for p in parameters if p.default is inspect.Parameter.empty]
    known = {p.name: p.annotation for p in parameters}
    return _Reader(source, others=False).fields(known, needed, values, "")


def read_json(
    path: Path, kind: type[T], *, required: Iterable[str] = (), others: bool = False
) -> T:
    """Read a JSON file; see :func:`build` for the arguments.

    Raises:
        InputError: If it cannot be read, is no JSON, or its content does not fit.
    """
    return build(kind, load_json(path), str(path), required=required, others=others)


def load_json(path: Path) -> Any:
    """Return the content of a JSON file, of whatever type.

    Raises:
        InputError: If it cannot be read or is no JSON.
    """
    try:
        text = content_of(path).decode("utf-8")
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise InputError(message) from error
    except UnicodeDecodeError as error:
        message = f"{path} is damaged: it is no UTF-8 text"
        raise InputError(message) from error
    return parse_json(text, str(path))


def parse_json(text: str, source: str) -> Any:
    """Return the content of a JSON text, of whatever type.

    Raises:
        InputError: If it is no JSON, or a field stands in it twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        message = f"{source} is damaged or no JSON: {error}"
        raise InputError(message) from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        message = f"the field {next(n for n in names if names.count(n) > 1)!r} stands in it twice"
        raise ValueError(message)
    return result


class _Reader:
    """Reads content by annotations; knows what the content came from, for its messages."""

    def __init__(self, source: str, others: bool) -> None:
        self._source, self._others = source, others

    def read(self, hint: Any, value: Any, field: str) -> Any:
        """Return ``value`` as what the annotation ``hint`` asks for."""
        origin, inner = typing.get_origin(hint), typing.get_args(hint)
        if origin is Annotated:
            return self._within(hint, value, field)
        if hint is Any:
            return value
        if dataclasses.is_dataclass(hint):
            return self._dataclass(hint, value, field)
        if origin in (typing.Union, types.UnionType):
            return self._either(hint, value, field)
        if origin is Literal:
            fitting = [one for one in inner if type(one) is type(value) and one == value]
        elif origin in (list, tuple) and isinstance(value, list | tuple):
            return self._sequence(hint, value, field)
        elif origin is dict and isinstance(value, Mapping):
            return {
                self.read(inner[0], key, f"{field} (a name in it)"): self.read(
                    inner[1], item, _below(field, key)
                )
                for key, item in value.items()
            }
        else:
            fitting = _scalar(hint, value)
        if not fitting:
            raise self._wrong(hint, value, field)
        return fitting[0]

    def fields(
        self, hints: Mapping[str, Any], needed: Iterable[str], values: Any, field: str
    ) -> dict[str, Any]:
        """Return the fields of a group, each as its annotation asks."""
        place = f"{self._source}: {field}" if field else self._source
        if not isinstance(values, Mapping):
            message = f"{place}: fields of the form 'name: value' are wanted, not {_shown(values)}"
            raise InputError(message)
        unknown = [key for key in values if key not in hints]
        if unknown and not self._others:
            message = (
                f"{place}: there is no field {_shown(unknown[0])} here; known: {', '.join(hints)}"
            )
            raise InputError(message)
        if missing := [name for name in needed if name not in values]:
            message = f"{place} lacks the field {missing[0]!r}"
            raise InputError(message)
        return {
            name: self.read(hints[name], value, _below(field, name))
            for name, value in values.items()
            if name in hints
        }

    def _dataclass(self, kind: Any, values: Any, field: str) -> Any:
        hints = typing.get_type_hints(kind, include_extras=True)
        fields = [f for f in dataclasses.fields(kind) if f.init]
        none = dataclasses.MISSING
        needed = [f.name for f in fields if f.default is none and f.default_factory is none]
        known = {f.name: hints[f.name] for f in fields}
        arguments = self.fields(known, needed, values, field)
        try:
            return kind(**arguments)
        except InputError as error:
            place = f"{self._source}: {field}" if field else self._source
            message = f"{place}: {error}"
            raise InputError(message) from error

    def _within(self, hint: Any, value: Any, field: str) -> Any:
        inner, *rules = typing.get_args(hint)
        fitting = _scalar(inner, value) if inner in _NAMES else [self.read(inner, value, field)]
        for rule in rules:
            fitting = [one for one in fitting if rule.holds(one)]
        if not fitting:
            raise self._wrong(hint, value, field)
        return fitting[0]

    def _either(self, hint: Any, value: Any, field: str) -> Any:
        kinds = typing.get_args(hint)
        if value is None and types.NoneType in kinds:
            return None
        kinds = tuple(kind for kind in kinds if kind is not types.NoneType)
        if len(kinds) == 1:
            return self.read(kinds[0], value, field)
        for kind in kinds:
            try:
                return self.read(kind, value, field)
            except InputError:
                continue
        raise self._wrong(hint, value, field)

    def _sequence(self, hint: Any, value: Any, field: str) -> Any:
        origin, inner = typing.get_origin(hint), typing.get_args(hint)
        endless = origin is list or inner[-1] is Ellipsis
        items = inner[:1] * len(value) if endless else inner
        if len(items) != len(value):
            raise self._wrong(hint, value, field)
        return origin(
            self.read(kind, item, f"{field}[{n}]")
            for n, (kind, item) in enumerate(zip(items, value, strict=True))
        )

    def _wrong(self, hint: Any, value: Any, field: str) -> InputError:
        place = f"{self._source}: {field}" if field else self._source
        return InputError(f"{place} is {_shown(value)}; wanted: {_described(hint)}")


def _below(field: str, name: Any) -> str:
    return f"{field}.{name}" if field else str(name)


def _scalar(hint: Any, value: Any) -> list[Any]:
    """Return the value as the type asks, in a list; an empty one if it does not fit."""
    if hint is float and type(value) in (int, float):
        # an integer may be beyond what a float holds; NaN and infinity are no settings
        try:
            return [float(value)] if math.isfinite(value) else []
        except OverflowError:
            return []
    if hint is str and isinstance(value, str):
        # half of a surrogate pair cannot be written again
        return [value] if value.encode("utf-8", "ignore").decode("utf-8") == value else []
    return [value] if hint in (int, bool, types.NoneType) and type(value) is hint else []


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "a group of fields"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, int) and value.bit_length() > 4 * _SHOWN:
        return "a number of very many digits"
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


_NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
    types.NoneType: "null",
    Any: "anything",
}


def _described(hint: Any) -> str:
    """Say what an annotation asks for."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        rules = " and ".join(str(rule) for rule in inner[1:])
        return f"{_described(inner[0])}, {rules}"
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_described, inner))
    if origin is tuple and inner[-1] is not Ellipsis:
        return f"a list of {len(inner)}: {', '.join(map(_described, inner))}"
    if origin in (list, tuple):
        return f"a list, each item {_described(inner[0])}"
    if origin is dict:
        return f"names, each with {_described(inner[1])}"
    return _NAMES.get(hint, "fields of the form 'name: value'")
