"""What a reader's clicks are worth, beside scikit-image's random walker on the same clicks.

    python -m Training.evaluation.clicks --output clicks.json --count 20
    python -m Training.evaluation.clicks --output clicks.json --data SET/test

A simulated reader clicks into the worst error of the pseudo-label (refined dRAM above its
threshold) or of the final network's lesions, sees what follows, and clicks again. The peer gets
the same clicks: its walkers start from them and from what the network says farther than
``PEER_FREE_MM`` from every click, in the lobes with clicks; elsewhere the network's answer stays.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from skimage.segmentation import random_walker

from DRAMLesionLib.images import geometry
from DRAMLesionLib.images.boxes import bounding_box
from DRAMLesionLib.lesions.clicks import Click, ScanClicks, by_lobe
from DRAMLesionLib.pipeline import LesionPipeline
from DRAMLesionLib.weights import BUNDLED
from DRAMLesionLib.writing import write_text
from Training import metrics
from Training.evaluation.measure import FIRST_TEST_SEED
from Training.evaluation.simulated_reader import worst_error
from Training.evaluation.sources import PhantomSource, Source, find_sources
from Training.learning.results import plain
from Training.learning.workers import in_workers

CLICKS = (1, 3, 10)
"""After so many clicks the figures are taken."""

PEER_FREE_MM = 20.0
PEER_BALL_MM = 3.0

STARTS = ("pseudo-label", "final network")


@dataclass(frozen=True)
class Scan:
    """A scan with truth and what the networks say, all (k, j, i) on one grid, cut to the lobes.

    Attributes:
        hu: HU.
        lobes: Labels.
        vessels: bool.
        truth: bool, inside the lobes.
        maps: The map of each of :data:`STARTS`; lesion is what lies above 0.5.
        spacing: Millimetres along (k, j, i).
    """

    hu: np.ndarray
    lobes: np.ndarray
    vessels: np.ndarray
    truth: np.ndarray
    maps: dict[str, np.ndarray]
    spacing: tuple[float, float, float]


@dataclass(frozen=True)
class Session:
    """Dice before the first click and after each, ours and the peer's.

    Attributes:
        name: Of the scan.
        start: One of :data:`STARTS`.
        dice: With clicks 0, 1, 2, …
        peer: The same for the random walker, at 0 and :data:`CLICKS`.
        obeyed: Whether every click lay on its side afterwards.
        elsewhere: Largest share of a lobe without clicks that changed.
        seconds: Of each correction; the peer's.
    """

    name: str
    start: str
    dice: list[float]
    peer: dict[int, float]
    obeyed: bool
    elsewhere: float
    seconds: list[float] = field(default_factory=list)
    peer_seconds: list[float] = field(default_factory=list)


def load(source: Source, weights: Path = BUNDLED) -> Scan:
    """Make or read a scan and let the networks answer, with its true lobes."""
    scan = source.load()
    pipeline = LesionPipeline(device="cpu", weights_folder=weights)
    result = pipeline.run(scan.ct, scan.lobes, lobe_scheme="dram")
    inside = geometry.array(result.lobes) > 0
    box = bounding_box(inside)
    lesions = geometry.array(result.lesions)[box] > 0
    share = geometry.array(result.lesion_probability)[box]
    refined = geometry.array(result.dram_refined)[box]
    threshold = pipeline.dram_config.threshold
    i, j, k = scan.ct.GetSpacing()
    return Scan(
        geometry.array(scan.ct)[box],
        geometry.array(result.lobes)[box],
        geometry.array(result.vessels)[box] > 0,
        (geometry.array(scan.lesions)[box] > 0) & inside[box],
        {
            # the levels of both answers at 0.5: what is lesion, is so to the clicks
            "pseudo-label": _on_side(refined, refined > threshold),
            "final network": _on_side(share, lesions),
        },
        (k, j, i),
    )


def _on_side(values: np.ndarray, lesion: np.ndarray) -> np.ndarray:
    """Return a map that is above 0.5 just where there is lesion."""
    return np.where(lesion, np.maximum(values, 0.51), np.minimum(values, 0.49)).astype(np.float32)


def session(name: str, scan: Scan, start: str, clicks: int, with_peer: bool = True) -> Session:
    """Let the reader click, and measure."""
    inside = scan.lobes > 0
    before = scan.maps[start]
    found = (before > 0.5) & inside
    ready = ScanClicks(scan.hu, before, scan.lobes, scan.vessels, scan.spacing)
    dice = [metrics.dice(found, scan.truth)]
    peer = {0: dice[0]}
    made: list[Click] = []
    seconds, peer_seconds = [], []
    obeyed, elsewhere = True, 0.0
    for number in range(1, clicks + 1):
        click = worst_error(found, scan.truth, scan.spacing)
        if click is not None:
            made.append(click)
            begun = time.perf_counter()
            corrected, _ = ready.correct(made)
            seconds.append(time.perf_counter() - begun)
            found = (corrected > 0.5) & inside
            obeyed &= all(found[one.voxel] == one.lesion for one in made)
            elsewhere = max(elsewhere, _changed_elsewhere(scan, before, found, made))
        dice.append(metrics.dice(found, scan.truth))
        if with_peer and number in CLICKS and made:
            begun = time.perf_counter()
            peer[number] = metrics.dice(walk(scan, before > 0.5, made), scan.truth)
            peer_seconds.append(time.perf_counter() - begun)
    return Session(name, start, dice, peer, obeyed, elsewhere, seconds, peer_seconds)


def _changed_elsewhere(
    scan: Scan, before: np.ndarray, found: np.ndarray, clicks: Sequence[Click]
) -> float:
    changed = found != (before > 0.5)
    clicked = by_lobe(scan.lobes, clicks)
    shares = [
        float(changed[scan.lobes == lobe].mean())
        for lobe in np.unique(scan.lobes)
        if lobe and int(lobe) not in clicked
    ]
    return max(shares, default=0.0)


def walk(scan: Scan, lesion: np.ndarray, clicks: Sequence[Click]) -> np.ndarray:
    """Return the peer's lesions: random walkers in each lobe with clicks.

    Args:
        scan: The scan.
        lesion: (k, j, i) bool, the network's.
        clicks: As the reader made them.
    """
    result = lesion & (scan.lobes > 0)
    for lobe, own in by_lobe(scan.lobes, clicks).items():
        inside = scan.lobes == lobe
        box = bounding_box(inside, margin=1)
        labels = np.where(result[box], 2, 1).astype(np.int8)
        distance = _distances(labels.shape, box, own, scan.spacing)
        labels[distance.min(axis=0) < PEER_FREE_MM] = 0
        for far, click in zip(distance, own, strict=True):
            labels[far <= PEER_BALL_MM] = 2 if click.lesion else 1
        labels[~inside[box]] = -1
        values = np.clip(scan.hu[box], -1050, 100).astype(np.float64)
        if {1, 2} <= set(np.unique(labels)) and (labels == 0).any():
            walked = random_walker(values, labels, beta=130, mode="cg_j", spacing=scan.spacing)
            result[box][inside[box]] = walked[inside[box]] == 2
    return result


def _distances(
    shape: tuple[int, ...],
    box: tuple[slice, ...],
    clicks: Sequence[Click],
    spacing: tuple[float, ...],
) -> np.ndarray:
    """Return the distance of every voxel of a box from each click, in mm."""
    grid = np.indices(shape, dtype=np.float32)
    size = np.array(spacing, dtype=np.float32)[:, None, None, None]
    start = np.array([part.start for part in box])
    return np.stack(
        [
            np.sqrt((((grid - (click.voxel - start)[:, None, None, None]) * size) ** 2).sum(axis=0))
            for click in clicks
        ]
    )


def measure(source: Source, weights: Path, clicks: int, with_peer: bool) -> list[Session]:
    """Measure one scan from both starts; nothing for a scan without lesion."""
    scan = load(source, weights)
    if not scan.truth.any():
        return []
    return [session(source.name, scan, start, clicks, with_peer) for start in STARTS]


def summarise(found: Sequence[Session]) -> dict[str, Any]:
    """Return the figures of each start: Dice, and what it gains with the clicks."""
    content: dict[str, Any] = {}
    for start in STARTS:
        own = [one for one in found if one.start == start]
        if not own:
            continue
        figures: dict[str, Any] = {
            "scans": len(own),
            "dice": _mean([one.dice[0] for one in own]),
            "obeyed": all(one.obeyed for one in own),
            "changed_elsewhere": max(one.elsewhere for one in own),
            "seconds": max((s for one in own for s in one.seconds), default=0.0),
            "peer_seconds": max((s for one in own for s in one.peer_seconds), default=0.0),
        }
        for number in CLICKS:
            gains = [one.dice[number] - one.dice[0] for one in own if len(one.dice) > number]
            peers = [one.peer[number] - one.peer[0] for one in own if number in one.peer]
            if gains:
                figures[f"gain_{number}"] = _mean(gains)
                figures[f"least_gain_{number}"] = min(gains)
            if peers:
                figures[f"peer_gain_{number}"] = _mean(peers)
        content[start] = figures
    return content


def _mean(values: Sequence[float]) -> float:
    return metrics.mean_defined(values)[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure from the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m Training.evaluation.clicks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, required=True, help="JSON file for the figures")
    parser.add_argument("--count", type=int, default=20, help="phantoms (default 20)")
    parser.add_argument("--first-seed", type=int, default=FIRST_TEST_SEED)
    parser.add_argument("--spacing", type=float, default=2.0, help="voxel edge of phantoms in mm")
    parser.add_argument("--data", type=Path, help="a data set with a truth, instead of phantoms")
    parser.add_argument("--weights", type=Path, default=BUNDLED)
    parser.add_argument("--clicks", type=int, default=max(CLICKS), help="clicks a scan")
    parser.add_argument("--without-peer", action="store_true", help="leave the random walker out")
    parser.add_argument("--workers", type=int, default=2, help="scans at a time")
    options = parser.parse_args(arguments)
    seeds = range(options.first_seed, options.first_seed + options.count)
    sources: list[Source] = (
        find_sources(options.data)
        if options.data
        else [PhantomSource(seed, options.spacing, healthy=False) for seed in seeds]
    )
    work = partial(
        measure,
        weights=options.weights,
        clicks=options.clicks,
        with_peer=not options.without_peer,
    )
    found: list[Session] = []
    done = in_workers(work, sources, options.workers, case=lambda s: s.name, setting="--workers")
    for source, sessions in done:
        found += sessions
        for one in sessions:
            figures = " ".join(f"{value:.3f}" for value in one.dice)
            sys.stdout.write(f"{source.name} {one.start}: {figures}\n")
    content = summarise(found)
    scans = [one.__dict__ for one in sorted(found, key=lambda one: (one.name, one.start))]
    write_text(json.dumps(plain(content | {"scans": scans}), indent=1) + "\n", options.output)
    for start, figures in content.items():
        for name, value in figures.items():
            sys.stdout.write(f"{start:14s} {name:18s} {value:.3f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
