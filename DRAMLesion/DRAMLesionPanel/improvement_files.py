"""What an improvement of weights leaves in its folder, as the panel reads it.

`python -m Training improve` writes it, see `Training/improvement`: the panel knows the files alone.
"""

from dataclasses import dataclass, field
from pathlib import Path

IMPROVEMENT = "improvement"
"""Folder of the improvement in the training set."""

_RESULT, _VERDICT = "result", "verdict.json"
_UNFINISHED, _SPLIT = "unfinished.json", "split.json"


@dataclass(frozen=True)
class Figures:
    """What a network makes of validation cases; None for what cannot be measured."""

    dice: float | None
    dice_cases: int
    in_interval: int
    scored: int
    clear_percent: float | None
    clear_lobes: int


@dataclass(frozen=True)
class Network:
    """A network before and after; better says whether the new one is taken."""

    trained: bool
    before: Figures
    after: Figures
    better: bool


@dataclass(frozen=True)
class Case:
    """A validation case before and after, and the file of its picture."""

    case: str
    before: Figures
    after: Figures
    picture: str


@dataclass(frozen=True)
class Verdict:
    """The outcome.

    better: whether there are new weights.
    weights: their folder beside that of the verdict.
    start: name of the weights that it started from.
    """

    better: bool
    weights: str | None
    start: str
    training: list[str]
    validation: list[str]
    edited: int
    networks: dict[str, Network]
    cases: list[Case]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Unfinished:
    """An improvement that was stopped; weights is the folder that it started from."""

    weights: str


@dataclass(frozen=True)
class Split:
    """On which side each case is."""

    validation: list[str]
    training: list[str]


class ImprovementFiles:
    """The files of the improvement of a training set.

    The methods raise InputError if a file is damaged; what is not there is None or empty.
    """

    def __init__(self, data: str):
        self.data = Path(data)
        self.folder = self.data / IMPROVEMENT

    def verdict(self) -> Verdict | None:
        """The last outcome."""
        from DRAMLesionLib.typed import read_json

        path = self.folder / _RESULT / _VERDICT
        return read_json(path, Verdict, others=True) if path.is_file() else None

    def picture(self, case: Case) -> Path | None:
        """The picture of a case."""
        path = self.folder / _RESULT / Path(case.picture).name
        return path if path.is_file() else None

    def weights(self, verdict: Verdict) -> Path | None:
        """The new weights, if there are better ones and they are still there."""
        if not verdict.better or verdict.weights is None:
            return None
        folder = self.folder / Path(verdict.weights).name
        return folder if folder.is_dir() else None

    def unfinished(self) -> Unfinished | None:
        """The improvement that was stopped."""
        from DRAMLesionLib.typed import read_json

        path = self.folder / _UNFINISHED
        return read_json(path, Unfinished, others=True) if path.is_file() else None

    def split(self) -> Split:
        """Which cases are kept for validation."""
        from DRAMLesionLib.typed import read_json

        path = self.data / _SPLIT
        return read_json(path, Split, others=True) if path.is_file() else Split([], [])

    def hasCurves(self) -> bool:
        """Whether there is something to see in TensorBoard."""
        return any(self.folder.glob("*/tensorboard"))
