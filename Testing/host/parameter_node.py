"""`slicer.parameterNodeWrapper`: typed parameters over the real vtkMRMLScriptedModuleNode.

Stores values in the node exactly as the application does, so that scenes can be exchanged: the
value of a union lies under its name and the place of the alternative, such as `lobesNode.0`.
Supported types: bool, int, float, str, Path, enums, MRML nodes and unions of them with None.
"""

# ruff: noqa: N802, N803, N815  (the application's own names)

from __future__ import annotations

import enum
import pathlib
import types
import typing
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import slicer
import vtk

from .parameter_types import alternatives, node_classes, split_annotations
from .parameter_widgets import Decimals, SingleStep, connector_for
from .validators import VALIDATORS, IsInstance, NotNone, Validator


class Default:
    """The default value of a parameter, in an annotation."""

    def __init__(self, value: Any = None, *, generator: Callable[[], Any] | None = None):
        self._value, self._generator = value, generator

    @property
    def value(self) -> Any:
        """The value, made anew where there is a generator."""
        return self._generator() if self._generator else self._value


@dataclass
class Parameter:
    """One parameter: its type, default, checks, and how it is written as text."""

    name: str
    annotated: Any
    plain: Any
    default: Default
    validators: list[Validator]

    def _keys(self) -> list[str]:
        """Names under which a value may lie in the node."""
        count = len(alternatives(self.plain))
        return [f"{self.name}.{place}" for place in range(count)] if count else [self.name]

    def is_in(self, node: Any) -> bool:
        """Whether the node holds a value."""
        return any(node.HasParameter(key) for key in self._keys())

    def write(self, node: Any, value: Any) -> None:
        """Check a value and store it."""
        for validator in self.validators:
            validator.validate(value)
        if alternatives(self.plain):
            self._write_union(node, value)
        elif node_classes(self.plain):
            node.SetParameter(self.name, "")
            node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
        elif isinstance(self.plain, type) and issubclass(self.plain, enum.Enum):
            node.SetParameter(self.name, value.name)
        else:
            node.SetParameter(self.name, str(value))

    def _write_union(self, node: Any, value: Any) -> None:
        fitting = [isinstance(value, kind) for kind in alternatives(self.plain)]
        if not any(fitting):
            message = f"Unable to write value '{value}' of type '{type(value)}'"
            raise TypeError(message)
        keys = self._keys()
        for key in keys:
            node.UnsetParameter(key)
            node.RemoveNodeReferenceIDs(key)
        key = keys[fitting.index(True)]
        node.SetParameter(key, "True" if value is None else "")
        if value is not None:
            node.SetNodeReferenceID(key, value.GetID())

    def read(self, node: Any) -> Any:
        """The stored value."""
        if not self.is_in(node):
            self.write(node, self.default.value)
        if alternatives(self.plain):
            return node.GetNodeReference(next(k for k in self._keys() if node.HasParameter(k)))
        if node_classes(self.plain):
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        if self.plain is bool:
            return text == "True"
        if issubclass(self.plain, enum.Enum):
            return self.plain[text]
        return self.plain(text)


_PLAIN_DEFAULTS: dict[Any, Any] = {
    bool: False,
    int: 0,
    float: 0,
    str: "",
    pathlib.Path: pathlib.Path(),
}


def _parameter(owner: type, name: str, annotated: Any) -> Parameter:
    plain, annotations = split_annotations(annotated)
    classes = node_classes(plain)
    standard: Any
    checks: list[Validator]
    if classes:
        standard, checks = None, [IsInstance(classes)]
    elif plain in _PLAIN_DEFAULTS:
        accepted = (int, float) if plain is float else plain
        standard, checks = _PLAIN_DEFAULTS[plain], [NotNone(), IsInstance(accepted)]
    elif isinstance(plain, type) and issubclass(plain, enum.Enum):
        standard, checks = next(iter(plain)), [NotNone(), IsInstance(plain)]
    else:
        message = f"Unable to create serializer for {owner} member {name}: {plain}"
        raise TypeError(message)
    given = [entry for entry in annotations if isinstance(entry, Default)]
    default = given[0] if given else Default(standard)
    if name in vars(owner):
        default = Default(vars(owner)[name])
    checks += [entry for entry in annotations if isinstance(entry, Validator)]
    return Parameter(name, annotated, plain, default, checks)


class _Cached:
    """A parameter of a node: its value is read again when the node has changed, not before.

    As in the application it observes the node for as long as it lives, and a default that the node
    lacks is written at that.
    """

    def __init__(self, parameter: Parameter, node: Any):
        self.parameter, self._node = parameter, node
        self._value, self._writing = parameter.read(node), False
        this = weakref.ref(self)
        event = vtk.vtkCommand.ModifiedEvent
        self._tag = node.AddObserver(event, lambda *_: _call(this))

    def __del__(self) -> None:
        self._node.RemoveObserver(self._tag)

    def node_modified(self) -> None:
        """Read the value again."""
        if not self._writing:
            self._value = self.parameter.read(self._node)

    def read(self) -> Any:
        """The value."""
        return self._value

    def write(self, value: Any) -> None:
        """Set the value; observers are told once, after it is complete."""
        self._writing = True
        try:
            with slicer.util.NodeModify(self._node):
                self.parameter.write(self._node, value)
                self._value = self.parameter.read(self._node)
        finally:
            self._writing = False


