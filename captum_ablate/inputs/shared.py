"""Find arguments that have one row per sample by accident, such as 8 class embeddings beside 8 samples."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, combinations, islice
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from captum_ablate.inputs.batch import Batch, Name, has_rows, leaves
from captum_ablate.inputs.unchanged import unchanged

PASSES = 16
"""Most forward passes that look for the arguments that are shared."""

CLOSE = 1e-3
"""Largest difference between a sample's outputs with and without another one beside it, relative to the largest."""


def shared_by_accident(forward_func: Callable[..., Any] | None, batch: Batch) -> tuple[Name, ...]:
    """Return the names of arguments that are cut with the samples, but whose cutting changes the outputs.

    One sample is left out. If the others' outputs stay as they were only as long as an argument is not cut, it is
    shared. Where a model mixes samples, or fails without one of them, nothing is found.
    """
    names, n = batch.names_with_rows(), len(batch.target)
    if forward_func is None or n < 2 or len(names) < 2 or batch.why_whole() is not None:
        return ()
    rest = slice(1, n)
    some = chain.from_iterable(combinations(names, k) for k in range(1, len(names)))
    with unchanged(forward_func), torch.no_grad():
        try:
            whole = _run(forward_func, batch)
        except Exception:  # the user's mistake, which the next pass raises again
            return ()
        if _stays(forward_func, batch.take(rest), whole):
            return ()
        for found in islice(some, PASSES):
            if _stays(forward_func, batch._replace(shared=(*batch.shared, *found)).take(rest), whole):
                return found
    return ()


class RowsSeen:
    """Watch over batches whether an argument has a row per sample in one of them and not in another."""

    def __init__(self) -> None:
        self._seen: dict[Name, tuple[bool, int, int]] = {}

    def look(self, batch: Batch, number: int) -> None:
        """Look at one batch.

        Raises:
            ValueError: if an argument has one row per sample here and not in an earlier batch, or the reverse.
        """
        n, with_rows = len(batch.target), batch.names_with_rows()
        for name, value in batch.named():
            tensors = [leaf for leaf in leaves(value, n) if isinstance(leaf, Tensor) and leaf.ndim > 0]
            if not tensors:
                continue
            own = name in with_rows
            before, earlier, samples = self._seen.setdefault(name, (own, number, n))
            if before != own:
                one, other = ((number, n), (earlier, samples)) if own else ((earlier, samples), (number, n))
                raise ValueError(
                    f"argument {name!r} has one row per sample in batch {one[0]} ({one[1]} samples) and not in batch "
                    f"{other[0]} ({other[1]} samples), so it is not per sample: name it in "
                    f"Batch(inputs, target, additional_forward_args, shared=({name!r},))"
                )


def _run(forward_func: Callable[..., Any], batch: Batch) -> Any:
    copies = tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, batch.arguments)
    return forward_func(*copies)


def _stays(forward_func: Callable[..., Any], rest: Batch, whole: Any) -> bool:
    """Tell whether the outputs of all samples but the first are what they were in the ``whole`` batch."""
    n = len(rest.target) + 1
    try:
        outputs = _run(forward_func, rest)
    except Exception:  # it needs the argument whole, or all samples
        return False
    pairs = list(zip(tree_leaves(whole), tree_leaves(outputs), strict=False))
    rows = [(a[1:], b) for a, b in pairs if isinstance(a, Tensor) and isinstance(b, Tensor) and has_rows(a, n)]
    return len(rows) > 0 and all(a.shape == b.shape and _close(a, b) for a, b in rows)


def _close(a: Tensor, b: Tensor) -> bool:
    if not a.is_floating_point():
        return bool(torch.equal(a, b))
    finite = a[torch.isfinite(a)].abs()
    largest = float(finite.max()) if finite.numel() else 0.0
    return bool(torch.allclose(a, b, rtol=CLOSE, atol=CLOSE * largest, equal_nan=True))
