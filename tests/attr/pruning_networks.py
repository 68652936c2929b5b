"""Small networks for signals of the pruning literature: each with a layer, what its units go into, and inputs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn


class Residual(nn.Module):
    """A skip connection: channels of ``stem`` go into ``conv`` and, beside it, into ``head``."""

    def __init__(self):
        super().__init__()
        self.stem, self.bn, self.conv = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)
        self.act, self.head = nn.ReLU(inplace=True), nn.Linear(4, 3)

    def forward(self, x):
        h = self.act(self.bn(self.stem(x)))
        return self.head((h + self.conv(h)).mean((2, 3)))


class Concatenated(nn.Module):
    """Two branches concatenated before one Linear, one of them twice."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(5, 3), nn.Linear(5, 4), nn.Linear(10, 3)

    def forward(self, x):
        a, b = torch.relu(self.a(x)), self.b(x)
        return self.head(torch.cat([a, b, 2 * a], dim=1))


class Block(nn.Module):
    """A transformer block: attention, a layer norm, and an MLP."""

    def __init__(self, width=8):
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.fc1, self.gelu, self.fc2 = nn.Linear(width, 12), nn.GELU(), nn.Linear(12, width)

    def forward(self, x):
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        x = x + self.proj(nn.functional.scaled_dot_product_attention(q, k, v))
        return x + self.fc2(self.gelu(self.fc1(self.norm2(x))))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.block, self.norm, self.head = nn.Linear(5, 8), Block(), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.norm(self.block(self.embed(x)).mean(1)))


class Case(NamedTuple):
    model: nn.Module
    layer: str
    consumers: list[str]
    inputs: torch.Tensor
    unit_dim: int = 1


def mlp():
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Dropout(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 3))


def conv():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU6(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, groups=2),
        nn.Hardswish(), nn.Flatten(), nn.Linear(24, 3),
    )  # fmt: skip


def separable():
    return nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.SiLU(), nn.Conv2d(4, 8, 3, groups=4), nn.ELU(), nn.ConvTranspose2d(8, 4, 2, groups=2),
        nn.LeakyReLU(), nn.ConvTranspose2d(4, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def cases():
    """Return the cases by name, seeded, in evaluation mode."""
    torch.manual_seed(3)
    flat, images, tokens = torch.randn(6, 5), torch.randn(6, 1, 8, 8), torch.randn(6, 4, 5)
    found = {
        "mlp": Case(mlp(), "0", ["3"], flat),
        "mlp second": Case(mlp(), "4", ["5"], flat),
        "conv": Case(conv(), "0", ["4"], images),
        "conv after batch norm": Case(conv(), "2", ["4"], images),
        "grouped conv, flattened": Case(conv(), "5", ["7"], images),
        "flat": Case(conv(), "6", ["7"], images),
        "depthwise": Case(separable(), "1", ["2"], images),
        "transposed conv": Case(separable(), "3", ["4"], images),
        "after a transposed conv": Case(separable(), "5", ["6"], images),
        "several consumers": Case(Residual(), "act", ["conv", "head"], images),
        "concatenated twice": Case(Concatenated(), "a", ["head"], flat),
        "concatenated": Case(Concatenated(), "b", ["head"], flat),
        "transformer MLP": Case(Transformer(), "block.gelu", ["block.fc2"], tokens, -1),
        "transformer hidden": Case(Transformer(), "block.fc1", ["block.fc2"], tokens, -1),
    }
    for case in found.values():
        for module in case.model.eval().modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.uniform_(0.5, 2)
                module.running_mean.normal_()
    return found


CASES = cases()
