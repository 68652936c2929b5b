"""``captum-ablate midrange``: the samples at the middle levels of a network's logits."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from captum_ablate.commands import Commands, model_and_data, output_folder, user_code
from captum_ablate.diagnostics.labelled import labels
from captum_ablate.diagnostics.level_slices import level_slices
from captum_ablate.diagnostics.midrange import BANDS, midrange
from captum_ablate.diagnostics.retraining import head_table, last_linear
from captum_ablate.inputs.batches import as_batches

SHOWN = 5_000
"""Number of images kept for the grids: enough to choose from, little memory."""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "midrange",
        help="show the samples at each level of a network's logits, and list those in the mid-range",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    model_and_data.add_arguments(parser)
    parser.add_argument("--head", help="name of the last linear layer; by default the last one defined")
    parser.add_argument(
        "--attribute",
        metavar="MODULE:NAME",
        help="an integer attribute of each sample [n], in the order of the data, such as its background; "
        "or a function without arguments that returns it",
    )
    parser.add_argument(
        "--classes", type=int, nargs="+", metavar="C", help="classes to draw; by default the first five"
    )
    parser.add_argument("--mode", choices=tuple(BANDS), default="between_modes", help="how the mid-range is measured")
    parser.add_argument("--band", type=float, nargs=2, metavar=("LOW", "HIGH"), help="its two ends, fractions of 1")
    parser.add_argument("--bins", type=int, default=10, help="levels of a logit")
    parser.add_argument("--out", default="captum-ablate-midrange", help="folder for pictures and tables")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    folder = output_folder.make(options.out)
    model, data, name = model_and_data.load(options, needs_labels=True)
    if isinstance(data, Iterator):
        raise TypeError(
            f"--data {options.data} is a {type(data).__name__}, which can be read only once, but logits and images "
            "need two passes; use a list of batches or a DataLoader"
        )
    attribute = _attribute(options.attribute)
    head = options.head or last_linear(model)
    with user_code.naming_errors(options):
        table = head_table(model, head, data, show_progress=not options.quiet)
    if attribute is not None and len(attribute) != len(table.target):
        raise ValueError(
            f"--attribute {options.attribute} must have one entry for each of the {len(table.target)} samples, in "
            f"their order; got {len(attribute)}"
        )
    mids = midrange(table.logits, table.target, mode=options.mode, band=options.band and tuple(options.band))
    chosen = _classes(options.classes, mids.classes)
    mids.to_frame().to_csv(folder / "midrange.csv", index=False)
    np.savetxt(folder / "midrange_indices.txt", mids.unique.numpy(), fmt="%d")
    _save(mids.plot(), folder / "bands.png")
    images, levels = _images(model, data), []
    for c in chosen:
        slices = level_slices(table.logits[:, c], table.target, attribute, bins=options.bins, features=table.features)
        levels.append(slices.to_frame().assign(output=c))
        _save(slices.plot(), folder / f"levels_{c}.png")
        if images is not None:
            known = slices if len(images) == len(table.target) else level_slices(
                table.logits[: len(images), c], table.target[: len(images)], bins=options.bins
            )  # fmt: skip
            _save(known.plot_images(images, seed=options.seed), folder / f"images_{c}.png")
    pd.concat(levels, ignore_index=True).to_csv(folder / "levels.csv", index=False)
    print(_summary(name, head, mids, attribute))
    files = ["midrange.csv", "midrange_indices.txt", "levels.csv", "bands.png", "levels_C.png"]
    output_folder.announce(folder, files if images is None else [*files, "images_C.png"])


def _summary(name: str, head: str, mids: Any, attribute: Tensor | None) -> str:
    """Return a table of the mid-range samples, and how often the network is wrong on them and overall."""
    wrong = mids.logits.argmax(dim=1) != mids.target
    lines = [
        f"{name}, logits of {head}: {len(mids.unique):,} of {len(mids.target):,} samples are in the mid-range of a "
        f"class (mode {mids.mode})",
        "class   band of the logit     samples   of another class   wrongly classified",
    ]
    for c, low, high, index in zip(
        mids.classes.tolist(), mids.low.tolist(), mids.high.tolist(), mids.indices, strict=True
    ):
        other, error = ((mids.target[index] != c), wrong[index])
        shares = [f"{part.double().mean():.1%}" if len(index) else "-" for part in (other, error)]
        lines.append(f"{c:>5}   {low:>8.2f} to {high:>8.2f}   {len(index):>8,}   {shares[0]:>16}   {shares[1]:>18}")
    lines.append(f"wrongly classified overall: {wrong.double().mean():.1%}")
    if attribute is not None:
        lines.append(
            "levels.csv has the share of each attribute at each level, and its information about the class (bits)"
        )
    return "\n".join(lines)


def _attribute(name: str | None) -> Tensor | None:
    if name is None:
        return None
    attribute = user_code.find_object(name)
    if callable(attribute):
        attribute = user_code.call(attribute, f"--attribute {name}")
    return labels(attribute, f"--attribute {name}")


def _classes(asked: list[int] | None, present: Tensor) -> list[int]:
    if asked is None:
        return present[:5].tolist()
    absent = sorted(set(asked) - set(present.tolist()))
    if absent:
        raise ValueError(f"--classes names {absent}, which no sample has; the labels present are {present.tolist()}")
    return asked


def _images(model: Any, data: Any) -> Tensor | None:
    """Return the first images ``[n, channels, height, width]`` of ``data``, or None if the inputs are no images."""
    parts, n = [], 0
    for batch in as_batches(data, forward_func=model):
        first = batch.inputs[0]
        if not isinstance(first, Tensor) or first.ndim != 4 or first.shape[1] not in (1, 3):
            return None
        parts.append(first.cpu())
        n += len(first)
        if n >= SHOWN:
            break
    return torch.cat(parts)


def _save(figure: Figure, file: Path) -> None:
    figure.savefig(file, dpi=130)
    import matplotlib.pyplot as plt  # imported late: only to close what was drawn

    plt.close(figure)
