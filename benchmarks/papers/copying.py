"""Does training build error correction? A deep tanh network that copies its inputs, with dropout that is never off.

After the demonstration in the supplement of Marshall and Kirchner (2024): 40 tanh layers of 32 units, three real
inputs, dropout of 0.2 after every fourth layer, also at inference. The supplement estimates mutual information with
MINE; we decode linearly.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from sklearn.linear_model import LinearRegression
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from tqdm.auto import trange

from benchmarks.papers.scale import Scale
from benchmarks.papers.training import Trained, trained

DEPTH, WIDTH, COPIED, EVERY, DROPOUT = 40, 32, 3, 4, 0.2
STEPS, BATCH = 1_500, 128


class Copy(nn.Module):
    """``depth`` tanh layers and a linear read-out of ``[n, 3]``; dropout stays on in evaluation mode too."""

    def __init__(self, depth: int = DEPTH) -> None:
        super().__init__()
        sizes = [COPIED] + depth * [WIDTH]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.out = nn.Linear(WIDTH, COPIED)
        for layer in self.layers:
            nn.init.orthogonal_(layer.weight, gain=1.1)  # so that 40 layers of tanh pass a signal on
            nn.init.zeros_(layer.bias)

    def hidden(self, inputs: Tensor) -> Iterator[Tensor]:
        """Yield what each layer passes on, ``[n, width]``, dropout included."""
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
    """Return R2 ``[layers]`` of the inputs, read linearly from each layer: fitted on one half, scored on the other."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1_000 + seed)
        inputs = torch.randn(n, COPIED)
        layers = [x.double().numpy() for x in network.hidden(inputs)]
    half, wanted = n // 2, inputs.double().numpy()
    return np.array([LinearRegression().fit(x[:half], wanted[:half]).score(x[half:], wanted[half:]) for x in layers])


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
