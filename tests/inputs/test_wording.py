"""Any text stands on one line, in the width that it has, and differs from its neighbours."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from captum_ablate.inputs.wording import columns, counted, distinct, isolated, shortened, visible

ANY_TEXT = st.text(st.characters(), max_size=80)  # lone surrogates too


@given(ANY_TEXT)
@example("two\nlines\r\u2028\x85 and\ttabs\x00\ud800")
@example("")
def test_any_text_is_shown_on_one_line(text):
    shown = visible(text)
    assert len(shown.splitlines()) == 1
    shown.encode("utf-8")
    assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in shown)


@pytest.mark.parametrize("text", ["a$b$", "<b>&amp;", r"\alpha", "naïve", "שלום", "👩‍🔬", " spaced  out ", "_x"])
def test_what_can_be_seen_is_left_as_it_is(text):
    assert visible(text) == text


@given(ANY_TEXT, st.integers(3, 60))
def test_shortening_keeps_to_the_width_and_short_names_as_they_are(text, most):
    shown = shortened(text, most)
    assert columns(shown) <= most
    if columns(visible(text)) <= most:
        assert shown == visible(text)
    else:
        head, tail = shown.split("…", 1) if "…" not in visible(text) else (shown[0], shown[-1])
        assert visible(text).startswith(head)
        assert visible(text).endswith(tail)


@given(st.lists(st.text("ab\n", max_size=30), max_size=30, unique=True), st.integers(9, 20))
@example([f"{'a' * 30}{k}{'b' * 30}" for k in range(12)], 12)
@example(["a\nb", "a\\nb", "", "''"], 12)
def test_names_that_differ_stay_different_in_any_width(names, most):
    found = distinct(names, most)
    assert len(found) == len(set(found)) == len(names)
    assert max(map(columns, found), default=0) <= most


def test_wide_and_combining_characters_take_their_columns():
    assert columns("層") == 2
    assert columns("e\u0301") == 1
    assert columns("abc") == 3


def test_text_from_right_to_left_does_not_turn_the_numbers_after_it():
    assert isolated("أ 1") == "\u2068أ 1\u2069"
    assert isolated("left") == "left"


def test_one_thing_is_no_plural():
    assert counted(1, "random order") == "1 random order"
    assert counted(0, "sample") == "0 samples"
    assert counted(1200, "class", "classes") == "1,200 classes"
