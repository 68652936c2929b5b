"""A batch: samples with their targets, and the rule that says which of a model's arguments are cut with them."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_leaves, tree_map

Name = int | str
"""An argument's place among inputs and additional arguments, counted from 0, or a key of an argument that is a dict."""

PLAIN = (type(None), bool, int, float, complex, str, bytes, np.generic, torch.dtype, torch.device, enum.Enum)
SETTINGS = (*PLAIN, type, FunctionType, nn.Module)
"""Types that hold no samples: they go along whole."""


class Batch(NamedTuple):
    """Samples with the target of each; the model is called as ``model(*inputs, *additional_forward_args)``.

    Every tensor of ``inputs`` is ``[n, ...]``, ``target`` is ``[n]``. A tensor or array with n rows, and a list of n
    strings, is cut along with the samples, also inside a dict or tuple; all else goes along whole. Where a
    sample is not a row (in an object of a class of its own, a list of tensors, a graph), the batch always runs whole.

    Args:
        shared: the arguments that are not per sample, such as class embeddings, positions or an adjacency matrix:
            their numbers, counted over ``inputs`` and then ``additional_forward_args``, or keys of dicts among
            them. They are never cut, and no attribution repeats or interpolates them.
        position_mask: bool ``[n, positions]``, False for padding: a position that no statistic, unit score or
            reference mean counts. The positions are those of the layer's output, also as ``[n, height, width]``. A
            layer without positions takes no notice of it.

    Example:
        >>> import torch
        >>> from captum_ablate import Batch
        >>> batch = Batch((torch.zeros(4, 3), torch.ones(4, 4)), torch.tensor([0, 1, 0, 1]), shared=(1,))
        >>> [len(argument) for argument in batch.take(slice(2)).inputs]
        [2, 4]
    """

    inputs: tuple[Any, ...]
    target: Any
    additional_forward_args: tuple[Any, ...] = ()
    shared: tuple[Name, ...] = ()
    position_mask: Any = None

    @property
    def arguments(self) -> tuple[Any, ...]:
        """Inputs and additional arguments, in the order of ``shared``."""
        return (*self.inputs, *self.additional_forward_args)

    def take(self, samples: slice | Tensor) -> Batch:
        """Return some of the samples; whatever has no row per sample goes along whole.

        Raises:
            ValueError: if the samples cannot be cut apart; see ``why_whole``.
        """
        n = len(self.target)
        rows = torch.arange(n)[samples if isinstance(samples, slice) else samples.cpu()]
        if isinstance(samples, slice) and len(rows) == n:
            return self
        why = self.why_whole()
        if why is not None:
            raise ValueError(f"the samples of this batch cannot be cut apart: {why}")

        def cut(value: Any) -> Any:
            return _cut(value, samples, rows) if has_rows(value, n) else value

        arguments = self.mapped(cut)
        k = len(self.inputs)
        mask = None if self.position_mask is None else self.position_mask[samples]
        return Batch(arguments[:k], self.target[samples], arguments[k:], self.shared, mask)

    def why_whole(self) -> str | None:
        """Tell why the samples cannot be cut apart, or None if they can."""
        n = len(self.target)
        for number, value in enumerate(self.arguments):
            for leaf in self._leaves(number, value):
                if isinstance(leaf, (Tensor, np.ndarray, *SETTINGS)) or is_texts(leaf):
                    continue
                if number < len(self.inputs) or any(has_rows(part, n) for part in _members(leaf)):
                    kind = "a list of tensors, one a sample" if isinstance(leaf, list) else type(leaf).__name__
                    return f"argument {number} is, or holds, {kind}, not one tensor with a row for each sample"
        if not self.names_with_rows():
            return f"no argument has one row for each of the {n} samples"
        return None

    def names_with_rows(self) -> list[Name]:
        """Return the names of the arguments, in the sense of ``shared``, that are cut with the samples."""
        n = len(self.target)
        return [name for name, value in self.named() if any(has_rows(leaf, n) for leaf in leaves(value, n))]

    def named(self) -> Iterator[tuple[Name, Any]]:
        """Yield every argument that is not shared, by its name; a dict argument key by key."""
        for number, value in enumerate(self.arguments):
            if number in self.shared:
                continue
            if isinstance(value, dict) and all(isinstance(key, str) for key in value):
                yield from ((key, part) for key, part in value.items() if key not in self.shared)
            else:
                yield number, value

    def _leaves(self, number: int, value: Any) -> list[Any]:
        """Return what an argument holds, without what is shared."""
        if number in self.shared:
            return []
        parts = [part for key, part in value.items() if key not in self.shared] if isinstance(value, dict) else [value]
        return [leaf for part in parts for leaf in leaves(part, len(self.target))]

    def mapped(self, f: Callable[[Any], Any]) -> tuple[Any, ...]:
        """Return the arguments with ``f`` applied to everything in them that is not shared."""
        n, shared = len(self.target), self.shared

        def mapped(value: Any) -> Any:
            return f(value) if isinstance(value, Tensor) else tree_map(f, value, is_leaf=lambda x: _is_whole(x, n))

        def of_argument(number: int, value: Any) -> Any:
            if number in shared:
                return value
            if isinstance(value, dict) and any(key in shared for key in value):
                new = value.copy()
                new.update({key: mapped(part) for key, part in value.items() if key not in shared})
                return new
            return mapped(value)

        return tuple([of_argument(number, value) for number, value in enumerate(self.arguments)])


