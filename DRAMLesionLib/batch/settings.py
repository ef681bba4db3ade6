"""What a batch does with its scans, and the scans that a folder holds; small enough to be sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from DRAMLesionLib.paths import case_name, image_suffix, mask_name
from DRAMLesionLib.version import __version__

Row = dict[str, Any]
"""A line of the summary: values by column."""

Tell = Callable[[str], object]
"""Called with a line for who watches."""

Progress = Callable[[str, float], None]
"""Called with the title of a scan and the share of the batch that is done, 0 to 1."""

SUMMARY, PAGE, NOTES = "summary.csv", "cohort.html", ".dramlesion.batch"
"""Names in the folder of the results: table, page, and what the runs note for each other."""


@dataclass(frozen=True)
class Settings:
    """What is done with each scan.

    Attributes:
        output: Folder with a folder for each scan.
        weights: Folder with the networks; None for those that come with the library.
        weight_sums: What :func:`~DRAMLesionLib.report.origin.weight_sums` gave where the batch was
            started; other weights elsewhere are refused.
        lobe_scheme: How given masks number the lobes.
        lobe_provider: Who finds the lobes where there is no mask.
        device: Where the networks run.
        maps: Whether the three maps are written as well.
        dicom: How the segmentations of DICOM results are stored; None writes none.
        again: Whether finished scans are done again.
        private: Folders that no reason may name.
        version: Of the library where the batch was started.
    """

    output: Path
    weights: Path | None = None
    weight_sums: Mapping[str, str] = field(default_factory=dict)
    lobe_scheme: str = "auto"
    lobe_provider: str = "embedded"
    device: str = "auto"
    maps: bool = False
    dicom: Literal["binary", "labelmap"] | None = None
    again: bool = False
    private: tuple[Path, ...] = ()
    version: str = __version__

    @property
    def options(self) -> dict[str, Any]:
        """What decides about a result beside scan, lobes, weights and version."""
        options = {
            "lobe_scheme": self.lobe_scheme,
            "lobe_provider": self.lobe_provider,
            "maps": self.maps,
        }
        return {**options, "dicom": self.dicom} if self.dicom else options

    @property
    def decisive(self) -> dict[str, Any]:
        """What all results of a batch have in common."""
        sums = dict(self.weight_sums)
        return {"weights": sums, "options": self.options, "version": self.version}


@dataclass(frozen=True)
class Scan:
    """One scan of a batch.

    Attributes:
        title: What its row is called.
        name: What its folder is called.
        path: File, or folder with a DICOM series.
        lobes: Label map of its lobes, if there is one.
        problem: Why it cannot be done; empty if it can.
    """

    title: str
    name: str
    path: Path
    lobes: Path | None = None
    problem: str = ""


@dataclass(frozen=True)
class Shard:
    """A part of a batch, as the tasks of a job array share it.

    Attributes:
        number: Which part, from 1.
        count: How many there are.
    """

    number: int
    count: int

    def of(self, scans: Sequence[Scan]) -> list[Scan]:
        """Return the scans of this part."""
        return list(scans[self.number - 1 :: self.count])


def find_scans(folder: Path, lobes: Path | None, tell: Tell) -> list[Scan]:
    """Return the scans of a folder in the order of their names, each with its lobes.

    Of two scans of one name neither is right: both get a row, by the names of their files.

    Args:
        folder: With one file or DICOM folder for each scan.
        lobes: Folder with masks that are named as the scans; None if there are none.
        tell: Called with a line for what is left out.
    """
    masks = _by_name(lobes, tell, segmentations=True) if lobes else {}
    return [
        _scan(name, path, paths, masks.get(name, ()))
        for name, paths in _by_name(folder, tell).items()
        for path in paths
    ]


def _scan(name: str, path: Path, same: Sequence[Path], masks: Sequence[Path]) -> Scan:
    problem = ""
    if len(masks) > 1:
        problem = f"{len(masks)} lobe masks are called {name}: rename all but one"
    if len(same) > 1:
        problem = f"{len(same)} scans are called {name}: rename all but one"
    if name.casefold() in (SUMMARY, PAGE):
        problem = f"a scan cannot be called {name}, as a file of the results is: rename it"
    title = name if len(same) == 1 else path.name
    return Scan(title, name, path, masks[0] if masks else None, problem)


def _by_name(folder: Path, tell: Tell, segmentations: bool = False) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and image_suffix(path) == ".seg.nrrd" and not segmentations:
            tell(f"{path.name} is left out: it is a segmentation")
            continue
        name = mask_name(path) if segmentations else case_name(path)
        if name:
            found.setdefault(name, []).append(path)
    return found
