"""Prepare weights once for all batches: batch norm folded into its convolution, channels-last memory format."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from captum_ablate.ablation.tape import Op, Ref, Tape

LARGEST = 2**27
"""Most numbers in a matrix that is copied: 512 MiB in float32."""

_EPS = {
    "native_batch_norm": 7,
    "_native_batch_norm_legit": 7,
    "_native_batch_norm_legit_no_training": 6,
    "cudnn_batch_norm": 7,
}
"""Batch norms, and the place of eps among their arguments."""


class Weights:
    """The prepared weights, which live as long as an evaluation."""

    def __init__(self) -> None:
        self._folded: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}
        self._channels_last: dict[int, tuple[Tensor, Tensor]] = {}
        self._by_rows: dict[int, tuple[Tensor, Tensor]] = {}

    def channels_last(self, weight: Tensor) -> Tensor:
        """Return a weight ``[out, in, height, width]`` in channels-last memory format."""
        key = weight.data_ptr()
        if key not in self._channels_last or self._channels_last[key][0].shape != weight.shape:
            made = weight.detach().contiguous(memory_format=torch.channels_last)
            self._channels_last[key] = weight, made
        return self._channels_last[key][1]

    def by_rows(self, matrix: Tensor) -> Tensor:
        """Return a matrix with contiguous rows, so that a few of them are gathered fast."""
        if matrix.is_contiguous() or matrix.numel() > LARGEST:
            return matrix
        key = matrix.data_ptr()
        if key not in self._by_rows or self._by_rows[key][0].shape != matrix.shape:
            self._by_rows[key] = matrix, matrix.detach().contiguous()
        return self._by_rows[key][1]

    def folded(self, tape: Tape) -> list[Op]:
        """Return the operators, with batch norms folded into their convolution if nothing else reads its result."""
        readers = Counter(slot for op in tape.ops for slot in op.reads)
        readers.update(x.slot for x in tape.outputs[0] if isinstance(x, Ref))
        made_by = {op.outs[0]: number for number, op in enumerate(tape.ops) if op.name == "convolution"}
        ops: list[Op | None] = list(tape.ops)
        for number, op in enumerate(tape.ops):
            source = op.args[0].slot if op.name in _EPS and isinstance(op.args[0], Ref) else None
            if (
                source is None
                or source not in made_by
                or readers[source] != 1
                or any(readers[s] for s in op.outs[1:] if s is not None)
            ):
                continue
            joined = self._joined(tape.ops[made_by[source]], op, tape)
            if joined is not None:
                ops[made_by[source]], ops[number] = joined, None
        return [op for op in ops if op is not None]

    def folds(self, tape: Tape) -> bool:
        """Tell whether a tape has a batch norm that can be folded."""
        return len(self.folded(tape)) < len(tape.ops)

    def _joined(self, convolution: Op, norm: Op, tape: Tape) -> Op | None:
        """Return the convolution that includes the batch norm, or None if they cannot be joined."""
        training = False if norm.name.endswith("no_training") else norm.args[5]
        fixed = [*convolution.args[1:3], *norm.args[1:5]]
        if training or convolution.args[6] or any(isinstance(a, Ref) and a.slot not in tape.constants for a in fixed):
            return None
        weight, bias, gamma, beta, mean, variance = (tape.values[a.slot] if isinstance(a, Ref) else a for a in fixed)
        if weight is None or mean is None or variance is None:
            return None
        key = tuple(0 if t is None else t.data_ptr() for t in (weight, bias, gamma, beta, mean, variance))
        if key not in self._folded:
            self._folded[key] = _fold(weight, bias, gamma, beta, mean, variance, norm.args[_EPS[norm.name]])
        args = (convolution.args[0], *self._folded[key], *convolution.args[3:])
        return replace(convolution, args=args, outs=norm.outs[:1])


def _fold(
    weight: Tensor, bias: Any, gamma: Any, beta: Any, mean: Tensor, variance: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    wide = torch.float64 if weight.device.type != "mps" else torch.float32
    scale = (variance.to(wide) + eps).rsqrt()
    if gamma is not None:
        scale = scale * gamma.to(wide)
    shift = (0 if bias is None else bias.to(wide)) - mean.to(wide)
    shift = shift * scale + (0 if beta is None else beta.to(wide))
    folded = weight.to(wide) * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    return folded.to(weight.dtype).detach(), shift.to(weight.dtype).detach()
