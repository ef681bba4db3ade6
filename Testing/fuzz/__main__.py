"""Fuzz: ``python -m Testing.fuzz --seed S --count N [--jobs J] [--only KIND …] [--case NUMBER]``.

Damaged and contradictory files are read as library and training read them. Counted are crashes,
hangs, tracebacks, memory that no file fills, messages that are no sentence, and files that are
believed though they contradict themselves. Each is printed with what makes it again, and kept in
``runs/fuzz``. Exit status 0 none, 1 some.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

from Testing.fuzz.registry import KINDS
from Testing.fuzz.run import FAILURES, TIME_LIMIT_S, Failure, Result, fuzz

OUTCOMES = ("refused", "warned", "same", "another", *FAILURES)


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m Testing.fuzz")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000, help="how many files")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes")
    parser.add_argument("--only", choices=list(KINDS), nargs="+", default=list(KINDS))
    parser.add_argument("--case", type=int, help="only the case of this number")
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzz"), help="for files that fail")
    options = parser.parse_args()
    numbers = range(options.count) if options.case is None else [options.case]
    # the number tells the kind, unless kinds are chosen
    cases = [(n, options.only[n % len(options.only)]) for n in numbers]
    started = time.monotonic()

    def tell(failure: Failure) -> None:
        print(_text(failure, options.seed, options.keep), flush=True)

    result = fuzz(options.seed, cases, options.jobs, options.keep, tell, TIME_LIMIT_S)
    print(table(result))
    print(f"{len(cases)} files, seed {options.seed}, {time.monotonic() - started:.0f} s: ", end="")
    print(f"{len(result.failures)} wrong" if result.failures else "none wrong")
    return 1 if result.failures else 0


def table(result: Result) -> str:
    """Return how often each outcome was, by kind of file."""
    total: Counter[str] = Counter()
    lines = ["kind".ljust(14) + "".join(name.rjust(11) for name in OUTCOMES)]
    for kind, counts in sorted(result.counts.items()):
        total += counts
        lines.append(_row(kind, counts))
    return "\n".join([*lines, _row("all", total)])


def _row(name: str, counts: Counter[str]) -> str:
    return name.ljust(14) + "".join(str(counts[outcome]).rjust(11) for outcome in OUTCOMES)


def _text(failure: Failure, seed: int, keep: Path) -> str:
    again = f"--seed {seed} --only {failure.kind} --case {failure.number}"
    indented = "\n".join(f"    {line}" for line in failure.details.splitlines()[-12:])
    return (
        f"{failure.outcome}: {failure.kind}, {failure.change or 'unknown change'}\n"
        f"    again: python -m Testing.fuzz {again}\n"
        f"    kept: {keep / f'{failure.kind}-{seed}-{failure.number}'}\n{indented}"
    )


if __name__ == "__main__":
    sys.exit(main())
