"""Poisson-bootstrap resamples of a data set: how often each of them holds each sample.

A weight depends on the seed, the resample, the bytes of the sample and which of its equals it is, on nothing else. So
neither the order of samples nor the size of batches matters, and all that is computed on a resample is so on the same
one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import shake_128
from math import exp, factorial

import numpy as np
import torch
from torch import Tensor

from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.batches import Batches
from captum_ablate.inputs.targets import classes_or_zeros

_MOST = 12
"""Largest weight; a Poisson number of mean 1 exceeds it once in 10^10."""

_THRESHOLDS = np.cumsum([exp(-1) / factorial(k) for k in range(_MOST)])


class Keys:
    """Name each sample of a pass over a data set: its digest, and which of its equals it is.

    Samples that cannot be told apart by their bytes, such as graphs, go by their place in the data set.
    """

    def __init__(self) -> None:
        self._seen: Counter[bytes] = Counter()
        self._n = 0

    def of(self, batch: Batch, digests: list[bytes] | None) -> list[bytes]:
        """Return the keys of the samples of the next batch, which have these digests."""
        n = len(batch.target)
        digests = digests or [b"place %d" % k for k in range(self._n, self._n + n)]
        self._n += n
        keys = []
        for digest in digests:
            keys.append(b"%s %d" % (digest, self._seen[digest]))
            self._seen[digest] += 1
        return keys


def uniform(keys: Sequence[bytes], purpose: str, numbers: int) -> np.typing.NDArray[np.float64]:
    """Return ``[keys, numbers]`` random numbers between 0 and 1, for each key its own, the same for a ``purpose``."""
    start = shake_128(purpose.encode())
    found = bytearray()
    for key in keys:
        one = start.copy()
        one.update(key)
        found += one.digest(4 * numbers)
    drawn = np.frombuffer(found, dtype="<u4").reshape(len(keys), numbers)
    values: np.typing.NDArray[np.float64] = (drawn + 0.5) / 2.0**32
    return values


class ResampledBatches(Batches):
    """The batches of a data set, whose samples have a weight in each of several resamples.

    A resample in which fewer than two classes are left, of data with two or more, is drawn again (``settle``). A class
    that it lacks is else as if it were not.

    >>> import torch
    >>> from captum_ablate.inputs.batches import as_batches
    >>> from captum_ablate.inputs.resamples import ResampledBatches
    >>> data = torch.arange(6.0)[:, None], torch.arange(6) % 2
    >>> one, other = (ResampledBatches(as_batches(data, batch_size=k), resamples=3, seed=0) for k in (2, 6))
    >>> for batches in (one, other):
    ...     passed = list(batches)
    >>> one.weights.shape, torch.equal(one.weights, other.weights)
    (torch.Size([6, 3]), True)
    """

    def __init__(self, batches: Batches, resamples: int, seed: int) -> None:
        self._batches, self.resamples, self._seed = batches, resamples, seed
        self.one_shot, self.digest = batches.one_shot, batches.digest
        self._attempts = np.zeros(resamples, dtype=np.int64)
        self._keys: list[bytes] = []
        self._labels: list[Tensor] = []
        self._parts: list[Tensor] = []

    def __iter__(self) -> Iterator[Batch]:
        own = Keys()
        self._keys, self._labels, self._parts = [], [], []
        for batch in self._batches:
            keys = own.of(batch, self._batches.digests(batch))
            self._keys += keys
            self._labels.append(classes_or_zeros(batch.target).cpu())
            self._parts.append(self._drawn(keys))
            yield batch
        self.digest = self._batches.digest

    def __len__(self) -> int:
        """Return the number of batches, as ``Batches``."""
        return len(self._batches)

    @property
    def owner(self) -> object:
        """Source of the batches."""
        return self._batches.owner

    @property
    def samples(self) -> int | None:
        """Number of samples, or None if the source does not know it."""
        return self._batches.samples

    @property
    def batch_weights(self) -> Tensor:
        """How often each resample holds each sample of the batch that came last, int64 ``[n, resamples]``."""
        return self._parts[-1]

    @property
    def weights(self) -> Tensor:
        """How often each resample holds each sample of the last pass, in its order, int64 ``[n, resamples]``."""
        return torch.cat(self._parts)

    def settle(self) -> bool:
        """Draw again, for the samples of the last pass, what lost all classes but one; tell whether any was drawn.

        What was computed under the former weights has to be computed again, then.
        """
        labels, drawn_again = torch.cat(self._labels), False
        needed = min(2, len(labels.unique()))
        while True:
            weights = self.weights
            lost = [b for b in range(self.resamples) if len(labels[weights[:, b] > 0].unique()) < needed]
            if not lost:
                return drawn_again
            self._attempts[lost] += 1
            drawn_again = True
            whole = self._drawn(self._keys)
            self._parts = list(whole.split([len(part) for part in self._labels]))

    def _drawn(self, keys: Sequence[bytes]) -> Tensor:
        weights = np.zeros((len(keys), self.resamples), dtype=np.int64)
        for attempt in np.unique(self._attempts):
            own = self._attempts == attempt
            numbers = uniform(keys, f"resamples {self._seed} {attempt} ", self.resamples)
            weights[:, own] = np.searchsorted(_THRESHOLDS, numbers[:, own], side="right")
        return torch.from_numpy(weights)
