"""The HTML report of the run: open it in the browser, save it."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from DRAMLesionPanel.telling import telling

if TYPE_CHECKING:
    from DRAMLesionLib.mrml.result import Result


class ReportButtons:
    """Two buttons for the report of the result that findResult gives."""

    def __init__(self, ui: Any, findResult: "Callable[[], Result | None]"):
        self._ui, self._findResult = ui, findResult
        ui.openReportButton.connect("clicked(bool)", self.onOpen)
        ui.saveReportButton.connect("clicked(bool)", self.onSave)

    def update(self, result: "Result | None") -> None:
        """Offer the report if there is one."""
        hasPage = result is not None and bool(result.page)
        reason = _("There is no result yet.") if result is None else _("This result has no report.")
        for button, tip in (
            (self._ui.openReportButton, _("Open the report of the run in the browser.")),
            (self._ui.saveReportButton, _("Save the report of the run as one HTML file.")),
        ):
            button.enabled = hasPage
            button.toolTip = tip if hasPage else reason

    def onOpen(self, _checked: bool = False) -> None:
        from DRAMLesionLib import writing

        with telling(_("The report cannot be opened.")):
            # in a folder of its own, which goes with the other temporary files of the application
            folder = tempfile.mkdtemp(prefix="DRAMLesionReport-", dir=slicer.app.temporaryPath)
            path = Path(folder) / "report.html"
            writing.write_text(self._page(), path)
            if not qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(path))):
                raise OSError(_("No browser could be started for {path}.").format(path=path))

    def onSave(self, _checked: bool = False) -> None:
        from DRAMLesionLib import writing

        path = qt.QFileDialog.getSaveFileName(
            slicer.util.mainWindow(), _("Save report"), "report.html", "HTML (*.html)"
        )
        if path:
            path = path if path.lower().endswith((".html", ".htm")) else f"{path}.html"
            with telling(_("The report was not saved.")):
                writing.write_text(self._page(), path)
                slicer.util.showStatusMessage(_("Saved {path}.").format(path=path), 5000)

    def _page(self) -> str:
        result = self._findResult()
        return result.page if result is not None else ""