def _call(reference: weakref.ref[_Cached]) -> None:
    cached = reference()
    if cached is not None:
        cached.node_modified()


class _Wrapper:
    """What the decorator adds to a class of parameters."""

    allParameters: dict[str, Parameter]

    def __init__(self, parameterNode: Any):
        if parameterNode is None:
            message = "a parameter node is needed"
            raise AssertionError(message)
        self.parameterNode = parameterNode
        self._guis: dict[int, tuple[dict[str, Any], int]] = {}
        self._next_tag, self._updating = 0, False
        self._values = {
            parameter.name: _Cached(parameter, parameterNode)
            for parameter in self.allParameters.values()
        }

    def _known(self, name: str) -> _Cached:
        if name not in self._values:
            message = f"Cannot find a param with the given name: {name}"
            raise ValueError(message)
        return self._values[name]

    def getValue(self, name: str) -> Any:
        """A parameter by name."""
        return self._known(name).read()

    def setValue(self, name: str, value: Any) -> None:
        """Set a parameter by name; observers are told once, after it is complete."""
        self._known(name).write(value)

    def default(self, name: str) -> Default:
        """The default of a parameter."""
        return self._known(name).parameter.default

    def isCached(self, name: str) -> bool:
        """Whether a value is kept beside the node; those of all types are that we have."""
        self._known(name)
        return True

    @classmethod
    def dataType(cls, name: str) -> Any:
        """The annotated type of a parameter."""
        return cls.allParameters[name].annotated

    def connectGui(self, gui: Any) -> int:
        """Connect the widgets that have a property SlicerParameterName; returns a tag."""
        import qt

        if getattr(gui, "isWidgetType", lambda: False)():
            widgets = gui.findChildren(qt.QWidget)
        else:
            widgets = vars(gui).values()
        named = {widget.property("SlicerParameterName"): widget for widget in widgets}
        return self.connectParametersToGui({name: w for name, w in named.items() if name})

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        """Connect widgets by parameter name; returns a tag."""
        connectors = {
            name: connector_for(widget, self._known(name).parameter)
            for name, widget in mapping.items()
        }
        tag, self._next_tag = self._next_tag, self._next_tag + 1
        for name, connector in connectors.items():
            connector.write(self.getValue(name))
            connector.connect(self._from_gui(name, connector))
        event = vtk.vtkCommand.ModifiedEvent
        observer = self.AddObserver(event, lambda *_: self._to_guis())
        self._guis[tag] = (connectors, observer)
        return tag

    def _from_gui(self, name: str, connector: Any) -> Callable[[], None]:
        def changed() -> None:
            if not self._updating:
                self.setValue(name, connector.read())

        return changed

    def _to_guis(self) -> None:
        if self._updating:
            return
        self._updating = True
        try:
            for connectors, _ in list(self._guis.values()):
                for name, connector in connectors.items():
                    connector.write(self.getValue(name))
        finally:
            self._updating = False

    def disconnectGui(self, tag: int) -> None:
        """Undo `connectGui`; an unknown tag is ignored, as in the application."""
        if tag in self._guis:
            connectors, observer = self._guis.pop(tag)
            for connector in connectors.values():
                connector.disconnect()
            self.RemoveObserver(observer)

    def StartModify(self) -> int:
        """Hold back the node's events."""
        return self.parameterNode.StartModify()

    def EndModify(self, before: int) -> None:
        """Let the node's events go."""
        self.parameterNode.EndModify(before)

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:
        """Observe the node."""
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        """Stop observing the node."""
        self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        """Tell the node's observers."""
        self.parameterNode.Modified()


def parameterNodeWrapper(cls: type | None = None) -> Any:
    """Class decorator, with or without brackets."""
    if cls is None:
        return parameterNodeWrapper
    hints = typing.get_type_hints(cls, include_extras=True)
    parameters = {name: _parameter(cls, name, kind) for name, kind in hints.items()}
    taken = [name for name in vars(_Wrapper) if not name.startswith("__") and name in vars(cls)]
    if taken or any(hasattr(_Wrapper, name) for name in parameters):
        message = f"Cannot use reserved name in a parameterNodeWrapper: {cls}"
        raise ValueError(message)
    for name, value in vars(_Wrapper).items():
        if name == "__init__" or not name.startswith("__"):
            setattr(cls, name, value)
    cls.allParameters = parameters  # type: ignore[attr-defined]
    cls._is_parameter_node_wrapper = True  # type: ignore[attr-defined]
    for name in parameters:
        setattr(cls, name, _attribute(name))
    return cls


def _attribute(name: str) -> property:
    return property(
        lambda self: self.getValue(name), lambda self, value: self.setValue(name, value)
    )


def parameter_node_module() -> types.ModuleType:
    """The module `slicer.parameterNodeWrapper`."""
    module = types.ModuleType("slicer.parameterNodeWrapper")
    offered: dict[str, Any] = {cls.__name__: cls for cls in VALIDATORS}
    offered |= {
        "Default": Default,
        "Decimals": Decimals,
        "SingleStep": SingleStep,
        "parameterNodeWrapper": parameterNodeWrapper,
        "isParameterNodeWrapper": lambda thing: hasattr(thing, "_is_parameter_node_wrapper"),
        "SlicerParameterNamePropertyName": "SlicerParameterName",
    }
    for name, value in offered.items():
        setattr(module, name, value)
    module.__all__ = list(offered)  # type: ignore[attr-defined]
    return module
