"""Dialogs that a test answers in advance instead of waiting for a user."""

# ruff: noqa: N802  (the application's own names)

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from PySide6.QtWidgets import QApplication, QFileDialog, QMessageBox, QWidget


class UnexpectedDialogError(RuntimeError):
    """The module asked something for which the test had prepared no answer."""


@dataclass
class Message:
    """A message box that was shown."""

    text: str
    title: str
    icon: str
    buttons: list[str]
    details: str
    answer: str = ""


@dataclass
class Dialogs:
    """Answers to come, and what was shown.

    `answers` holds pairs (part of the text, button): the first pair whose part is in the text is
    used up; a box with one button answers itself. `paths` holds what file dialogs return in turn.
    """

    answers: list[tuple[str, str]] = field(default_factory=list)
    paths: list[Any] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)

    def clear(self) -> None:
        """Forget everything."""
        self.answers.clear()
        self.paths.clear()
        self.messages.clear()

    def answer(self, message: Message) -> str:
        """The button for a box.

        Raises:
            UnexpectedDialogError: if no answer was prepared and there is a choice.
        """
        self.messages.append(message)
        for number, (part, button) in enumerate(self.answers):
            if part in message.text:
                if button not in message.buttons:
                    text = f"'{button}' is no button of '{message.text}': {message.buttons}"
                    raise UnexpectedDialogError(text)
                del self.answers[number]
                message.answer = button
                return button
        if len(message.buttons) > 1:
            text = f"no answer prepared for '{message.text}' {message.buttons}"
            raise UnexpectedDialogError(text)
        message.answer = message.buttons[0] if message.buttons else ""
        return message.answer

    def path(self, default: Any) -> Any:
        """What the next file dialog returns; cancelled where nothing was prepared."""
        return self.paths.pop(0) if self.paths else default


dialogs = Dialogs()


class MessageBox(QMessageBox):
    """`ctk.ctkMessageBox` and `qt.QMessageBox`: answered by the test."""

    def exec(self) -> int:
        """Record the box, and act as if the prepared button had been clicked."""
        hides_details = bool(self.detailedText())
        names = {
            self._name(button): button
            for button in self.buttons()
            if not (hides_details and "Details" in button.text())
        }
        message = Message(
            text=self.text(),
            title=self.windowTitle().strip(),
            icon=self.icon().name,
            buttons=list(names) or ["Ok"],
            details=self.detailedText(),
        )
        # a modal dialog runs an event loop of its own: what is due happens while it is open
        QApplication.processEvents()
        answer = dialogs.answer(message)
        if answer not in names:
            return int(QMessageBox.StandardButton.Ok.value)
        self._clicked = names[answer]
        standard = self.standardButton(self._clicked)
        if standard == QMessageBox.StandardButton.NoButton:
            return self.buttons().index(self._clicked)
        return int(standard.value)

    def clickedButton(self) -> Any:
        """The button of the answer."""
        return getattr(self, "_clicked", None)

    def _name(self, button: Any) -> str:
        standard = self.standardButton(button)
        if standard == QMessageBox.StandardButton.NoButton:
            return button.text().replace("&", "")
        return standard.name

    @classmethod
    def _ask(cls, icon: QMessageBox.Icon, parent: QWidget | None, *rest: Any) -> Any:
        title, text, *buttons = rest
        box = cls(parent)
        box.setIcon(icon)
        box.setWindowTitle(title)
        box.setText(text)
        box.setStandardButtons(buttons[0] if buttons else QMessageBox.StandardButton.Ok)
        return QMessageBox.StandardButton(box.exec())

    @classmethod
    def question(cls, parent: QWidget | None, *rest: Any) -> Any:
        """Yes or No, unless buttons are given."""
        if len(rest) == 2:
            yes_no = QMessageBox.StandardButton.Yes | QMessageBox.StandardButton.No
            rest = (*rest, yes_no)
        return cls._ask(QMessageBox.Icon.Question, parent, *rest)

    @classmethod
    def information(cls, parent: QWidget | None, *rest: Any) -> Any:
        """A message."""
        return cls._ask(QMessageBox.Icon.Information, parent, *rest)

    @classmethod
    def warning(cls, parent: QWidget | None, *rest: Any) -> Any:
        """A warning."""
        return cls._ask(QMessageBox.Icon.Warning, parent, *rest)

    @classmethod
    def critical(cls, parent: QWidget | None, *rest: Any) -> Any:
        """An error."""
        return cls._ask(QMessageBox.Icon.Critical, parent, *rest)


class FileDialog(QFileDialog):
    """`qt.QFileDialog`: the static functions return what the test prepared, as PythonQt does."""

    @staticmethod
    def getExistingDirectory(*_arguments: Any) -> str:
        """A folder, '' for cancelled."""
        return str(dialogs.path(""))

    @staticmethod
    def getOpenFileName(*_arguments: Any) -> str:
        """A file, '' for cancelled: PythonQt does not return the filter."""
        return str(dialogs.path(""))

    @staticmethod
    def getSaveFileName(*_arguments: Any) -> str:
        """A file, '' for cancelled."""
        return str(dialogs.path(""))

    @staticmethod
    def getOpenFileNames(*_arguments: Any) -> list[str]:
        """Files, none for cancelled."""
        return [str(path) for path in dialogs.path([])]
