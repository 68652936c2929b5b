"""Cut data into pieces that a method can hold at once, by the memory that it takes for one sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from captum_ablate.attr.inner import may_draw, needs_baselines, parameters
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.batches import Batches, UnpackBatch, as_batches
from captum_ablate.inputs.unchanged import draws_restored, unchanged

SAMPLES_AT_A_TIME = 64
"""Path methods run every sample some 50 times at once: batches of tensors are smaller than for a forward pass."""

HELD_BYTES = 3 * 2**29
"""Memory for what one call keeps for its backward pass, 1.5 GiB: with all else the process stays below 3 GB."""

REPEATS = ("n_steps", "n_samples", "nt_samples")
"""Arguments that make a method run every sample many times at once."""
CHOSEN = ("internal_batch_size", "nt_samples_batch_size")
"""Arguments by which a user says how much to run at once."""


def batches_of_samples(
    data: Any,
    forward_func: Any,
    batch_size: int | None = None,
    unpack_batch: UnpackBatch | None = None,
    *,
    classes: bool = True,
) -> Batches:
    """Return the batches of ``data``; tensors come in batches that per-sample methods can hold."""
    size = SAMPLES_AT_A_TIME if batch_size is None else batch_size
    return as_batches(data, forward_func=forward_func, batch_size=size, unpack_batch=unpack_batch, classes=classes)


def held_bytes(run: Callable[[], Any], model: Any) -> int:
    """Return the bytes that ``run()`` keeps for its backward passes, parameters and buffers of ``model`` apart."""
    owner = getattr(model, "__self__", model)
    own = [*owner.parameters(), *owner.buffers()] if isinstance(owner, nn.Module) else []
    known = {tensor.untyped_storage().data_ptr() for tensor in own if tensor.layout is torch.strided}
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor.layout is torch.strided:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                sizes[storage.data_ptr()] = max(storage.nbytes(), sizes.get(storage.data_ptr(), 0))
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        run()
    return sum(sizes.values())


class Pieces:
    """Cuts batches for a method that repeats samples into pieces that fit into ``HELD_BYTES``.

    What one sample takes is measured at the first batch, in a run that is thrown away. Captum's numbers do not depend
    on the cut beyond rounding. Where one sample does not fit, Captum's ``internal_batch_size`` cuts its steps.
    """

    def __init__(self, attribution: Any, model: Any, layer: nn.Module) -> None:
        self._takes, self._model, self._layer = parameters(attribution), model, layer
        self._draws = may_draw(attribution)
        self._per_value: float | None = None

    def __call__(
        self, batch: Batch, kwargs: dict[str, Any], run: Callable[[Batch, dict[str, Any]], Any]
    ) -> Iterator[tuple[Batch, dict[str, Any]]]:
        """Yield pieces of ``batch`` with the arguments for each; ``run(batch, kwargs)`` attributes."""
        n = len(batch.target)
        repeats = any(name in self._takes for name in REPEATS)
        if not repeats or any(kwargs.get(name) for name in CHOSEN) or batch.why_whole() is not None:
            yield batch, kwargs
            return
        if self._per_value is None:
            self._per_value = self._measured(batch, kwargs, run) / _values(batch)
        one = self._per_value * _values(batch) / n
        if one > HELD_BYTES and "internal_batch_size" in self._takes and "nt_samples" not in self._takes:
            steps = kwargs.get("n_steps", self._takes["n_steps"].default) + 1
            kwargs = {**kwargs, "internal_batch_size": max(2, int(HELD_BYTES * steps // one))}
        size = max(1, int(HELD_BYTES // max(1.0, one)))
        if size >= n:
            yield batch, kwargs
            return
        for start in range(0, n, size):
            rows = slice(start, start + size)
            yield batch.take(rows), self._cut(kwargs, rows, n)

    def _measured(self, batch: Batch, kwargs: dict[str, Any], run: Callable[[Batch, dict[str, Any]], Any]) -> float:
        """Return the bytes for a batch like this one, from its first sample; 0 where one sample cannot be run alone."""
        n, first = len(batch.target), slice(1)
        try:
            with unchanged(self._model, self._layer), draws_restored() if self._draws else nullcontext():
                one = held_bytes(lambda: run(batch.take(first), self._cut(kwargs, first, n)), self._model)
        except Exception:  # a model made for one size of batch, or an error that the whole batch will tell
            return 0.0
        return float(one * n)

    def _cut(self, kwargs: dict[str, Any], rows: slice, n: int) -> dict[str, Any]:
        """Return the arguments for some samples: baselines may have one row for each."""
        if kwargs.get("baselines") is None or needs_baselines(self._takes):
            return kwargs  # a distribution of baselines is for every sample

        def cut(value: Any) -> Any:
            return value[rows] if isinstance(value, Tensor) and value.ndim > 0 and len(value) == n > 1 else value

        given = kwargs["baselines"]
        return {**kwargs, "baselines": tuple(map(cut, given)) if isinstance(given, tuple) else cut(given)}


def _values(batch: Batch) -> int:
    """Return how many values the inputs of a batch have, a measure of the work."""
    leaves = tree_leaves((batch.inputs, batch.additional_forward_args))
    return max(1, sum(leaf.numel() for leaf in leaves if isinstance(leaf, Tensor)))
