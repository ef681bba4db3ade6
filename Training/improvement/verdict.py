"""What 'better' means when weights were improved on a reader's cases: said here, and nowhere else.

Measured is on the cases that are kept for validation (:mod:`Training.improvement.split`), each
network for itself, with three figures:

``dice``
    Mean Dice coefficient of the found lesions with the pseudo-label that the reader corrected, over
    the cases that have one. The regression network marks no voxels and has none.
``in_interval``
    How many of the scored lobes get the reader's score: their lesion share lies in its interval.
``clear_percent``
    Lesion share in % of the lobes that the reader scored 0, on average.

A network is **better** if none of its figures is worse and at least one is better. Dice and
``clear_percent`` count as changed beyond a tolerance, :data:`DICE_TOLERANCE` and
:data:`CLEAR_TOLERANCE`; ``in_interval`` with the first lobe. What cannot be measured, since no case
has such a label or such a lobe, takes no part; where nothing can be measured, nothing is better.

The weights are better if the segmentation or the regression is; the network that is not better is
taken over as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from DRAMLesionLib.lesions.severity import fraction_to_score

DICE_TOLERANCE = 0.01
"""A Dice coefficient that changes by less is the same."""

CLEAR_TOLERANCE = 0.1
"""A lesion share of healthy lobes, in %, that changes by less is the same."""


@dataclass(frozen=True)
class LobeFigures:
    """A lobe that the reader scored.

    Attributes:
        score: The reader's, 0 to 5.
        share: Of it that is lesion to the network, 0 to 1.
    """

    score: int
    share: float

    @property
    def in_interval(self) -> bool:
        """Whether the share gets the reader's score."""
        return fraction_to_score(min(max(self.share, 0.0), 1.0)) == self.score


@dataclass(frozen=True)
class CaseFigures:
    """What a network makes of a case.

    Attributes:
        lobes: The scored ones, by name.
        dice: With the corrected pseudo-label; None if the case has none.
    """

    lobes: Mapping[str, LobeFigures]
    dice: float | None = None


@dataclass(frozen=True)
class Figures:
    """What a network makes of all validation cases; see the module.

    Attributes:
        dice: None where no case has a corrected label.
        dice_cases: How many have one.
        in_interval: Number of lobes.
        scored: Of so many.
        clear_percent: None where no lobe has score 0.
        clear_lobes: How many have.
    """

    dice: float | None
    dice_cases: int
    in_interval: int
    scored: int
    clear_percent: float | None
    clear_lobes: int


@dataclass(frozen=True)
class NetworkVerdict:
    """A network before and after.

    Attributes:
        trained: Whether it was trained at all.
        before: With the weights that it started from.
        after: With the new ones.
        better: Whether the new ones are taken.
    """

    trained: bool
    before: Figures
    after: Figures
    better: bool


@dataclass(frozen=True)
class CaseVerdict:
    """A validation case before and after, by the segmentation network.

    Attributes:
        case: Its name.
        before: With the weights that it started from.
        after: With the new ones.
        picture: File beside the verdict: the slice with most lesion before and after.
    """

    case: str
    before: Figures
    after: Figures
    picture: str


@dataclass(frozen=True)
class Verdict:
    """The outcome of an improvement, as ``verdict.json`` holds it.

    Attributes:
        better: Whether there are new weights.
        weights: Their folder beside that of the verdict; None if there are none.
        start: Name of the weights that it started from.
        made_from: Checksum of all that the outcome hangs on.
        training: Cases that were trained on.
        validation: Cases that were measured.
        edited: How many of those trained on have a corrected pseudo-label.
        networks: By name.
        cases: The validation cases.
        notes: What the user has to know.
    """

    better: bool
    weights: str | None
    start: str
    made_from: str
    training: list[str]
    validation: list[str]
    edited: int
    networks: dict[str, NetworkVerdict]
    cases: list[CaseVerdict]
    notes: list[str] = field(default_factory=list)


def summarise(cases: Iterable[CaseFigures]) -> Figures:
    """Return the figures of some cases together."""
    cases = list(cases)
    lobes = [lobe for case in cases for lobe in case.lobes.values()]
    clear = [100.0 * lobe.share for lobe in lobes if lobe.score == 0]
    dice = [case.dice for case in cases if case.dice is not None]
    return Figures(
        dice=_mean(dice),
        dice_cases=len(dice),
        in_interval=sum(lobe.in_interval for lobe in lobes),
        scored=len(lobes),
        clear_percent=_mean(clear),
        clear_lobes=len(clear),
    )


def compare(before: Figures, after: Figures, trained: bool = True) -> NetworkVerdict:
    """Return the verdict on a network."""
    return NetworkVerdict(trained, before, after, trained and is_better(before, after))


def is_better(before: Figures, after: Figures) -> bool:
    """Tell whether a network has become better, see the module.

    Args:
        before: Of the validation cases, with the weights that it started from.
        after: Of the same cases, with the new ones.
    """
    changes = [_change(after.in_interval - before.in_interval, 0.0)]
    if before.dice is not None and after.dice is not None:
        changes.append(_change(after.dice - before.dice, DICE_TOLERANCE))
    if before.clear_percent is not None and after.clear_percent is not None:
        changes.append(_change(before.clear_percent - after.clear_percent, CLEAR_TOLERANCE))
    return min(changes) >= 0 and max(changes) > 0


def _change(gain: float, tolerance: float) -> int:
    """Return 1 for better, -1 for worse, 0 for the same."""
    return 0 if abs(gain) <= tolerance else 1 if gain > 0 else -1


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
