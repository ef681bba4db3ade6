"""PythonQt's way of seeing Qt, laid over PySide6.

A *facade* stands before every PySide object that the module under test gets to see. It offers the
members that the API file lists for the class and no others, properties as attributes, enums as
ints, lists as tuples, and `connect('signal(type)', f)`. Behind it everything is plain PySide6:
stand-ins for ctk and qMRML widgets are written as PySide classes and registered with `register`.
"""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable
from typing import Any

import shiboken6
from PySide6.QtCore import QMetaProperty, QObject

from . import signals
from .api import UNLISTED, slicer_api
from .conversion import Converter, property_value, unwrap, wrap


class NotSuppliedError(AttributeError):
    """The application has the member, the stand-in does not: supply it in Testing/host."""


_facade_classes: dict[type, FacadeType] = {}
_facades: weakref.WeakValueDictionary[int, Facade] = weakref.WeakValueDictionary()


class FacadeType(type):
    """Class of a facade: `qt.QPushButton` is one. Generated ones know their PySide class."""

    implementation: type
    api_name: str

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        facade_class = generated(cls)
        if not offers(facade_class, name):
            message = f"type object '{cls.__name__}' has no attribute named '{name}'"
            raise AttributeError(message)
        try:
            value = getattr(facade_class.implementation, real_name(facade_class, name))
        except AttributeError:
            raise _not_supplied(facade_class, name) from None
        return (
            Method(value, name) if callable(value) and not isinstance(value, type) else wrap(value)
        )

    def __repr__(cls) -> str:
        return f"<class '{cls.__dict__.get('api_name', cls.__name__)}'>"


def generated(cls: FacadeType) -> FacadeType:
    """The facade class that a class written in Python derives from, or the class itself."""
    return next(base for base in cls.__mro__ if "implementation" in base.__dict__)  # type: ignore[return-value]


def _not_supplied(cls: FacadeType, name: str) -> NotSuppliedError:
    return NotSuppliedError(f"{cls.api_name}.{name} exists in Slicer, but the stand-in lacks it")


def real_name(cls: FacadeType, name: str) -> str:
    """The Qt member behind a name: `name` is `objectName` where the class has no `name` itself."""
    api = slicer_api()
    covered = api.covers(cls.api_name)
    has_it = name in api.members(cls.api_name) if covered else hasattr(cls.implementation, name)
    return name if has_it else UNLISTED.get(name, name)


def offers(cls: FacadeType, name: str) -> bool:
    """Whether the application's class has member `name`."""
    api = slicer_api()
    asked = "raise" if name == "raise_" else real_name(cls, name)
    for base in cls.__mro__:
        known = base.__dict__.get("api_name")
        if known is not None and api.covers(known):
            if asked in api.members(known):
                return True
            # a class between, which the file does not cover, may add members of its own
            return base is not cls and not hasattr(base.__dict__["implementation"], asked)
    return True


class Method:
    """A method of a Qt object, or a static one; takes positional arguments only."""

    def __init__(self, function: Callable[..., Any], name: str):
        self._function, self.__name__ = function, name

    def __call__(self, *arguments: Any) -> Any:
        converted = [unwrap(value) for value in arguments]
        try:
            return wrap(self._function(*converted))
        except TypeError as error:
            if "wrong argument" not in str(error) and "called with" not in str(error):
                raise
            message = f"Called {self.__name__}() with wrong arguments: {arguments}"
            raise ValueError(message) from error


def find_property(obj: QObject, cls: FacadeType, name: str) -> QMetaProperty | None:
    """The Qt property behind an attribute; None where the attribute is none."""
    api = slicer_api()
    listed = api.properties(cls.api_name) if api.covers(cls.api_name) else None
    if listed is not None and name not in listed:
        return None
    meta = obj.metaObject()
    index = meta.indexOfProperty(name)
    if index < 0:
        if listed is not None:
            raise _not_supplied(cls, name)
        return None
    return meta.property(index)


