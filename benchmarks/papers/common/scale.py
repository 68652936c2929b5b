"""The size of a replication: seconds for a test, minutes for the page, or no limit."""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

Size = TypeVar("Size")


class Scale(Enum):
    """``QUICK`` takes seconds and shows that the script runs, ``NORMAL`` makes the page, ``FULL`` has no limit."""

    QUICK = "quick"
    NORMAL = "normal"
    FULL = "full"

    def pick(self, quick: Size, normal: Size, full: Size | None = None) -> Size:
        """Return the size for this scale; ``full`` is ``normal`` unless given."""
        if self is Scale.QUICK:
            return quick
        return normal if self is Scale.NORMAL or full is None else full

    @property
    def option(self) -> str:
        """The option of the command line: ``--quick``, ``--full`` or nothing."""
        return "" if self is Scale.NORMAL else f"--{self.value}"
