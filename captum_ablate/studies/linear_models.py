"""Least squares for a handful of terms: fit, bootstrap of blocks of rows, and Freedman and Lane's permutation test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

ROUNDING = 1e-12
"""Share of the largest value below which a spread is the rounding of a mean."""


@dataclass(frozen=True, eq=False)
class LinearFit:
    """``y [n]`` on ``terms [n, terms]`` (a constant among them) by least squares: ``coefficients [terms]``."""

    coefficients: Floats
    fitted: Floats
    residuals: Floats
    total: float
    rank: int

    @property
    def r2(self) -> float:
        """1 - RSS / TSS; NaN where y does not vary."""
        return 1 - float(self.residuals @ self.residuals) / self.total if self.total > 0 else np.nan

    @property
    def adjusted_r2(self) -> float:
        """1 - (1 - R2) (n - 1) / (n - p) with p the coefficients, the constant among them."""
        n = len(self.residuals)
        return 1 - (1 - self.r2) * (n - 1) / (n - self.rank) if n > self.rank else np.nan

    @property
    def aic(self) -> float:
        """N (log(2 pi RSS / n) + 1) + 2 p: Akaike's criterion for Gaussian errors, the variance not counted in p."""
        n = len(self.residuals)
        with np.errstate(divide="ignore"):
            return n * (np.log(2 * np.pi * float(self.residuals @ self.residuals) / n) + 1) + 2 * self.rank


def fit(terms: Floats, y: Floats) -> LinearFit:
    """Return the least-squares fit of ``y [n]`` on ``terms [n, terms]``, of least norm where terms are collinear."""
    coefficients, _, rank, _ = np.linalg.lstsq(terms, y, rcond=None)
    fitted = terms @ coefficients
    centred = y - y.mean()
    varies = float(np.abs(centred).max(initial=0.0)) > ROUNDING * float(np.abs(y).max(initial=0.0))
    total = float(centred @ centred) if varies else 0.0
    residuals: Floats = y - fitted
    return LinearFit(coefficients.astype(np.float64), fitted, residuals, total, int(rank))


@dataclass(frozen=True, eq=False)
class Blocks:
    """Rows that belong together, such as one group of units in every class: they are drawn and exchanged as one.

    ``block [n]`` is the number of each row's block, ``kind [blocks]`` that of each block's kind: blocks are exchanged
    within their kind. ``rows`` holds each block's rows, in an order that matches within a kind.
    """

    block: Integers
    kind: Integers
    rows: tuple[Integers, ...]

    @classmethod
    def of(cls, strata: Integers, groups: Integers, places: Integers) -> Blocks:
        """Return the rows of one group and stratum as a block; each argument is ``[n]``.

        ``places`` tell the rows of a block apart. Blocks of a kind have one stratum and the same places.
        """
        block = np.unique(np.stack([strata, groups]), axis=1, return_inverse=True)[1].reshape(-1)
        first = np.unique(block, return_index=True)[1]
        block = np.argsort(np.argsort(first))[block]  # numbered as they come
        order = np.lexsort((places, block))
        rows = tuple(np.split(order, np.flatnonzero(np.diff(block[order])) + 1))
        kinds = [(int(strata[own[0]]), *places[own].tolist()) for own in rows]
        numbers = {kind: k for k, kind in enumerate(sorted(set(kinds)))}
        return cls(block.astype(np.int64), np.array([numbers[kind] for kind in kinds], dtype=np.int64), rows)

    @classmethod
    def single(cls, strata: Integers) -> Blocks:
        """Return every row as a block of its own, exchanged within ``strata [n]``."""
        return cls.of(strata, np.arange(len(strata)), np.zeros_like(strata))

    def orders(self, permutations: int, random: np.random.Generator) -> Integers:
        """Return orders ``[permutations, n]`` of the rows that exchange whole blocks within their kind."""
        exchanged = _orders(self.kind, permutations, random)  # [permutations, blocks]
        orders = np.empty((permutations, len(self.block)), dtype=np.int64)
        for kind in np.unique(self.kind):
            own = np.flatnonzero(self.kind == kind)
            rows = np.stack([self.rows[k] for k in own])  # [blocks, places]
            orders[:, rows] = rows[np.searchsorted(own, exchanged[:, own])]
        return orders

    def draws(self, resamples: int, random: np.random.Generator) -> Floats:
        """Return how often each row is drawn, ``[resamples, n]``: whole blocks, with replacement, within their kind."""
        times = np.zeros((resamples, len(self.kind)))
        for kind in np.unique(self.kind):
            own = np.flatnonzero(self.kind == kind)
            times[:, own] = random.multinomial(len(own), np.full(len(own), 1 / len(own)), size=resamples)
        return np.take(times, self.block, axis=1)


