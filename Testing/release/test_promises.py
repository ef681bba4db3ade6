"""The cheap part of the release check: what README, Makefile and pyproject.toml promise."""

from __future__ import annotations

import argparse
import runpy
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from Testing.release import promises

COMMANDS = [*promises.readme_commands(), *promises.inline_commands()]
PARTIAL = [["python", "-m", "Training", "synthesis"]]
"""Commands that the README names without their options."""


class _Parsed(Exception):
    pass


@pytest.fixture
def parsed(monkeypatch):
    """Stop a command line once it has understood its words; what it understood is kept."""
    understood = []
    original = argparse.ArgumentParser.parse_args

    def parse_args(self, *arguments):
        understood.append(original(self, *arguments))
        raise _Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    return understood


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_of_the_readme_are_understood(words, parsed, monkeypatch):
    if words[0] == "make":
        assert words[1] in promises.make_targets()
        return
    if words in PARTIAL or "pip" in words:
        pytest.skip("not a command line of this project, or without its options")
    at = words.index("--python-script") if "--python-script" in words else 0
    words = words[at + 1 :]
    module = words[0] == "-m"
    monkeypatch.setattr(sys, "argv", words[module:])
    try:
        if module:
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(str(promises.ROOT / words[0]), run_name="__main__")
    except (_Parsed, SystemExit):
        pass
    assert len(parsed) == 1, f"not understood: {' '.join(words)}"


def test_the_readme_has_commands():
    assert len(COMMANDS) > 10
    assert ["make", "demo"] in COMMANDS


def test_documents_name_targets_that_exist():
    documents = [promises.ROOT / "README.md", promises.ROOT / "CONTRIBUTING.md"]
    documents += sorted((promises.ROOT / "docs").glob("*.md"))
    named = promises.promised_targets(*documents)
    assert {"demo", "test", "lint", "bench", "fuzz", "chaos", "release-check"} <= named
    assert named <= promises.make_targets()


def test_every_import_is_declared():
    assert promises.undeclared_imports() == []


def test_an_import_that_nobody_declares_is_found(tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        '[project]\ndependencies = ["NumPy>=1"]\n[project.optional-dependencies]\n'
        'test = ["pytest"]\n',
        encoding="utf-8",
    )
    for name, text in {
        "DRAMLesionLib": "import os, numpy.linalg, pytest",
        "Testing": "from pytest import mark",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.py").write_text(text, encoding="utf-8")
    for name in ("Training", "DRAMLesion"):
        (tmp_path / name).mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)  # noqa: S607
    assert promises.undeclared_imports(tmp_path) == ["DRAMLesionLib/a.py imports pytest"]


def test_every_requirement_is_bounded_below_and_pinned_within():
    pins, wrong = promises.pins(), []
    for name, text in promises.bounds().items():
        requirement = Requirement(text)
        if not any(one.operator in (">=", "==") for one in requirement.specifier):
            wrong.append(f"{text} has no lower bound")
        if name not in pins:
            wrong.append(f"{name} is not pinned in constraints.txt")
        elif pins[name] not in requirement.specifier:
            wrong.append(f"{name} {pins[name]} is not within {text}")
    assert wrong == []
