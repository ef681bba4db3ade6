"""Checks of parameter values, as `slicer.parameterNodeWrapper` names them."""

# ruff: noqa: N803  (the application's own names)

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class Validator(ABC):
    """Base of all checks."""

    @abstractmethod
    def validate(self, value: Any) -> None:
        """Raise if the value is not valid."""


class NotNone(Validator):
    """Not None."""

    def validate(self, value: Any) -> None:
        """Raise ValueError for None."""
        if value is None:
            message = "Value must not be None"
            raise ValueError(message)


class IsInstance(Validator):
    """Of a type, or None."""

    def __init__(self, classtype: Any):
        self.classtype = classtype

    def validate(self, value: Any) -> None:
        """Raise TypeError for another type."""
        if value is not None and not isinstance(value, self.classtype):
            message = f"Value must be of type '{self.classtype}', is type '{type(value)}'"
            raise TypeError(message)


class WithinRange(Validator):
    """Within a range, ends included."""

    def __init__(self, minimum: float, maximum: float):
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value: Any) -> None:
        """Raise ValueError outside."""
        if not self.minimum <= value <= self.maximum:
            message = f"Value must be within range [{self.minimum}, {self.maximum}], is {value}"
            raise ValueError(message)


class Minimum(Validator):
    """Not below a number."""

    def __init__(self, minimum: float):
        self.minimum = minimum

    def validate(self, value: Any) -> None:
        """Raise ValueError below."""
        if value < self.minimum:
            message = f"Value must be greater than {self.minimum}, is {value}"
            raise ValueError(message)


class Maximum(Validator):
    """Not above a number."""

    def __init__(self, maximum: float):
        self.maximum = maximum

    def validate(self, value: Any) -> None:
        """Raise ValueError above."""
        if value > self.maximum:
            message = f"Value must be less than {self.maximum}, is {value}"
            raise ValueError(message)


class Choice(Validator):
    """One of a list."""

    def __init__(self, choices: Any):
        self.choices = choices

    def validate(self, value: Any) -> None:
        """Raise ValueError for another value."""
        if value not in self.choices:
            message = f"Value is {value}, but must be one of {self.choices}"
            raise ValueError(message)


class Exclude(Validator):
    """None of a list."""

    def __init__(self, excludedValues: Any):
        self.excludedValues = excludedValues

    def validate(self, value: Any) -> None:
        """Raise ValueError for a value of the list."""
        if value in self.excludedValues:
            message = f"Value is {value}, but must not be one of {self.excludedValues}"
            raise ValueError(message)


VALIDATORS = (Validator, NotNone, IsInstance, WithinRange, Minimum, Maximum, Choice, Exclude)
