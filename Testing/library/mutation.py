"""Damage to plain content and to bytes, the same for the same seed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from random import Random
from typing import Any

STRANGE: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    3,
    10**30,
    1e308,
    float("nan"),
    float("-inf"),
    0.5,
    "",
    "0.5",
    "nan",
    "../..",
    "\ud800",
    "x" * 10_000,
    [],
    [1, 2],
    [[]],
    [None],
    {},
    {"": 1},
    {"type": "UNet3D"},
)


def seeded(seed: int) -> Random:
    """Return a source of damage."""
    return Random(seed)  # noqa: S311


def mutated(content: Any, random: Random) -> Any:
    """Return a copy of JSON content with one to three changes somewhere in it."""
    result = copy.deepcopy(content)
    for _ in range(random.randint(1, 3)):
        result = _changed(result, random)
    return result


def _changed(content: Any, random: Random) -> Any:
    places = list(_places(content))
    holder, key = random.choice(places) if random.random() > 0.02 and places else (None, None)
    if holder is None:
        return copy.deepcopy(random.choice(STRANGE))
    change = random.randrange(4)
    if change == 0:
        del holder[key]
    elif change == 1 and isinstance(holder, dict):
        holder[random.choice(("colour", "", "\u00e4", "x" * 300))] = holder.pop(key)
    elif change == 2 and isinstance(holder, list):
        holder.insert(0, copy.deepcopy(random.choice(STRANGE)))
    else:
        holder[key] = copy.deepcopy(random.choice(STRANGE))
    return content


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every key and index in some content, with what holds it."""
    if not isinstance(content, dict | list):
        return
    keys = content.keys() if isinstance(content, dict) else range(len(content))
    for key in list(keys):
        yield content, key
        yield from _places(content[key])


def damaged(content: bytes, random: Random) -> bytes:
    """Return bytes with one to four changes: flipped, cut, doubled or taken out."""
    data = bytearray(content)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(max(1, len(data)))
        end = min(len(data), at + random.randint(1, 20))
        change = random.randrange(5)
        if change == 0 and data:
            data[at] ^= 1 << random.randrange(8)
        elif change == 1:
            del data[at:]
        elif change == 2:
            del data[at:end]
        elif change == 3:
            data[at:at] = data[at:end]
        else:
            data[at:at] = bytes(random.randrange(256) for _ in range(3))
    return bytes(data)
