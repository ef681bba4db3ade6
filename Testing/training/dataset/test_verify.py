"""What a data set is told about its cases before a training begins."""

from __future__ import annotations

from DRAMLesionLib.lobes import Lobe
from Testing.library import simple_chest as chest
from Training.dataset.folder import Case
from Training.dataset.verify import load_case


def test_notes_that_are_kept_name_no_series(tmp_path):
    volume = chest.values(chest.hu(chest.grid()))
    uid = chest.write_series(tmp_path / "a", volume, SeriesDescription="Mrs Miller")
    chest.write_series(tmp_path / "a", volume, SeriesDescription="Mrs Miller", prefix="miller")
    case = Case("a", tmp_path / "a", None, dict.fromkeys(Lobe, 1))
    loaded, (problem,) = load_case(case, "auto")
    assert loaded is None
    assert "holds 2 usable CT series" in problem.message
    assert "iller" not in str(problem)
    assert uid not in str(problem)
