"""Stand-ins for the CTK widgets that module panels use, written as PySide classes."""

# ruff: noqa: N802, N815  (the application's own names)

from __future__ import annotations

import types
from typing import Any, ClassVar

from PySide6.QtCore import QDir, QModelIndex, QPoint, QRect, QSize, Qt, Signal
from PySide6.QtGui import QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import (
    QAbstractButton,
    QCheckBox,
    QColorDialog,
    QComboBox,
    QGroupBox,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QStyle,
    QStyleOptionButton,
    QTextBrowser,
    QToolButton,
    QWidget,
)

from .ctk_sliders import DoubleSlider, DoubleSpinBox, RangeWidget, SliderWidget
from .dialogs import MessageBox, dialogs
from .properties import Property, stored
from .qt_module import add_widget_class


class CollapsibleButton(QAbstractButton):
    """A header that shows and hides what lies below it."""

    contentsCollapsed = Signal(bool)

    def __init__(self, parent: QWidget | str | None = None):
        super().__init__(None if isinstance(parent, str) else parent)
        if isinstance(parent, str):
            self.setText(parent)
        self.setCheckable(True)
        self.setChecked(True)
        self._hidden: list[QWidget] = []
        self.setContentsMargins(0, self._header_height(), 0, 0)
        self.toggled.connect(lambda checked: self._set_collapsed(not checked))

    collapsedHeight = stored("collapsedHeight", int, 10)

    def _set_collapsed(self, collapsed: bool) -> None:
        if collapsed == self.__dict__.get("_collapsed", False):
            return
        self.__dict__["_collapsed"] = collapsed
        self.setChecked(not collapsed)
        if collapsed:
            children = self.findChildren(QWidget, "", Qt.FindChildOption.FindDirectChildrenOnly)
            self._hidden = [child for child in children if not child.isHidden()]
        for child in self._hidden:
            child.setVisible(not collapsed)
        self.setMaximumHeight(self._header_height() + 4 if collapsed else 16777215)
        self.updateGeometry()
        self.contentsCollapsed.emit(collapsed)

    collapsed = Property(bool, lambda self: self.__dict__.get("_collapsed", False), _set_collapsed)

    def _header_height(self) -> int:
        return self.fontMetrics().height() + 8

    def hitButton(self, position: QPoint) -> bool:
        """Only the header can be clicked."""
        return position.y() < self._header_height()

    def sizeHint(self) -> QSize:
        """Header and contents."""
        hint = super().sizeHint()
        return QSize(max(hint.width(), 120), max(hint.height(), self._header_height()))

    def paintEvent(self, _event: QPaintEvent) -> None:
        """The header as a flat button with an arrow."""
        painter = QPainter(self)
        option = QStyleOptionButton()
        option.initFrom(self)
        option.rect = QRect(0, 0, self.width(), self._header_height())
        self.style().drawControl(QStyle.ControlElement.CE_PushButtonBevel, option, painter, self)
        arrow = QStyleOptionButton()
        arrow.initFrom(self)
        arrow.rect = QRect(6, 4, self._header_height() - 8, self._header_height() - 8)
        element = QStyle.PrimitiveElement
        shape = element.PE_IndicatorArrowRight if self.collapsed else element.PE_IndicatorArrowDown
        self.style().drawPrimitive(shape, arrow, painter, self)
        text = option.rect.adjusted(self._header_height() + 4, 0, 0, 0)
        painter.drawText(text, int(Qt.AlignmentFlag.AlignVCenter), self.text())


