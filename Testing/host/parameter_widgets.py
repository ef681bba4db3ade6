"""Which widget can show which parameter, and how: the connectors of `connectGui`.

The pairs are those of the application; any other pair is refused there, and here.
"""

from __future__ import annotations

import enum
import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import slicer

from .parameter_types import node_classes, split_annotations
from .validators import Choice, Maximum, Minimum, WithinRange


@dataclass
class Decimals:
    """Annotation: decimals of a spin box or slider."""

    value: int


@dataclass
class SingleStep:
    """Annotation: step of a spin box or slider."""

    value: float


class Connector:
    """A widget seen as a place for a value.

    Attributes:
        read: value of the widget.
        write: set it.
    """

    def __init__(self, signal: Any, read: Callable[[], Any], write: Callable[[Any], None]):
        self._signal, self.read, self.write = signal, read, write
        self._callback: Callable[[], None] | None = None

    def connect(self, callback: Callable[[], None]) -> None:
        """Call back at each change."""
        self._callback = callback
        if self._signal is not None:
            self._signal.connect(callback)

    def disconnect(self) -> None:
        """Stop calling back."""
        if self._signal is not None and self._callback is not None:
            self._signal.disconnect(self._callback)
        self._callback = None  # which holds the parameter node's wrapper


def _first(annotations: tuple[Any, ...], kind: type) -> Any:
    return next((entry for entry in annotations if isinstance(entry, kind)), None)


def _property(
    widget: Any, name: str, signal: Any, to_value: Any = None, to_widget: Any = None
) -> Connector:
    def read() -> Any:
        value = getattr(widget, name)
        return to_value(value) if to_value else value

    def write(value: Any) -> None:
        value = to_widget(value) if to_widget else value
        if value != getattr(widget, name):
            setattr(widget, name, value)

    return Connector(signal, read, write)


def _number(
    widget: Any, plain: type, annotations: tuple[Any, ...], sliders: tuple[type, ...]
) -> Connector:
    within, step = _first(annotations, WithinRange), _first(annotations, SingleStep)
    low, high = _first(annotations, Minimum), _first(annotations, Maximum)
    if type(widget) in sliders and within is None and (low is None or high is None):
        message = "Cannot have a connection to a slider where the number is unbounded."
        raise RuntimeError(message)
    decimals = _first(annotations, Decimals)
    if plain is float and decimals is not None:
        widget.decimals = decimals.value
    elif plain is int and "decimals" in dir(widget):
        widget.decimals = 0
    if step is not None:
        widget.singleStep = step.value
    unbounded = 2.0**31 - 1
    widget.minimum = within.minimum if within else (low.minimum if low else -unbounded)
    widget.maximum = within.maximum if within else (high.maximum if high else unbounded)
    return _property(widget, "value", widget.valueChanged, plain)


def _choices(widget: Any, plain: Any, annotations: tuple[Any, ...]) -> Connector:
    choice = _first(annotations, Choice)
    if isinstance(plain, type) and issubclass(plain, enum.Enum):
        values = list(choice.choices) if choice else list(plain)
        labels = [value.label() if hasattr(value, "label") else value.name for value in values]
    elif choice is None:
        message = "ComboBoxToStringableConnector requires the Choice annotation to be used."
        raise RuntimeError(message)
    else:
        values = list(choice.choices)
        labels = [str(value) for value in values]
    widget.clear()
    for label in labels:
        widget.addItem(label)

    def write(value: Any) -> None:
        widget.currentIndex = values.index(value)

    return Connector(widget.currentIndexChanged, lambda: values[widget.currentIndex], write)


def connector_for(widget: Any, parameter: Any) -> Connector:
    """The connector of a widget and a parameter.

    Raises:
        RuntimeError: where the application has none for the pair.
    """
    import ctk
    import qt

    kind, plain = type(widget), parameter.plain
    annotations = split_annotations(parameter.annotated)[1]
    sliders = (ctk.ctkSliderWidget, slicer.qMRMLSliderWidget, qt.QSlider)
    fractional = (
        qt.QDoubleSpinBox,
        ctk.ctkSliderWidget,
        slicer.qMRMLSliderWidget,
        ctk.ctkDoubleSlider,
        ctk.ctkDoubleSpinBox,
        slicer.qMRMLSpinBox,
    )
    if plain is bool and kind in (qt.QCheckBox, ctk.ctkCheckBox):
        return _property(widget, "checked", widget.stateChanged)
    if plain is bool and kind is qt.QPushButton:
        widget.checkable = True
        return _property(widget, "checked", widget.toggled)
    if plain is int and kind in (qt.QSlider, qt.QSpinBox):
        return _number(widget, int, annotations, sliders)
    if plain in (int, float) and kind in fractional:
        return _number(widget, plain, annotations, sliders)
    is_enum = isinstance(plain, type) and issubclass(plain, enum.Enum)
    if kind in (qt.QComboBox, ctk.ctkComboBox) and (plain in (int, float, str, bool) or is_enum):
        return _choices(widget, plain, annotations)
    if plain is str and kind is qt.QLineEdit:
        return _property(widget, "text", widget.textChanged)
    if plain is str and kind is qt.QLabel:
        return _property(widget, "text", None)
    if plain is str and kind is qt.QTextEdit:
        return Connector(widget.textChanged, widget.toPlainText, widget.setPlainText)
    if plain is pathlib.Path and kind is ctk.ctkPathLineEdit:
        return _property(widget, "currentPath", widget.currentPathChanged, pathlib.Path, str)
    if plain is pathlib.Path and kind is ctk.ctkDirectoryButton:
        return _property(widget, "directory", widget.directoryChanged, pathlib.Path, str)
    if kind is slicer.qMRMLNodeComboBox and node_classes(plain):
        widget.nodeTypes = tuple(cls().GetClassName() for cls in node_classes(plain))
        return Connector(widget.currentNodeChanged, widget.currentNode, widget.setCurrentNode)
    message = f"Unable to create GUI connector from datatype '{plain}' to widget type '{kind}'."
    raise RuntimeError(message)
