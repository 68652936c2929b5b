"""The data of a page, as CSV files inside it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Download:
    """A CSV file as an address that holds it, with its name, number of rows and columns, and what it is about."""

    name: str
    about: str
    rows: int
    columns: str
    address: str

    @classmethod
    def of(cls, name: str, about: str, frame: pd.DataFrame) -> Download:
        """Return the file of a frame; numbers are written so that they read back equal."""
        text = frame.to_csv(index=False).encode("utf-8", errors="backslashreplace")
        address = f"data:text/csv;charset=utf-8;base64,{base64.b64encode(text).decode('ascii')}"
        return cls(name, about, len(frame), ", ".join(map(str, frame.columns)), address)


def downloads(frames: Mapping[str, tuple[str, pd.DataFrame]]) -> list[Download]:
    """Return a file for each frame, by its name, with what it is about."""
    return [Download.of(name, about, frame) for name, (about, frame) in frames.items()]
