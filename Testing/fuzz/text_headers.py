"""Headers of NRRD and MetaImage: lines of text, each with what it must not say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from Testing.fuzz.damage import TEXTS, Rng, pick
from Testing.fuzz.kinds import Change

_LONG = (300, 1_100, 5_000, 70_000, 2_000_000)

_SOUND = {
    "space": (b"right-anterior-superior", b"LPS", b"RAS"),
    "space directions": (b"(4.6,0,0) (0,4.4,0) (0,0,5.1)",),
    "space origin": (b"(10,20,-30)", b"(0,0,0)"),
    "kinds": (b"space space space",),
    "Offset": (b"10 20 -30", b"0 0 0"),
    "ElementSpacing": (b"4.6 4.4 5.1",),
    "AnatomicalOrientation": (b"RAI", b"LPI"),
    "CenterOfRotation": (b"5 5 5",),
}
"""What makes another sound header: nobody can know that it is not meant."""

_NRRD: Mapping[str, Sequence[bytes]] = {
    "dimension": (b"2", b"4", b"0", b"-3", b"17", b"x"),
    "sizes": (
        b"38 28 27",
        b"38 28 25",
        b"38 28",
        b"38 28 26 1",
        b"1200 1200 1200",
        b"0 28 26",
        b"-38 28 26",
        b"2147483647 2147483647 2147483647",
        b"4294967334 28 26",
    ),
    "type": (b"uchar", b"ushort", b"int", b"float", b"double", b"block", b"banana"),
    "endian": (b"big", b"middle"),
    "encoding": (b"raw", b"gzip", b"bzip2", b"ascii", b"hex", b"banana"),
    "space": (b"scanner-xyz", b"banana", b"left-posterior-superior-time"),
    "space directions": (
        b"none none none",
        b"(0,0,0) (0,0,0) (0,0,0)",
        b"(nan,0,0) (0,nan,0) (0,0,nan)",
        b"(4.5,2,0) (0,4.5,2) (0,0,5)",
        b"(1e30,0,0) (0,1e30,0) (0,0,1e30)",
        b"(4.5,0,0) (0,4.5,0)",
        b"(4.5,0,0) (4.5,0,0) (0,0,5)",
    ),
    "space origin": (b"(nan,nan,nan)", b"(inf,0,0)", b"(1,2)", b"none"),
    "kinds": (b"list space space", b"banana space space", b"space"),
    "byte skip": (b"-1", b"7", b"999999999"),
    "line skip": (b"3", b"-1"),
    "data file": (b"other.raw", b"LIST", b"%03d.raw 1 9 1", b"/dev/zero", b""),
    "spacings": (b"nan nan nan", b"9 9 9"),
    "sample units": (b"banana",),
}

_META: Mapping[str, Sequence[bytes]] = {
    "ObjectType": (b"Mesh", b"banana"),
    "NDims": (b"2", b"4", b"0", b"-3", b"11", b"100", b"4000", b"x"),
    "BinaryData": (b"False", b"banana"),
    "BinaryDataByteOrderMSB": (b"True", b"banana"),
    "ElementByteOrderMSB": (b"True",),
    "CompressedData": (b"True", b"False", b"banana"),
    "CompressedDataSize": (b"0", b"-1", b"12", b"99999999999"),
    "TransformMatrix": (
        b"0 0 0 0 0 0 0 0 0",
        b"1 0 0 0 1 0",
        b"nan 0 0 0 nan 0 0 0 nan",
        b"1 0.5 0 0 1 0.5 0 0 1",
        b"1 0 0 1 0 0 0 0 1",
        b"9 0 0 0 9 0 0 0 9",
    ),
    "Offset": (b"nan nan nan", b"1e30 0 0", b"1 2"),
    "ElementSpacing": (b"0 0 0", b"nan nan nan", b"-4.5 4.5 5", b"1e30 1 1", b"4.5 4.5"),
    "ElementSize": (b"9 9 9", b"nan nan nan"),
    "DimSize": (
        b"38 28 27",
        b"38 28 25",
        b"38 28",
        b"1200 1200 1200",
        b"0 28 26",
        b"-38 28 26",
        b"2147483647 2147483647 2147483647",
    ),
    "ElementNumberOfChannels": (b"3", b"0", b"-1", b"99999"),
    "ElementType": (
        b"MET_UCHAR",
        b"MET_USHORT",
        b"MET_INT",
        b"MET_FLOAT",
        b"MET_DOUBLE",
        b"MET_STRING",
        b"banana",
    ),
    "HeaderSize": (b"-1", b"10", b"-2", b"99999999"),
    "ElementDataFile": (b"other.raw", b"LIST", b"LOCAL", b"%03d.raw 1 9 1", b"/dev/zero", b""),
}


def split_nrrd(data: bytes) -> tuple[bytes, bytes]:
    """Return header and voxels of a NRRD file."""
    end = re.search(rb"\r?\n\r?\n", data)
    place = end.end() if end else len(data)
    return data[:place], data[place:]


def split_meta(data: bytes) -> tuple[bytes, bytes]:
    """Return header and voxels of a MetaImage file."""
    end = re.search(rb"ElementDataFile *=[^\n]*\n", data)
    place = end.end() if end else len(data)
    return data[:place], data[place:]


def change_nrrd(header: bytes, rng: Rng) -> tuple[bytes, Change]:
    """Change the header of a NRRD file."""
    lines = header.rstrip(b"\r\n").split(b"\n")
    if rng.random() < 0.2 and any(line.startswith(b"Segment") for line in lines):
        lines, change = _segment(lines, rng)
    else:
        lines, change = _line(lines, rng, _NRRD, b": ", first=1)
    return b"\n".join(lines) + b"\n\n", change


def change_meta(header: bytes, rng: Rng) -> tuple[bytes, Change]:
    """Change the header of a MetaImage file."""
    lines, change = _line(header.rstrip(b"\n").split(b"\n"), rng, _META, b" = ", first=0)
    return b"\n".join(lines) + b"\n", change


def _line(
    lines: list[bytes], rng: Rng, values: Mapping[str, Sequence[bytes]], sign: bytes, first: int
) -> tuple[list[bytes], Change]:
    """Change, double, remove or lengthen a line."""
    name = pick(rng, list(values))
    key = name.encode()
    place = next((n for n, line in enumerate(lines) if line.startswith(key + sign.rstrip())), None)
    how = pick(rng, ("value", "value", "value", "sound", "text", "double", "remove", "long"))
    if how == "remove" and place is not None:
        return [*lines[:place], *lines[place + 1 :]], Change(f"without {name}", guarded=True)
    if how == "long":
        length = int(pick(rng, _LONG))
        added = pick(rng, (b"#" + b"x" * length, key + sign + b"9 " * length, b"x" * length + sign))
        at = int(rng.integers(first, len(lines)))
        return [*lines[:at], added, *lines[at:]], Change(f"a line of {length}", guarded=True)
    value = pick(rng, values[name])
    guarded = True
    if how == "sound" and name in _SOUND:
        value, guarded = pick(rng, _SOUND[name]), False
    elif how == "text":
        value = pick(rng, TEXTS)
    written = key + sign + value
    if place is None:
        at = int(rng.integers(first, len(lines)))
        return [*lines[:at], written, *lines[at:]], Change(f"added {written!r}", guarded)
    if how == "double":
        at = pick(rng, (place, place + 1))
        return [*lines[:at], written, *lines[at:]], Change(f"doubled by {written!r}", guarded)
    return [*lines[:place], written, *lines[place + 1 :]], Change(f"{written!r}", guarded)


def _segment(lines: list[bytes], rng: Rng) -> tuple[list[bytes], Change]:
    """Change what is said of a segment."""
    places = [n for n, line in enumerate(lines) if line.startswith(b"Segment")]
    at = int(pick(rng, places))
    key, _, _ = lines[at].partition(b":=")
    how = pick(rng, ("remove", "value", "key"))
    if how == "remove":
        return [*lines[:at], *lines[at + 1 :]], Change(f"without {key!r}", guarded=True)
    if how == "key":
        other = key.replace(b"Segment", b"Segment999999999")
        written = lines[at].replace(key, other)
    else:
        written = key + b":=" + pick(rng, (*TEXTS, b"7", b"300", "Lunge \u00fc".encode("latin-1")))
    return [*lines[:at], written, *lines[at + 1 :]], Change(f"{written!r}", guarded=True)
