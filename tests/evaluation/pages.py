"""A page as a tree, parsed strictly: an end tag for every element, in order."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from io import StringIO

import pandas as pd

VOID = ("meta", "img", "br", "link", "input")


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    children: list[Element | str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Element]:
        """Go through the element and all in it."""
        yield self
        for child in self.children:
            if isinstance(child, Element):
                yield from child

    def all(self, tag: str, **wanted: str) -> list[Element]:
        return [one for one in self if one.tag == tag and all(one.attributes.get(k) == v for k, v in wanted.items())]

    def by_id(self, name: str) -> Element:
        (found,) = [one for one in self if one.attributes.get("id") == name]
        return found

    @property
    def text(self) -> str:
        words = (child if isinstance(child, str) else child.text for child in self.children)
        return " ".join(" ".join(words).split())


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute stands twice: {tag} {attrs}"
        self.open[-1].children.append(one := Element(tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(one)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parsed(page: str) -> Element:
    """Return the tree of a page; a tag that is not closed, or closed too early, fails."""
    parser = _Parser()
    parser.feed(page)
    parser.close()
    assert parser.open == [parser.root]
    return parser.root


def cells(table: Element) -> list[list[str]]:
    """Return the text of each cell, row by row."""
    return [[cell.text for cell in row if cell.tag in ("th", "td")] for row in table.all("tr")]


def files(page: Element) -> dict[str, pd.DataFrame]:
    """Return the CSV files inside a page, by name, all values as text."""
    found = {}
    for link in page.all("a"):
        if "download" in link.attributes:
            start, data = link.attributes["href"].split(",")
            assert start == "data:text/csv;charset=utf-8;base64"
            text = base64.b64decode(data).decode("utf-8")
            found[link.attributes["download"]] = pd.read_csv(StringIO(text), dtype=str, keep_default_na=False)
    return found


def typed(frame: pd.DataFrame, like: pd.DataFrame) -> pd.DataFrame:
    """Return a frame of text with the types of another; Python reads its numbers, to the bit."""
    assert list(frame.columns) == list(like.columns)
    return pd.DataFrame({name: [_value(text, like[name]) for text in frame[name]] for name in like.columns})


def _value(text: str, like: pd.Series) -> object:
    if pd.api.types.is_bool_dtype(like):
        return {"True": True, "False": False}[text]
    if pd.api.types.is_numeric_dtype(like):
        return float(text or "nan") if pd.api.types.is_float_dtype(like) else int(text)
    return text
