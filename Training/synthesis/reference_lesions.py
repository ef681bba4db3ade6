"""Make the table of reference lesions that the library ships (METHOD section 6).

    python -m Training.synthesis.reference_lesions --output DRAMLesionLib/lesion_types.json

The lesions come from phantoms. A component is used as it is and, since large lesions hold a bit of
everything, so are its dense parts with their rim, which look like consolidations on their own.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DRAMLesionLib.lesions.types import (
    SHIPPED_TABLE,
    LesionType,
    ReferenceTable,
    reference_rows,
    types_by_density,
)
from DRAMLesionLib.phantom import PhantomConfig, make_phantom

Row = tuple[float, float, float, int]

FIRST_SEED = 91_000
SPACINGS = (1.5, 1.2, (1.0, 1.0, 2.0))
CONSOLIDATION = ((0.05, 0.55), (0.4, 0.9))
"""Ranges of the share of dense foci that the phantoms draw from, by turns."""

ROWS_PER_TYPE = 150
MIN_VOLUME_ML = 0.01
RIM_MM = 2.0


def phantom_rows(seed: int) -> list[Row]:
    """Return reference rows of the lesions of one phantom."""
    phantom = make_phantom(
        seed,
        SPACINGS[seed % len(SPACINGS)],
        PhantomConfig(consolidation=CONSOLIDATION[seed % len(CONSOLIDATION)]),
    )
    rows = []
    for types in _lesions_and_their_dense_parts(phantom.ct, phantom.lesions):
        rows += reference_rows(phantom.ct, types)
    return [row for row in rows if row[0] >= MIN_VOLUME_ML]


def thinned(rows: list[Row], per_type: int = ROWS_PER_TYPE) -> list[Row]:
    """Return at most ``per_type`` rows of each type, spread evenly over the logarithm of volume."""
    kept: list[Row] = []
    for kind in LesionType:
        own = sorted(row for row in rows if row[3] == kind)
        if len(own) > per_type:
            logs = np.log([row[0] for row in own])
            edges = np.linspace(logs[0], logs[-1], per_type)
            # nearest row to each step; steps that share a row leave room for those in between
            places = sorted({int(np.argmin(np.abs(logs - edge))) for edge in edges})
            spare = [n for n in range(len(own)) if n not in set(places)]
            more = per_type - len(places)
            step = max(1.0, len(spare) / max(more, 1))
            places += [spare[math.floor(n * step)] for n in range(more)]
            own = [own[n] for n in sorted(places)]
        kept += own
    return kept


def _lesions_and_their_dense_parts(ct: sitk.Image, lesions: sitk.Image) -> Iterator[sitk.Image]:
    types = types_by_density(ct, lesions)
    yield types
    rim = [max(1, round(RIM_MM / step)) for step in ct.GetSpacing()]
    dense = sitk.BinaryMorphologicalOpening(types == LesionType.CONSOLIDATION, [1, 1, 1])
    yield sitk.Mask(types, sitk.BinaryDilate(dense, rim))


def main() -> None:
    """Make the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=SHIPPED_TABLE)
    parser.add_argument("--phantoms", type=int, default=16, help="number of phantoms")
    arguments = parser.parse_args()
    rows: list[Row] = []
    for seed in range(FIRST_SEED, FIRST_SEED + arguments.phantoms):
        rows += phantom_rows(seed)
        counts = [sum(row[3] == kind for row in rows) for kind in LesionType]
        print(f"phantom {seed}: {counts} components so far")  # noqa: T201
    source = (
        f"{arguments.phantoms} phantoms (seeds from {FIRST_SEED}), "
        "typed by the share of their dense voxels"
    )
    ReferenceTable.from_components(thinned(rows), source).save(arguments.output)


if __name__ == "__main__":
    main()
