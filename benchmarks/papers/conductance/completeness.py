"""Do the attributions of a layer add up to the output? C1.1 to C1.3."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from captum.attr import InternalInfluence, LayerConductance, LayerGradientXActivation
from matplotlib.figure import Figure
from torch import nn

from benchmarks.papers.common.claims import Claim, all_of, judged, judged_over, with_interval
from benchmarks.papers.common.classifiers import convolutional, dense
from benchmarks.papers.common.data import images
from benchmarks.papers.common.page import Section
from benchmarks.papers.common.scale import Scale
from captum_ablate.evaluation.plots import COLOURS
from captum_ablate.statistics.intervals import Interval, mean_interval
from captum_ablate.studies import Completeness, completeness_delta, plot_completeness

ENOUGH, RIVALS_MISS = 0.02, 0.05
"""An attribution counts as complete below the first relative error; a rival fails above the second."""

NODES = (20, 100, 500)


@dataclass(frozen=True)
class Case:
    """One layer of one network: conductance by the number of steps, and its rivals."""

    name: str
    by_steps: dict[int, Completeness]
    rivals: dict[str, Completeness]


@dataclass(frozen=True)
class Network:
    """A network, its data, and the layers whose attributions are summed."""

    name: str
    network: nn.Module
    data: str
    layers: tuple[str, ...]


def networks(scale: Scale) -> tuple[list[Network], float]:
    """Return three networks, and the seconds of training the two MLPs; the VGG-like network is counted elsewhere."""
    relu, tanh = (dense("mnist", activation, 0, scale) for activation in ("relu", "tanh"))
    vgg = convolutional("vgg", 0, scale)
    return [
        Network("MNIST ReLU MLP", relu.network, "mnist", ("act1",)),
        Network("MNIST tanh MLP", tanh.network, "mnist", ("act1",)),
        Network("CIFAR-10 vgg 0", vgg.network, "cifar10", ("relu4",)),
    ], relu.seconds + tanh.seconds


def cases(networks: Sequence[Network], scale: Scale) -> list[Case]:
    """Return a case per network and layer, computed in float64."""
    found = []
    n = scale.pick(3, 4, 50)
    for one in networks:
        network = deepcopy(one.network).double()
        x = images(one.data).evaluate.images[:n].double()
        with torch.no_grad():
            y = network(x).argmax(1)
        found += [
            _case(f"{one.name}, {layer}", network, network.get_submodule(layer), x, y, scale) for layer in one.layers
        ]
    return found


def _case(name: str, network: nn.Module, layer: nn.Module, x: torch.Tensor, y: torch.Tensor, scale: Scale) -> Case:
    def one_by_one(attribution: object, **options: object) -> Completeness:
        parts = [completeness_delta(attribution, x[i : i + 1], 0.0, y[i : i + 1], **options) for i in range(len(x))]
        return replace(parts[0], total=torch.cat([p.total for p in parts]), change=torch.cat([p.change for p in parts]))

    nodes = scale.pick(NODES[:2], NODES)
    conductance = LayerConductance(network, layer)
    return Case(
        name,
        {n: one_by_one(conductance, n_steps=n, method="riemann_trapezoid") for n in nodes},
        {
            "gradient x activation": one_by_one(LayerGradientXActivation(network, layer)),
            "internal influence": one_by_one(InternalInfluence(network, layer), n_steps=50),
        },
    )


def section(found: Sequence[Case]) -> Section:
    """Return the section: errors by number of steps, and the sums of the rivals."""
    return Section(
        "Completeness",
        """
For a layer that every path from input to output passes, the conductances of all units add up to F(x) - F(x'), the
change of the output from the baseline to the input. Captum adds up dF/dy times the change of y over pieces of the path,
with the gradient at the left end of each piece, so the error falls as one over the number of pieces. F is the logit of
the predicted class, x' zero (the mean colour), nodes evenly spaced with both ends, float64. (Captum's default nodes, of
Gauss and Legendre, leave both ends out.)

{completeness}

