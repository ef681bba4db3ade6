"""Run the benchmarks: print a table and write ``bench.json``.

``python -m Testing.benchmarks [--only NAME] [--output FILE]``; NAME is a module without ``bench_``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
COLUMNS = ("name", "ours_s", "peer", "peer_s", "ratio", "agreement", "peak_mb", "target", "met")


def main() -> int:
    """Run what was asked for."""
    names = sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))
    parser = argparse.ArgumentParser(prog="python -m Testing.benchmarks")
    parser.add_argument("--only", choices=names)
    parser.add_argument("--output", type=Path, default=Path("bench.json"))
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    for name in [options.only] if options.only else names:
        module = importlib.import_module(f"Testing.benchmarks.bench_{name}")
        for row in module.run():
            rows.append(row)
            print("  ".join(f"{column}={_short(row.get(column))}" for column in COLUMNS))
    part = options.output.with_name(f"{options.output.name}.part")
    part.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    part.replace(options.output)
    return 0


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
