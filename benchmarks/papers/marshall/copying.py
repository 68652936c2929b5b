"""Does training build error correction? A deep tanh network copies its inputs under dropout that is never off (C3.6).

After the demonstration in the supplement of Marshall and Kirchner (2024): 40 tanh layers of 32 units, three real
inputs, and dropout of 0.2 after every fourth layer, also at inference. The supplement estimates mutual information with
MINE; we decode linearly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from sklearn.linear_model import LinearRegression
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from tqdm.auto import trange

from benchmarks.papers.common.claims import Claim, judged_over
from benchmarks.papers.common.page import Section
from benchmarks.papers.common.scale import Scale
from benchmarks.papers.common.training import Trained, trained
from captum_ablate.diagnostics.pictures import framed
from captum_ablate.evaluation.plots import COLOURS

DEPTH, WIDTH, COPIED, EVERY, DROPOUT = 40, 32, 3, 4, 0.2
STEPS, BATCH = 1_500, 128


class Copy(nn.Module):
    """``depth`` tanh layers and a linear read-out ``[n, 3]``; dropout stays on in evaluation mode."""

    def __init__(self, depth: int = DEPTH) -> None:
        super().__init__()
        sizes = [COPIED] + depth * [WIDTH]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.out = nn.Linear(WIDTH, COPIED)
        for layer in self.layers:
            nn.init.orthogonal_(layer.weight, gain=1.1)  # so that 40 layers of tanh pass a signal on
            nn.init.zeros_(layer.bias)

    def hidden(self, inputs: Tensor) -> Iterator[Tensor]:
        """Yield the output of each layer, ``[n, width]``, after its dropout."""
        x = inputs
        for number, layer in enumerate(self.layers, start=1):
            x = torch.tanh(layer(x))
            if number % EVERY == 0:
                x = nn.functional.dropout(x, DROPOUT, training=True)
            yield x

    def forward(self, inputs: Tensor) -> Tensor:
        *_, last = self.hidden(inputs)
        copied: Tensor = self.out(last)
        return copied


def untrained(seed: int, depth: int = DEPTH) -> Copy:
    """Return a network with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Copy(depth)


def copier(seed: int, scale: Scale) -> Trained:
    """Return a network trained to copy; its ``accuracy`` is the R2 of its outputs."""
    steps, depth = scale.pick(100, STEPS), scale.pick(8, DEPTH)
    return trained(
        f"copy-tanh{depth}x{WIDTH}-{steps}steps-batch{BATCH}-seed{seed}",
        lambda: untrained(seed, depth),
        lambda network: _fit(network, steps, seed),
        evaluate=lambda network: _r2(network, seed),
        floor=scale.pick(-1.0, 0.0),
    )


def decoding(network: Copy, seed: int, n: int = 4_000) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return R2 ``[layers]`` of the inputs, decoded linearly: fitted on half of the samples, scored on the others."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1_000 + seed)
        inputs = torch.randn(n, COPIED)
        layers = [x.double().numpy() for x in network.hidden(inputs)]
    half, wanted = n // 2, inputs.double().numpy()
    return np.array([LinearRegression().fit(x[:half], wanted[:half]).score(x[half:], wanted[half:]) for x in layers])


def copiers(scale: Scale) -> dict[int, Trained]:
    """Return the trained networks by seed."""
    return {seed: copier(seed, scale) for seed in range(scale.pick(1, 5))}


def decoded(networks: Mapping[int, Trained], scale: Scale) -> pd.DataFrame:
    """Return the decoding R2 of each trained network and of a random one: ``network, seed, layer, r2``."""
    rows = []
    for seed, result in networks.items():
        random = untrained(seed, len(result.network.layers))
        for name, network in (("trained", result.network), ("random", random)):
            found = decoding(network, seed, n=scale.pick(600, 4_000))
            rows += [(name, seed, layer, r2) for layer, r2 in enumerate(found, start=1)]
    return pd.DataFrame(rows, columns=["network", "seed", "layer", "r2"])


def copying_claim(copied: pd.DataFrame) -> Claim:
    """Return C3.6."""
    last = copied[copied["layer"] == copied["layer"].max()].pivot(index="seed", columns="network", values="r2")
    return judged_over(
        "C3.6",
        "a network trained under dropout corrects its errors: a random one loses its inputs",
        f"decoding R2 at the last layer, trained minus random, above 0.3 (dropout on), {len(last)} seeds",
        last["trained"] - last["random"],
        threshold=0.3,
        note=f"trained {last['trained'].mean():.2f}, random {last['random'].mean():.2f}. Linear decoding for the "
        "supplement's MINE, and orthogonal weights to start from, so that 40 layers of tanh can be trained, are ours.",
    )


def copying_section(copied: pd.DataFrame) -> Section:
    """Return the section on error correction."""
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    ax = figure.subplots()
    for number, (name, rows) in enumerate(copied.groupby("network", sort=False)):
        for _, own in rows.groupby("seed"):
            ax.plot(own["layer"], own["r2"], color=COLOURS[number], linewidth=0.6, alpha=0.5)
        mean = rows.groupby("layer")["r2"].mean()
        ax.plot(mean.index, mean, color=COLOURS[number], linewidth=2.2, label=f"{name} network")
    ax.set_ylim(0, 1.02)
    ax.set_xlabel("layer")
    ax.set_ylabel("R2 of the inputs, decoded linearly")
    ax.legend(frameon=False, fontsize="small")
    framed(
        ax,
        "What is left of three inputs",
        f"tanh, 32 units a layer, dropout 0.2 after every fourth; {copied['seed'].nunique()} seeds",
    )
    table = copied.groupby(["network", "layer"], sort=False)["r2"].mean().unstack("network").reset_index()
    table["bits lost by the random network"] = (
        -0.5
        * COPIED
        * (np.log2(1 - table["trained"].clip(upper=1 - 1e-9)) - np.log2(1 - table["random"].clip(upper=1 - 1e-9)))
    )
    every = table[(table["layer"] % 4 == 0) | (table["layer"] == 1)]
    text = (
        "The supplement's demonstration: a deep network of tanh copies three real inputs, with dropout that stays "
        "on at inference.\n\n"
        "{copying}\n\nThe last column is the difference of Gaussian information, -log2(1 - R2) / 2 for each of "
        "three inputs:\n\n{by_layer}"
    )
    return Section(
        "Error correction",
        text,
        tables={"by_layer": every},
        figures={"copying": figure},
        captions={"copying": "R2 of the inputs decoded from each layer on fresh samples; thin lines are seeds."},
    )


def _fit(network: nn.Module, steps: int, seed: int) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in trange(steps, desc="copying", unit="step"):
            inputs = torch.randn(BATCH, COPIED)
            loss = mse_loss(network(inputs), inputs)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()


@torch.no_grad()
def _r2(network: nn.Module, seed: int) -> float:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2_000 + seed)
        inputs = torch.randn(2_000, COPIED)
        error = (network(inputs) - inputs).square().sum()
    return 1 - float(error / (inputs - inputs.mean(0)).square().sum())
