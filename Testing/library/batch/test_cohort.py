"""The page of all scans."""

from __future__ import annotations

import base64
import hashlib
import re

from DRAMLesionLib.batch import cohort
from DRAMLesionLib.batch.settings import Scan
from DRAMLesionLib.batch.summary import COLUMNS, failed_row


def done(name, score, percent):
    row = dict.fromkeys(COLUMNS, "")
    row.update(scan=name, status="done", total_score=score, total_lesion_percent=percent)
    row.update(total_lesion_ml=3.25, total_volume_ml=4000.0, LUL_lesion_percent=percent)
    return row


def test_scores_and_percentages_are_counted():
    rows = [done("a", 0, 0.0), done("b", 7, 12.4), done("c", 7, 25.0), done("d", "", "")]
    scores = cohort.scores(rows)
    assert [bar.count for bar in scores.bars] == [1, 0, 0, 0, 0, 0, 0, 2, *[0] * 18]
    assert scores.most == 2
    tallest = scores.bars[7]
    assert (tallest.y, tallest.y + tallest.height) == (scores.top, scores.base)
    shares = cohort.percentages(rows)
    # up to 25 %, in steps of 1.25
    assert [n for n, bar in enumerate(shares.bars) if bar.count] == [0, 9, 19]
    assert [text for _, text in shares.ticks] == ["0", "6.25", "12.5", "18.75", "25"]


def test_the_page_needs_no_network_and_shows_names_as_text():
    rows = [
        done("<b>1</b> & #2", 7, 12.4),
        failed_row(Scan("3", "3", None), "3.nii.gz is <damaged>"),
        {"scan": "4", "status": "open", "reason": ""},
    ]
    page = cohort.to_html(rows)
    assert "&lt;b&gt;1&lt;/b&gt; &amp; #2" in page
    assert 'href="%3Cb%3E1%3C/b%3E%20%26%20%232/report.html"' in page
    assert "3.nii.gz is &lt;damaged&gt;" in page
    assert "Not done yet" in page
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//|url\(|@import", page)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    told = re.search(r"script-src 'sha256-([^']+)'", page)
    assert told is not None
    assert base64.b64decode(told[1]) == hashlib.sha256(script.encode()).digest()
    # cells hold what is sorted by
    assert '<td data-value="12.4">12.4</td>' in page
    assert '<td data-value="">–</td>' in page


def test_a_page_without_results_has_no_empty_charts():
    page = cohort.to_html([failed_row(Scan("3", "3", None), "bad")])
    assert "Distribution" not in page
    assert "bad" in page
