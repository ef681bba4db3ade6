"""Results of an evaluation kept on disk, so that a stopped one goes on where it was.

One file for each scan and method. Its name hangs on all that the result depends on: scan, method,
weights and the code itself, so what is found is never out of date.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from DRAMLesionLib.writing import whole_file
from Training.evaluation.measure import CaseResult, EvaluationTask, LobeResult, Picture
from Training.metrics import Confusion, ProbabilityHistogram

_WEIGHTS = (".safetensors", ".pt", ".pth")
_ROOT = Path(__file__).parents[2]
_CODE = (
    "DRAMLesionLib/**/*.py",
    "Training/methods/*.py",
    "Training/evaluation/measure.py",
    "Training/evaluation/sources.py",
    "Training/metrics.py",
    "Training/stages/prepare.py",
)


class Keeper:
    """Keeps and finds results.

    Args:
        folder: Where; made if it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def find(self, task: EvaluationTask) -> list[CaseResult] | None:
        """Return the results of a task; None if they are not there or damaged."""
        try:
            with np.load(self._path(task), allow_pickle=False) as content:
                return _read(content)
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, zlib.error):
            return None

    def keep(self, task: EvaluationTask, results: Iterable[CaseResult]) -> None:
        """Write the results of a task; the file appears whole or not at all."""
        with whole_file(self._path(task)) as part, part.open("wb") as file:
            np.savez_compressed(file, **_arrays(list(results)))

    def _path(self, task: EvaluationTask) -> Path:
        depends = (
            repr(task.source),
            task.source.fingerprint(),
            task.trained.method,
            task.trained.label,
            _weights(task.trained.folder),
            task.estimate,
            _code(),
        )
        digest = hashlib.sha256(repr(depends).encode()).hexdigest()[:20]
        return self._folder / f"{task.source.name}-{task.trained.method}-{digest}.npz"


@cache
def _weights(folder: Path) -> str:
    """Return the checksum of all weights below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in _WEIGHTS)
    return _checksum(files, folder)


@cache
def _code() -> str:
    """Return the checksum of all that may change a result."""
    files = sorted(path for pattern in _CODE for path in _ROOT.glob(pattern))
    return _checksum(files, _ROOT)


def _checksum(files: Iterable[Path], root: Path) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _arrays(results: list[CaseResult]) -> dict[str, Any]:
    """Return results as arrays without objects."""
    arrays: dict[str, Any] = {}
    plain = []
    for n, result in enumerate(results):
        for name in ("lesion", "other", "total"):
            arrays[f"{n}/{name}"] = getattr(result.histogram, name)
        if result.picture is not None:
            for name in ("grey", "truth", "found", "pixel_mm"):
                arrays[f"{n}/{name}"] = np.asarray(getattr(result.picture, name))
        rest = {
            name: getattr(result, name)
            for name in ("case", "method", "healthy", "found_of_type", "lesion_percent", "seconds")
        }
        rest["confusion"] = asdict(result.confusion)
        rest["by_type"] = {name: asdict(c) for name, c in result.by_type.items()}
        rest["lobes"] = [asdict(lobe) for lobe in result.lobes]
        plain.append(rest)
    # JSON of Python knows NaN, both ways
    return {**arrays, "plain": np.array(json.dumps(plain))}


def _read(content: Any) -> list[CaseResult]:
    results = []
    for n, rest in enumerate(json.loads(str(content["plain"]))):
        histogram = ProbabilityHistogram(
            *(content[f"{n}/{name}"] for name in ("lesion", "other", "total"))
        )
        picture = None
        if f"{n}/grey" in content:
            grey, truth, found, edges = (
                content[f"{n}/{name}"] for name in ("grey", "truth", "found", "pixel_mm")
            )
            picture = Picture(grey, truth, found, (float(edges[0]), float(edges[1])))
        rest["confusion"] = Confusion(**rest["confusion"])
        rest["by_type"] = {name: Confusion(**c) for name, c in rest["by_type"].items()}
        rest["lobes"] = tuple(LobeResult(**lobe) for lobe in rest["lobes"])
        results.append(CaseResult(**rest, histogram=histogram, picture=picture))
    return results
