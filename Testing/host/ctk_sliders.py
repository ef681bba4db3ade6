"""Stand-ins for CTK's sliders and spin boxes."""

# ruff: noqa: N802, N815  (the application's own names)

from __future__ import annotations

from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QDoubleSpinBox, QHBoxLayout, QSlider, QWidget

from .properties import Property, passed_on, stored

_STEPS = 1000


class DoubleSpinBox(QDoubleSpinBox):
    """A spin box for numbers with decimals."""

    decimalsChanged = Signal(int)

    def setDecimals(self, decimals: int) -> None:
        """Set the number of decimals; signals a change."""
        changed = decimals != super().decimals()
        super().setDecimals(decimals)
        if changed:
            self.decimalsChanged.emit(decimals)

    def setValueIfDifferent(self, value: float) -> None:
        """Set the value."""
        self.setValue(value)

    decimals = Property(int, QDoubleSpinBox.decimals, setDecimals)


class SliderWidget(QWidget):
    """A slider for numbers with decimals, and a spin box beside it."""

    valueChanged = Signal(float)
    valueIsChanging = Signal(float)
    decimalsChanged = Signal(int)

    def __init__(self, parent: QWidget | None = None):
        super().__init__(parent)
        self._slider = QSlider(Qt.Orientation.Horizontal, self)
        self._slider.setRange(0, _STEPS)
        self._spin = QDoubleSpinBox(self)
        self._spin.setRange(0.0, 99.0)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider, 1)
        layout.addWidget(self._spin)
        self._moving = False
        self._slider.valueChanged.connect(self._slider_moved)
        self._slider.sliderReleased.connect(self._slider_released)
        self._spin.valueChanged.connect(self._spin_changed)

    def _slider_moved(self, step: int) -> None:
        if self._moving:
            return
        value = self.minimum + step / _STEPS * (self.maximum - self.minimum)
        if self.tracking or not self._slider.isSliderDown():
            self._spin.setValue(value)
        else:
            self.valueIsChanging.emit(value)

    def _slider_released(self) -> None:
        self._slider_moved(self._slider.value())

    def _spin_changed(self, value: float) -> None:
        self._place_slider()
        self.valueIsChanging.emit(value)
        self.valueChanged.emit(value)

    def _place_slider(self) -> None:
        width = self.maximum - self.minimum
        self._moving = True
        if width > 0:
            self._slider.setValue(round((self.value - self.minimum) / width * _STEPS))
        self._moving = False

    def setValue(self, value: float) -> None:
        """Set the value, clamped to the range and rounded to the decimals; signals a change."""
        self._spin.setValue(value)

    def _set_minimum(self, value: float) -> None:
        self._spin.setMinimum(value)
        self._place_slider()

    def _set_maximum(self, value: float) -> None:
        self._spin.setMaximum(value)
        self._place_slider()

    def setDecimals(self, decimals: int) -> None:
        """Set the number of decimals; signals a change."""
        if decimals != self._spin.decimals():
            self._spin.setDecimals(decimals)
            self.decimalsChanged.emit(decimals)

    def setSpinBoxVisible(self, visible: bool) -> None:
        """Show or hide the spin box."""
        self._spin.setVisible(visible)

    def reset(self) -> None:
        """Back to zero, or as near as the range allows."""
        self.setValue(0.0)

    value = Property(float, lambda self: self._spin.value(), setValue)
    minimum = Property(float, lambda self: self._spin.minimum(), _set_minimum)
    maximum = Property(float, lambda self: self._spin.maximum(), _set_maximum)
    decimals = Property(int, lambda self: self._spin.decimals(), setDecimals)
    spinBoxVisible = Property(bool, lambda s: not s._spin.isHidden(), setSpinBoxVisible)
    singleStep = passed_on(float, "_spin", "singleStep", "setSingleStep")
    prefix = passed_on(str, "_spin", "prefix", "setPrefix")
    suffix = passed_on(str, "_spin", "suffix", "setSuffix")
    pageStep = stored("pageStep", float, 10.0)
    tickInterval = stored("tickInterval", float, 0.0)
    tracking = stored("tracking", bool, True)
    popupSlider = stored("popupSlider", bool, False)


class DoubleSlider(SliderWidget):
    """The slider alone."""

    rangeChanged = Signal(float, float)
    sliderMoved = Signal(float)
    sliderPressed = Signal()
    sliderReleased = Signal()

    def __init__(self, parent: QWidget | None = None):
        super().__init__(parent)
        self._spin.hide()

    sliderPosition = Property(float, lambda self: self.value)


class RangeWidget(QWidget):
    """Two values, the lower never above the upper."""

    valuesChanged = Signal(float, float)
    rangeChanged = Signal(float, float)
    minimumValueChanged = Signal(float)
    maximumValueChanged = Signal(float)

    def __init__(self, parent: QWidget | None = None):
        super().__init__(parent)
        self._lower, self._upper = QDoubleSpinBox(self), QDoubleSpinBox(self)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._lower)
        layout.addStretch(1)
        layout.addWidget(self._upper)
        self._upper.setValue(self._upper.maximum())
        self._lower.valueChanged.connect(self._lower_changed)
        self._upper.valueChanged.connect(self._upper_changed)

    def _lower_changed(self, value: float) -> None:
        if value > self._upper.value():
            self._upper.setValue(value)
        self.minimumValueChanged.emit(value)
        self.valuesChanged.emit(value, self._upper.value())

    def _upper_changed(self, value: float) -> None:
        if value < self._lower.value():
            self._lower.setValue(value)
        self.maximumValueChanged.emit(value)
        self.valuesChanged.emit(self._lower.value(), value)

    def _set_range(self, setter: str, value: Any) -> None:
        getattr(self._lower, setter)(value)
        getattr(self._upper, setter)(value)

    def setRange(self, minimum: float, maximum: float) -> None:
        """Set what both values may be."""
        self._lower.setRange(minimum, maximum)
        self._upper.setRange(minimum, maximum)
        self.rangeChanged.emit(minimum, maximum)

    def setValues(self, lower: float, upper: float) -> None:
        """Set both values."""
        self._upper.setValue(max(upper, self._lower.value()))
        self._lower.setValue(lower)
        self._upper.setValue(upper)

    def setMinimumValue(self, value: float) -> None:
        """Set the lower value."""
        self._lower.setValue(value)

    def setMaximumValue(self, value: float) -> None:
        """Set the upper value."""
        self._upper.setValue(value)

    def setDecimals(self, decimals: int) -> None:
        """Set the decimals of both values."""
        self._set_range("setDecimals", decimals)

    minimumValue = Property(float, lambda self: self._lower.value(), setMinimumValue)
    maximumValue = Property(float, lambda self: self._upper.value(), setMaximumValue)
    minimum = Property(
        float, lambda s: s._lower.minimum(), lambda s, value: s._set_range("setMinimum", value)
    )
    maximum = Property(
        float, lambda s: s._lower.maximum(), lambda s, value: s._set_range("setMaximum", value)
    )
    decimals = Property(int, lambda self: self._lower.decimals(), setDecimals)
    singleStep = Property(
        float, lambda s: s._lower.singleStep(), lambda s, v: s._set_range("setSingleStep", v)
    )
    suffix = Property(str, lambda s: s._lower.suffix(), lambda s, v: s._set_range("setSuffix", v))
    prefix = Property(str, lambda s: s._lower.prefix(), lambda s, v: s._set_range("setPrefix", v))
    tracking = stored("tracking", bool, True)
