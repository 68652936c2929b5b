"""Digests of samples, data sets and weights: equal on every machine and device, in batches of any size."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from hashlib import blake2b, shake_128
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from captum_ablate.inputs.batch import PLAIN, Batch, has_rows, leaves
from captum_ablate.inputs.layouts import dense_parts
from captum_ablate.inputs.quantised import dequantised

SIZE = 16
"""Bytes of a digest: two of 10^12 different samples share one with probability 1e-15."""

BLOCK = 2**14
"""Words of 8 bytes that go into one checksum."""


def sample_digests(batch: Batch) -> list[bytes] | None:
    """Return the digest of each sample, 16 bytes: BLAKE2b over all that belongs to it alone.

    That is each argument with a row per sample, by name, type, shape and bytes, the target and the position mask.
    Arguments that samples share, and those without a row per sample, do not count. Bytes decide: -0.0 is not 0.0. None
    where the samples of the batch cannot be cut apart (graphs, lists of tensors), so that no sample has bytes of its
    own.

    Example:
        >>> import torch
        >>> from captum_ablate import Batch
        >>> from captum_ablate.inputs.fingerprint import sample_digests
        >>> batch = Batch((torch.tensor([[1.0], [2.0], [1.0]]),), torch.tensor([0, 0, 0]))
        >>> first, second, third = sample_digests(batch)
        >>> first == third, first == second
        (True, False)
    """
    parts = _parts(batch)
    if parts is None:
        return None
    heads, rows = zip(*parts, strict=True)
    start = blake2b(b"".join(heads), digest_size=SIZE)
    found = []
    for row in zip(*rows, strict=True):
        one = start.copy()
        for value in row:
            one.update(value)
        found.append(one.digest())
    return found


class DataDigest:
    """The samples of a data set, by digest and number of occurrences, whatever their order.

    ``add`` takes batch after batch. ``known`` is False once the samples of a batch could not be told apart.
    """

    def __init__(self) -> None:
        self.samples: Counter[bytes] = Counter()
        self.n = 0
        self.known = True

    def add(self, batch: Batch, digests: list[bytes] | None = None) -> None:
        """Count the samples of a batch; ``digests`` are theirs, if they were taken before."""
        self.n += len(batch.target)
        found = digests or (sample_digests(batch) if self.known else None)
        if found is None:
            self.known = False
            self.samples.clear()
            return
        self.samples.update(found)

    def extend(self, other: DataDigest) -> None:
        """Count the samples of another digest too."""
        self.n += other.n
        self.known &= other.known
        self.samples = self.samples + other.samples if self.known else Counter()

    def hexdigest(self) -> str | None:
        """Return 32 hexadecimal digits: the sum of the samples' digests modulo 2^128; None if they are not known.

        So the order of samples does not matter, and how often each occurs does.
        """
        if not self.known:
            return None
        total = sum(int.from_bytes(one, "little") * times for one, times in self.samples.items())
        return (total % 2 ** (8 * SIZE)).to_bytes(SIZE, "little").hex()

    def shared_with(self, other: DataDigest) -> int | None:
        """Return how many samples of this data set occur in ``other`` too; None if either is not known."""
        if not (self.known and other.known):
            return None
        return sum(times for one, times in self.samples.items() if one in other.samples)


def weights_digest(model: Any) -> str | None:
    """Return 32 hexadecimal digits over names, types, shapes and bytes of the model's parameters and buffers.

    The names' order does not count. Of a bound method, those of its object. None if there is no model to ask, or its
    weights have no values yet. Tells networks apart, and is no proof against forgery: large weights go in as checksums.
    """
    module = getattr(model, "__self__", model)
    if not isinstance(module, nn.Module):
        return None
    whole = blake2b(digest_size=SIZE)
    for name, value in sorted(module.state_dict().items()):
        for leaf in tree_leaves(value):  # a quantised module's weights are a tuple
            if isinstance(leaf, Tensor):
                if leaf.is_meta:
                    return None
                for part in dense_parts(leaf.detach()):
                    head, rows = _of_tensor(name, part[None])
                    whole.update(head)
                    whole.update(_checksums(rows.ravel()))
            else:
                whole.update(_head(name, repr(leaf) if isinstance(leaf, PLAIN) else type(leaf).__name__, ()))
    return whole.hexdigest()


def _checksums(raw: NDArray[np.uint8]) -> bytes:
    """Return the bytes, or of many their sums of 64 bits: BLAKE2b takes longer than a pass of a network like VGG.

    Each word of a block has an odd factor of its own, so that any change of one word changes the sum.
    """
    if len(raw) <= 8 * BLOCK:
        return raw.tobytes()
    words = np.frombuffer(raw[: len(raw) // 8 * 8].data, dtype="<u8")
    factors = np.frombuffer(shake_128(b"factors").digest(8 * BLOCK), dtype="<u8") | np.uint64(1)
    sums = [
        int(np.dot(block, factors[: len(block)])) for block in np.array_split(words, range(BLOCK, len(words), BLOCK))
    ]
    return b"".join(one.to_bytes(8, "little") for one in sums) + raw[len(words) * 8 :].tobytes()


def _parts(batch: Batch) -> list[tuple[bytes, Iterable[Any]]] | None:
    """Return the head and the rows of each argument of the batch that is cut with its samples, target and mask."""
    n = len(batch.target)
    values = [leaf for _, value in batch.named() for leaf in leaves(value, n)]
    if batch.why_whole() is not None or any(isinstance(leaf, Tensor) and leaf.is_nested for leaf in values):
        return None
    parts: list[tuple[bytes, Iterable[Any]]] = []
    for name, value in sorted(batch.named(), key=lambda one: (isinstance(one[0], str), one[0])):
        for leaf in leaves(value, n):
            if isinstance(leaf, np.ndarray) and has_rows(leaf, n):
                parts.append(_of_array(name, leaf))
            elif isinstance(leaf, Tensor) and has_rows(leaf, n):
                parts.append(_of_tensor(name, leaf))
            elif has_rows(leaf, n):
                parts.append((_head(name, "text", ()), [_text(one) for one in leaf]))
    parts.append(_of_tensor("target", batch.target))
    if batch.position_mask is not None:
        parts.append(_of_tensor("position_mask", batch.position_mask))
    return parts


def _of_tensor(name: int | str, tensor: Tensor) -> tuple[bytes, NDArray[np.uint8]]:
    """Return the head of a tensor ``[n, ...]``, and its bytes, ``[n, bytes]``."""
    dense = dequantised(tensor.detach())
    if dense.layout != torch.strided:
        dense = dense.to_dense()
    dense = dense.cpu().resolve_conj().resolve_neg().contiguous()
    n = len(dense)
    # bytes, since NumPy has no bfloat16 and its like
    raw = dense.reshape(n, -1).view(torch.uint8) if dense.numel() else torch.zeros(n, 0, dtype=torch.uint8)
    rows: NDArray[np.uint8] = raw.numpy()
    if sys.byteorder == "big":
        size = dense.element_size() // (2 if dense.is_complex() else 1)
        rows = np.ascontiguousarray(rows.reshape(n, -1, size)[..., ::-1]).reshape(rows.shape)
    return _head(name, str(dense.dtype), dense.shape[1:]), rows


def _of_array(name: int | str, array: NDArray[Any]) -> tuple[bytes, Iterable[Any]]:
    """Return the head and the rows of an array that stayed one, because a tensor cannot hold it, such as strings."""
    return _head(name, "text", array.shape[1:]), [b"".join(map(_text, np.ravel(row))) for row in array]


def _text(value: Any) -> bytes:
    written = str(value).encode("utf-8", "surrogatepass")
    return len(written).to_bytes(8, "little") + written


def _head(name: int | str, kind: str, shape: Iterable[int]) -> bytes:
    return _text(f"{name!r} {kind} {tuple(shape)}")
