"""The results of the other CTs of the same patient, to compare and to go to."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import qt
from slicer.i18n import tr as _

from DRAMLesionPanel.score_table import NOTHING, ROW_HEIGHT

if TYPE_CHECKING:
    from DRAMLesionLib.mrml.result import Result


class StudyList:
    """Lists results, where there are several; onChosen is called with the CT of a row."""

    def __init__(self, label: qt.QLabel, table: qt.QTableWidget, onChosen: Callable[[Any], None]):
        self._label, self._table, self._onChosen = label, table, onChosen
        self._results: list[Result] = []
        table.columnCount = 3
        table.setHorizontalHeaderLabels([_("CT"), _("Lesion %"), _("Score")])
        table.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
        for column in (1, 2):
            table.horizontalHeader().setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
        table.verticalHeader().setVisible(False)
        table.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        table.setSelectionBehavior(qt.QTableWidget.SelectRows)
        table.setEditTriggers(qt.QTableWidget.NoEditTriggers)
        table.connect("cellClicked(int,int)", self._clicked)
        self.show(None)

    def show(self, ct: Any) -> None:
        """List the results beside that of a CT."""
        from DRAMLesionLib.mrml.result import results_beside

        self._results = results_beside(ct) if ct is not None else []
        isShown = len(self._results) > 1
        self._label.visible = self._table.visible = isShown
        self._table.rowCount = len(self._results) if isShown else 0
        if isShown:
            for row, result in enumerate(self._results):
                self._showRow(row, result, result.ct.GetID() == ct.GetID())
            header, frame = self._table.horizontalHeader().sizeHint.height(), self._table.frameWidth
            height = header + min(len(self._results), 6) * ROW_HEIGHT + 2 * frame
            self._table.setFixedHeight(height)

    def _showRow(self, row: int, result: "Result", isChosen: bool) -> None:
        total = next(each for each in result.rows if each.name == "total")
        percent = NOTHING if total.lesion_percent is None else f"{total.lesion_percent:.1f}"
        score = NOTHING if total.score is None else f"{total.score} / {total.max_score}"
        for column, text in enumerate((result.ct.GetName(), percent, score)):
            item = qt.QTableWidgetItem(text)
            if column:
                item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
            font = item.font()
            font.setBold(isChosen)
            item.setFont(font)
            self._table.setItem(row, column, item)

    def _clicked(self, row: int, _column: int) -> None:
        if row < len(self._results) and self._results[row].ct is not None:
            self._onChosen(self._results[row].ct)
