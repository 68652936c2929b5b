"""Does selectivity times activity predict the deficit of a group beyond selectivity and activity themselves?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from captum_ablate.evaluation.labels import label
from captum_ablate.inputs.values import whole_number
from captum_ablate.statistics.intervals import LEVEL, Interval
from captum_ablate.studies.linear_models import Blocks, LinearFit, bootstrap, fit, freedman_lane
from captum_ablate.studies.regression_terms import blocks_of, check_columns, regression_terms, strata_of

MODELS = {
    "M1": ("constant", "selectivity", "log size"),
    "M2": ("constant", "selectivity", "activity", "log size"),
    "M3": ("constant", "selectivity", "activity", "log size", "product"),
}
LABELS = {"excess": "deficit beyond random groups", "deficit": "deficit"}
"""Names of the two responses of ``AblationGrid.deficits`` in plots."""
ENDS = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]


@dataclass(frozen=True, eq=False)
class InteractionRegression:
    """Three nested linear models of the deficit D of groups of units, one row per group (of a class).

    With s and a the group's mean selectivity and activity, standardised, and n the logarithm of its size,
    M1: D ~ 1 + s + n; M2: D ~ 1 + s + a + n; M3: D ~ 1 + s + a + n + s a.

    ``models`` has a row per model: r2, adjusted_r2, aic, coefficients. ``product`` is the coefficient of s a in M3 with
    ``product_interval``. ``r2_gain`` is R2(M3) - R2(M2) with ``r2_gain_interval``, which cannot fall below 0. ``p`` is
    Freedman and Lane's permutation p of the product, M3 against M2, two-sided. Intervals come from groups
    resampled within strata, with the standardisation held fixed. The rows of one group, its classes, are permuted and
    resampled together: they are not independent. ``groups`` counts the groups.
    """

    models: pd.DataFrame
    coefficients: pd.DataFrame
    product: float
    product_interval: Interval
    r2_gain: float
    r2_gain_interval: Interval
    p: float
    permutations: int
    strata: tuple[str, ...]
    groups: int
    response: str
    rows: pd.DataFrame

    @classmethod
    def of(
        cls,
        terms: Mapping[str, NDArray[np.float64]],
        y: NDArray[np.float64],
        blocks: Blocks,
        *,
        strata: tuple[str, ...],
        response: str,
        permutations: int,
        resamples: int,
        seed: int,
    ) -> InteractionRegression:
        """Fit the models to the deficits ``y [n]`` of groups with these ``terms``, each ``[n]``.

        ``blocks`` are the rows of each group, which are exchanged and resampled as one.

        Raises:
            ValueError: if the rows cannot tell the product from the other terms.
        """
        designs = {name: np.column_stack([terms[term] for term in model]) for name, model in MODELS.items()}
        fits = {name: fit(design, y) for name, design in designs.items()}
        if fits["M3"].rank == fits["M2"].rank or len(y) <= fits["M3"].rank:
            raise ValueError(
                f"{len(y)} rows cannot tell the product from selectivity, activity and size; bring more groups "
                "(smaller tiles, more classes)"
            )
        drawn = {name: bootstrap(x, y, blocks, resamples=resamples, seed=seed) for name, x in designs.items()}
        intervals = {name: np.percentile(drawn[name][0], ENDS, axis=0) for name in MODELS}
        product_low, product_high = intervals["M3"][:, -1]
        gain_low, gain_high = np.nanpercentile(drawn["M3"][1] - drawn["M2"][1], ENDS)
        fitted = {f"fitted {name}": found.fitted for name, found in fits.items()}
        return cls(
            models=_qualities(fits),
            coefficients=_coefficients(fits, intervals),
            product=float(fits["M3"].coefficients[-1]),
            product_interval=Interval(float(product_low), float(product_high)),
            r2_gain=fits["M3"].r2 - fits["M2"].r2,
            r2_gain_interval=Interval(float(gain_low), float(gain_high)),
            p=freedman_lane(designs["M2"], terms["product"], y, blocks, permutations=permutations, seed=seed),
            permutations=permutations,
            strata=strata,
            groups=len(blocks.rows),
            response=response,
            rows=pd.DataFrame({**terms, "deficit": y, **fitted}),
        )

    @property
    def n(self) -> int:
        """Number of rows fitted: groups, times classes where each group has a row per class."""
        return len(self.rows)

    def aic_gain(self, over: str) -> float:
        """Return the AIC of model ``over`` minus that of M3; above 0, M3 is the better one.

        Raises:
            ValueError: if ``over`` is no model.
        """
        if over not in MODELS:
            raise ValueError(f"the models are {', '.join(MODELS)}; got {over!r}")
        aic = dict(zip(self.models.index, self.models["aic"].to_numpy(np.float64), strict=True))
        return float(aic[over] - aic["M3"])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per model and term: model, term, estimate, low, high, r2, adjusted_r2, aic."""
        quality = self.models[["r2", "adjusted_r2", "aic"]]
        return self.coefficients.merge(quality, left_on="model", right_index=True).reset_index(drop=True)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the deficits against selectivity, coloured by activity, with what M3 predicts; return the axes."""
        if ax is None:
            _, ax = plt.subplots(figsize=(6.8, 4.8), layout="constrained")
        rows = self.rows
        most = float(rows["activity"].abs().quantile(0.98))
        ax.axhline(0, color="#b5b5b5", linewidth=0.8)
        dots = ax.scatter(
            rows["selectivity"],
            rows["deficit"],
            c=rows["activity"],
            cmap="viridis",
            vmin=-most,
            vmax=most,
            s=14,
            alpha=0.7,
        )
        across = np.linspace(rows["selectivity"].min(), rows["selectivity"].max(), 50)
        for activity in (-1.0, 0.0, 1.0):
            predicted = self._predicted(across, activity)
            colour = plt.get_cmap("viridis")((activity + most) / (2 * most) if most else 0.5)
            ax.plot(across, predicted, color="white", linewidth=4)
            ax.plot(
                across,
                predicted,
                color=colour,
                linewidth=2.2,
                label=f"M3, activity {activity:+.0f} sd" if activity else "M3, mean activity",
            )
        ax.figure.colorbar(dots, ax=ax, label="mean activity of the group (sd)")
        ax.set(xlabel="selectivity of the group (sd)", ylabel=label(LABELS.get(self.response, self.response)))
        ax.legend(frameon=False, fontsize="small")
        ax.spines[["top", "right"]].set_visible(False)
        low, high = self.product_interval
        ax.set_title(
            f"{self._counted}: product {self.product:.4f} [{low:.4f}, {high:.4f}], p = {self.p:.3g}",
            loc="left",
            fontweight="bold",
            fontsize="medium",
        )
        return ax

    @property
    def _counted(self) -> str:
        return f"{self.n} groups" if self.n == self.groups else f"{self.groups} groups, {self.n} rows"

    def _predicted(self, selectivity: NDArray[np.float64], activity: float) -> NDArray[np.float64]:
        """Return the deficits that M3 predicts for ``selectivity [n]``, in a group of mean log size."""
        terms: dict[str, float] = dict(
            self.coefficients.query("model == 'M3'")[["term", "estimate"]].itertuples(index=False)
        )
        size = float(self.rows["log size"].mean())
        flat = terms["constant"] + terms["activity"] * activity + terms["log size"] * size
        return flat + (terms["selectivity"] + terms["product"] * activity) * selectivity

    def __repr__(self) -> str:
        low, high = self.product_interval
        r2 = ", ".join(f"{name} {value:.3f}" for name, value in self.models["r2"].items())
        return (
            f"InteractionRegression({self._counted}: R2 {r2}; product {self.product:.4g} [{low:.4g}, {high:.4g}], "
            f"p = {self.p:.3g})"
        )


def interaction_regression(
    frame: pd.DataFrame,
    *,
    response: str = "excess",
    selectivity: str = "selectivity",
    activity: str = "mean_activity",
    size: str = "n_units",
    strata: Sequence[str] | None = None,
    groups: str | Sequence[str] | None = None,
    permutations: int = 1999,
    resamples: int = 1000,
    seed: int = 0,
) -> InteractionRegression:
    """Regress the deficit of groups on selectivity, activity, their product and the logarithm of the group's size.

    The abstract of Hayne et al. (2022, arXiv 2211.04367) says that an interaction between selectivity and average
    activity better predicts the deficits of groups of units. The models are our reading of it. Selectivity and activity
    are standardised within ``network`` and ``layer``, before the product is formed.

    Args:
        frame: one row per group (and class), such as ``AblationGrid.deficits(...).to_frame()``.
        response: the column of deficits: "excess" (over random groups of the same size) or "deficit".
        selectivity: the column of group means of selectivity.
        activity: the column of group means of activity.
        size: the column of numbers of units.
        strata: columns whose combinations rows are permuted and resampled within. Without, those of ``network``,
            ``layer`` and ``class`` that the frame has.
        groups: columns that name the group of units of a row, within ``network`` and ``layer``. The rows of a group
            are permuted and resampled together. Without, rows with one ``group``, size and selectivity are a group
            where the frame has a column ``group``; ``()`` makes each row its own.
        permutations: of Freedman and Lane's test.
        resamples: of the bootstrap.
        seed: of both.

    Raises:
        TypeError: if ``frame`` is no DataFrame.
        ValueError: if a column is missing, not finite or constant, or the rows cannot tell the product from the other
            terms.

    Example:
        >>> import numpy as np, pandas as pd
        >>> from captum_ablate import interaction_regression
        >>> random = np.random.default_rng(0)
        >>> s, a = random.normal(size=(2, 80))
        >>> sizes = random.integers(3, 9, 80)
        >>> frame = pd.DataFrame({"selectivity": s, "mean_activity": a, "n_units": sizes, "excess": s * a})
        >>> found = interaction_regression(frame, permutations=99, resamples=50)
        >>> round(float(found.models["r2"]["M3"]), 3), found.p
        (1.0, 0.01)
    """
    check_columns(frame, (response, selectivity, activity, size))
    permutations = whole_number(permutations, "permutations", 1)
    resamples = whole_number(resamples, "resamples", 1)
    strata = strata_of(frame, strata)
    return InteractionRegression.of(
        regression_terms(frame, selectivity, activity, size),
        frame[response].to_numpy(np.float64),
        blocks_of(frame, strata, groups, selectivity=selectivity, size=size),
        strata=strata,
        response=response,
        permutations=permutations,
        resamples=resamples,
        seed=seed,
    )


def _qualities(fits: dict[str, LinearFit]) -> pd.DataFrame:
    """Return one row per model: r2, adjusted_r2, aic, coefficients."""
    rows = {
        name: {"r2": found.r2, "adjusted_r2": found.adjusted_r2, "aic": found.aic, "coefficients": found.rank}
        for name, found in fits.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")


def _coefficients(fits: dict[str, LinearFit], intervals: dict[str, NDArray[np.float64]]) -> pd.DataFrame:
    """Return one row per model and term: model, term, estimate, low, high."""
    rows: list[dict[str, Any]] = [
        {"model": name, "term": term, "estimate": fits[name].coefficients[k], "low": low, "high": high}
        for name, of in MODELS.items()
        for k, (term, low, high) in enumerate(zip(of, *intervals[name], strict=True))
    ]
    return pd.DataFrame(rows)
