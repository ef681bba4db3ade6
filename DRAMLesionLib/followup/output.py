"""The files that a comparison leaves: all of them, or none."""

from __future__ import annotations

from pathlib import Path

from DRAMLesionLib import writing
from DRAMLesionLib.errors import OutputError
from DRAMLesionLib.followup import data, page
from DRAMLesionLib.followup.model import Comparison, Timepoint
from DRAMLesionLib.followup.registration import Registration
from DRAMLesionLib.report import output as report_output

MARKER = "comparison.json"
"""The file that says that a comparison is complete."""

FILES = ("lobes.csv", "lesions.csv", "comparison.html", MARKER)

_BYTES = 2e7


def write_comparison(
    comparison: Comparison,
    earlier: Timepoint,
    later: Timepoint,
    found: Registration,
    folder: Path,
) -> list[Path]:
    """Write page, tables and JSON of a comparison, ``comparison.json`` as the last.

    Returns:
        The paths that were written.

    Raises:
        OutputError: If the folder cannot be written to. What was there before is there again.
    """
    shots = page.pairs(comparison, earlier, later, found)
    with writing.whole_results(folder, MARKER) as part:
        writing.write_text(data.lobes_csv(comparison), part / "lobes.csv")
        writing.write_text(data.lesions_csv(comparison), part / "lesions.csv")
        writing.write_text(page.to_html(comparison, shots), part / "comparison.html")
        writing.write_json(data.to_json(comparison), part / MARKER)
    return [folder / name for name in FILES]


def check_output(folder: Path) -> None:
    """Find out before the computing begins that :func:`write_comparison` could not write.

    Raises:
        OutputError: If the folder cannot be made or written to, or holds the results of one CT,
            whose table of the lobes would be lost.
    """
    if (folder / report_output.MARKER).exists():
        message = (
            f"cannot write a comparison to {folder}: it holds the results of one CT, whose "
            "lobes.csv would be replaced; choose another folder"
        )
        raise OutputError(message)
    writing.check_writable(folder, _BYTES)
    for name in FILES:
        if (folder / name).is_dir():
            message = (
                f"cannot write to {folder / name}: a folder stands where a file should be; choose "
                "another place"
            )
            raise OutputError(message)
