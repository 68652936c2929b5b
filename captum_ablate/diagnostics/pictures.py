"""Pictures of the diagnostics, from their frames and results, in the style of the deficit curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from captum_ablate.evaluation.labels import headed, label, name_labels
from captum_ablate.evaluation.plots import COLOURS, DARK_GREY, GREY

MOST_BANDS = 12
"""Classes that one figure has room for."""


def spectrum(frame: pd.DataFrame, *, title: str, subtitle: str, slope: float, ax: Axes | None = None) -> Axes:
    """Draw eigenvalues by rank with the fitted line and a guide with the slope of the threshold.

    ``frame`` has a row per rank: ``rank, eigenvalue, fitted``.
    """
    ax = _axes(ax)
    shown = frame[frame["eigenvalue"] > frame["eigenvalue"].max() * 1e-12]
    ax.loglog(shown["rank"], shown["eigenvalue"], "o", color=COLOURS[0], markersize=3, label="eigenvalues")
    fitted = frame.dropna(subset="fitted")
    if len(fitted):
        ax.loglog(fitted["rank"], fitted["fitted"], color=COLOURS[1], linewidth=2.2, label="power law")
        start = fitted.iloc[0]
        guide = start["fitted"] * (fitted["rank"] / start["rank"]) ** -slope
        ax.loglog(fitted["rank"], guide, "--", color=DARK_GREY, linewidth=1.2, label=f"threshold: slope -{slope:.3g}")
    ax.set_xlabel("rank of the eigenvalue")
    ax.set_ylabel("eigenvalue (variance)")
    ax.legend(frameon=False, fontsize="small")
    return framed(ax, title, subtitle)


def trajectory(frame: pd.DataFrame, *, title: str, subtitle: str, slope: float, ax: Axes | None = None) -> Axes:
    """Draw the energy of projected trajectories by number of frames, with its fitted slope.

    ``frame`` has a row per number of frames: ``frames, energy, low, high``.
    """
    ax = _axes(ax)
    ax.fill_between(frame["frames"], frame["low"], frame["high"], color=COLOURS[0], alpha=0.16, linewidth=0)
    ax.loglog(frame["frames"], frame["energy"], "o", color=COLOURS[0], label="energy, 90 % of projections")
    centre = np.exp(np.log(frame["frames"]).mean())
    level = np.exp(np.log(frame["energy"]).mean())
    for value, style, colour, text in (
        (slope, "-", COLOURS[1], f"fitted slope {slope:.2f}"),
        (-1.0, "--", DARK_GREY, "slope -1: smooth"),
        (1.0, ":", DARK_GREY, "slope 1: white noise"),
    ):
        ax.loglog(frame["frames"], level * (frame["frames"] / centre) ** value, style, color=colour, label=text)
    ax.set_xscale("log", base=2)
    ax.set_xticks(frame["frames"], [str(frames) for frames in frame["frames"]])
    ax.set_xlabel("frames on the path")
    ax.set_ylabel("energy of the trajectory / its variance")
    ax.legend(frameon=False, fontsize="small")
    return framed(ax, title, subtitle)


def capacity(frame: pd.DataFrame, *, title: str, subtitle: str, ax: Axes | None = None) -> Axes:
    """Draw the bounds of the capacity by dropout rate; ``frame``: ``dropout, low, tight_low, high``."""
    ax = _axes(ax)
    ax.fill_between(frame["dropout"], frame["low"], frame["high"], color=COLOURS[0], alpha=0.16, linewidth=0)
    ax.plot(frame["dropout"], frame["high"], color=COLOURS[0], label="upper bound")
    ax.plot(frame["dropout"], frame["tight_low"], "--", color=COLOURS[2], label="lower bound, tighter form")
    ax.plot(frame["dropout"], frame["low"], color=COLOURS[1], label="lower bound")
    ax.set_xlim(0, 1)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("dropout rate")
    ax.set_ylabel("capacity of the layer (bits)")
    ax.legend(frameon=False, fontsize="small")
    return framed(ax, title, subtitle)


def bands(logits: Tensor, target: Tensor, labels: Tensor, ends: Tensor, inside: Sequence[int], mode: str) -> Figure:
    """Draw, for each of at most twelve classes, histograms of its logit with the band of the mid-range.

    ``logits [n, classes]``, ``target [n]``; ``labels [k]`` are the classes to draw, ``ends [k, 2]`` their bands, and
    ``inside`` the number of samples in each.
    """
    classes = labels.tolist()[:MOST_BANDS]
    columns = min(3, len(classes))
    rows = -(-len(classes) // columns)
    figure = plt.figure(figsize=(2.4 + 3.3 * columns, 1.4 + 2.3 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for ax, k in zip(axes, range(len(classes)), strict=False):
        logit, own = logits[:, classes[k]].numpy(), (target == classes[k]).numpy()
        bins = np.linspace(logit.min(), logit.max(), 41)
        ax.axvspan(*ends[k].tolist(), color=COLOURS[5], alpha=0.35, linewidth=0, label="mid-range")
        for members, colour, text in ((~own, DARK_GREY, "other classes"), (own, COLOURS[0], "its own class")):
            ax.hist(logit[members], bins, histtype="step", linewidth=1.5, color=colour, label=text)
        lightly_framed(ax, "y")
        ax.set_title(f"class {classes[k]}: {inside[k]:,} in the mid-range", loc="left", fontsize="small")
    for ax in axes[len(classes) :]:
        ax.set_axis_off()
    figure.supxlabel("logit of the class", fontsize="medium")
    figure.supylabel("samples", fontsize="medium")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize="small")
    more = f" (first {MOST_BANDS} of {len(labels)} classes)" if len(labels) > MOST_BANDS else ""
    figure.suptitle(f"Mid-range logits, mode {mode}{more}", x=0.02, ha="left", fontweight="bold")
    return figure


class Composition(NamedTuple):
    """Shares of labels at each level, ``shares [bins, labels]``, the ``labels``, and their names if known."""

    shares: Tensor
    labels: Tensor
    names: Sequence[str] | None


def levels(frame: pd.DataFrame, classes: Composition, attributes: Composition | None) -> Figure:
    """Draw per level the samples and the shares of classes; with attributes, their shares and the association too.

    ``frame`` has a row per level: ``low, high, n, association, association_bias``.
    """
    panels = 2 if attributes is None else 4
    figure = plt.figure(figsize=(8.2, 1.0 + 1.75 * panels), layout="constrained")
    axes = figure.subplots(panels, 1, sharex=True)
    middle, width = (frame["low"] + frame["high"]) / 2, 0.94 * (frame["high"] - frame["low"])
    axes[0].bar(middle, frame["n"], width, color=GREY)
    axes[0].set_ylabel("samples")
    _stacked(axes[1], middle, width, classes.shares, _names("class", classes.labels, classes.names))
    axes[1].set_ylabel("share of class")
    if attributes is not None:
        names = _names("attribute", attributes.labels, attributes.names)
        _stacked(axes[2], middle, width, attributes.shares, names)
        axes[2].set_ylabel("share of attribute")
        axes[3].plot(middle, frame["association"], "o-", color=COLOURS[0], label="plug-in estimate")
        axes[3].plot(middle, frame["association_bias"], "--", color=DARK_GREY, label="its bias from few samples")
        axes[3].set_ylabel("I(S; Y | level)\n(bits)")
        axes[3].set_ylim(bottom=0)
        axes[3].legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize="small")
    for ax in axes:
        lightly_framed(ax, "y")
    axes[-1].set_xlabel("activation of the unit, by level")
    figure.suptitle("Samples at each level of the unit", x=0.02, ha="left", fontweight="bold")
    return figure


def image_grid(images: Any, rows: Sequence[Tensor], names: Sequence[str], title: str) -> Figure:
    """Draw one row of images per name: ``images [n, channels, height, width]``, ``rows`` arrays of their indices.

    Every image is stretched to its own range; three channels are colours, otherwise their mean is grey.
    """
    images = torch.as_tensor(images)
    if images.ndim != 4:
        raise ValueError(f"images must be [n, channels, height, width]; got shape {tuple(images.shape)}")
    columns = max([len(row) for row in rows] + [1])
    height, width = images.shape[2:]
    size = (2.0 + 0.75 * columns, 0.7 + 0.8 * len(rows) * max(1.0, height / width))
    figure = plt.figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, row, name in zip(axes, rows, names, strict=True):
        for ax in line:
            ax.set_xticks([])
            ax.set_yticks([])
            ax.spines[:].set_visible(False)
        for ax, index in zip(line, row.tolist(), strict=False):
            ax.imshow(_shown(images[index]), cmap="gray")
        line[0].set_ylabel(label(name), rotation=0, ha="right", va="center", fontsize="small")
    figure.suptitle(label(title), x=0.02, ha="left", fontweight="bold")
    return figure


def curation(frame: pd.DataFrame) -> Figure:
    """Draw the samples to retrain on by class: chosen and wrong, chosen and right, companions."""
    classes = sorted(frame["target"].unique())
    right = frame["target"] == frame["prediction"]
    figure = plt.figure(figsize=(7.0, 1.6 + 0.45 * max(2, len(classes))), layout="constrained")
    ax, start = figure.subplots(), np.zeros(len(classes))
    for part, colour, text in (
        ((frame["role"] == "chosen") & ~right, COLOURS[1], "mid-range, wrong"),
        ((frame["role"] == "chosen") & right, COLOURS[5], "mid-range, right"),
        (frame["role"] == "companion", COLOURS[0], "companions"),
    ):
        counts = np.array([int((part & (frame["target"] == c)).sum()) for c in classes])
        ax.barh([f"class {c}" for c in classes], counts, left=start, color=colour, label=text)
        start = start + counts
    ax.invert_yaxis()
    ax.set_xlabel("samples")
    lightly_framed(ax, "x")
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize="small")
    figure.suptitle("Samples to retrain the last layer on", x=0.02, ha="left", fontweight="bold")
    return figure


def groups(frame: pd.DataFrame, mean: float, ax: Axes | None = None) -> Axes:
    """Draw the accuracy of each group with its interval, worst on top, and the mean over samples."""
    if ax is None:
        _, ax = plt.subplots(figsize=(6.4, 1.6 + 0.4 * len(frame)), layout="constrained")
    frame = frame.sort_values("accuracy", kind="stable")
    rows = range(len(frame))
    ax.axvline(mean, color=DARK_GREY, linewidth=1, label=f"mean over samples {mean:.3f}")
    ax.hlines(rows, frame["low"], frame["high"], color=COLOURS[0], linewidth=2.5, alpha=0.45)
    ax.plot(frame["accuracy"], rows, "o", color=COLOURS[0])
    keys = zip(frame["class"], frame["attribute"], frame["n"], strict=True)
    names = [f"class {c}, attribute {attribute} (n = {n:,})" for c, attribute, n in keys]
    ax.set_yticks(rows, name_labels(names, line=44, lines=2))
    ax.set_ylim(len(frame) - 0.4, -0.6)
    ax.set_xlabel("accuracy, with 95 % interval")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize="small")
    lightly_framed(ax, "x")
    ax.set_title("Accuracy of each group, worst first", loc="left", pad=24, fontweight="bold", fontsize=11)
    return ax


def framed(ax: Axes, title: str, subtitle: str = "", grid: Literal["both", "x", "y"] = "both") -> Axes:
    """Give ``ax`` a light frame, a grid, a title and a line below it; return it."""
    lightly_framed(ax, grid)
    headed(ax, title, subtitle, size=11)
    return ax


def lightly_framed(ax: Axes, grid: Literal["both", "x", "y"]) -> None:
    """Give ``ax`` a light frame and a grid."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis=grid, color=GREY, linewidth=0.5, alpha=0.5)
    ax.set_axisbelow(True)