class Facade(metaclass=FacadeType):
    """What Python holds of a Qt object."""

    _object: Any

    def __init__(self, *arguments: Any):
        cls = generated(type(self))
        implementation = cls.implementation
        if type(self) is not cls:
            implementation = _with_overrides(type(self), cls.implementation, self)
        try:
            obj = implementation(*(unwrap(value) for value in arguments))
        except TypeError as error:
            if "wrong argument" not in str(error):
                raise
            message = f"Could not find matching overload for {cls.__name__}{arguments}"
            raise ValueError(message) from error
        _attach(self, obj)
        if type(self) is not cls and isinstance(obj, QObject):
            obj.__dict__["_host_facade"] = self  # Python attributes live as long as the Qt object

    def _alive(self) -> Any:
        obj = object.__getattribute__(self, "_object")
        if not shiboken6.isValid(obj):
            message = f"the {type(self).__name__} has been destroyed"
            raise ValueError(message)
        return obj

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_object":
            raise AttributeError(name)
        cls = generated(type(self))
        if not offers(cls, name):
            message = f"{cls.__name__} has no attribute named '{name}'"
            raise AttributeError(message)
        obj, name = self._alive(), real_name(cls, name)
        if isinstance(obj, QObject):
            if name in _OBJECT_METHODS:
                return types.MethodType(_OBJECT_METHODS[name], self)
            found = find_property(obj, cls, name)
            if found is not None:
                try:
                    return wrap(obj.property(name))
                except RuntimeError:  # PySide cannot convert the type
                    raise _not_supplied(cls, name) from None
            for signature, attribute in signals.qt_signals(type(obj)).items():
                if signature.partition("(")[0] == name:
                    return signals.SignalFacade(obj, signature, attribute)
        elif name in _VALUE_METHODS:
            return types.MethodType(_VALUE_METHODS[name], self)
        try:
            value = getattr(obj, "raise_" if name == "raise" else name)
        except AttributeError:
            raise _not_supplied(cls, name) from None
        return (
            Method(value, name) if callable(value) and not isinstance(value, type) else wrap(value)
        )

    def __setattr__(self, name: str, value: Any) -> None:
        cls, qt_name = generated(type(self)), real_name(generated(type(self)), name)
        obj = self._alive()
        found = None
        if isinstance(obj, QObject) and offers(cls, name):
            found = find_property(obj, cls, qt_name)
        if found is None:
            if type(self) is not cls:
                object.__setattr__(self, name, value)
                return
            message = (
                f"'{name}' does not exist on {cls.__name__} and creating new attributes"
                " on C++ objects is not allowed"
            )
            raise AttributeError(message)
        if not found.isWritable():
            message = f"Property '{name}' of {cls.__name__} is read-only"
            raise AttributeError(message)
        is_enum = found.isEnumType() or found.isFlagType()
        try:
            converted = property_value(str(found.typeName()), is_enum, value)
        except TypeError as error:
            message = f"Property '{name}' of type '{found.typeName()}' {error}"
            raise AttributeError(message) from None
        obj.setProperty(qt_name, converted)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Facade):
            return NotImplemented
        mine, its = self._object, other._object
        if isinstance(mine, QObject):
            return isinstance(its, QObject) and address(mine) == address(its)
        return mine == its

    def __hash__(self) -> int:
        return hash(address(self._object)) if isinstance(self._object, QObject) else id(self)

    def __dir__(self) -> list[str]:
        cls = generated(type(self))
        api = slicer_api()
        return sorted(api.members(cls.api_name)) if api.covers(cls.api_name) else dir(self._object)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} facade>"


def address(obj: QObject) -> int:
    """Where the C++ object lies: the identity of a Qt object."""
    return shiboken6.getCppPointer(obj)[0]


def _attach(facade: Facade, obj: Any) -> None:
    object.__setattr__(facade, "_object", obj)
    if isinstance(obj, QObject):
        _facades[address(obj)] = facade


def _with_overrides(cls: FacadeType, implementation: type, facade: Facade) -> type:
    """A PySide class that calls what a class written in Python overrides of Qt's virtuals."""

    def forwarding(name: str) -> Callable[..., Any]:
        def forward(_obj: Any, *values: Any) -> Any:
            return unwrap(getattr(facade, name)(*(wrap(value) for value in values)))

        return forward

    names = {
        name
        for base in cls.__mro__
        if "implementation" not in base.__dict__ and base not in (Facade, object)
        for name, value in base.__dict__.items()
        if isinstance(value, types.FunctionType)
        and not name.startswith("_")
        and hasattr(implementation, name)
    }
    return type(cls.__name__, (implementation,), {name: forwarding(name) for name in names})