{completeness-table}
""",
        tables={"completeness-table": table(found)},
        figures={"completeness": figure(found)},
        captions={
            "completeness": "Left: mean relative error of the sum of conductances against the pieces of the path. "
            "Right: sums of attributions against the change of the output, last network; on the line = complete."
        },
    )


def table(found: Sequence[Case]) -> pd.DataFrame:
    rows = []
    for case in found:
        most = max(case.by_steps)
        rows += [(case.name, f"conductance, {n} steps", case.by_steps[n]) for n in (min(case.by_steps), most)]
        rows += [(case.name, method, one) for method, one in case.rivals.items()]
    return pd.DataFrame(
        [
            {
                "network, layer": name,
                "attribution": method,
                "relative error, mean [95 %]": with_interval(
                    float(one.relative.mean()), mean_interval(one.relative.numpy()), digits=4
                ),
                "median": float(one.relative.median()),
                "largest": float(one.relative.max()),
            }
            for name, method, one in rows
        ]
    )


def figure(found: Sequence[Case]) -> Figure:
    drawn, (left, right) = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    for case, colour in zip(found, COLOURS, strict=False):
        nodes = list(case.by_steps)
        error = [float(c.relative.mean()) for c in case.by_steps.values()]
        left.loglog(nodes, error, "o-", color=colour, label=case.name)
    nodes = list(found[0].by_steps)
    left.loglog(nodes, [0.5 / n for n in nodes], "--", color="0.4", label="proportional to 1 / pieces")
    left.axhline(ENOUGH, color="0.4", linewidth=1)
    left.annotate(f"{ENOUGH:.0%}", (1.0, ENOUGH), xycoords=("axes fraction", "data"), ha="right", va="bottom")
    left.set_xticks(nodes, map(str, nodes))
    left.minorticks_off()
    left.set_xlabel("pieces of the path")
    left.set_ylabel("relative error of the sum, mean over images")
    left.spines[["top", "right"]].set_visible(False)
    left.grid(linewidth=0.5, alpha=0.4)
    left.set_title("Conductance adds up, the better the more pieces", loc="left", fontweight="bold", fontsize=11)
    left.legend(fontsize="small", framealpha=0.9)
    last = found[-1]
    plot_completeness({"conductance": last.by_steps[max(last.by_steps)], **last.rivals}, right)
    right.set_title(f"{last.name}", loc="left", fontweight="bold", fontsize=11)
    return drawn


def claims(found: Sequence[Case]) -> list[Claim]:
    """Return C1.1 to C1.3."""
    return [_complete(found), _slope(found), _rivals(found), _linear()]


def _complete(found: Sequence[Case]) -> Claim:
    most = max(found[0].by_steps)
    parts = [
        judged_over(case.name, "", "", case.by_steps[most].relative.tolist(), threshold=ENOUGH, direction="below")
        for case in found
    ]
    joined = all_of(
        "C1.1a",
        "Conductances add up to the change of the output",
        f"mean relative error with {most} pieces below {ENOUGH:.0%}, interval over images, in every network",
        parts,
    )
    return replace(joined, figure=f"largest: {_extreme(parts, largest=True)}")


def _slope(found: Sequence[Case]) -> Claim:
    parts = [judged_over(case.name, "", "", _slopes(case), threshold=-0.7, direction="below") for case in found]
    joined = all_of(
        "C1.1b",
        "The error falls about as one over the pieces",
        "slope of log error on log pieces, mean over images below -0.7 (-1: as one over), in every network",
        parts,
    )
    flattest, steepest = (_extreme(parts, largest=largest) for largest in (True, False))
    return replace(joined, figure=f"flattest: {flattest}; steepest: {steepest}")


def _rivals(found: Sequence[Case]) -> Claim:
    parts = [
        judged_over(f"{method}, {case.name}", "", "", one.relative.tolist(), threshold=RIVALS_MISS)
        for case in found
        for method, one in case.rivals.items()
    ]
    joined = all_of(
        "C1.2",
        "Gradient x activation and internal influence do not add up",
        f"mean relative error above {RIVALS_MISS:.0%}, interval over images, both in every network",
        parts,
        note="behind a layer of ReLU units and with small biases the output is nearly homogeneous in the layer; "
        "then gradient x activation adds up as well; internal influence does not, nor either where units saturate",
    )
    return replace(joined, figure=f"smallest: {_extreme(parts, largest=False)}")


def _linear() -> Claim:
    deviation = linear_deviation()
    return judged(
        "C1.3",
        "On a linear network conductance is weight times unit, as gradient x activation; influence is the weight",
        "largest deviation from the closed form below 1e-6 (exact but for rounding, so no interval)",
        mean=deviation,
        interval=Interval(deviation, deviation),
        threshold=1e-6,
        direction="below",
        digits=10,
    )


def linear_deviation() -> float:
    """Return the largest deviation from the closed forms on F = w . (W x), without bias, from a zero baseline."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(20, 12, bias=False), nn.Linear(12, 4, bias=False)).double().eval()
        x, y = torch.randn(16, 20).double(), torch.arange(16) % 4
    weight = net[1].weight[y].detach()
    product = weight * net[0](x).detach()
    found = [
        (LayerConductance(net, net[0]).attribute(x, target=y, n_steps=10, method="riemann_trapezoid"), product),
        (LayerGradientXActivation(net, net[0]).attribute(x, target=y), product),
        (InternalInfluence(net, net[0]).attribute(x, target=y, n_steps=10), weight),
    ]
    return max(float((attribution.detach() - expected).abs().max()) for attribution, expected in found)


def _slopes(case: Case) -> list[float]:
    nodes = np.log(list(case.by_steps))
    errors = np.log(np.stack([c.delta.abs().clamp_min(1e-15).numpy() for c in case.by_steps.values()]))
    return [float(np.polyfit(nodes, errors[:, i], 1)[0]) for i in range(errors.shape[1])]


def _extreme(parts: Sequence[Claim], *, largest: bool) -> str:
    middle = {part: (part.interval.low + part.interval.high) / 2 for part in parts if part.interval is not None}
    part = (max if largest else min)(middle, key=lambda p: middle[p])
    return f"{part.figure} ({part.id})"