def _axes(ax: Any) -> Axes:
    if ax is None:
        _, ax = plt.subplots(figsize=(7.0, 5.0), layout="constrained")
    return ax


def _stacked(ax: Axes, middle: Any, width: Any, shares: Tensor, names: Sequence[str]) -> None:
    start = np.zeros(len(shares))
    for k, name in enumerate(name_labels(names, line=20, lines=2)):
        share = np.nan_to_num(shares[:, k].numpy())
        ax.bar(middle, share, width, bottom=start, color=COLOURS[k % len(COLOURS)], label=name)
        start = start + share
    ax.set_ylim(0, 1)
    if len(names) <= len(COLOURS):
        ax.legend(
            loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize="small", ncols=1 + len(names) // 7
        )


def _names(kind: str, found: Tensor, names: Sequence[str] | None) -> list[str]:
    return [f"{kind} {number}" if names is None else str(names[number]) for number in found.tolist()]


def _shown(image: Tensor) -> NDArray[Any]:
    """Return ``image [channels, height, width]`` in 0..1, ``[height, width, 3]`` or ``[height, width]``."""
    image = image.detach().cpu().to(torch.float32)
    low, high = image.min(), image.max()
    image = (image - low) / (high - low if high > low else 1.0)
    picture: NDArray[Any] = image.permute(1, 2, 0).numpy() if len(image) == 3 else image.mean(dim=0).numpy()
    return picture