def register(implementation: type, api_name: str) -> FacadeType:
    """Make the facade class for a PySide class; `api_name` such as `ctk.ctkSliderWidget`."""
    if implementation not in _facade_classes:
        bases = [facade_class(base) for base in implementation.__bases__ if _is_qt_class(base)]
        module, _, name = api_name.rpartition(".")
        namespace = {"implementation": implementation, "api_name": api_name, "__module__": module}
        _facade_classes[implementation] = FacadeType(name, tuple(bases) or (Facade,), namespace)
    return _facade_classes[implementation]


def _is_qt_class(cls: type) -> bool:
    return isinstance(cls, type(QObject)) and cls.__name__ != "Object"


def facade_class(implementation: type) -> FacadeType:
    """The facade class of a PySide class; classes made for overrides share their base's."""
    if implementation not in _facade_classes and not implementation.__module__.startswith(
        "PySide6"
    ):
        return facade_class(implementation.__bases__[0])
    return register(implementation, f"qt.{implementation.__name__}")


def facade_of(obj: Any) -> Facade:
    """The facade before a PySide object: the same one as long as somebody holds it."""
    if isinstance(obj, QObject):
        known = _facades.get(address(obj))
        if known is not None and known._object is obj:
            return known
        if "_host_facade" in getattr(obj, "__dict__", {}):
            return obj.__dict__["_host_facade"]
    cls = facade_class(type(obj))
    facade: Facade = Facade.__new__(cls)  # type: ignore[arg-type]
    _attach(facade, obj)
    return facade


def _object_of(value: Any) -> Any:
    if isinstance(value, Facade):
        return value._alive()
    if isinstance(value, FacadeType):
        return generated(value).implementation
    return None


Converter.facade_of = facade_of
Converter.object_of = _object_of
Converter.guarded = signals.guarded
Converter.is_qt = lambda value: isinstance(value, shiboken6.Object) and not isinstance(value, type)


def _find_signal(facade: Facade, signature: str) -> str | None:
    """The PySide attribute of a signal that the application knows; says so if there is none."""
    obj, cls, api = facade._alive(), generated(type(facade)), slicer_api()
    known = signals.qt_signals(type(obj))
    listed = api.signals(cls.api_name) if api.covers(cls.api_name) else known
    if signature not in listed:
        print(f"QObject::connect: no such signal {cls.__name__}::{signature}")
        return None
    if signature not in known:
        raise _not_supplied(cls, signature)
    return known[signature]


def _connect(facade: Facade, signature: str, receiver: Any, slot: str | None = None) -> bool:
    signature = signals.normalised(signature)
    attribute = _find_signal(facade, signature)
    if attribute is None:
        return False
    function = receiver if slot is None else getattr(receiver, slot.partition("(")[0])
    if not callable(function):
        message = f"{function!r} cannot be called"
        raise ValueError(message)
    return signals.Connections.add(facade._object, signature, attribute, function)


def _disconnect(facade: Facade, signature: str, receiver: Any = None) -> bool:
    attribute = _find_signal(facade, signals.normalised(signature))
    return attribute is not None and signals.Connections.remove(facade._object, attribute, receiver)


def _class_name(facade: Facade) -> str:
    return generated(type(facade)).__name__


def _inherits(facade: Facade, name: str) -> bool:
    return any(base.__name__ == name for base in type(facade).__mro__)


def _delete(facade: Facade) -> None:
    shiboken6.delete(facade._alive())


def _help(facade: Facade) -> None:
    print("\n".join(dir(facade)))


_VALUE_METHODS: dict[str, Callable[..., Any]] = {
    "className": _class_name,
    "inherits": _inherits,
    "delete": _delete,
    "help": _help,
}
_OBJECT_METHODS = _VALUE_METHODS | {"connect": _connect, "disconnect": _disconnect}