class CollapsibleGroupBox(QGroupBox):
    """A group box whose check box collapses it."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.setCheckable(True)
        self.toggled.connect(lambda checked: self._set_collapsed(not checked))

    collapsedHeight = stored("collapsedHeight", int, 14)

    def _set_collapsed(self, collapsed: bool) -> None:
        self.setChecked(not collapsed)
        self.setMaximumHeight(self.fontMetrics().height() + 8 if collapsed else 16777215)

    collapsed = Property(bool, lambda self: not self.isChecked(), _set_collapsed)


class ComboBox(QComboBox):
    """A combo box with a text for 'nothing chosen'."""

    returnRelease = Signal()

    def _set_default_text(self, text: str) -> None:
        self.setPlaceholderText(text)

    defaultText = Property(str, lambda self: self.placeholderText(), _set_default_text)
    forceDefault = stored("forceDefault", bool, False)

    def setCurrentUserDataAsString(self, data: str) -> None:
        """Choose the item with this user data."""
        self.setCurrentIndex(self.findData(data))

    currentUserDataAsString = Property(
        str, lambda self: str(self.currentData() or ""), setCurrentUserDataAsString
    )


class CheckableComboBox(QComboBox):
    """A combo box with a check mark at each item."""

    checkedIndexesChanged = Signal()

    def __init__(self, parent: QWidget | None = None):
        super().__init__(parent)
        self.model().rowsInserted.connect(self._make_checkable)
        self.model().dataChanged.connect(lambda *_: self.checkedIndexesChanged.emit())

    def _make_checkable(self, _parent: QModelIndex, first: int, last: int) -> None:
        for row in range(first, last + 1):
            item = self.model().item(row)
            item.setCheckable(True)
            item.setCheckState(Qt.CheckState.Unchecked)

    def checkableModel(self) -> Any:
        """The model with the check marks."""
        return self.model()

    def checkState(self, index: QModelIndex) -> Qt.CheckState:
        """State of the item at a model index."""
        return Qt.CheckState(self.model().data(index, Qt.ItemDataRole.CheckStateRole))

    def setCheckState(self, index: QModelIndex, state: Qt.CheckState) -> None:
        """Check or uncheck the item at a model index."""
        self.model().setData(index, state, Qt.ItemDataRole.CheckStateRole)

    def checkedIndexes(self) -> list[QModelIndex]:
        """Model indexes of the checked items."""
        rows = [self.model().index(row, 0) for row in range(self.count())]
        return [index for index in rows if self.checkState(index) == Qt.CheckState.Checked]

    def allChecked(self) -> bool:
        """Whether every item is checked."""
        return len(self.checkedIndexes()) == self.count()

    def noneChecked(self) -> bool:
        """Whether no item is checked."""
        return not self.checkedIndexes()


class PathLineEdit(QWidget):
    """A path that is typed, browsed or taken from a history.

    Valid means 'not empty': the application's validator is `.+` where no name filters are set.
    """

    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)
    Dirs: ClassVar = QDir.Filter.Dirs
    Files: ClassVar = QDir.Filter.Files
    Drives: ClassVar = QDir.Filter.Drives
    Readable: ClassVar = QDir.Filter.Readable
    Writable: ClassVar = QDir.Filter.Writable
    Executable: ClassVar = QDir.Filter.Executable
    NoDot: ClassVar = QDir.Filter.NoDot
    NoDotDot: ClassVar = QDir.Filter.NoDotDot
    NoDotAndDotDot: ClassVar = QDir.Filter.NoDotAndDotDot
    AllEntries: ClassVar = QDir.Filter.AllEntries

    def __init__(self, parent: QWidget | None = None):
        super().__init__(parent)
        self._combo, self._button = QComboBox(self), QPushButton("…", self)
        self._combo.setEditable(True)
        self._button.setMaximumWidth(32)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._combo, 1)
        layout.addWidget(self._button)
        self._combo.currentTextChanged.connect(self._changed)
        self._button.clicked.connect(self.browse)
        self._valid = False

    def _changed(self, text: str) -> None:
        before, self._valid = self._valid, bool(text)
        if self._valid:
            self.currentPathChanged.emit(text)
        if self._valid != before:
            self.validInputChanged.emit(self._valid)

    def setCurrentPath(self, path: str) -> None:
        """Set the path; signals only a change."""
        self._combo.setEditText(path)

    currentPath = Property(str, lambda self: self._combo.currentText(), setCurrentPath)
    filters = stored("filters", int, int((QDir.Filter.AllEntries).value))
    nameFilters = stored("nameFilters", "QStringList", [])
    label = stored("label", str, "")
    settingKey = stored("settingKey", str, "")
    showBrowseButton = stored(
        "showBrowseButton", bool, True, lambda self, shown: self._button.setVisible(shown)
    )
    showHistoryButton = stored("showHistoryButton", bool, True)

    def comboBox(self) -> QComboBox:
        """The combo box with the history."""
        return self._combo

    def addCurrentPathToHistory(self) -> None:
        """Remember the path."""
        if self._combo.findText(self.currentPath) < 0:
            self._combo.addItem(self.currentPath)

    def browse(self) -> None:
        """Ask for a path; the test has prepared the answer."""
        path = str(dialogs.path(""))
        if path:
            self.setCurrentPath(path)


class DirectoryButton(QPushButton):
    """A button that shows a folder."""

    directoryChanged = Signal(str)
    directorySelected = Signal(str)

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.clicked.connect(self.browse)

    directory = stored(
        "directory",
        str,
        "",
        lambda self, path: (self.setText(path), self.directoryChanged.emit(path)),
    )
    caption = stored("caption", str, "")

    def browse(self) -> None:
        """Ask for a folder."""
        path = str(dialogs.path(""))
        if path:
            self.directory = path
            self.directorySelected.emit(path)


class ColorPickerButton(QPushButton):
    """A button that shows a colour."""

    colorChanged = Signal(QColor)
    colorNameChanged = Signal(str)

    def setColor(self, color: QColor) -> None:
        """Set the colour; signals a change."""
        if color != self.color:
            self.__dict__["_color"] = QColor(color)
            self.setText(color.name() if self.displayColorName else "")
            self.colorChanged.emit(color)
            self.colorNameChanged.emit("")

    color = Property(QColor, lambda self: self.__dict__.get("_color", QColor("black")), setColor)
    displayColorName = stored("displayColorName", bool, True)

    def changeColor(self) -> None:
        """Ask for a colour."""
        chosen = dialogs.path(None) or QColorDialog.getColor(self.color, self)
        self.setColor(QColor(chosen))


class FittedTextBrowser(QTextBrowser):
    """A text browser as high as its text."""

    collapsed = stored("collapsed", bool, True)
    showDetailsText = stored("showDetailsText", str, "Show details...")
    hideDetailsText = stored("hideDetailsText", str, "Hide details.")

    def sizeHint(self) -> QSize:
        """Height of the document."""
        return QSize(super().sizeHint().width(), int(self.document().size().height()) + 4)

    def setCollapsibleText(self, text: str) -> None:
        """Text whose part after the first paragraph can be folded away."""
        self.__dict__["_text"] = text
        self.setHtml(text)

    def collapsibleText(self) -> str:
        """The text as it was set."""
        return self.__dict__.get("_text", "")


class SearchBox(QLineEdit):
    """A line edit with a magnifying glass."""

    showSearchIcon = stored("showSearchIcon", bool, False)


_CLASSES: dict[str, type] = {
    "ctkCheckBox": type("CheckBox", (QCheckBox,), {}),
    "ctkCheckableComboBox": CheckableComboBox,
    "ctkCollapsibleButton": CollapsibleButton,
    "ctkCollapsibleGroupBox": CollapsibleGroupBox,
    "ctkColorPickerButton": ColorPickerButton,
    "ctkComboBox": ComboBox,
    "ctkDirectoryButton": DirectoryButton,
    "ctkDoubleSlider": DoubleSlider,
    "ctkDoubleSpinBox": DoubleSpinBox,
    "ctkExpandButton": type("ExpandButton", (QToolButton,), {}),
    "ctkFittedTextBrowser": FittedTextBrowser,
    "ctkMenuButton": type("MenuButton", (QPushButton,), {}),
    "ctkMessageBox": type(
        "CtkMessageBox",
        (MessageBox,),
        {
            "dontShowAgain": stored("dontShowAgain", bool, False),
            "dontShowAgainVisible": stored("dontShowAgainVisible", bool, False),
            "dontShowAgainSettingsKey": stored("dontShowAgainSettingsKey", str, ""),
        },
    ),
    "ctkPathLineEdit": PathLineEdit,
    "ctkRangeWidget": RangeWidget,
    "ctkSearchBox": SearchBox,
    "ctkSliderWidget": SliderWidget,
}


def ctk_module() -> types.ModuleType:
    """The module `ctk` of the application, as far as there are stand-ins."""
    module = types.ModuleType("ctk", "Stand-ins for CTK.")
    for name, implementation in _CLASSES.items():
        setattr(module, name, add_widget_class(implementation, f"ctk.{name}"))
    return module
