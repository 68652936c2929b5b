"""The closed form equals the hook loop if the whole suffix is affine, and is not used otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import CLASSES, built, data
from oracle import check, one_thread
from torch import Tensor, nn

CHANNELS, SIDE = 8, 6
pytestmark = pytest.mark.execution("closed form")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


class Tailed(nn.Module):
    """A slow prefix, a layer of channels whose outputs are >= 0, and a tail that reads them and the prefix."""

    def __init__(self, tail: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.stem, self.layer = nn.Conv2d(3, CHANNELS, 3, padding=1), nn.ReLU()
        self.tail = tail()

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.0005)
        h = self.stem(x)
        return self.tail(self.layer(h), h)


class Tail(nn.Module):
    """A tail ``between(a, h)`` that ends in a linear map."""

    def __init__(self, between: Callable[..., Tensor], width: int = CHANNELS, bias: bool = True) -> None:
        super().__init__()
        self.between, self.last = between, nn.Linear(width, CLASSES, bias=bias)
        self.gate = nn.Linear(CHANNELS, CHANNELS)
        self.inner = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.norm = nn.BatchNorm2d(CHANNELS)
        self.other = nn.Linear(CHANNELS, CLASSES)
        with torch.no_grad():
            self.norm.running_mean.normal_()  # type: ignore[union-attr]  # it tracks statistics
            self.norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]

    def forward(self, a: Tensor, h: Tensor) -> Tensor:
        return self.last(self.between(self, a, h).flatten(1))


def pooled(a: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(a, 1).flatten(1)


class TwoHeads(Tail):
    def forward(self, a: Tensor, h: Tensor) -> Tensor:
        return (self.last(pooled(a)) + 2 * self.other(pooled(a))) / 3 + self.other(pooled(h))


AFFINE: dict[str, Callable[[], nn.Module]] = {
    "pool": partial(Tail, lambda _, a, h: pooled(a)),
    "pool, no bias": partial(Tail, lambda _, a, h: pooled(a), bias=False),
    "mean": partial(Tail, lambda _, a, h: a.mean((2, 3))),
    "flatten": partial(Tail, lambda _, a, h: a, CHANNELS * SIDE * SIDE),
    "average pool": partial(Tail, lambda _, a, h: F.avg_pool2d(a, 3, 2, 1), CHANNELS * 9),
    "batch norm": partial(Tail, lambda m, a, h: pooled(m.norm(a))),
    "convolution, batch norm": partial(Tail, lambda m, a, h: pooled(m.norm(m.inner(a)))),
    "dropout": partial(Tail, lambda _, a, h: F.dropout(pooled(a), training=False)),
    "upsampling": partial(Tail, lambda _, a, h: F.interpolate(a, scale_factor=2, mode="bilinear")[..., 3, 5]),
    "joined with the prefix": partial(Tail, lambda _, a, h: torch.cat([pooled(a), pooled(h).tanh()], 1), 16),
    "added to the prefix": partial(Tail, lambda m, a, h: pooled(m.inner(a) + h.tanh())),
    "written into the prefix": partial(Tail, lambda m, a, h: pooled(h.tanh().add_(a))),
    "times a gate of the prefix": partial(
        Tail, lambda m, a, h: pooled(a * m.gate(pooled(h)).sigmoid()[..., None, None])
    ),
    "over the prefix": partial(Tail, lambda _, a, h: pooled(a) / (1 + pooled(h).abs())),
    "masked by the prefix": partial(Tail, lambda _, a, h: pooled(torch.where(h > 0.1, a, h))),
    "weighted by attention of the prefix": partial(
        Tail, lambda _, a, h: torch.bmm(a.flatten(2), h[:, :1].flatten(2).softmax(2).transpose(1, 2))
    ),
    "permuted": partial(Tail, lambda _, a, h: a.permute(0, 2, 3, 1).reshape(len(a), -1, CHANNELS).mean(1)),
    "half of the channels": partial(Tail, lambda _, a, h: pooled(a[:, 2:6]), 4),
    "shuffled channels": partial(Tail, lambda _, a, h: pooled(F.channel_shuffle(a, 2))),
    "sum of products": partial(Tail, lambda m, a, h: torch.einsum("nchw,dc->nd", a, m.gate.weight)),
    "temperature": partial(Tail, lambda _, a, h: pooled(a) / 0.07 - 3),
    "in place": partial(Tail, lambda _, a, h: pooled(a).mul_(2).add_(1).neg_()),
    "into the layer's output": partial(Tail, lambda _, a, h: pooled(a.mul_(2).add_(h))),
    "two heads": partial(TwoHeads, None),
}


class RectifiedInPython(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, a: Tensor) -> Tensor:
        return torch.from_numpy(np.maximum(a.numpy() - 0.05, 0))


def in_thread(a: Tensor) -> Tensor:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: torch.relu(a.detach() - 0.05)).result()


def branch(m: Tail, a: Tensor, h: Tensor) -> Tensor:
    return m.gate(pooled(a)) if a.mean() > 0.2 else pooled(a)


def rows_of(a: Tensor, table: Tensor) -> Tensor:
    return table[pooled(a).argmax(1)]


def written(a: Tensor) -> Tensor:
    out = torch.zeros_like(a)
    out.numpy()[:] = np.abs(a.numpy() - 0.1)
    return out


def doubled_late(a: Tensor) -> Tensor:
    """Double the activation if five of the eight channels are ablated, without an operator that is watched."""
    array = a.detach().numpy()
    gone = (array == 0).all((0, 2, 3)).mean()
    return torch.from_numpy(array * 2 if 0.6 < gone < 0.7 else array * 1)


def doubled_late_in_thread(a: Tensor) -> Tensor:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(doubled_late, a).result()


def doubled_late_by_pointer(a: Tensor) -> Tensor:
    return doubled_late(torch.from_dlpack(a.detach().contiguous().__dlpack__()))


NOT_AFFINE: dict[str, Callable[[], nn.Module]] = {
    "relu after pooling": partial(Tail, lambda _, a, h: pooled(a).relu()),
    "relu of the layer": partial(Tail, lambda _, a, h: pooled(a.relu())),
    "relu in place": partial(Tail, lambda _, a, h: pooled(a).relu_()),
    "relu module": partial(Tail, lambda _, a, h: nn.ReLU(inplace=True)(pooled(a))),
    "abs": partial(Tail, lambda _, a, h: pooled(a.abs())),
    "clamp": partial(Tail, lambda _, a, h: pooled(a.clamp(min=0))),
    "where": partial(Tail, lambda _, a, h: pooled(torch.where(a >= 0, a, 2 * a))),
    "masked": partial(Tail, lambda _, a, h: pooled(a.masked_fill(a < 0, 0))),
    "times own sign": partial(Tail, lambda _, a, h: pooled(a * (a >= 0))),
    "leaky": partial(Tail, lambda _, a, h: pooled(F.leaky_relu(a, 0.3))),
    "prelu": partial(Tail, lambda _, a, h: pooled(F.prelu(a, torch.tensor([0.5])))),
    "wide hardtanh": partial(Tail, lambda _, a, h: pooled(F.hardtanh(a, 0, 1e6))),
    "gelu": partial(Tail, lambda _, a, h: F.gelu(pooled(a))),
    "square": partial(Tail, lambda _, a, h: pooled(a) ** 2),
    "max pool": partial(Tail, lambda _, a, h: F.max_pool2d(a, 2), CHANNELS * 9),
    "adaptive max pool": partial(Tail, lambda _, a, h: F.adaptive_max_pool2d(a, 1)),
    "amax": partial(Tail, lambda _, a, h: a.amax((2, 3))),
    "largest three": partial(Tail, lambda _, a, h: a.flatten(2).topk(3).values.mean(2)),
    "median": partial(Tail, lambda _, a, h: a.flatten(2).median(2).values),
    "softmax pooling": partial(Tail, lambda _, a, h: (a.flatten(2).softmax(2) * a.flatten(2)).sum(2)),
    "gate of its own": partial(Tail, lambda m, a, h: pooled(a * m.gate(pooled(a)).sigmoid()[..., None, None])),
    "gate of its own copy": partial(
        Tail, lambda m, a, h: pooled(a * m.gate(pooled(a.detach().clone())).sigmoid()[..., None, None])
    ),
    "gate of its data": partial(Tail, lambda m, a, h: pooled(a * (a.data.mean((1, 2, 3), keepdim=True) + 1))),
    "times its number": partial(Tail, lambda _, a, h: pooled(a) * (1 + a.mean().item())),
    "over its norm": partial(Tail, lambda _, a, h: F.normalize(pooled(a))),
    "layer norm": partial(Tail, lambda _, a, h: F.layer_norm(pooled(a), (CHANNELS,))),
    "group norm": partial(Tail, lambda _, a, h: pooled(F.group_norm(a, 2)[:, :, :2])),
    "instance norm": partial(Tail, lambda _, a, h: pooled(F.instance_norm(a)[:, :, :2])),
    "batch norm of this batch": partial(
        Tail, lambda _, a, h: pooled(F.batch_norm(a, None, None, training=True)[:, :, 1:])
    ),
    "numpy": partial(Tail, lambda _, a, h: pooled(torch.from_numpy(np.maximum(a.detach().numpy() - 0.05, 0)))),
    "numpy, written": partial(Tail, lambda _, a, h: pooled(written(a))),
    "numpy, affine": partial(Tail, lambda _, a, h: torch.from_numpy(a.detach().numpy().mean((2, 3)) * 2)),
    "numpy, at one step only": partial(Tail, lambda _, a, h: pooled(doubled_late(a))),
    "thread, at one step only": partial(Tail, lambda _, a, h: pooled(doubled_late_in_thread(a))),
    "pointer, at one step only": partial(Tail, lambda _, a, h: pooled(doubled_late_by_pointer(a))),
    "relu in small batches": partial(Tail, lambda _, a, h: pooled(a).relu() if len(a) < 3 else pooled(a)),
    "relu for some inputs": partial(Tail, lambda _, a, h: pooled(a).relu() if h.mean() < 0 else pooled(a)),
    "list": partial(Tail, lambda _, a, h: torch.tensor([[max(v, 0.1) for v in row] for row in pooled(a).tolist()])),
    "autograd function": partial(Tail, lambda _, a, h: pooled(RectifiedInPython.apply(a))),
    "thread": partial(Tail, lambda _, a, h: pooled(in_thread(a))),
    "branch": partial(Tail, branch),
    "rows of its largest": partial(Tail, lambda m, a, h: rows_of(a, m.gate.weight)),
    "hypernetwork": partial(Tail, lambda m, a, h: torch.einsum("nc,nd->nc", pooled(a), m.gate(pooled(a)))),
    "kernel of a convolution": partial(Tail, lambda _, a, h: pooled(F.conv2d(a[:1].mean(0, keepdim=True), a[:1]) + a)),
    "bilinear": partial(Tail, lambda _, a, h: torch.bmm(pooled(a)[:, :, None], pooled(a)[:, None]), CHANNELS**2),
    "rounded": partial(Tail, lambda _, a, h: (pooled(a) * 10).round()),
    "half precision": partial(Tail, lambda _, a, h: (pooled(a) * 1000).half().float() / 1000),
    "sorted": partial(Tail, lambda _, a, h: pooled(a).sort(1).values),
    "without nan": partial(Tail, lambda _, a, h: torch.nan_to_num(pooled(a) / (pooled(a) != 0))),
    "norm": partial(Tail, lambda _, a, h: pooled(a) + a.flatten(1).norm(dim=1)[:, None]),
    "random projection of its size": partial(Tail, lambda _, a, h: pooled(a) * int((a > 0.1).sum()) / 100),
}

SOMETIMES_AFFINE = ("relu in small batches", "relu for some inputs")
"""Tails of which some batches have a closed form and others have none."""

BATCH_AFFINE: dict[str, Callable[[], nn.Module]] = {
    "centred": partial(Tail, lambda _, a, h: pooled(a) - pooled(a).mean(0)),
    "minus the first sample": partial(Tail, lambda _, a, h: pooled(a) - 0.5 * pooled(a)[:1]),
    "flipped": partial(Tail, lambda _, a, h: pooled(a) + pooled(a).flip(0)),
    "cumulative": partial(Tail, lambda _, a, h: pooled(a).cumsum(0)),
    "sample weights": partial(Tail, lambda _, a, h: pooled(a) * torch.arange(1.0, len(a) + 1)[:, None]),
}
"""Tails that are affine in the whole batch, or with another map for each position in it."""


def below_zero(activation: Tensor, target: Tensor) -> Tensor:
    return -0.5 * activation - 0.3 + 0.1 * target.reshape(-1, 1, 1, 1)


REFERENCES: dict[str, Any] = {
    "zero": "zero",
    "mean": "mean",
    "tensor": torch.linspace(-1.0, 0.5, CHANNELS).reshape(CHANNELS, 1, 1),
    "function": below_zero,
}


def images() -> tuple[Tensor, Tensor]:
    return data(5, 3, SIDE, SIDE)


PLAIN = ("pool", "pool, no bias", "mean", "flatten", "average pool", "batch norm", "dropout")
"""Affine tails for which the closed form must be used."""


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("tail", AFFINE)
def test_affine_tail_equals_hook_loop(tail: str, reference: str) -> None:
    x, y = images()
    build = partial(built, partial(Tailed, AFFINE[tail]))
    curve = check(build, "layer", x, y, reference=REFERENCES[reference], n_random=2 if tail in PLAIN else 0)
    if tail in PLAIN:
        assert curve.engine.startswith("closed form")


@pytest.mark.may_fall_back
@pytest.mark.filterwarnings("ignore:.*full forward passes are used instead")
@pytest.mark.parametrize("reference", ["zero", "function"])
@pytest.mark.parametrize("tail", NOT_AFFINE)
def test_closed_form_is_not_used_for_look_alikes(tail: str, reference: str) -> None:
    x, y = images()
    build = partial(built, partial(Tailed, NOT_AFFINE[tail]))
    curve = check(build, "layer", x, y, reference=REFERENCES[reference])
    if tail not in SOMETIMES_AFFINE:
        assert not curve.engine.startswith("closed form")


@pytest.mark.may_fall_back
@pytest.mark.filterwarnings("ignore:.*full forward passes are used instead")
@pytest.mark.parametrize("reference", ["zero", "tensor", "function"])
@pytest.mark.parametrize("tail", SOMETIMES_AFFINE)
def test_each_batch_is_checked_alone(tail: str, reference: str) -> None:
    x, y = images()
    build = partial(built, partial(Tailed, NOT_AFFINE[tail]))
    for size in (1, 2):
        check(build, "layer", x, y, reference=REFERENCES[reference], batch_size=size)


@pytest.mark.may_fall_back
@pytest.mark.filterwarnings("ignore:.*full forward passes are used instead")
@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("tail", BATCH_AFFINE)
def test_tail_that_mixes_samples_equals_hook_loop(tail: str, reference: str) -> None:
    x, y = images()
    build = partial(built, partial(Tailed, BATCH_AFFINE[tail]))
    check(build, "layer", x, y, reference=REFERENCES[reference], n_random=2)


# --- ties --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("tail", ["pool", "flatten"])
def test_ties_of_equal_outputs_equal_hook_loop(tail: str, bias: bool) -> None:
    """If everything is ablated, all outputs are 0 or the same bias, and the first class is the largest."""

    def build() -> nn.Module:
        model = built(partial(Tailed, AFFINE[tail]))
        with torch.no_grad():
            model.tail.last.bias.fill_(0.3)
        if not bias:
            model.tail.last.bias = None
        return model

    x, y = images()
    curve = check(build, "layer", x, y, metric="accuracy", sensitive=False)
    assert torch.equal(torch.as_tensor(curve.values)[-1].bool(), y == 0)


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("tail", ["pool", "flatten", "convolution, batch norm"])
def test_ties_of_twin_classes_equal_hook_loop(tail: str, reference: str) -> None:
    """Two classes have the same weights, so the first of them wins at every step."""

    def build() -> nn.Module:
        model = built(partial(Tailed, AFFINE[tail]))
        with torch.no_grad():
            model.tail.last.weight[2] = model.tail.last.weight[0]
            model.tail.last.bias[:] = torch.tensor([5.0, -5.0, 5.0])
        return model

    x, y = images()
    y = y % 2 * 2  # each of the two twins is the label of some samples
    values = check(build, "layer", x, y, metric="accuracy", reference=REFERENCES[reference], sensitive=False).values
    assert torch.equal(torch.as_tensor(values).bool(), (y == 0).expand_as(torch.as_tensor(values)))


# --- units, metrics, types ---------------------------------------------------------------------------


@pytest.mark.parametrize("unit_dim", [1, 2, -1, None])
@pytest.mark.parametrize("reference", ["zero", "mean", "function"])
@pytest.mark.parametrize("tail", ["flatten", "convolution, batch norm", "times a gate of the prefix"])
def test_any_axis_of_units_equals_hook_loop(tail: str, reference: str, unit_dim: int | None) -> None:
    x, y = images()
    build = partial(built, partial(Tailed, AFFINE[tail]))
    check(build, "layer", x, y, reference=REFERENCES[reference], unit_dim=unit_dim, steps=6)


@pytest.mark.parametrize("metric", ["log_likelihood", "logit", lambda out, t: out.tanh().sum(1) + t])
def test_any_metric_equals_hook_loop(metric: Any) -> None:
    x, y = images()
    check(partial(built, partial(Tailed, AFFINE["batch norm"])), "layer", x, y, metric=metric)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_any_float_type_equals_hook_loop(dtype: torch.dtype) -> None:
    x, y = images()
    check(lambda: built(partial(Tailed, AFFINE["batch norm"])).to(dtype), "layer", x.to(dtype), y)


def test_large_activations_equal_hook_loop() -> None:
    """A cumulative sum in float32 would lose the small units after one unit of 1e6."""

    def build() -> nn.Module:
        model = built(partial(Tailed, AFFINE["pool"]))
        with torch.no_grad():
            model.stem.bias[3] = 1e6
        return model

    x, y = images()
    check(build, "layer", x, y, scores=torch.tensor([0.0, 1, 2, 9, 4, 5, 6, 7]))
    curve = check(build, "layer", x, y, scores=torch.tensor([0.0, 1, 2, 9, 4, 5, 6, 7]), metric="log_likelihood")
    late = torch.as_tensor(curve.values)[2:]  # the large unit is ablated from the first step on
    small = check(
        partial(built, partial(Tailed, AFFINE["pool"])),
        "layer",
        x,
        y,
        scores=torch.tensor([0.0, 1, 2, 9, 4, 5, 6, 7]),
        metric="log_likelihood",
    )
    torch.testing.assert_close(late.double(), torch.as_tensor(small.values)[2:].double(), rtol=0, atol=1e-4)


def test_infinite_unit_does_not_spread() -> None:
    def build() -> nn.Module:
        model = built(partial(Tailed, AFFINE["pool"]))
        with torch.no_grad():
            model.stem.bias[3] = torch.inf
        return model

    x, y = images()
    scores = torch.tensor([0.0, 1, 2, 9, 4, 5, 6, 7])  # the infinite unit goes first, and 0 x inf is not 0
    check(build, "layer", x, y, scores=scores, metric=lambda out, t: out.nan_to_num(7, 7, 7).sum(1))


def test_duplicate_counts_and_one_unit_equal_hook_loop() -> None:
    x, y = images()
    build = partial(built, partial(Tailed, AFFINE["pool"]))
    for steps in (1, 3, 100, [0, 2, 8]):
        check(build, "layer", x, y, steps=steps)


# --- tails put together at random --------------------------------------------------------------------

PARTS: dict[str, Callable[[Tail, Tensor, Tensor], Tensor]] = {
    "convolution": lambda m, a, h: m.inner(a),
    "batch norm": lambda m, a, h: m.norm(a),
    "add prefix": lambda m, a, h: a + h.sigmoid(),
    "gate by prefix": lambda m, a, h: a * h.sigmoid(),
    "scale": lambda m, a, h: a * 0.5 - 1,
    "average": lambda m, a, h: F.avg_pool2d(a, 3, 1, 1),
    "flip": lambda m, a, h: a.flip(2).roll(1, 1),
    "in place": lambda m, a, h: a.add_(1),
    "relu": lambda m, a, h: a.relu(),
    "own gate": lambda m, a, h: a * m.gate(pooled(a)).sigmoid()[..., None, None],
    "centred": lambda m, a, h: a - a.mean(0),
    "largest": lambda m, a, h: F.max_pool2d(a, 3, 1, 1),
}
"""Parts of a tail, the affine ones first."""


def run_parts(names: tuple[str, ...], m: Tail, a: Tensor, h: Tensor) -> Tensor:
    for name in names:
        a = PARTS[name](m, a, h)
    return pooled(a)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    names=st.lists(st.sampled_from(list(PARTS)), min_size=1, max_size=4).map(tuple),
    reference=st.sampled_from(list(REFERENCES)),
    batch_size=st.sampled_from([1, 2, 4, None]),
    n_random=st.sampled_from([0, 2]),
)
def test_any_tail_equals_hook_loop(
    names: tuple[str, ...], reference: str, batch_size: int | None, n_random: int
) -> None:
    x, y = images()
    curve = check(
        partial(built, partial(Tailed, partial(Tail, partial(run_parts, names)))),
        "layer",
        x,
        y,
        reference=REFERENCES[reference],
        batch_size=batch_size,
        n_random=n_random,
        sensitive=False,
    )
    if {"relu", "own gate", "largest"} & set(names):
        assert not curve.engine.startswith("closed form")
