"""The information that two labellings share by chance alone: its expectation over permutations, from their margins.

Vinh, Epps and Bailey (JMLR 2010, equation 24a): a cell of the table is hypergeometric, whatever the other cells are.
"""

from __future__ import annotations

from functools import lru_cache
from math import log

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import gammaln
from torch import Tensor

from captum_ablate.statistics.histogram import ClassHistogram

CELLS = 2**20
"""Terms that are summed at a time: 8 MiB."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def expected_specific_information(histogram: ClassHistogram) -> Tensor:
    """Return the expectation of ``specific_information`` under permuted labels, in bits, ``[classes, units]``.

    Its mean under P(c) is the expectation of the mutual information.
    """
    by_bin = histogram.counts.sum(0)  # [units, bins]
    by_class = histogram.counts[:, 0].sum(-1)  # [classes]
    sizes, index = torch.unique(by_class, return_inverse=True)
    shared = torch.stack([shared_by_chance(by_bin, size).sum(-1) for size in sizes.tolist()])  # [sizes, units]
    return (shared * (by_class.sum() / sizes.double())[:, None])[index]


def expected_information(by_bin: Tensor, by_class: Tensor) -> Tensor:
    """Return the expected mutual information of labellings with these margins, in bits, ``[...]``.

    ``by_bin [..., bins]`` and ``by_class [classes]`` count the same samples.
    """
    sizes, classes = torch.unique(by_class, return_counts=True)
    shared = [shared_by_chance(by_bin, size) * k for size, k in zip(sizes.tolist(), classes.tolist(), strict=True)]
    return torch.stack(shared).sum(0).sum(-1)


def shared_by_chance(by_bin: Tensor, size: int) -> Tensor:
    """Return what each bin adds to the expected information for one class of ``size``, in bits, as ``by_bin``.

    ``by_bin [..., bins]`` are counts; the last axis adds up to n. Equal counts are computed once.
    """
    n = int(by_bin.reshape(-1, by_bin.shape[-1])[0].sum())
    occurs = torch.bincount(by_bin.flatten(), minlength=n + 1) > 0
    occurs[0] = False  # an empty bin shares nothing
    counts = occurs.nonzero().flatten()
    table = torch.zeros(n + 1, dtype=torch.float64)
    table[counts] = torch.from_numpy(_expected_terms(counts.numpy(), size, n)) / log(2)
    return table[by_bin]


def _expected_terms(counts: Integers, size: int, n: int) -> Floats:
    """Return E[k/n ln(n k / (count size))] for each of ``counts``, ascending; k of ``size`` drawn samples lie in it.

    The sum leaves out what is rarer than 1e-20: more than 10 standard deviations and 30 samples from the mean.
    """
    log_factorial = _log_factorials(n)
    mean = counts * (size / n)
    deviation = np.sqrt(mean * (1 - counts / n) * (n - size) / max(1, n - 1))
    low = np.maximum(np.maximum(1, counts + size - n), np.floor(mean - 10 * deviation - 30).astype(np.int64))
    high = np.minimum(np.minimum(counts, size), np.ceil(mean + 10 * deviation + 30).astype(np.int64))
    expected, start = np.empty(len(counts)), 0
    while start < len(counts):
        few = slice(start, start + max(1, CELLS // int((high - low)[start:].max() + 1)))
        a, first, last = counts[few, None], low[few, None], high[few, None]
        k = first + np.arange(int((last - first).max()) + 1)
        inside = k <= last
        k = np.minimum(k, last)
        log_p = log_factorial[a] - log_factorial[k] - log_factorial[a - k]
        log_p += log_factorial[n - a] - log_factorial[size - k] - log_factorial[n - a - size + k]
        log_p += log_factorial[size] + log_factorial[n - size] - log_factorial[n]
        terms = np.exp(log_p) * (k / n) * np.log(n * k.astype(np.float64) / (a * float(size)))
        expected[few] = np.where(inside, terms, 0.0).sum(axis=1)
        start = few.stop
    return expected


@lru_cache(maxsize=1)  # the same for every class
def _log_factorials(n: int) -> Floats:
    """Return ln k! for k = 0 .. n."""
    table: Floats = gammaln(np.arange(1, n + 2, dtype=np.float64))
    return table
