"""Are the top filters good features? C1.4, compared with the paper's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.papers.common.claims import Claim, all_of, judged, with_interval
from benchmarks.papers.common.data import images
from benchmarks.papers.common.page import Section
from benchmarks.papers.common.scale import Scale
from benchmarks.papers.conductance.methods import BATCH, CONTROL, METHODS
from benchmarks.papers.conductance.subjects import Subject, of_classes, per_class
from captum_ablate.evaluation.plots import COLOURS
from captum_ablate.inputs.batches import as_batches
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.statistics.intervals import Interval, mean_interval
from captum_ablate.statistics.pooled import pooled_activations
from captum_ablate.studies import FeatureSelection, feature_selection, resampled_interval, sample_scores
from captum_ablate.studies.feature_selection import largest_class_mean

KS = (5, 10, 15, 20)
VEHICLES = ("airplane", "automobile", "ship", "truck")
"""A group of related classes that replaces the paper's water vessels."""

DRAWS, DRAWN = 4, 5
"""Number of random tasks (the paper's table: "Aggregate over 4 tasks"), and of their classes."""

GROUPS = ("vehicles", "random classes")
"""How the names of the tasks begin: each group has one row of figures."""

PUBLISHED = pd.DataFrame(
    [
        ("water vessels", "conductance", 88.10, 94.05, 96.43, 94.05),
        ("water vessels", "gradient x activation", 67.86, 83.33, 85.71, 88.10),
        ("water vessels", "internal influence", 50.00, 67.86, 73.81, 75.00),
        ("water vessels", "activation", 54.76, 61.90, 65.48, 69.05),
        ("random labels", "conductance", 68.85, 81.58, 85.99, 87.79),
        ("random labels", "gradient x activation", 56.94, 76.01, 79.74, 84.39),
        ("random labels", "internal influence", 48.50, 62.23, 71.37, 72.50),
        ("random labels", "activation", 46.52, 48.51, 55.81, 60.45),
    ],
    columns=["task", "method", *(f"{k} features" for k in KS)],
)
"""Accuracy in per cent; the paper's table as the summary that we have quotes it."""


@dataclass(frozen=True)
class Selected:
    """Accuracy by method for one task, on one layer of one network."""

    subject: Subject
    layer: str
    task: str
    by_method: Mapping[str, FeatureSelection]


def tasks() -> dict[str, tuple[int, ...]]:
    """Return the classes of each task: vehicles, and seeded random draws."""
    names = images("cifar10").class_names
    stream = np.random.default_rng(0)
    draws = {
        f"random classes {k + 1}": tuple(sorted(stream.choice(len(names), DRAWN, replace=False).tolist()))
        for k in range(DRAWS)
    }
    return {"vehicles": tuple(names.index(name) for name in VEHICLES), **draws}


def selections(subject: Subject, scale: Scale) -> list[Selected]:
    """Rank filters on images of the part to rank on; classify images of the part to evaluate on."""
    split = images("cifar10")
    rank, evaluate = per_class(split.rank, scale.pick(2, 6, 100)), per_class(split.evaluate, scale.pick(30, 150, 500))
    splits = scale.pick(3, 10, 30)
    found = []
    for name, layer in subject.middle.items():
        activations = _pooled(subject, layer, tuple(evaluate))
        scores = {
            method: sample_scores(
                m.make(subject.network, layer), tuple(rank), positions=m.positions, batch_size=BATCH, **m.options
            )
            for method, m in {**METHODS, **CONTROL}.items()
        }
        for task, classes in tasks().items():
            ranked, used = of_classes(rank.labels, classes), of_classes(evaluate.labels, classes)
            found.append(
                Selected(
                    subject,
                    name,
                    task,
                    {
                        method: feature_selection(
                            largest_class_mean(values[ranked], rank.labels[ranked]),
                            activations[used],
                            evaluate.labels[used],
                            k=KS if activations.shape[1] >= max(KS) else (5, 10),
                            splits=splits,
                            name=method,
                        )
                        for method, values in scores.items()
                    },
                )
            )
    return found


def section(found: Sequence[Selected]) -> Section:
    """Return the section: our table, the paper's, and a picture."""
    one = next(iter(found[0].by_method.values()))
    return Section(
        "Top filters as features",
        f"""
For each task the filters of one layer are ranked on a few images (held out from training): each method's largest
absolute class mean over the task's classes. Then a multinomial logistic regression sees only the top 5, 10, 15 or 20,
pooled over positions, of other images: {one.n_train} to fit it and {one.n_test} to test it in the task of four classes,
drawn anew in each of {one.accuracy.shape[1]} random splits. "Vehicles" is a group of related classes
({", ".join(VEHICLES)}), "random classes" the mean of {DRAWS} draws of {DRAWN} classes. Classifier, splits, pooling and
the way class scores are joined are ours: the summary that we have does not state the paper's.

Our figures are means over networks, layers and, for random classes, tasks. Intervals are of the corrected resampled t
(Nadeau and Bengio 2003) over splits, networks held fixed.

{{features}}

{{features-table}}

The paper's table, as quoted in the summary that we have (accuracy in per cent; filters of an Inception network on
ImageNet classes: **context, not comparable in number**):

{{published}}

By how much conductance leads, in points, with the interval over splits and, in the last column, over networks
(Student's t over the means of the networks):

{{leads}}
""",
        tables={"features-table": table(found), "published": PUBLISHED.map(str), "leads": leads(found)},
        figures={"features": figure(found)},
        captions={"features": "Mean accuracy with 95 % intervals over splits, all networks and layers together."},
    )


