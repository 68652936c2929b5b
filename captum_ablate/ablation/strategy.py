"""How a tape runs: as recorded, or with fewer operators, another memory format, several masks in one pass.

All that a ``Strategy`` allows leaves the mathematics alone. Operators that treat units separately run once, on the
activations and on the reference, and the mask is applied behind them: that is the same to the bit. Stacked masks,
channels-last memory, folded batch norm, operators on the positions that are read alone, and updates of the first affine
operator round differently, by about 1e-7.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Strategy:
    """How a tape runs: ``stack`` masks in one pass, in which memory format, and with what rewritten."""

    stack: int = 1
    channels_last: bool = False
    folded: bool = False
    incremental: bool = False
    narrowed: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether the very operations of a full forward pass run, so that every bit agrees."""
        return self == Strategy()

    def __str__(self) -> str:
        words = [
            f"{self.stack} masks stacked" if self.stack > 1 else "",
            "channels last" if self.channels_last else "",
            "folded batch norm" if self.folded else "",
            "the tokens that are read" if self.narrowed else "",
            "first affine operator updated, steps stacked" if self.incremental else "",
        ]
        return ", ".join(filter(None, words))
