"""The table of lobe scores in the panel, into which the reader types their own."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import qt
from slicer.i18n import tr as _

if TYPE_CHECKING:
    from DRAMLesionLib.mrml.result import Result
    from DRAMLesionLib.report.model import LobeRow

READER_COLUMN = 5
NOTHING = "–"


class ScoreTable:
    """Fills a QTableWidget from a result; onReader is called with lobe and text that was typed."""

    def __init__(self, table: qt.QTableWidget, onReader: Callable[[str, str], None]):
        self._table, self._onReader = table, onReader
        self._filling = False
        table.columnCount = READER_COLUMN + 1
        table.setHorizontalHeaderLabels(
            [_("Lobe"), _("Volume\nml"), _("Lesion\nml"), _("Lesion\n%"), _("Score"), _("Reader")]
        )
        table.horizontalHeader().setSectionResizeMode(qt.QHeaderView.Stretch)
        table.verticalHeader().setVisible(False)
        table.verticalHeader().setDefaultSectionSize(24)  # all rows are seen without scrolling
        table.connect("cellChanged(int,int)", self._changed)
        self._names: list[str] = []

    def clear(self) -> None:
        """Show nothing."""
        self._filling = True
        self._table.rowCount = 0
        self._names = []
        self._filling = False

    def show(self, result: "Result") -> None:
        """Show the rows of a result and the reader's scores."""
        from DRAMLesionLib.mrml.result import reader_total

        rows, reader = result.rows, result.reader_scores
        typed = {lobe.name: score for lobe, score in reader.items()}
        typed["total"] = reader_total(reader)
        self._filling = True
        self._names = [row.name for row in rows]
        self._table.rowCount = len(rows)
        for number, row in enumerate(rows):
            self._showRow(number, row, typed.get(row.name))
        self._filling = False

    def _showRow(self, number: int, row: "LobeRow", reader: int | None) -> None:
        score = NOTHING if row.score is None else f"{row.score} / {row.max_score}"
        texts = [
            row.name,
            _number(row.volume_ml, 0),
            _number(row.lesion_ml, 1),
            _number(row.lesion_percent, 1),
            score,
            "" if reader is None else str(reader),
        ]
        isLobe = row.max_score == 5
        tip = row.full_name if row.status == "assessed" else f"{row.full_name}: {row.status}"
        for column, text in enumerate(texts):
            isReader = column == READER_COLUMN and isLobe
            item = self._item(number, column, isReader)
            item.setText(text)
            item.setToolTip(_("Your own score of this lobe, 0 to 5") if isReader else tip)

    def _item(self, row: int, column: int, editable: bool) -> Any:
        """The item of a cell, made where there is none.

        Items are never replaced: this may happen while one of them is being edited.
        """
        item = self._table.item(row, column)
        if item is None:
            item = qt.QTableWidgetItem("")
            if column:
                item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
            if not editable:
                item.setFlags(item.flags() & ~qt.Qt.ItemIsEditable)
            self._table.setItem(row, column, item)
        return item

    def _changed(self, row: int, column: int) -> None:
        if self._filling or column != READER_COLUMN or row >= len(self._names):
            return
        item: Any = self._table.item(row, column)
        self._onReader(self._names[row], item.text() if item is not None else "")


def _number(value: float | None, decimals: int) -> str:
    return NOTHING if value is None else f"{value:.{decimals}f}"


def scoreLine(rows: "Sequence[LobeRow]") -> str:
    """The total in one line."""
    total = next(row for row in rows if row.name == "total")
    percent = _number(total.lesion_percent, 1)
    score = NOTHING if total.score is None else f"{total.score} / {total.max_score}"
    return _("Lesion {percent} % of the lungs, score {score}").format(percent=percent, score=score)