def bootstrap(terms: Floats, y: Floats, blocks: Blocks, *, resamples: int, seed: int) -> tuple[Floats, Floats]:
    """Return coefficients ``[resamples, terms]`` and R2 ``[resamples]`` of fits to resampled blocks of rows."""
    n, p = terms.shape
    weights = blocks.draws(resamples, np.random.default_rng(seed))
    squares = (weights @ np.einsum("ni,nj->nij", terms, terms).reshape(n, p * p)).reshape(resamples, p, p)
    products = weights @ (terms * y[:, None])  # [resamples, terms]
    coefficients = np.einsum("bij,bj->bi", np.linalg.pinv(squares, hermitian=True), products)
    centred = y - y.mean()  # a mean far from 0 would cost digits
    total = weights @ centred**2 - (weights @ centred) ** 2 / n
    rest = (weights * (y - coefficients @ terms.T) ** 2).sum(axis=1)
    varies = total > n * (ROUNDING * np.abs(y).max(initial=0.0)) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return coefficients, np.where(varies, 1 - rest / total, np.nan)


def freedman_lane(reduced: Floats, extra: Floats, y: Floats, blocks: Blocks, *, permutations: int, seed: int) -> float:
    """Return the two-sided permutation p of the term ``extra [n]`` beside the terms ``reduced [n, terms]``.

    Freedman and Lane (1983) permute the residuals of the reduced model, here in whole blocks (Winkler et al. 2014),
    add them to its fitted values, and fit the full model again. The statistic is \\|t\\| of the extra term. It needs no
    fit of the full model: only y and ``extra`` less what ``reduced`` explains. Where blocks have several rows, the
    standard error of t is that of whole blocks (Liang and Zeger 1986).
    p = (1 + #{permuted >= observed}) / (permutations + 1).
    """
    basis, upper = np.linalg.qr(reduced)
    basis = basis[:, np.abs(np.diag(upper)) > 1e-10 * np.abs(np.diag(upper)).max()]

    def rest(rows: Floats) -> Floats:
        """Return the residuals of ``rows [..., n]`` on ``reduced``."""
        return rows - (rows @ basis) @ basis.T

    direction = rest(extra)
    residuals = rest(y)
    single = len(blocks.rows) == len(y)
    members = None if single else np.eye(len(blocks.rows))[blocks.block]  # [n, blocks]

    def statistic(rows: Floats) -> Floats:
        """Return what rises with \\|t\\|: the partial correlation, or the product over its error from whole blocks."""
        products = rows @ direction
        if members is None:
            error = np.linalg.norm(rows, axis=-1)
        else:
            unexplained = rows - products[..., None] * direction / (direction @ direction)
            error = np.linalg.norm((unexplained * direction) @ members, axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.abs(products) / error

    permuted = rest(residuals[blocks.orders(permutations, np.random.default_rng(seed))])
    observed = float(statistic(residuals))
    at_least = statistic(permuted) >= observed * (1 - 1e-12)
    return float((1 + at_least.sum()) / (permutations + 1))


def _orders(strata: Integers, permutations: int, random: np.random.Generator) -> Integers:
    """Return orders ``[permutations, n]`` of the rows that keep every row in its stratum."""
    ranks = np.unique(strata, return_inverse=True)[1]
    shuffled = np.argsort(ranks + random.random((permutations, len(ranks))), axis=1)  # stratum by stratum
    orders = np.empty_like(shuffled)
    orders[:, np.argsort(ranks, kind="stable")] = shuffled
    return orders
