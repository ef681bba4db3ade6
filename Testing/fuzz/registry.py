"""All kinds of files by name."""

from __future__ import annotations

from Testing.fuzz import segs, series, texts, training_files, volumes

KINDS = {
    kind.name: kind
    for kind in (*volumes.KINDS, *series.KINDS, *segs.KINDS, *texts.KINDS, *training_files.KINDS)
}
