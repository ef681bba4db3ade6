"""Figures of an evaluation, as PNG: readable in print and by the colour-blind.

Okabe and Ito's colours, and beside them line styles, markers and numbers, so that nothing hangs on
colour alone.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from Training.evaluation.measure import CaseResult, Picture
from Training.metrics import ProbabilityHistogram, bland_altman

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
STYLES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_BAR_COLOURS = tuple(c for c in COLOURS if c != "#000000")
_HATCHES = ("", "///", "...", "xxx")
TRUTH, FOUND = "#E69F00", "#56B4E9"

_WITH_LEGEND = (4.6, 4.6)
_SETTINGS: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
}


def precision_recall(histograms: Mapping[str, ProbabilityHistogram]) -> bytes:
    """Draw precision over recall of each method's map, with the area in the legend."""
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=_WITH_LEGEND, layout="constrained")
        axes = figure.subplots()
        for n, (name, histogram) in enumerate(histograms.items()):
            precision, recall = histogram.precision_recall()
            label = f"{name} ({histogram.average_precision():.3f})"
            axes.plot(recall, precision, _style(n), color=COLOURS[n % 8], label=label)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
        figure.legend(
            title="method (area)", fontsize=7, title_fontsize=7, ncols=2, loc="outside lower center"
        )
        return _png(figure)


def calibration(histograms: Mapping[str, ProbabilityHistogram]) -> bytes:
    """Draw the share of lesion over the probability, in ten groups of equal width."""
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=_WITH_LEGEND, layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, label="perfect")
        for n, (name, histogram) in enumerate(histograms.items()):
            mean, share, voxels = histogram.calibration()
            some = voxels > 0
            label = f"{name} (error {histogram.calibration_error():.3f})"
            line = f"{MARKERS[n % 8]}{_style(n)}"
            axes.plot(mean[some], share[some], line, color=COLOURS[n % 8], label=label, ms=4)
        axes.set(xlabel="probability", ylabel="share of lesion", xlim=(0, 1), ylim=(0, 1.02))
        figure.legend(fontsize=7, ncols=2, loc="outside lower center")
        return _png(figure)


def _style(number: int) -> str:
    """Return the line of a method; where the colours begin anew, it is another than before."""
    return STYLES[(number + number // len(COLOURS)) % len(STYLES)]


def score_matrix(matrix: np.ndarray, title: str) -> bytes:
    """Draw a confusion matrix of scores, (true, predicted)."""
    with mpl.rc_context(_SETTINGS | {"axes.grid": False}):
        figure = Figure(figsize=(4.6, 4.2), layout="constrained")
        axes = figure.subplots()
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for true in range(matrix.shape[0]):
            for predicted in range(matrix.shape[1]):
                colour = "white" if shares[true, predicted] > 0.6 else "black"
                text = str(int(matrix[true, predicted]))
                axes.text(predicted, true, text, ha="center", va="center", color=colour)
        axes.set(xlabel="score found", ylabel="true score", title=title)
        return _png(figure)


def bland_altman_plot(measured: Sequence[float], true: Sequence[float]) -> bytes:
    """Draw the difference of lesion % of the lobes over its mean."""
    found, wanted = np.asarray(measured), np.asarray(true)
    limits = bland_altman(measured, true)
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(4.6, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.plot((found + wanted) / 2, found - wanted, "o", color=COLOURS[0], ms=3, alpha=0.6)
        for value, style, name in (
            (limits.bias, "-", "bias"),
            (limits.low, "--", "−1.96 SD"),
            (limits.high, "--", "+1.96 SD"),
        ):
            if np.isfinite(value):
                axes.axhline(value, color="black", linestyle=style, linewidth=1)
                text = f"{name} {value:.1f}".replace("-", "−")
                axes.annotate(
                    text, (1, value), xycoords=("axes fraction", "data"),
                    ha="right", va="bottom", fontsize=7,
                )  # fmt: skip
        axes.set(xlabel="mean of found and true (%)", ylabel="found − true (% points)")
        return _png(figure)


def outlines(picture: Picture) -> bytes:
    """Draw a slice with the outlines of truth (solid) and what was found (dashed)."""
    with mpl.rc_context({"font.size": 8}):
        height, width = picture.grey.shape
        tall = 3.0 * height * picture.pixel_mm[0] / (width * picture.pixel_mm[1])
        figure = Figure(figsize=(3.0, tall))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.imshow(picture.grey, cmap="gray", vmin=0, vmax=255, aspect="auto")
        for mask, colour, style in ((picture.truth, TRUTH, "-"), (picture.found, FOUND, "--")):
            if mask.any() and not mask.all():
                axes.contour(mask, levels=[0.5], colors=[colour], linestyles=[style], linewidths=1)
        axes.set_axis_off()
        return _png(figure)


def run_times(results: Mapping[str, Sequence[CaseResult]]) -> bytes:
    """Draw the mean seconds a scan of each stage, stacked; rows of one run have one bar."""
    bars: dict[tuple[tuple[str, float], ...], str] = {}
    for name, cases in results.items():
        stages = [s for s in cases[0].seconds if s != "total"] or ["total"]
        means = tuple((s, float(np.mean([case.seconds[s] for case in cases]))) for s in stages)
        # rows of one method have its time in common; the last one is its result
        bars.pop(means, None)
        bars[means] = name
    names = list(dict.fromkeys(stage for means in bars for stage, seconds in means if seconds > 0))
    with mpl.rc_context(_SETTINGS | {"axes.grid": False}):
        figure = Figure(figsize=(4.6, 1.4 + 0.35 * len(bars)), layout="constrained")
        axes = figure.subplots()
        for stage in names:
            number = names.index(stage)
            lengths = [dict(means).get(stage, 0.0) for means in bars]
            lefts = [_before(means, stage) for means in bars]
            axes.barh(
                list(bars.values()), lengths, left=lefts, label=stage, edgecolor="white",
                color=_BAR_COLOURS[number % 7], hatch=_HATCHES[number % 4], height=0.6,
            )  # fmt: skip
        axes.invert_yaxis()
        axes.set(xlabel="seconds a scan")
        figure.legend(fontsize=7, ncols=4, loc="outside lower center")
        return _png(figure)


def _before(means: Sequence[tuple[str, float]], stage: str) -> float:
    """Return the seconds before a stage."""
    names = [name for name, _ in means]
    until = names.index(stage) if stage in names else 0
    return sum(seconds for _, seconds in means[:until])


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()
