"""The table of lobe scores in the panel, into which the reader types their own."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import qt
from slicer.i18n import tr as _

if TYPE_CHECKING:
    from DRAMLesionLib.mrml.result import Result
    from DRAMLesionLib.report.model import LobeRow

PERCENT_COLUMN, SCORE_COLUMN, READER_COLUMN = 3, 4, 5
LOBE_ROWS = 5
ROW_HEIGHT = 24
NOTHING = "–"


class ScoreTable:
    """Fills a QTableWidget from a result.

    onReader is called with lobe and text that was typed, onRow with the name of a row that the user
    has come to.
    """

    def __init__(
        self,
        table: qt.QTableWidget,
        onReader: Callable[[str, str], None],
        onRow: Callable[[str], None],
    ):
        self._table, self._onReader, self._onRow = table, onReader, onRow
        self._filling = False
        self._edited = 0
        table.columnCount = READER_COLUMN + 1
        table.setHorizontalHeaderLabels(
            [_("Lobe"), _("Volume\nml"), _("Lesion\nml"), _("Lesion\n%"), _("Score"), _("Reader")]
        )
        header = table.horizontalHeader()
        for column in range(READER_COLUMN + 1):
            isLong = column in (0, SCORE_COLUMN)
            mode = qt.QHeaderView.ResizeToContents if isLong else qt.QHeaderView.Stretch
            header.setSectionResizeMode(column, mode)
        table.setIconSize(qt.QSize(10, 10))
        table.verticalHeader().setVisible(False)
        table.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        table.setVerticalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
        table.setHorizontalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
        # a cell without an open line edit leaves digits to the shortcuts of the Segment Editor
        table.setEditTriggers(qt.QTableWidget.AllEditTriggers)
        table.connect("cellChanged(int,int)", self._changed)
        table.connect("currentCellChanged(int,int,int,int)", self._currentChanged)
        table.connect("cellClicked(int,int)", self._clicked)
        table.itemDelegate().connect(
            "closeEditor(QWidget*,QAbstractItemDelegate::EndEditHint)", self._editorClosed
        )
        self._names: list[str] = []
        self.clear()

    def _clicked(self, row: int, _column: int) -> None:
        if row < len(self._names):
            self._onRow(self._names[row])

    def _currentChanged(self, row: int, column: int) -> None:
        # Tab has left the cell already when its line edit says that it closes
        if column == READER_COLUMN:
            self._edited = row

    def _editorClosed(self, _editor: qt.QWidget, hint: int) -> None:
        """Enter and Tab lead to the next lobe, Escape out of the table."""
        hints = qt.QStyledItemDelegate
        if hint in (hints.SubmitModelCache, hints.EditNextItem):
            row = (self._edited + 1) % LOBE_ROWS
            self._table.setCurrentCell(row, READER_COLUMN)
            self._clicked(row, READER_COLUMN)
        elif hint == hints.RevertModelCache:
            self._table.setCurrentCell(-1, -1)

    def clear(self) -> None:
        """Show nothing."""
        self._filling = True
        self._table.rowCount = 0
        self._names = []
        self._filling = False
        self._table.visible = False

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
        header, frame = self._table.horizontalHeader().sizeHint.height(), self._table.frameWidth
        self._table.setFixedHeight(header + len(rows) * ROW_HEIGHT + 2 * frame)
        self._table.visible = True

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
            if column == 0 and isLobe:
                item.setIcon(_square(lobeColour(row.name)))
            if isReader:
                item.setToolTip(_("Your own score of this lobe, 0 to 5"))
            elif column in (PERCENT_COLUMN, SCORE_COLUMN) and row.lesion_percent_low is not None:
                item.setToolTip(_interval(row))
            else:
                item.setToolTip(tip)

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


def lobeColour(name: str) -> tuple[int, int, int]:
    """The colour that a lobe has in the views and in the chart: red, green, blue, 0 to 255."""
    from DRAMLesionLib.lobes import Lobe
    from DRAMLesionLib.mrml.segments import LOBE_COLOURS

    return LOBE_COLOURS[Lobe[name]]


def _square(colour: tuple[int, int, int]) -> qt.QIcon:
    picture = qt.QPixmap(10, 10)
    picture.fill(qt.QColor(*colour))
    return qt.QIcon(picture)


def _interval(row: "LobeRow") -> str:
    """How sure the percentage of a lobe is, and the scores that it may be."""
    return _(
        "{lobe}: {low} to {high} %, score {scores}; nine lobes of phantoms in ten lie in such an "
        "interval"
    ).format(
        lobe=row.full_name,
        low=_number(row.lesion_percent_low, 1),
        high=_number(row.lesion_percent_high, 1),
        scores=row.scores,
    )


def _number(value: float | None, decimals: int) -> str:
    return NOTHING if value is None else f"{value:.{decimals}f}"


def scoreLine(rows: "Sequence[LobeRow]") -> str:
    """The total in one line."""
    total = next(row for row in rows if row.name == "total")
    percent = _number(total.lesion_percent, 1)
    score = NOTHING if total.score is None else f"{total.score} / {total.max_score}"
    return _("Lesion {percent} % of the lungs, score {score}").format(percent=percent, score=score)
