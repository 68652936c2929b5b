"""Which images lie at each level of a logit: conflict images, purity, association of shape and place. C4.2, C4.4."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.papers.common.claims import Claim, all_of, judged_over, reported, with_interval, with_parts
from benchmarks.papers.common.page import Section
from benchmarks.papers.common.scale import Scale
from benchmarks.papers.common.training import Trained
from benchmarks.papers.omahony import shapes
from benchmarks.papers.omahony.shapes import ShapeSet, shape_split
from benchmarks.papers.omahony.shortcut import Networks, finished
from captum_ablate.diagnostics.level_slices import level_slices
from captum_ablate.diagnostics.midrange import midrange
from captum_ablate.diagnostics.retraining import HeadTable, head_table
from captum_ablate.evaluation.plots import COLOURS, DARK_GREY, GREY
from captum_ablate.statistics.intervals import mean_interval

TOP = 0.1
"""The top slice: this share of the samples, those with the highest logit of a class."""


def level_frame(networks: Networks, scale: Scale) -> pd.DataFrame:
    """Return one row per bias and seed: the images in the mid-range and in the top slice of the logits.

    ``conflict_*`` are shares of images that contradict the bias, among held-out images of the same bias. ``purity_*``
    (share of the output's own class) and ``bits_*`` (association of shape and position, bias-corrected) are means over
    outputs, on unbiased images: there shape and position are independent overall.
    """
    rows = []
    for (bias, seed), net in networks.items():
        split = shape_split(bias, seed, scale)
        same, unbiased = (_table(net, part) for part in (split.held_out, split.evaluate))
        conflict = split.held_out.conflict.double()
        mids, errors = midrange(same.logits, same.target), same.logits.argmax(dim=1) != same.target
        top = torch.cat(_top(same.logits)).unique()
        row: dict[str, float] = {
            "bias": bias,
            "seed": seed,
            "held_out": net.accuracy,
            "mid_n": len(mids.unique),
            "conflict": float(conflict.mean()),
            "conflict_mid": float(conflict[mids.unique].mean()),
            "conflict_top": float(conflict[top].mean()),
            "conflict_error": float(conflict[errors].mean()),
        }
        mids = midrange(unbiased.logits, unbiased.target)
        for where, slices in (("mid", mids.indices), ("top", _top(unbiased.logits))):
            kinds = split.evaluate.thirds
            pure = [float((unbiased.target[index] == c).double().mean()) for c, index in enumerate(slices)]
            row[f"purity_{where}"] = float(np.nanmean(pure))
            row[f"bits_{where}"] = float(np.nanmean([_bits(unbiased.target[i], kinds[i]) for i in slices]))
        rows.append(row)
    return pd.DataFrame(rows)


def midrange_claims(frame: pd.DataFrame) -> Iterator[Claim]:
    """Yield C4.2 and its parts: conflict images gather in the mid-range."""
    parts = []
    for bias in (0.8, 0.9, 0.95):
        of = frame[frame["bias"] == bias]
        if of.empty:
            continue
        ratio, difference = of["conflict_mid"] / of["conflict"], of["conflict_mid"] - of["conflict_top"]
        parts += [
            judged_over(
                f"C4.2 ratio, b = {bias}",
                "conflict images gather in the mid-range",
                "their share there over that of all held-out images, over seeds, above 1.5",
                ratio,
                threshold=1.5,
                digits=2,
            ),
            judged_over(
                f"C4.2 top, b = {bias}",
                "more than in the top slice",
                f"their share in the mid-range minus that among the top {TOP:.0%} of each logit above 0",
                difference,
                threshold=0.0,
            ),
        ]
    yield from with_parts(
        all_of(
            "C4.2", "mid-range samples carry the association", "every check of C4.2, at biases 0.8, 0.9 and 0.95", parts
        ),
        parts,
    )


def maximum_claims(frame: pd.DataFrame) -> Iterator[Claim]:
    """Yield C4.4 and its parts: bias 0.9 against no bias, seed by seed."""
    by = frame.set_index(["bias", "seed"])
    biased, fair = by.loc[0.9], by.loc[0.0]
    parts = [
        judged_over(
            "C4.4a",
            "the top slice of a biased network looks class-pure, as does that of an unbiased one",
            f"share of the output's class among its top {TOP:.0%} on unbiased images, the lower of both, above 0.9",
            np.minimum(biased["purity_top"], fair["purity_top"]),
            threshold=0.9,
        ),
        judged_over(
            "C4.4b",
            "their mid-ranges differ",
            "I(position; shape) within the mid-range on unbiased images, bias 0.9 minus bias 0, in bits, above 0",
            biased["bits_mid"] - fair["bits_mid"],
            threshold=0.0,
            unit="bits",
        ),
    ]
    yield from with_parts(
        all_of("C4.4", "looking at the maximum alone misses the association", "C4.4a and C4.4b", parts), parts
    )
    difference = (biased["bits_top"] - fair["bits_top"]).to_numpy()
    yield reported(
        "C4.4c",
        "the same association in the top slice",
        f"I(position; shape) among the top {TOP:.0%}, bias 0.9 minus bias 0, in bits",
        figure=with_interval(float(difference.mean()), mean_interval(difference), unit="bits"),
        interval=mean_interval(difference),
    )


def maximum_lesson(frame: pd.DataFrame) -> str:
    """Return in words what the top slice of a biased network holds, on unbiased images and on those of its bias."""
    of = frame.groupby("bias")[["purity_top", "conflict_top", "conflict"]].mean()
    biased, fair = of.loc[0.9], of.loc[0.0]
    return (
        f"- C4.4a asks for a pure top slice on *unbiased* images. That of a network without bias has a share of "
        f"{fair['purity_top']:.2f} of its class there, that of a network of bias 0.9 {biased['purity_top']:.2f}: where "
        "the shortcut decides, images of other classes at the right place reach the top too. Among held-out images of "
        f"its own bias the top slice does hide it: {biased['conflict_top']:.1%} of it are conflict images, of all "
        f"{biased['conflict']:.1%}."
    )


def levels_section(frame: pd.DataFrame, networks: Networks, scale: Scale) -> Section:
    """Return the section on the levels of the logits."""
    columns = [
        "conflict",
        "conflict_mid",
        "conflict_top",
        "conflict_error",
        "purity_top",
        "purity_mid",
        "bits_top",
        "bits_mid",
    ]
    summary = frame.groupby("bias")[columns].mean().reset_index()
    return Section(
        "What stands at each level of a logit",
        """
Held-out images of the training bias, and unbiased ones. The table has means over seeds: the share of conflict images
(their third is not their shape's) overall, in the mid-range, in the top slice and among the errors; on *unbiased*
images the share of the output's own class, and the association of position and shape in bits (Miller-Madow
corrected), within the top slice and within the mid-range, means over the three outputs.

{levels}

{conflict}

{levels_0.0}

{levels_0.9}
""",
        tables={"levels": summary},
        figures={"conflict": _conflict_figure(networks, scale), **_level_figures(networks, scale)},
        captions={
            "conflict": "Share of conflict images by level of the logit, bias 0.9, mean over seeds and outputs.",
            "levels_0.0": "The square's logit on unbiased images, network trained without bias.",
            "levels_0.9": "The same, network trained at bias 0.9.",
        },
    )


def _level_figures(networks: Networks, scale: Scale) -> dict[str, Figure]:
    """Return the slices of the square's logit on unbiased images, for networks without bias and of bias 0.9."""
    figures = {}
    for bias in (0.0, 0.9):
        part = shape_split(bias, 0, scale).evaluate
        table = _table(networks[bias, 0], part)
        slices = level_slices(table.logits[:, 0], part.labels, part.thirds)
        figure = slices.plot(shapes.SHAPES, ("left", "middle", "right"))
        figure.suptitle(
            f"The square's logit on unbiased images, trained at bias {bias:g}", x=0.02, ha="left", fontweight="bold"
        )
        figures[f"levels_{bias}"] = figure
    return figures


def _table(net: Trained, part: ShapeSet) -> HeadTable:
    return head_table(net.network, "classifier", (part.images, part.labels))


def _top(logits: Tensor) -> tuple[Tensor, ...]:
    """Return the indices of the samples with the highest logits of each class."""
    return tuple(logits.topk(max(1, round(TOP * len(logits))), dim=0).indices.T)


def _bits(labels: Tensor, kinds: Tensor) -> float:
    """Return I(kinds; labels) in bits, Miller-Madow corrected; NaN for fewer than two samples."""
    if len(labels) < 2:
        return float("nan")
    slices = level_slices(torch.zeros(len(labels)), labels, kinds, bins=1)
    return float(slices.association[0] - slices.association_bias[0])


def _conflict_figure(networks: Networks, scale: Scale, bins: int = 10) -> Figure:
    shares = []
    for (bias, seed), net in networks.items():
        if bias == 0.9:
            part = shape_split(bias, seed, scale).held_out
            logits = _table(net, part).logits
            for c in range(3):
                slices = level_slices(logits[:, c], part.labels, part.conflict.long(), bins=bins, edges="quantile")
                shares.append(slices.attribute_composition[:, -1].numpy())
    figure = plt.figure(figsize=(7.2, 4.0), layout="constrained")
    ax, middle = figure.subplots(), (np.arange(bins) + 0.5) / bins
    ax.plot(middle, np.transpose(shares), color=GREY, linewidth=0.6, alpha=0.7)
    ax.plot(middle, np.mean(shares, axis=0), "o-", color=COLOURS[1], label="mean over seeds\nand outputs (grey)")
    ax.axhline(float(part.conflict.double().mean()), color=DARK_GREY, linestyle="--", label="all images")
    ax.set_xlabel("level of the logit (fraction of the held-out images below)")
    ax.set_ylabel("share of conflict images")
    ax.set_ylim(bottom=0)
    return finished(figure, ax, "Conflict images by level of the logit, bias 0.9")
