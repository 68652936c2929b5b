"""Does retraining the last layer on mid-range samples lift the worst group under spurious correlations? C4.3."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmarks.papers.common.claims import Claim, Direction, all_of, judged_over, with_interval, with_parts
from benchmarks.papers.common.page import Section
from benchmarks.papers.common.scale import Scale
from benchmarks.papers.common.training import Trained
from benchmarks.papers.omahony.sets import USES_GROUPS, compare_sets
from benchmarks.papers.omahony.spurious import DATA, spurious_network, spurious_split
from captum_ablate.diagnostics.pictures import image_grid
from captum_ablate.evaluation.plots import COLOURS, GREY
from captum_ablate.statistics.intervals import Floats, mean_interval


def spurious_networks(scale: Scale) -> dict[tuple[str, int], Trained]:
    """Return a network for each data set and seed."""
    names = scale.pick(("coloured MNIST",), tuple(DATA))
    return {(name, seed): spurious_network(name, seed, scale) for name in names for seed in range(scale.pick(2, 5))}


def set_frame(networks: Mapping[tuple[str, int], Trained], scale: Scale) -> pd.DataFrame:
    """Return one row per data set, seed and set of samples: the accuracies of a last layer retrained on the set."""
    frames = [
        compare_sets(net.network, spurious_split(name, seed, scale), seed).assign(data=name, seed=seed)
        for (name, seed), net in networks.items()
    ]
    return pd.concat(frames, ignore_index=True)


def retraining_claims(frame: pd.DataFrame) -> Iterator[Claim]:
    """Yield C4.3, C4.3e and C4.3m, each followed by its parts."""
    yield from _lifted(
        frame,
        "C4.3",
        "retraining on mid-range samples, without group labels,",
        "mid-range",
        "random",
    )
    yield from _lifted(
        frame,
        "C4.3e",
        "retraining on mid-range errors and companions, without group labels,",
        "mid-range errors",
        "random, as many as mid-range errors",
    )
    parts = [
        _paired(
            f"C4.3m, {data}",
            "the mid-range of the error set is better than the error set",
            "worst-group accuracy minus that of as many random errors of each class, same companions, above 0",
            worst["mid-range errors"] - worst["errors, as many as mid-range errors"],
            0.0,
        )
        for data, worst in _by_set(frame, "worst")
    ]
    yield from with_parts(all_of("C4.3m", "the mid-range adds to the error set", "both checks below", parts), parts)


def _lifted(frame: pd.DataFrame, key: str, what: str, variant: str, rival: str) -> Iterator[Claim]:
    """Yield the claim that retraining on ``variant`` lifts the worst group, and its parts for each data set."""
    parts: list[Claim] = []
    for (data, worst), (_, mean) in zip(_by_set(frame, "worst"), _by_set(frame, "train_weighted"), strict=True):
        parts += [
            _paired(
                f"{key}, {data}: gain",
                "it lifts the worst group",
                "worst-group accuracy minus that of ERM above 5",
                worst[variant] - worst["ERM"],
                5.0,
            ),
            _paired(
                f"{key}, {data}: random",
                "more than a random set does",
                "worst-group accuracy minus that of as many random samples above 0",
                worst[variant] - worst[rival],
                0.0,
            ),
            _paired(
                f"{key}, {data}: mean",
                "the mean falls little",
                "fall of the mean (groups weighted as in training) below 5",
                mean["ERM"] - mean[variant],
                5.0,
                "below",
            ),
        ]
    yield from with_parts(
        all_of(key, f"{what} lifts the worst group", "every check below, on each data set", parts), parts
    )


def _by_set(frame: pd.DataFrame, column: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield each data set with ``column`` by seed and set, ``[seeds, sets]``."""
    wide = frame.pivot_table(index=["data", "seed"], columns="set", values=column, dropna=False)
    for data in dict.fromkeys(frame["data"]):
        yield data, wide.loc[data]


def _paired(
    key: str, statement: str, check: str, values: pd.Series, threshold: float, direction: Direction = "above"
) -> Claim:
    known = values.dropna()
    missing = len(values) - len(known)
    note = f"{missing} of {len(values)} seeds have too few such samples to retrain on" if missing else ""
    if known.empty:
        return Claim(key, statement, check, "no seed has enough samples", None, threshold, "undecided", note)
    return judged_over(
        key,
        statement,
        check,
        100 * known,
        threshold=threshold,
        direction=direction,
        unit="points",
        digits=1,
        note=note,
    )


def retraining_lesson(frame: pd.DataFrame) -> str:
    """Return in words how many minority samples each choice finds, and what the same features could reach."""
    of = frame.groupby(["data", "set"], sort=False)[["minority", "worst"]].mean()
    lines = []
    for data in dict.fromkeys(frame["data"]):
        own = of.loc[data]
        share, worst = own["minority"], 100 * own["worst"]
        lines.append(
            f"- C4.3, {data}: {share['all held-out']:.0%} of all held-out samples are a minority, "
            f"{share['mid-range']:.0%} of the mid-range, and yet a layer retrained on the mid-range gives the worst "
            f"group {worst['mid-range']:.1f} % (ERM {worst['ERM']:.1f} %). The frozen features are good enough, and so "
            "are the minority samples of the mid-range: with companions from outside of it they give "
            f"{worst['mid-range minority']:.1f} % (chosen by group labels; oracle "
            f"{worst['group-balanced (oracle)']:.1f} %). So we think that the rest of the mid-range holds the layer "
            "back, samples of the majority that are hard to tell. Errors with rightly classified companions, of which "
            f"{share['errors']:.0%} are a minority, give {worst['errors']:.1f} % without group labels, and whether an "
            "error is mid-range makes no difference that we could see."
        )
    return "\n".join(lines)


