"""Where the real CTs lie that some tests want, and the mark that skips them elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DATA = Path(
    os.environ.get("DRAMLESION_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
)

needs_data = pytest.mark.skipif(
    not (DATA / "README.md").is_file(),
    reason="the real CTs are not beside the repository (set DRAMLESION_DATA to their folder)",
)
