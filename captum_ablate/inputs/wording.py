"""Names and numbers as people read them: any text on one line, shortened where it is long, and counts of things."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence

ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
ISOLATE, END_OF_ISOLATE = "\N{FIRST STRONG ISOLATE}", "\N{POP DIRECTIONAL ISOLATE}"

MOST_NAMES = 5
"""Names that a sentence or a legend lists; of more, the rest is counted."""

_UNSEEN = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Categories that would break a line, or cannot be printed: control characters, lone surrogates, line separators."""

_DIRECTIONAL = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn the direction of the text after them."""


def visible(name: object) -> str:
    r"""Return ``name`` on one line: what cannot be seen is written as in Python (``\n``), no text at all as ``''``.

    >>> from captum_ablate.inputs.wording import visible
    >>> visible("two\nlines"), visible(""), visible("a$b$ <i>")
    ('two\\nlines', "''", 'a$b$ <i>')
    """
    text = str(name)
    if not text.strip():
        return repr(text)
    return "".join(_escaped(c) if _is_unseen(c) else c for c in text)


def counted(n: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun, in the singular for one.

    >>> from captum_ablate.inputs.wording import counted
    >>> counted(1, "random order"), counted(1234, "sample"), counted(0, "class", "classes")
    ('1 random order', '1,234 samples', '0 classes')
    """
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def listed(names: Sequence[object]) -> str:
    """Return names as a part of a sentence; of more than five the rest is counted.

    >>> from captum_ablate.inputs.wording import listed
    >>> listed("ab"), listed("abc"), listed("abcdefg")
    ('a and b', 'a, b and c', 'a, b, c, d, e and 2 more')
    """
    shown = [visible(name) for name in names[:MOST_NAMES]]
    last = f"{len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else shown.pop()
    return f"{', '.join(shown)} and {last}" if shown else last


def columns(text: str) -> int:
    """Return how many columns of a terminal ``text`` takes: wide characters take two, combining ones none."""
    return sum(map(_columns, text))


def shortened(name: object, most: int) -> str:
    """Return ``visible(name)`` in at most ``most`` columns, its middle replaced by an ellipsis where it is longer.

    >>> from captum_ablate.inputs.wording import shortened
    >>> shortened("LayerMutualInformation(bins=16)", 16)
    'LayerMut…ins=16)'
    """
    text = visible(name)
    if columns(text) <= most:
        return text
    head, tail = "", ""
    for k in range(len(text)):
        for is_head, one in ((True, text[k]), (False, text[-1 - k])):
            if columns(head + tail + one) > most - 1:
                return head + ELLIPSIS + tail
            head, tail = (head + one, tail) if is_head else (head, one + tail)
    raise AssertionError("a text longer than its limit has no room for all of its characters")


def distinct(names: Iterable[object], most: int) -> list[str]:
    """Return the ``names`` shortened to ``most`` columns; those that would look alike get a number.

    >>> from captum_ablate.inputs.wording import distinct
    >>> distinct(["conductance", "one long name, a", "one long name, b", "one long na-e, a"], 9)
    ['cond…ance', 'one …e, a', 'one …e, b', 'on… a (2)']
    """
    found: list[str] = []
    taken: set[str] = set()
    for name in names:
        text, number = shortened(name, most), 1
        while text in taken:
            number += 1
            mark = f" ({number})"
            text = shortened(name, max(3, most - len(mark))) + mark
        taken.add(text)
        found.append(text)
    return found


def isolated(text: str) -> str:
    """Return ``text`` so that one written from right to left does not turn the numbers that follow it."""
    turns = any(unicodedata.bidirectional(c) in ("R", "AL", "AN") for c in text)
    return f"{ISOLATE}{text}{END_OF_ISOLATE}" if turns else text


def _is_unseen(character: str) -> bool:
    return unicodedata.category(character) in _UNSEEN or character in _DIRECTIONAL


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def number(column: str, value: float) -> str:
    """Return a number of the leaderboard as text: z to one decimal, small p as a bound, others to three decimals.

    >>> from captum_ablate.inputs.wording import number
    >>> number("z", 12.345), number("p", 0.00004), number("gap", -0.12345)
    ('12.3', '<0.001', '-0.123')
    """
    if math.isnan(value):
        return ""
    if column == "z":
        return f"{value:.1f}"
    if column.startswith("p") and value < 0.0005:
        return "<0.001"
    return f"{value:.3f}"
