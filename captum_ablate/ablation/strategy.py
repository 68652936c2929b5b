"""Execution of a tape: as recorded, or with fewer operators, another memory format, or several masks in one pass.

No ``Strategy`` changes the mathematics. In each, operators that act on every unit alone run once, on the activations
and on the reference, and the mask is applied after them: that is bit-identical. Stacked masks, channels-last memory,
folded batch norm, narrowing to the tokens that are read, and incremental updates round differently, by about 1e-7.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Strategy:
    """Execution of a tape: the number of masks in one pass (``stack``), the memory format, and the rewrites."""

    stack: int = 1
    channels_last: bool = False
    folded: bool = False
    incremental: bool = False
    narrowed: bool = False

    @property
    def is_exact(self) -> bool:
        """Tell whether the operators of a full forward pass run, so that every bit agrees."""
        return self == Strategy()

    def __str__(self) -> str:
        words = [
            f"{self.stack} masks stacked" if self.stack > 1 else "",
            "channels last" if self.channels_last else "",
            "folded batch norm" if self.folded else "",
            "only the tokens that are read" if self.narrowed else "",
            "first affine operator updated incrementally" if self.incremental else "",
        ]
        return ", ".join(filter(None, words))
