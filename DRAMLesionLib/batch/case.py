"""One scan of a batch: a scan and settings in, a row out, the results whole or not at all."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from DRAMLesionLib import writing
from DRAMLesionLib.batch.settings import Row, Scan, Settings
from DRAMLesionLib.batch.summary import done_row, failed_row
from DRAMLesionLib.errors import InputError
from DRAMLesionLib.memory import told
from DRAMLesionLib.version import __version__

if TYPE_CHECKING:
    from DRAMLesionLib.pipeline import LesionPipeline

_WRITING_S = 600.0
"""How long another process may take to write the same results."""

_PATH = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?(?:[\\/][^\\/\s:]+)*[\\/]([^\\/\s:]+)")

_loaded: dict[tuple[object, ...], LesionPipeline] = {}
"""The networks of this process: loaded at its first scan and kept for the others."""


def do_case(scan: Scan, settings: Settings) -> Row:
    """Do one scan, unless its results are there already.

    They are if they were made from the same scan, lobes, weights, options and version. Where two
    processes do the same scan at once, one of them writes.

    Args:
        scan: What to do.
        settings: What to do with it.

    Returns:
        Its row; whatever is wrong with the scan is the reason in a failed one.
    """
    if scan.problem:
        return failed_row(scan, scan.problem)
    try:
        _do(scan, settings)
        return done_row(scan, settings.output / scan.name)
    except Exception as error:  # whatever is wrong with one scan, the others go on
        # the table is passed on: errors of the library have a form that names nobody
        text = getattr(error, "stored", "") or told(error) or f"{type(error).__name__}: {error}"
        return failed_row(scan, without_folders(" ".join(text.split()), settings))


def without_folders(reason: str, settings: Settings) -> str:
    """Return a reason in which nothing but the last part is left of a path: folders carry names."""
    roots = [*settings.private, settings.output, Path.home(), Path(tempfile.gettempdir())]
    for root in sorted({str(p) for r in roots for p in (r, r.absolute())}, key=len)[::-1]:
        if len(root) > 1:
            reason = reason.replace(f"{root}{os.sep}", "").replace(root, Path(root).name)
    return _PATH.sub(r"\1", reason)


def _do(scan: Scan, settings: Settings) -> None:
    from DRAMLesionLib.interchange.write import dicom_writer
    from DRAMLesionLib.lobes import masks
    from DRAMLesionLib.reading import files
    from DRAMLesionLib.report import origin, output

    folder = settings.output / scan.name
    made = _origin(scan, settings)
    if not settings.again and origin.is_made_from(folder, made):
        return
    output.check_output(folder)
    image, warnings = files.read_ct(scan.path)
    output.check_output(
        folder, image.GetNumberOfPixels(), settings.maps, settings.dicom is not None
    )
    to_dicom = dicom_writer(scan.path, image, settings.dicom) if settings.dicom else None
    lobes, names = masks.read_lobes(scan.lobes) if scan.lobes else (None, None)
    result = _pipeline(settings).run(
        image, lobes, lobe_scheme=settings.lobe_scheme, lobe_names=names, warnings=warnings
    )
    with writing.locked(folder, wait_s=_WRITING_S):
        # another process may have been quicker
        if settings.again or not origin.is_made_from(folder, made):
            output.write_result(
                result,
                folder,
                settings.maps,
                origin=made,
                others=to_dicom and (lambda part: to_dicom(result, part)),
            )


def _origin(scan: Scan, settings: Settings) -> dict[str, Any]:
    """Return what the result will be made from.

    Raises:
        InputError: If library or weights are others than where the batch was started.
    """
    from DRAMLesionLib.report import origin
    from DRAMLesionLib.weights import BUNDLED

    made = origin.origin_of(scan.path, scan.lobes, settings.weights or BUNDLED, settings.options)
    different = [name for name, value in settings.decisive.items() if made[name] != value]
    if different:
        message = (
            f"the {different[0]} of DRAMLesion ({__version__}) on this computer differ from where "
            f"the batch was started ({settings.version}): install the same on all of them"
        )
        raise InputError(message)
    return made


def _pipeline(settings: Settings) -> LesionPipeline:
    from DRAMLesionLib.pipeline import LesionPipeline
    from DRAMLesionLib.weights import BUNDLED

    sums = tuple(sorted(settings.weight_sums.items()))
    key = (settings.device, settings.weights, settings.lobe_provider, sums)
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = LesionPipeline(
            settings.device, settings.weights or BUNDLED, settings.lobe_provider
        )
    return _loaded[key]
