"""Make the table of reference lesions that the library ships (METHOD section 6).

    python -m Training.synthesis.reference_lesions --output DRAMLesionLib/lesions/types.json

The rows are surroundings of voxels of phantoms, as many of each type, so that rare ones
have a voice as well.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from DRAMLesionLib.lesions.types import SHIPPED_TABLE, LesionType, ReferenceTable, reference_rows
from DRAMLesionLib.phantom import make_phantom

FIRST_SEED = 93_000
SPACING = 1.5

ROWS_PER_TYPE = 150
VOXELS_PER_TYPE = 4_000
"""Taken from each phantom, so that one with large lesions does not speak for all."""


def phantom_rows(seed: int) -> np.ndarray:
    """Return rows (n, 3) of mean HU, standard deviation and type of one phantom's lesions."""
    phantom = make_phantom(seed, SPACING)
    rows = reference_rows(phantom.ct, phantom.lesions, phantom.vessels)
    return _drawn(rows, VOXELS_PER_TYPE, seed)


def _drawn(rows: np.ndarray, per_type: int, seed: int) -> np.ndarray:
    """Return at most ``per_type`` rows of each type, drawn without repetition."""
    rng = np.random.default_rng(seed)
    kept = []
    for kind in LesionType:
        own = rows[rows[:, 2] == kind]
        kept.append(own[np.sort(rng.permutation(len(own))[:per_type])])
    return np.concatenate(kept)


def main() -> None:
    """Make the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=SHIPPED_TABLE)
    parser.add_argument("--phantoms", type=int, default=8, help="number of phantoms")
    arguments = parser.parse_args()
    rows = np.zeros((0, 3))
    for seed in range(FIRST_SEED, FIRST_SEED + arguments.phantoms):
        rows = np.concatenate([rows, phantom_rows(seed)])
        counts = [int((rows[:, 2] == kind).sum()) for kind in LesionType]
        print(f"phantom {seed}: {counts} voxels so far")  # noqa: T201
    source = f"surroundings of lesions in {arguments.phantoms} phantoms (seeds from {FIRST_SEED})"
    chosen = _drawn(rows, ROWS_PER_TYPE, FIRST_SEED)
    table = ReferenceTable.from_rows(((m, s, int(k)) for m, s, k in chosen), source)
    table.save(arguments.output)


if __name__ == "__main__":
    main()
