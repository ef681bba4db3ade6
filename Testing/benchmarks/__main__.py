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
COLUMNS = {
    "name": 40,
    "ours_s": 8,
    "peer": 26,
    "peer_s": 8,
    "ratio": 6,
    "agreement": 9,
    "peak_mb": 7,
    "limit_share": 11,
    "target": 22,
    "met": 5,
}
"""What the table shows, and how wide."""


def main() -> int:
    """Run what was asked for."""
    names = sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py"))
    parser = argparse.ArgumentParser(prog="python -m Testing.benchmarks")
    parser.add_argument("--only", choices=names)
    parser.add_argument("--output", type=Path, default=Path("bench.json"))
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    print("  ".join(column.ljust(width) for column, width in COLUMNS.items()))
    for name in [options.only] if options.only else names:
        module = importlib.import_module(f"Testing.benchmarks.bench_{name}")
        for row in module.run():
            rows.append(row)
            cells = (_short(row.get(column)).ljust(width) for column, width in COLUMNS.items())
            print("  ".join(cells), flush=True)
    part = options.output.with_name(f"{options.output.name}.part")
    part.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    part.replace(options.output)
    return 0


def _short(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