def table(found: Sequence[Selected]) -> pd.DataFrame:
    rows = []
    for task in GROUPS:
        for method in found[0].by_method:
            table_, one = _accuracy(found, task, method), _any(found, task)
            cells = {
                f"{k} features": with_interval(
                    100 * float(row.mean()), _per_cent(resampled_interval(row, one.n_train, one.n_test)), digits=1
                )
                for k, row in zip(one.k, table_, strict=True)
            }
            rows.append({"task": task, "method": method, **cells})
    return pd.DataFrame(rows)


def leads(found: Sequence[Selected]) -> pd.DataFrame:
    rows = []
    for task in GROUPS:
        for rival in [m for m in found[0].by_method if m != "conductance"]:
            one = _any(found, task)
            per_network = _by_network(found, task, "conductance") - _by_network(found, task, rival)
            difference = _accuracy(found, task, "conductance") - _accuracy(found, task, rival)
            for label, over_splits, over_networks in (
                ("5", difference[0], per_network[:, 0]),
                ("mean of all", difference.mean(axis=0), per_network.mean(axis=1)),
            ):
                interval = resampled_interval(over_splits, one.n_train, one.n_test)
                rows.append(
                    {
                        "task": task,
                        "over": rival,
                        "features": label,
                        "lead [over splits]": with_interval(100 * over_splits.mean(), _per_cent(interval), digits=1),
                        "splits won or tied": f"{int((over_splits >= 0).sum())} of {len(over_splits)}",
                        "[over networks]": "[{:.1f}, {:.1f}]".format(*_per_cent(mean_interval(over_networks))),
                    }
                )
    return pd.DataFrame(rows)


def figure(found: Sequence[Selected]) -> Figure:
    drawn, axes = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained", sharey=True)
    for ax, task in zip(axes, GROUPS, strict=True):
        one = _any(found, task)
        for number, (method, colour) in enumerate(zip(found[0].by_method, COLOURS, strict=False)):
            accuracy = 100 * _accuracy(found, task, method)
            x = np.array(one.k) + 0.35 * (number - (len(found[0].by_method) - 1) / 2)
            ends = [resampled_interval(row, one.n_train, one.n_test) for row in accuracy]
            ax.vlines(x, [e.low for e in ends], [e.high for e in ends], color=colour, linewidth=2, alpha=0.5)
            ax.plot(x, accuracy.mean(axis=1), "o-", color=colour, markersize=5, linewidth=1.4, label=method)
        ax.set_xticks(one.k)
        ax.set_xlabel("filters that the classifier sees")
        ax.set_title(f"{task}", loc="left", fontweight="bold", fontsize=11)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", linewidth=0.5, alpha=0.4)
    axes[0].set_ylabel("held-out accuracy, %")
    axes[1].legend(fontsize="small", framealpha=0.9, loc="lower right")
    return drawn


def claims(found: Sequence[Selected]) -> list[Claim]:
    """Return C1.4: the order on the mean over numbers of features, and the lead at five."""
    at_five = [_lead(found, task, "conductance", "gradient x activation", first=True) for task in GROUPS]
    order = ["conductance", "gradient x activation", "internal influence", "activation"]
    steps = [
        replace(
            all_of(
                f"C1.4{letter}",
                f"{better[0].upper()}{better[1:]} selects better features than {worse}",
                "mean accuracy over 5 to 20 features, difference above 0 in both tasks, corrected resampled t",
                parts := [_lead(found, task, better, worse, first=False) for task in GROUPS],
            ),
            figure=_figures(parts),
        )
        for letter, better, worse in zip("bcd", order, order[1:], strict=False)
    ]
    return [
        replace(
            all_of(
                "C1.4a",
                "Conductance leads gradient x activation at five features",
                "difference in accuracy with 5 features above 0 in both tasks, corrected resampled t",
                at_five,
            ),
            figure=_figures(at_five),
            note="in the paper's table, as quoted, by 20.2 and 11.9 points",
        ),
        *steps,
    ]


def _lead(found: Sequence[Selected], task: str, better: str, worse: str, *, first: bool) -> Claim:
    one = _any(found, task)
    difference = 100 * (_accuracy(found, task, better) - _accuracy(found, task, worse))
    values = difference[0] if first else difference.mean(axis=0)
    interval = resampled_interval(values, one.n_train, one.n_test)
    return judged(task, "", "", mean=float(values.mean()), interval=interval, threshold=0.0, digits=1)


def _figures(parts: Sequence[Claim]) -> str:
    return "; ".join(f"{part.id} {part.figure} points" for part in parts)


def _matching(found: Sequence[Selected], task: str) -> list[Selected]:
    return [s for s in found if s.task.startswith(task)]


def _any(found: Sequence[Selected], task: str) -> FeatureSelection:
    return next(iter(_matching(found, task)[0].by_method.values()))


def _accuracy(found: Sequence[Selected], task: str, method: str) -> np.ndarray:
    """Return the mean accuracy over networks, layers and tasks, ``[k, splits]``."""
    return torch.stack([s.by_method[method].accuracy for s in _matching(found, task)]).mean(dim=0).numpy()


def _by_network(found: Sequence[Selected], task: str, method: str) -> np.ndarray:
    """Return the mean accuracy over layers, tasks and splits, ``[networks, k]``."""
    own = _matching(found, task)
    names = list(dict.fromkeys(s.subject.name for s in own))
    means = [
        torch.stack([s.by_method[method].mean for s in own if s.subject.name == name]).mean(dim=0) for name in names
    ]
    return torch.stack(means).numpy()


def _per_cent(interval: Interval) -> Interval:
    return Interval(*(100 * end for end in interval))


def _pooled(subject: Subject, layer: torch.nn.Module, data: tuple[Tensor, Tensor]) -> Tensor:
    batches = as_batches(data, forward_func=subject.network)
    passes = pooled_activations(subject.network, [layer], batches, UnitAxis())
    return torch.cat([first.values for ((first, *_),) in passes])