def has_rows(value: Any, n: int) -> bool:
    """Tell whether a value has one row for each of n samples."""
    if isinstance(value, Tensor):
        return not value.is_nested and value.ndim > 0 and value.shape[0] == n
    if isinstance(value, np.ndarray):
        return value.ndim > 0 and len(value) == n
    return is_texts(value) and len(value) == n


def is_texts(value: Any) -> bool:
    """Tell whether a value is a list of strings, or a tuple of them, as data loaders make."""
    return type(value) in (list, tuple) and len(value) > 0 and all(isinstance(one, str) for one in value)


def leaves(value: Any, n: int) -> list[Any]:
    """Return what nested containers hold; lists of strings, and lists of n tensors, are not taken apart."""
    return [value] if isinstance(value, Tensor) else tree_leaves(value, is_leaf=lambda x: _is_whole(x, n))


def _is_whole(value: Any, n: int) -> bool:
    """Tell whether a container is one thing: a packed sequence, strings, or tensors that may be one a sample."""
    if isinstance(value, PackedSequence) or is_texts(value):
        return True
    return isinstance(value, list) and len(value) == n and any(isinstance(one, Tensor) for one in value)


def _members(value: Any) -> list[Any]:
    """Return what an object of a class of its own holds, as far as one can see."""
    if isinstance(value, (list, tuple)):
        return [value, *value]
    return list(value.values()) if isinstance(value, Mapping) else list(getattr(value, "__dict__", {}).values())


def _cut(value: Any, samples: slice | Tensor, rows: Tensor) -> Any:
    if isinstance(value, Tensor):
        if value.layout == torch.strided:
            return value[samples]
        some = rows.to(value.device)
        if value.layout == torch.sparse_coo:
            return value.index_select(0, some)
        return value.to_sparse_coo().index_select(0, some).to_sparse(layout=value.layout)
    return value[rows.numpy()] if isinstance(value, np.ndarray) else type(value)(value[row] for row in rows.tolist())


def map_tensors(f: Callable[[Tensor], Tensor], batch: Batch) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return inputs and additional arguments with ``f`` applied to every tensor in them."""
    inputs, extra = batch.inputs, batch.additional_forward_args
    if are_tensors(inputs) and are_tensors(extra):
        return tuple([f(part) for part in inputs]), tuple([f(part) for part in extra])
    return tree_map(lambda x: f(x) if isinstance(x, Tensor) else x, (inputs, extra))


def are_tensors(values: tuple[Any, ...]) -> bool:
    """Tell whether there is nothing but tensors: then no container is to be looked into, which costs a lot."""
    return all([isinstance(value, Tensor) for value in values])  # noqa: C419  a list is twice as fast here


def as_tuple(value: Any) -> tuple[Any, ...]:
    """Return a tuple as it is, and anything else as a tuple of one."""
    return value if isinstance(value, tuple) else (value,)
