"""Chaos: ``python -m Testing.chaos --kills N --seed S [--only JOB …]``.

A segmentation, a batch and a training are killed at random moments, most of them while files are
written, and started again until they are done. Nothing that is half done may count as done; voxels,
tables and weights must be those of a run that was left alone; nothing may be left over, neither
files nor processes. Exit status 0 nothing was wrong, 1 something was.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from Testing.chaos.jobs import JOBS
from Testing.chaos.run import torture

SHARES = {"segment": 0.35, "batch": 0.2, "processes": 0.2, "training": 0.25}
"""Of the kills."""


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m Testing.chaos")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(JOBS), nargs="+", default=list(JOBS))
    options = parser.parse_args()
    whole = sum(SHARES[name] for name in options.only)
    started, wrong, kills = time.monotonic(), 0, 0
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        for name in options.only:
            count = max(1, round(options.kills * SHARES[name] / whole))
            job = JOBS[name](Path(folder) / name)
            outcome = torture(job, count, options.seed, lambda line: print(line, flush=True))
            for problem in outcome.problems:
                print(f"wrong: {problem}", flush=True)
            wrong += len(outcome.problems)
            kills += outcome.kills
            print(f"{name}: {outcome.kills} kills, {outcome.rounds} runs finished after them")
    seconds = time.monotonic() - started
    print(f"{kills} kills, seed {options.seed}, {seconds:.0f} s: {wrong or 'none'} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
