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

from Training.evaluation import CaseResult, Picture
from Training.metrics import ProbabilityHistogram, bland_altman

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
STYLES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
TRUTH, FOUND = "#E69F00", "#56B4E9"

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
        figure = Figure(figsize=(4.6, 3.8), layout="constrained")
        axes = figure.subplots()
        for n, (name, histogram) in enumerate(histograms.items()):
            precision, recall = histogram.precision_recall()
            label = f"{name} ({histogram.average_precision():.3f})"
            axes.plot(recall, precision, STYLES[n % 4], color=COLOURS[n % 8], label=label)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(title="method (area)", fontsize=7, title_fontsize=7)
        return _png(figure)


def calibration(histograms: Mapping[str, ProbabilityHistogram]) -> bytes:
    """Draw the share of lesion over the probability, in ten groups of equal width."""
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(4.6, 3.8), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, label="perfect")
        for n, (name, histogram) in enumerate(histograms.items()):
            mean, share, voxels = histogram.calibration()
            some = voxels > 0
            label = f"{name} (error {histogram.calibration_error():.3f})"
            line = f"{MARKERS[n % 8]}{STYLES[n % 4]}"
            axes.plot(mean[some], share[some], line, color=COLOURS[n % 8], label=label, ms=4)
        axes.set(xlabel="probability", ylabel="share of lesion", xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(fontsize=7)
        return _png(figure)


def score_matrix(matrix: np.ndarray, title: str) -> bytes:
    """Draw a confusion matrix of scores, (true, predicted)."""
    with mpl.rc_context(_SETTINGS | {"axes.grid": False}):
        figure = Figure(figsize=(3.8, 3.4), layout="constrained")
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
                axes.annotate(
                    f"{name} {value:.1f}", (1, value), xycoords=("axes fraction", "data"),
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
    """Draw the mean seconds a scan of each stage, stacked for each method."""
    with mpl.rc_context(_SETTINGS | {"axes.grid": False}):
        figure = Figure(figsize=(5.2, 1.2 + 0.35 * len(results)), layout="constrained")
        axes = figure.subplots()
        stages: dict[str, int] = {}
        for row, (name, cases) in enumerate(results.items()):
            left = 0.0
            for stage in [s for s in cases[0].seconds if s != "total"] or ["total"]:
                number = stages.setdefault(stage, len(stages))
                seconds = float(np.mean([case.seconds[stage] for case in cases]))
                label = stage if row == 0 or number == len(stages) - 1 else None
                axes.barh(
                    name, seconds, left=left, color=COLOURS[number % 8], edgecolor="white",
                    hatch="/" if number >= 4 else None, label=label,
                )  # fmt: skip
                left += seconds
        axes.invert_yaxis()
        axes.set(xlabel="seconds a scan")
        handles, labels = axes.get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        figure.legend(
            unique.values(), unique.keys(), fontsize=7, ncols=4, loc="outside lower center"
        )
        return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()
