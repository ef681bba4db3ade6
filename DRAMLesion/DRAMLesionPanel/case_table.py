"""The table of the cases in the training folder."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import qt
from slicer.i18n import tr as _

from DRAMLesionPanel.score_table import NOTHING, ROW_HEIGHT

if TYPE_CHECKING:
    from DRAMLesionLib.mrml.training_set import ListedCase

_MOST_ROWS = 10
_PROBLEMS = 5


class CaseTable:
    """Fills a QTableWidget with cases; what is wrong with one is its tool tip, too."""

    def __init__(self, table: qt.QTableWidget):
        self._table = table
        table.objectName = "caseTable"
        table.accessibleName = _("Cases of the training set")
        table.columnCount = _PROBLEMS + 1
        table.setHorizontalHeaderLabels(
            [_("Case"), _("Scores"), _("Edited"), _("Points"), _("Used for"), _("Problems")]
        )
        table.horizontalHeaderItem(1).setToolTip("LUL LLL RUL RML RLL")
        header = table.horizontalHeader()
        for column in range(_PROBLEMS):
            header.setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(_PROBLEMS, qt.QHeaderView.Stretch)
        table.verticalHeader().setVisible(False)
        table.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        table.setEditTriggers(qt.QTableWidget.NoEditTriggers)
        table.setSelectionBehavior(qt.QTableWidget.SelectRows)

    def show(self, cases: "Sequence[ListedCase]", validation: Collection[str]) -> None:
        """Show the cases; validation names those that are kept for it."""
        self._table.visible = bool(cases)
        self._table.rowCount = len(cases)
        for row, case in enumerate(cases):
            told = [*case.problems, *case.notes]
            texts = (
                case.name,
                " ".join(case.scores.values()),
                _("yes") if case.edited else NOTHING,
                NOTHING if case.points is None else str(case.points),
                _("validation") if case.name in validation else _("training"),
                "; ".join(told),
            )
            for column, text in enumerate(texts):
                item = qt.QTableWidgetItem(text)
                item.setToolTip("\n".join(told) or text)
                self._table.setItem(row, column, item)
        header, frame = self._table.horizontalHeader().sizeHint.height(), self._table.frameWidth
        # one row more than there are: room for a scroll bar
        rows = min(len(cases), _MOST_ROWS) + 1
        self._table.setFixedHeight(header + rows * ROW_HEIGHT + 2 * frame)