def retraining_section(frame: pd.DataFrame, scale: Scale) -> Section:
    """Return the section on retraining the last layer."""
    return Section(
        "Retraining the last layer",
        """
*Coloured MNIST*: digits below 5 against the others, red or green; 4,000 digits to train on, 4,000 held out, 2,000 to
evaluate on. *Dominoes*: a CIFAR-10 vehicle or animal under an MNIST 0 or 1; 8,000, 8,000 and 2,000. Colour or digit
agrees with the class for 95 % of the training and of the held-out images of each class, and for half of the evaluated
ones. A network of three convolutions is trained on the first part (ERM); mid-range samples are chosen **on the
held-out part**, because few training samples are in between. `retrain_last_layer` fits a new last layer to the frozen
features of each set of held-out samples, C by cross-validation within the set: **no group label is used in the choice
of C by any variant**. Five seeds (split, attributes, weights); sets with a random part: mean of five draws.

{sets}

Mid-range errors come with as many companions of each class that are rightly classified and not mid-range, *errors*
with as many that are rightly classified (a layer trained on the errors alone would learn the opposite of the
shortcut). "Errors, as many as mid-range errors" has the same companions, so that the two differ in nothing but the
mid-range. Samples and minority share count companions. Only *mid-range minority* and *group-balanced* look at group
labels, in their choice of samples.

{worst_group}
""",
        tables={"sets": _set_table(frame)},
        figures={"worst_group": _worst_figure(frame), **_group_pictures(dict.fromkeys(frame["data"]), scale)},
        captions={
            "worst_group": "Worst-group accuracy over seeds: mean with 95 % interval, each seed a dot.",
            "coloured_MNIST": "Held-out images of coloured MNIST: the first and the last row agree with the shortcut.",
            "dominoes": "Held-out dominoes: the first and the last row agree with the shortcut.",
        },
    )


def _set_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per data set and set of samples: means over seeds, accuracies in per cent."""
    rows = []
    for (data, kind), part in frame.groupby(["data", "set"], sort=False):
        values = 100 * part["worst"].dropna().to_numpy()
        rows.append(
            {
                "data": data,
                "set": kind,
                "group labels": "yes" if kind in USES_GROUPS else "no",
                "samples": f"{part['n'].mean():.0f}",
                "minority share": part["minority"].mean(),
                "worst group": _worst(values),
                "mean": f"{100 * part['mean'].mean():.1f}",
                "mean, weighted as in training": f"{100 * part['train_weighted'].mean():.1f}",
                "seeds": len(values),
            }
        )
    return pd.DataFrame(rows)


def _group_pictures(names: Iterable[str], scale: Scale) -> dict[str, Figure]:
    """Return held-out images of the four groups of each data set, a row per group."""
    figures = {}
    for name in names:
        split = spurious_split(name, 0, scale)
        part = split.held_out
        groups = [
            ((part.labels == y) & (part.attributes == s)).nonzero().flatten()[:10] for y in (0, 1) for s in (0, 1)
        ]
        labels = [f"{split.class_names[y]},\n{split.attribute_names[s]}" for y in (0, 1) for s in (0, 1)]
        figures[name.replace(" ", "_")] = image_grid(part.images, groups, labels, f"{name}: the four groups")
    return figures


def _worst(values: Floats) -> str:
    return with_interval(float(values.mean()), mean_interval(values), digits=1) if len(values) else "none"


def _worst_figure(frame: pd.DataFrame) -> Figure:
    names = list(dict.fromkeys(frame["data"]))
    kinds = list(dict.fromkeys(frame["set"]))
    figure = plt.figure(figsize=(4.6 + 3.4 * len(names), 1.3 + 0.36 * len(kinds)), layout="constrained")
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for ax, name in zip(axes, names, strict=True):
        for row, kind in enumerate(kinds):
            values = 100 * frame.loc[(frame["data"] == name) & (frame["set"] == kind), "worst"].dropna().to_numpy()
            if not len(values):
                continue
            colour = COLOURS[1] if kind.startswith("mid-range") else COLOURS[0]
            low, high = np.clip(mean_interval(values), 0, 100)
            ax.hlines(row, low, high, color=colour, linewidth=3, alpha=0.4)
            ax.plot(values, [row] * len(values), "o", color=colour, markersize=3, alpha=0.5)
            ax.plot(values.mean(), row, "D", color=colour, markersize=6)
        ax.set_yticks(range(len(kinds)), [f"{kind} *" if kind in USES_GROUPS else kind for kind in kinds])
        ax.set_ylim(len(kinds) - 0.4, -0.6)
        ax.set_xlim(-2, 102)
        ax.set_xlabel("worst-group accuracy (%)")
        ax.set_title(name, loc="left", fontsize="medium")
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="x", color=GREY, linewidth=0.5, alpha=0.5)
    figure.suptitle("Retraining the last layer on each set (* uses group labels)", x=0.02, ha="left", fontweight="bold")
    return figure
