"""Small adversarial networks; the first line of each says which careless engine it breaks."""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

WIDTH, CLASSES = 6, 3


def data(n: int = 5, *shape: int) -> tuple[Tensor, Tensor]:
    """Return seeded inputs ``[n, *shape]`` and the class of each."""
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(n, *(shape or (WIDTH,)), generator=generator),
        torch.arange(n) % CLASSES,
    )


def built(make: Callable[[], nn.Module]) -> nn.Module:
    """Return the network in evaluation mode, with the same random weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval()


class Slow(nn.Linear):
    # Makes the prefix worth skipping, so that no measurement finds the hook loop as fast.

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__(width, width)

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.0005)
        return super().forward(x)


class Network(nn.Module):
    # The common parts: a slow stem before the layer, a head that is not affine after it.

    target_layer = "layer"

    def __init__(self) -> None:
        super().__init__()
        self.stem = Slow()
        self.layer: nn.Module = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.stem(x)))


# --- modules that run more than once --------------------------------------------------------------


class SharedReLU(Network):
    # Breaks numbering calls per module: one ReLU runs inside a served block and again after the layer.

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU()
        self.block = nn.Sequential(Slow(), self.act, nn.Linear(WIDTH, WIDTH), self.act)
        self.tail = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.act(self.layer(self.act(self.block(x)))))


class SharedStem(Network):
    # Breaks serving by module instead of by position: the same module runs twice before and once
    # after the layer.

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(self.layer(self.stem(torch.tanh(self.stem(x))))))


class AncestorFirstCall(Network):
    # Breaks serving an ancestor's later call: the layer runs only in the first of its two calls.

    target_layer = "block.layer"

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.layer = Slow(), nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Tensor, branch: bool) -> Tensor:
            h = self.inner(x)
            return self.layer(h) if branch else torch.tanh(h)

    def __init__(self) -> None:
        super().__init__()
        del self.layer
        self.block = self.Block()

    order = (True, False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        for branch in self.order:
            h = self.block(h, branch) + 0.5 * h
        return self.head(h)


class AncestorSecondCall(AncestorFirstCall):
    # Breaks running every call of an ancestor live, or serving it by module: the layer runs only in
    # its last call.

    order = (False, False, True)


class Recursive(Network):
    # Breaks a stack of ancestors that holds each module once: the network calls itself.

    def forward(self, x: Tensor, depth: int = 2) -> Tensor:
        if depth:
            return torch.tanh(self(self.stem(x), depth - 1)) + (0 if depth == 2 else self.head(x))
        return self.head(self.layer(self.stem(x)))


class LayerInRecursion(Network):
    # Breaks counting ancestors once: the layer is reached through three nested calls of one block.

    target_layer = "block.layer"

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.layer, self.tail = Slow(), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Tensor, depth: int) -> Tensor:
            h = self.stem(x)
            inner = self(h, depth - 1) if depth else self.layer(h)
            return self.tail(torch.tanh(inner)) + h

    def __init__(self) -> None:
        super().__init__()
        del self.layer
        self.block = self.Block()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.stem(x), 2))


# --- writes in place ------------------------------------------------------------------------------


class InplaceAfter(Network):
    # Breaks giving every step the same ablated tensor: an in-place ReLU directly follows the layer.

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        z = self.layer(self.stem(x))
        return self.head(self.relu(z) + z)


class InplaceLayer(Network):
    # Breaks a layer that is not run: it is an in-place ReLU whose input is read again (pre-
    # activation ResNet).

    source = "live"

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ReLU(inplace=True)
        self.conv, self.norm = nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        if self.source == "live":
            h = self.stem(x) * 2 - 0.1
        elif self.source == "child":
            h = self.norm(self.stem(x))
        elif self.source == "input":
            h = x
        else:  # a view of a child's output
            h = self.stem(x).view(-1, WIDTH)[:, :]
        out = self.layer(h)
        return self.head(self.conv(out) + 3 * h + self.stem(h))


class InplaceLayerOnPart(Network):
    # Breaks a layer that is not run: it is an in-place ReLU on a slice of a tensor that is read as a whole.

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        out = self.layer(h[:, :4])
        return self.head(h + F.pad(out, (0, 2)))


WRITES: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "iadd": lambda out, z: out.__iadd__(z),
    "data iadd": lambda out, z: out.data.__iadd__(z),
    "data replaced": lambda out, z: setattr(out, "data", out.data + z.data),
    "detach": lambda out, z: out.detach().add_(z),
    "item": lambda out, z: out.__setitem__((slice(None), 0), out[:, 0] + z[:, 0]),
    "out argument": lambda out, z: torch.add(out, z, out=out),
    "copy": lambda out, z: out.copy_(out * 2 + z),
    "numpy": lambda out, z: np.add(out.numpy(), z.numpy(), out=out.numpy()),
    "foreach": lambda out, z: torch._foreach_add_([out], [z]),
    "view": lambda out, z: out.view(-1).add_(z.reshape(-1)),
    "chunks": lambda out, z: [part.add_(z[:, :3]) for part in out.chunk(2, dim=1)],
    "index": lambda out, z: out.index_add_(0, torch.arange(len(out)), z),
    "functional relu": lambda out, z: F.relu(out.add_(z), inplace=True),
    "resize": lambda out, z: out.set_((out + z).clone()),
    "transpose": lambda out, z: out.t_().add_(z.t()).t_(),
}


class Writes(Network):
    # Breaks serving the recorded tensor itself: the branch's result is written into a child's earlier output.

    def __init__(self, write: str) -> None:
        super().__init__()
        self.write = WRITES[write]

    def forward(self, x: Tensor) -> Tensor:
        out = self.stem(x)
        self.write(out, self.layer(torch.tanh(x)))  # the layer sits in a parallel (downsample) branch
        return self.head(out)


class WritesBefore(Network):
    # Breaks copying what a child returned at the end of the recording: it is written into before
    # the layer runs.

    def __init__(self, write: str) -> None:
        super().__init__()
        self.write = WRITES[write]

    def forward(self, x: Tensor) -> Tensor:
        out = self.stem(x)
        self.write(out, x)
        return self.head(self.layer(out) + out)


class WritesIntoInput(Network):
    # Breaks giving every step the same inputs: the model normalises its input in place.

    def __init__(self, when: str) -> None:
        super().__init__()
        self.when = when

    def forward(self, x: Tensor) -> Tensor:
        if self.when == "before":
            x -= x.mean(1, keepdim=True)
            x.relu_()
        z = self.layer(self.stem(x))
        if self.when == "after":
            x += z
        if self.when == "data":
            x.data.mul_(z.data)
        return self.head(x + z)


class ChildWritesArgument(Network):
    # Breaks not running a served child: it works by writing into its argument, and its result is thrown away.

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.sin(3 * x)  # live, so that a served ReLU leaves it unrectified
        self.relu(h)
        return self.head(self.layer(self.stem(x)) + h)


class ChildWritesArgumentData(Network):
    # Breaks watching version counters: a child writes through .data into its argument and returns
    # another tensor.

    class Centre(nn.Module):
        def forward(self, h: Tensor) -> Tensor:
            h.data -= h.data.mean(1, keepdim=True)
            return h.sum(1, keepdim=True)

    def __init__(self) -> None:
        super().__init__()
        self.centre = self.Centre()

    def forward(self, x: Tensor) -> Tensor:
        h = torch.sin(3 * x) + 1
        total = self.centre(h)
        return self.head(self.layer(self.stem(x)) + h + total)


class Aliases(Network):
    # Breaks serving a copy of an output that is a view of another live tensor, which is written
    # into afterwards.

    ALIASES: dict[str, Callable[[], nn.Module]] = {  # noqa: RUF012  a table
        "identity": nn.Identity,
        "dropout": nn.Dropout,
        "flatten": nn.Flatten,
        "nested identity": lambda: nn.Sequential(nn.Identity(), nn.Sequential(nn.Identity())),
        "in-place relu": lambda: nn.ReLU(inplace=True),
        "unflatten": lambda: nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Flatten()),
    }

    def __init__(self, alias: str, source: str, when: str) -> None:
        super().__init__()
        self.alias, self.source, self.when = self.ALIASES[alias](), source, when
        self.first = Slow()

    def forward(self, x: Tensor) -> Tensor:
        h = {"live": lambda: x * 2 - 1, "child": lambda: self.first(x), "input": lambda: x}[self.source]()
        a = self.alias(h)
        if self.when == "before":
            h.mul_(-2).add_(1)
        z = self.layer(self.stem(torch.tanh(x)))
        if self.when == "after":
            h.add_(z)
        if self.when == "through alias":
            a.add_(z)
        return self.head(a + 0.5 * h + z)


# --- what children return -------------------------------------------------------------------------


class Pair(NamedTuple):
    first: Tensor
    others: list[Tensor]


@dataclass
class Hidden:
    first: Tensor
    total: Any = 0.0


class Cache:
    def __init__(self, first: Tensor) -> None:
        self.parts = [first]

    def update(self, part: Tensor) -> Tensor:
        self.parts.append(part)
        return torch.stack(self.parts).sum(0)


class Slots:
    __slots__ = ("first", "total")

    def __init__(self, first: Tensor) -> None:
        self.first, self.total = first, first


class Outputs(OrderedDict[str, Any]):
    @property
    def first(self) -> Tensor:
        return self["first"]


def _appended(c: Any, z: Tensor) -> Tensor:
    c.append(z)
    return torch.stack(list(c)).sum(0)


def _cyclic(h: Tensor) -> list[Any]:
    c: list[Any] = [h]
    c.append(c)
    return c


def _closure(h: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda z: h.add_(z)


def _summed(c: dict[str, Tensor], z: Tensor) -> Tensor:
    c["sum"] = c.get("sum", 0) + z
    return torch.stack(list(c.values())).sum(0)


def _named(c: Pair, z: Tensor) -> Tensor:
    c.others.append(z)
    return c.first + torch.stack(c.others).sum(0)


def _assigned(c: Any, z: Tensor) -> Tensor:
    c.total = c.total + z
    return c.first + c.total


def _slot(c: Slots, z: Tensor) -> Tensor:
    c.total = c.total + z
    return c.total


def _cleared(c: list[Tensor], z: Tensor) -> Tensor:
    total = z + torch.stack(c).sum(0)
    c.clear()
    return total


def _popped(c: list[Tensor], z: Tensor) -> Tensor:
    return z + c.pop() * len(c)


def _twice(c: Any, z: Tensor) -> Tensor:
    c[0].add_(z)
    return c[1].reshape(z.shape) * 2


def _array(c: np.ndarray, z: Tensor) -> Tensor:
    c += z.numpy()
    return torch.from_numpy(c).clone()


def _numbers(c: list[float], z: Tensor) -> Tensor:
    c[:] = [value * 2 + 1 for value in c]
    return z * torch.tensor(c)


def _moved(c: Any, z: Tensor) -> Tensor:
    c.logits.add_(z)
    return c.logits + c.probs


Use = Callable[[Any, Tensor], Tensor]
RETURNS: dict[str, tuple[Callable[[Tensor], Any], Use]] = {
    "tuple": (lambda h: (h, h * 2), lambda c, z: c[1].add_(z) + c[0]),
    "list, appended": (lambda h: [h], _appended),
    "list, cleared": (lambda h: [h, h * 2], _cleared),
    "list, popped": (lambda h: [h, h * 2, h * 3], _popped),
    "list in a tuple": (lambda h: (h, [h]), lambda c, z: _appended(c[1], z)),
    "list twice in a tuple": (lambda h: (c := [h], c), lambda c, z: _appended(c[0], z) + len(c[1])),
    "list within itself": (_cyclic, lambda c, z: _appended(c[1][:1], z) + c[1][1][0].add_(z)),
    "dict, updated": (lambda h: {"h": h}, _summed),
    "dict, popped": (lambda h: {"h": h, "g": h * 2}, lambda c, z: c.pop("g") + z + len(c)),
    "defaultdict": (
        lambda h: defaultdict(list, h=[h]),
        lambda c, z: _appended(c["h"], z) + _appended(c["new"], z),
    ),
    "dict with attributes": (lambda h: Outputs(first=h), lambda c, z: _summed(c, z) + c.first),
    "deque": (lambda h: deque([h, h * 2], maxlen=2), _appended),
    "named tuple": (lambda h: Pair(h, [h]), _named),
    "dataclass": (Hidden, _assigned),
    "object": (Cache, lambda c, z: c.update(z)),
    "object with slots": (Slots, _slot),
    "iterator": (lambda h: iter([h, h * 2]), sum),
    "generator": (lambda h: (h * k for k in (1, 2)), sum),
    "counter": (lambda h: (h, itertools.count(1)), lambda c, z: c[0] + z * next(c[1])),
    "closure": (_closure, lambda c, z: c(z)),
    "bound method": (lambda h: h.add_, lambda c, z: c(z)),
    "partial": (lambda h: partial(torch.Tensor.add_, h), lambda c, z: c(z)),
    "one tensor twice": (lambda h: (h, h), _twice),
    "tensor and its view": (lambda h: (h.view(-1, 2, 3), h), lambda c, z: _twice((c[1], c[0]), z)),
    "transposed": (lambda h: h.t().contiguous().t(), lambda c, z: c.add_(z).relu()),
    "array": (lambda h: h.numpy(), _array),
    "array view of a tensor": (lambda h: (h, h.numpy()), lambda c, z: c[0].add_(z) + _array(c[1], z)),
    "numbers": (lambda h: h.mean(0).tolist(), _numbers),
    "distribution": (lambda h: torch.distributions.Categorical(logits=h), _moved),
    "nothing": (lambda h: None, lambda c, z: z if c is None else z * 0),
}


class Returns(Network):
    # Breaks serving the recorded container: the parent changes what the child returned, after the layer.

    class Maker(nn.Module):
        def __init__(self, make: Callable[[Tensor], Any]) -> None:
            super().__init__()
            self.stem, self.make = Slow(), make

        def forward(self, x: Tensor) -> Any:
            return self.make(self.stem(x))

    def __init__(self, kind: str) -> None:
        super().__init__()
        make, self.use = RETURNS[kind]
        self.maker = self.Maker(make)

    def forward(self, x: Tensor) -> Tensor:
        container = self.maker(x)
        return self.head(self.use(container, self.layer(self.stem(x))))


class ReturnsEarly(Returns):
    # Breaks rebuilding containers at the end of the recording: the parent changes them before the
    # layer as well.

    def forward(self, x: Tensor) -> Tensor:
        container = self.maker(x)
        early = self.use(container, x)
        return self.head(early + self.use(container, self.layer(self.stem(x))))


class DenseNet(Network):
    # Breaks serving the recorded list: the features are appended to a list that the stem returned.

    class Stem(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Slow()

        def forward(self, x: Tensor) -> list[Tensor]:
            return [self.inner(x)]

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = self.Stem(), nn.Linear(2 * WIDTH, WIDTH)
        self.third = nn.Linear(3 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        features = self.first(x)
        features.append(self.layer(features[0]))
        features.append(self.second(torch.cat(features, 1)))
        return self.head(self.third(torch.cat(features, 1)))


class PackedStem(Network):
    # Breaks rebuilding tuples naively: a packed sequence is a named tuple with parts that are None
    # or on the CPU.

    def __init__(self) -> None:
        super().__init__()
        self.pack, self.rnn = self.Pack(), nn.GRU(2, WIDTH, batch_first=True)

    class Pack(nn.Module):
        def forward(self, x: Tensor) -> Any:
            lengths = torch.arange(len(x)) % 3 + 1
            return pack_padded_sequence(x.view(len(x), 3, 2), lengths, batch_first=True, enforce_sorted=False)

    def forward(self, x: Tensor) -> Tensor:
        self.stem(x)
        h, _ = pad_packed_sequence(self.rnn(self.pack(x))[0], batch_first=True)
        return self.head(self.layer(h.sum(1)))


# --- state that a served child does not leave behind ----------------------------------------------


class Stashes(Network):
    # Breaks skipping children that leave Python state: the stem keeps its output, the suffix reads
    # or changes it.

    class Stem(Slow):
        def __init__(self) -> None:
            super().__init__()
            self.memory: Any = None
            self.skips: list[Tensor] = []

        def forward(self, x: Tensor) -> Tensor:
            h = super().forward(x)
            self.memory = h.clone()
            self.skips.append(h * 2)
            return h

    def __init__(self, use: str) -> None:
        super().__init__()
        self.stem, self.use = self.Stem(), use

    def forward(self, x: Tensor) -> Tensor:
        z = self.layer(self.stem(x))
        if self.use == "read":
            return self.head(z + self.stem.memory)
        if self.use == "accumulate":
            self.stem.memory += z
            return self.head(self.stem.memory)
        if self.use == "pop":
            return self.head(z + self.stem.skips.pop())
        if self.use == "replace":
            self.stem.memory = self.stem.memory + z
            return self.head(self.stem.memory)
        skip, self.stem.memory = self.stem.memory, None  # "clear"
        return self.head(z + (0 if skip is None else skip))


STORE: dict[str, Tensor] = {}


class StashesGlobally(Network):
    # Breaks restoring only modules: a served child writes to a global that the suffix empties.

    class Stem(Slow):
        def forward(self, x: Tensor) -> Tensor:
            STORE["h"] = super().forward(x)
            return torch.tanh(STORE["h"])

    def __init__(self) -> None:
        super().__init__()
        self.stem = self.Stem()

    def forward(self, x: Tensor) -> Tensor:
        z = self.layer(self.stem(x))
        h = STORE.pop("h", None)
        return self.head(z if h is None else z + h)


class FillsContext(Network):
    # Breaks not running a served child: it fills a list that its caller made, as U-Nets do; nothing
    # is raised.

    needed = (0.0, 1.0)
    """Between which fractions of ablated units the suffix looks at the list."""

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Slow()

        def forward(self, x: Tensor, skips: Any) -> Tensor:
            h = self.inner(x)
            if isinstance(skips, dict):
                skips["h"] = h
            else:
                skips.append(h)
            return torch.tanh(h)

    def __init__(self, context: Callable[[], Any] = list) -> None:
        super().__init__()
        self.encoder, self.context = self.Encoder(), context

    def forward(self, x: Tensor) -> Tensor:
        skips = self.context()
        z = self.layer(self.encoder(x, skips))
        gone = float((z == 0).float().mean())
        if self.needed[0] <= gone <= self.needed[1]:
            z = z + sum(skips.values() if isinstance(skips, dict) else skips)
        return self.head(z)


class FillsContextLate(FillsContext):
    # Breaks checks of the intact, half ablated and last step alone: only at two thirds is the lost
    # list missed.

    needed = (0.6, 0.7)


class FillsKeywordContext(FillsContext):
    # Breaks looking at positional arguments alone: the list that a served child fills comes by keyword.

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        z = self.layer(self.encoder(x, skips=skips))
        return self.head(z + sum(skips))


class FillsOwnCache(Network):
    # Breaks not running a served child: the root empties its cache live, the stem fills it, the
    # suffix asks for it.

    class Stem(nn.Module):
        def __init__(self, cache: dict[str, Tensor]) -> None:
            super().__init__()
            self.inner, self.cache = Slow(), cache

        def forward(self, x: Tensor) -> Tensor:
            self.cache["h"] = self.inner(x)
            return torch.tanh(self.cache["h"])

    def __init__(self) -> None:
        super().__init__()
        self.cache: dict[str, Tensor] = {}
        self.stem = self.Stem(self.cache)

    def forward(self, x: Tensor) -> Tensor:
        self.cache.clear()
        z = self.layer(self.stem(x))
        return self.head(z + self.cache.get("h", 0))


class WritesLate(Network):
    # Breaks watching writes while recording: only where two thirds are ablated does anything write in place.

    def __init__(self, write: str) -> None:
        super().__init__()
        self.write = WRITES[write]

    def forward(self, x: Tensor) -> Tensor:
        out = self.stem(x)
        z = self.layer(torch.tanh(x))
        if 0.6 < float((z == 0).float().mean()) < 0.7:
            self.write(out, z + 1)
        return self.head(out + z)


class ChildWritesArgumentLate(ChildWritesArgument):
    # Breaks checks of a few steps: the live tensor that a served child should have written is read
    # at two thirds.

    def forward(self, x: Tensor) -> Tensor:
        h = torch.sin(3 * x)
        self.relu(h)
        z = self.layer(self.stem(x))
        return self.head(z + h if 0.6 < float((z == 0).float().mean()) < 0.7 else z)


class CountsCalls(Network):
    # Breaks refusing every module that changes itself: counting the calls does not change an output.

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen += len(x)
        return super().forward(x)


class CachesFirstCall(Network):
    # Breaks evaluating the steps in another order than from the intact network on: the first call
    # sets a constant.

    def __init__(self) -> None:
        super().__init__()
        self.scale: Any = None

    def forward(self, x: Tensor) -> Tensor:
        z = self.layer(self.stem(x))
        if self.scale is None:
            self.scale = z.abs().mean()
        return self.head(z / self.scale)


class Drifts(Network):
    # Breaks trusting that a model repeats itself: its state, and so its outputs, change with each call.

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where, self.step = where, 0
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        self.scale *= 1.01
        self.step += 1
        h = self.stem(x)
        z = self.layer(h * self.scale if self.where == "before" else h)
        return self.head(z + self.step if self.where == "after" else z)


class Noisy(Network):
    # Breaks trusting that a model repeats itself: there is noise in evaluation mode.

    NOISE: dict[str, Callable[[Tensor], Tensor]] = {  # noqa: RUF012  a table
        "torch": lambda h: h + torch.randn_like(h),
        "numpy": lambda h: h + float(np.random.rand()),  # noqa: NPY002  what models in the wild use
        "dropout": lambda h: F.dropout(h, 0.5, training=True),
    }

    def __init__(self, noise: str, where: str) -> None:
        super().__init__()
        self.noise, self.where = self.NOISE[noise], where

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        z = self.layer(self.noise(h) if self.where == "before" else h)
        return self.head(self.noise(z) if self.where == "after" else z)


# --- control flow ---------------------------------------------------------------------------------


class BranchesOnAblated(Network):
    # Breaks a captured graph: which modules follow depends on the ablated activation.

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        z = self.layer(h)
        if float(z.abs().sum()) < 0.7 * float(h.abs().sum()):
            return self.head(self.other(self.stem(z)) + h)
        return self.head(z)


class LoopsOnAblated(Network):
    # Breaks a captured graph: how often a module runs depends on the ablated activation.

    def forward(self, x: Tensor) -> Tensor:
        z = self.layer(self.stem(x))
        for _ in range(int((z == 0).sum()) % 4 + 1):
            z = torch.tanh(self.stem(z))
        return self.head(z)


class BranchesOnInput(Network):
    # Breaks reusing the calls of the first batch: which modules run before the layer depends on the batch.

    def __init__(self) -> None:
        super().__init__()
        self.small, self.large = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        h = self.large(self.small(x)) if len(x) == 3 else self.small(x)
        return self.head(self.layer(self.stem(h)) + h)


class LayerNotInEveryBatch(Network):
    # Breaks checking the layer's calls in the first batch only: in the last one the layer does not run.

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        return self.head(self.layer(h) if len(x) == 3 else h)


class RaisesWhenAllAblated(Network):
    # Breaks clean-up that waits for the last step: the model raises where nothing of the layer is left.

    def forward(self, x: Tensor) -> Tensor:
        z = self.layer(self.stem(x))
        if not bool(z.any()):
            raise FloatingPointError("nothing left")
        return self.head(z)


# --- how modules are called -----------------------------------------------------------------------


GLOBAL_ACTIVATION = nn.ReLU()


class NotChildren(Network):
    # Breaks watching children: modules in a plain list and in a global run before and after the layer.

    def __init__(self) -> None:
        super().__init__()
        self.hidden = [Slow(), GLOBAL_ACTIVATION, nn.Linear(WIDTH, WIDTH)]

    def forward(self, x: Tensor) -> Tensor:
        for module in self.hidden:
            x = module(x)
        return self.head(self.hidden[2](GLOBAL_ACTIVATION(self.layer(GLOBAL_ACTIVATION(self.stem(x)) + x))))


class Bank(Network):
    # Breaks ancestors by name: the layer belongs to a bank of modules, and is called by a block
    # that does not own it.

    target_layer = "bank.layer"

    class Block(nn.Module):
        def __init__(self, bank: nn.ModuleDict) -> None:
            super().__init__()
            self.owned = Slow()
            object.__setattr__(self, "bank", bank)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.tanh(self.bank["first"](self.owned(x)))
            return self.bank["last"](torch.tanh(self.bank["layer"](h) + h)) + self.bank["first"](h)

    def __init__(self) -> None:
        super().__init__()
        del self.layer
        self.bank = nn.ModuleDict({name: nn.Linear(WIDTH, WIDTH) for name in ("first", "layer", "last")})
        self.block = self.Block(self.bank)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.stem(x)))


class SecondName(Network):
    # Breaks looking a layer up by its first name: the same layer has two.

    target_layer = "again"

    def __init__(self) -> None:
        super().__init__()
        self.again = self.layer


class OverridesCall(Network):
    # Breaks patching nn.Module.__call__ alone: a class wraps its own __call__, or goes past the hooks.

    class Wrapped(Slow):
        def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]  # the point of the test
            return torch.sin(super().__call__(x * 2))

    class Bypass(Slow):
        def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return self.forward(x) + 1

    class WrappedBlock(nn.Sequential):
        def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return super().__call__(x) * x

    class BypassBlock(nn.Sequential):
        def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return self.forward(torch.tanh(x)) - x

    def __init__(self, who: str) -> None:
        super().__init__()
        self.who = who
        linear = partial(nn.Linear, WIDTH, WIDTH)
        self.before = {"prefix wraps": self.Wrapped, "prefix bypasses": self.Bypass}.get(who, Slow)()
        if who == "layer wraps":
            self.layer = self.Wrapped()
        kind = {"ancestor wraps": self.WrappedBlock, "ancestor bypasses": self.BypassBlock}.get(who, nn.Sequential)
        self.block = kind(Slow(), self.layer, nn.Tanh(), linear())
        self.after = {"suffix wraps": self.Wrapped, "suffix bypasses": self.Bypass}.get(who, linear)()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.after(self.block(self.before(x))))


class InstanceForward(Network):
    # Breaks patching classes: the forward of one instance was replaced (as adapters and profilers do).

    def __init__(self) -> None:
        super().__init__()
        plain = self.stem.forward
        self.stem.forward = lambda x: plain(x) * 2  # type: ignore[method-assign]
        tail = self.head.forward
        self.head.forward = lambda x: tail(x) - 1  # type: ignore[method-assign]


class Keywords(Network):
    # Breaks forwarding positional arguments only: blocks, the layer and children are called with keywords.

    target_layer = "block.layer"

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(WIDTH, WIDTH)

        def forward(self, *, h: Tensor, scale: float = 1.0) -> Tensor:
            return self.linear(h) * scale

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.layer, self.last = Keywords.Scaled(), Keywords.Scaled(), Keywords.Scaled()

        def forward(self, x: Tensor, *, gain: float, skip: Tensor | None = None) -> dict[str, Tensor]:
            h = torch.tanh(self.inner(h=x, scale=gain))
            z = torch.tanh(self.layer(scale=gain, h=h))
            return {"out": self.last(h=z) + (0 if skip is None else skip)}

    def __init__(self) -> None:
        super().__init__()
        del self.layer
        self.block = self.Block()

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        return self.head(input=self.block(gain=2.0, x=h, skip=h)["out"])


class Deep(Network):
    # Breaks looking one level up: the layer sits five containers deep.

    target_layer = "deep.1.0.2.1.0"

    def __init__(self) -> None:
        super().__init__()
        del self.layer
        linear = partial(nn.Linear, WIDTH, WIDTH)
        inner = nn.Sequential(linear(), nn.Sequential(linear(), nn.ReLU(inplace=True)), linear())
        middle = nn.Sequential(linear(), nn.Tanh(), inner, nn.Tanh())
        self.deep = nn.Sequential(Slow(), nn.Sequential(middle, linear()), nn.Tanh(), Slow())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.deep(self.stem(x)))


class Checkpointed(Network):
    # Breaks a stack of plain calls: the part before, around or after the layer runs under
    # activation checkpointing.

    def __init__(self, where: str, reentrant: bool) -> None:
        super().__init__()
        self.where, self.reentrant = where, reentrant
        self.block = nn.Sequential(Slow(), nn.Tanh(), self.layer, nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        run = partial(checkpoint, use_reentrant=self.reentrant)
        h = run(self.stem, x) if self.where == "before" else self.stem(x)
        z = run(self.block, h) if self.where == "around" else self.block(h)
        return run(self.head, z) if self.where == "after" else self.head(z)


class InnerGradient(Network):
    # Breaks detached copies: the forward differentiates a part of itself, before, after or across the layer.

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where, self.energy = where, nn.Linear(WIDTH, WIDTH)

    def slope(self, h: Tensor) -> Tensor:
        with torch.enable_grad():
            h = h.detach().requires_grad_()
            return torch.autograd.grad(torch.tanh(self.energy(h)).pow(2).sum(), h)[0]

    def forward(self, x: Tensor) -> Tensor:
        if self.where == "before":
            h = self.stem(x)
            return self.head(self.layer(h + self.slope(h)))
        if self.where == "after":
            z = self.layer(self.stem(x))
            return self.head(z + self.slope(z))
        with torch.enable_grad():  # across the layer
            x = x.detach().requires_grad_()
            z = self.layer(torch.tanh(self.stem(x)))
            total = torch.tanh(self.energy(z)).pow(2).sum()
            (slope,) = torch.autograd.grad(total, x, allow_unused=self.where == "across, unused allowed")
        return self.head(z if slope is None else z + slope)


class Functional(Network):
    # Breaks the assumption that a module has one set of weights: it is called with two sets of swapped ones.

    def __init__(self) -> None:
        super().__init__()
        self.sub = nn.Linear(WIDTH, WIDTH)
        self.weights = nn.ParameterList([torch.randn(WIDTH, WIDTH) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        h = torch.func.functional_call(self.sub, {"weight": self.weights[0]}, (self.stem(x),))
        z = self.layer(torch.tanh(h))
        return self.head(torch.func.functional_call(self.sub, {"weight": self.weights[1]}, (z,)) + self.sub(h))


class Vmapped(Network):
    # Breaks keeping what a child returned: under vmap it is a wrapper that is dead after the call.

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where, self.sub = where, nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        if self.where == "before":
            return self.head(self.layer(torch.vmap(self.sub)(h)) + torch.vmap(lambda v: self.sub(v) * 2)(h))
        return self.head(torch.vmap(self.sub)(self.layer(h)))


class Parametrized(Network):
    # Breaks counting calls by hand: reading a parametrised weight calls a module, before and after the layer.

    def __init__(self) -> None:
        super().__init__()
        self.sub = nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH))
        self.spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(WIDTH, WIDTH))
        self.layer = nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        h = self.spectral(F.linear(self.stem(x), self.sub.weight))
        return self.head(F.linear(self.layer(h), self.sub.weight) + h)


class Threads(Network):
    # Breaks a stack of calls per process: the branches of the forward run in threads.

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Sequential(Slow(), nn.Tanh()), nn.Sequential(Slow(), self.layer, nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        with ThreadPoolExecutor(2) as pool:
            left, right = pool.map(lambda branch: branch(h).detach(), (self.left, self.right))
        return self.head(left * right)


class RunsItsLayerTwice(Network):
    # Must be refused: the layer has two activations in one forward.

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(torch.tanh(self.layer(self.stem(x)))))


class CallsForward(Network):
    # Must be refused: no hook sees a forward that is called directly.

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer.forward(self.stem(x)))


class UsesWeight(Network):
    # Must be refused: no hook sees a function that uses the layer's weight.

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.linear(self.stem(x), self.layer.weight, self.layer.bias))


class TiedWeight(Network):
    # Breaks treating use of a weight as a call: the layer runs once, and its weight is used again after it.

    def forward(self, x: Tensor) -> Tensor:
        z = torch.tanh(self.layer(self.stem(x)))
        return self.head(F.linear(z, self.layer.weight) + self.layer.forward(z))


# --- samples that are not independent -------------------------------------------------------------


MIXES: dict[str, Callable[[Tensor], Tensor]] = {
    "centred": lambda z: z - z.mean(0),
    "centred where something is gone": lambda z: z - z.mean(0) * (z == 0).float().amax(),
    "first sample": lambda z: z - z[:1],
    "last sample": lambda z: z * z[-1],
    "position": lambda z: z * torch.arange(1, len(z) + 1)[:, None],
    "size": lambda z: z * len(z),
    "flipped": lambda z: z + z.flip(0),
    "cumulative": lambda z: z.cumsum(0),
    "similarity": lambda z: torch.softmax(z @ z.T, 1) @ z,
    "sorted": lambda z: z.sort(0).values,
    "batch norm without statistics": lambda z: F.batch_norm(z, None, None, training=True),
    "largest": lambda z: z / (z.abs().max() + 0.1),
    "groups": lambda z: z.reshape(-1).view(len(z), -1) * z.reshape(-1)[: len(z)][:, None],
}


class MixesSamples(Network):
    # Breaks stacked masks and skipped samples: the suffix does not treat the samples of a batch
    # independently.

    def __init__(self, mix: str) -> None:
        super().__init__()
        self.mix = MIXES[mix]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(self.layer(self.stem(x))))


class MixesSamplesBefore(Network):
    # Breaks one recording for several batches: the prefix does not treat the samples of a batch
    # independently.

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        return self.head(self.layer(h - h.mean(0)) + h.amax(0))


class SuffixBatchNorm(Network):
    # Breaks nothing but bits: batch norm in evaluation mode, with statistics of its own, follows the layer.

    def __init__(self) -> None:
        super().__init__()
        norm = nn.BatchNorm1d(WIDTH)
        with torch.no_grad():
            norm.running_mean.normal_()  # type: ignore[union-attr]  # it tracks statistics
            norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
        self.head.insert(0, norm)


class Endless(Network):
    # Breaks masks made by multiplying: a unit of the layer is infinite, and 0 x inf is not 0.

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.exp(-self.layer(self.stem(x))))

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.layer.bias[2] = torch.inf  # type: ignore[index,union-attr]


class LayerFirst(Network):
    # Breaks the assumption that something runs before the layer.

    target_layer = "stem"


class LayerLast(Network):
    # Breaks the assumption that something runs after the layer.

    target_layer = "head.2"


class LayerNeverMatters(Network):
    # Breaks skipping: the layer runs, but its output is thrown away.

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        self.layer(h)
        return self.head(h)


def _family(network: Callable[..., nn.Module], **choices: Any) -> dict[str, Callable[[], nn.Module]]:
    found = {}
    for values in itertools.product(*choices.values()):
        name = ", ".join(str(v) for v in values)
        found[f"{network.__name__}: {name}"] = partial(network, **dict(zip(choices, values, strict=True)))
    return found


def _inplace_layer(source: str) -> InplaceLayer:
    network = InplaceLayer()
    network.source = source
    return network


_PLAIN: tuple[Callable[[], nn.Module], ...] = (
    SharedReLU,
    SharedStem,
    AncestorFirstCall,
    AncestorSecondCall,
    LayerInRecursion,
    InplaceAfter,
    InplaceLayerOnPart,
    ChildWritesArgument,
    ChildWritesArgumentData,
    ChildWritesArgumentLate,
    DenseNet,
    PackedStem,
    StashesGlobally,
    FillsContext,
    FillsContextLate,
    FillsKeywordContext,
    FillsOwnCache,
    CountsCalls,
    CachesFirstCall,
    BranchesOnAblated,
    LoopsOnAblated,
    BranchesOnInput,
    NotChildren,
    Bank,
    SecondName,
    InstanceForward,
    Keywords,
    Deep,
    Functional,
    Parametrized,
    Threads,
    TiedWeight,
    MixesSamplesBefore,
    SuffixBatchNorm,
    LayerFirst,
    LayerLast,
)

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    **{network.__name__: network for network in _PLAIN},
    "FillsContext: dict": partial(FillsContext, dict),
    "Recursive": Recursive,
    **_family(Writes, write=WRITES),
    **_family(WritesBefore, write=WRITES),
    **_family(WritesLate, write=("iadd", "data iadd", "numpy", "data replaced")),
    **_family(WritesIntoInput, when=("before", "after", "data")),
    **{f"InplaceLayer: {s}": partial(_inplace_layer, s) for s in ("live", "child", "input", "view")},
    **_family(
        Aliases,
        alias=("identity", "flatten"),
        source=("live", "child", "input"),
        when=("before", "after", "through alias"),
    ),
    **_family(
        Aliases,
        alias=("dropout", "nested identity", "in-place relu", "unflatten"),
        source=("live",),
        when=("after",),
    ),
    **_family(Returns, kind=RETURNS),
    **_family(ReturnsEarly, kind=("list, appended", "dict, updated", "dataclass", "object", "one tensor twice")),
    **_family(Stashes, use=("read", "accumulate", "pop", "replace", "clear")),
    **_family(
        OverridesCall,
        who=(
            "prefix wraps",
            "prefix bypasses",
            "ancestor wraps",
            "ancestor bypasses",
            "layer wraps",
            "suffix wraps",
            "suffix bypasses",
        ),
    ),
    **_family(Checkpointed, where=("before", "around", "after"), reentrant=(False, True)),
    **_family(InnerGradient, where=("before", "after", "across", "across, unused allowed")),
    **_family(Vmapped, where=("before", "after")),
    **_family(MixesSamples, mix=MIXES),
}
"""Networks whose curves must equal the hook loop's, by name."""

NUMBERS = "Python reads numbers that follow from the ablation"
MEMORY = "numpy or a list reads or writes the memory of a tensor"
OWN_GRADIENT = "the network differentiates its outputs with respect to the layer, inside its forward pass"
NO_GRAPH = {
    "BranchesOnAblated": NUMBERS,
    "LoopsOnAblated": NUMBERS,
    "BranchesOnInput": "another batch takes another branch: the check of its intact outputs finds it",
    "ChildWritesArgumentLate": NUMBERS,
    "FillsContext": NUMBERS,
    "FillsContext: dict": NUMBERS,
    "FillsContextLate": NUMBERS,
    **dict.fromkeys(("WritesLate: iadd", "WritesLate: data iadd", "WritesLate: data replaced"), NUMBERS),
    "WritesLate: numpy": MEMORY,
    "Writes: numpy": MEMORY,
    "WritesBefore: numpy": MEMORY,
    "Returns: array": MEMORY,
    "Returns: array view of a tensor": MEMORY,
    "Returns: numbers": MEMORY,
    "Returns: distribution": "a distribution checks the numbers of its parameters",
    "Threads": "operators run in another thread",
    **dict.fromkeys(("InnerGradient: across", "InnerGradient: across, unused allowed"), OWN_GRADIENT),
    **dict.fromkeys(
        ("Writes: data replaced", "WritesBefore: data replaced"), "`.data` is replaced, which no operator shows"
    ),
    "MixesSamples: position": "a tensor has one row for each sample of this batch, by Python",
}
"""Networks without a graph, and why: the hook loop serves them. All others must have one."""


# --- attention and recurrence ------------------------------------------------------------------------


class Encoder(nn.Module):
    # Breaks watching calls without a hook on the layer: the encoder's fast path calls nothing inside.

    def __init__(self, *, norm_first: bool = False, padded: bool = False, weights: bool = False) -> None:
        super().__init__()
        self.padded, self.weights = padded, weights
        block = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=norm_first)
        self.embed = nn.Linear(4, 8)
        self.encoder = nn.TransformerEncoder(block, 3, enable_nested_tensor=padded)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        padding = torch.arange(x.shape[1]) >= 2 + torch.arange(len(x))[:, None] if self.padded else None
        h = self.encoder(self.embed(x), src_key_padding_mask=padding)
        mixed, weights = self.attention(h, h, h, need_weights=self.weights)
        return self.head((torch.tanh(mixed) + h[:, : mixed.shape[1]]).mean(1) + (weights.sum() if self.weights else 0))


class Recurrent(nn.Module):
    # Breaks replacing a layer's whole output: an LSTM returns outputs and last states, and both are read.

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.GRU(4, 5, batch_first=True)
        self.layer = nn.LSTM(5, WIDTH, batch_first=True)
        self.head = nn.Linear(2 * WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out, (_, cell) = self.layer(self.first(x)[0])
        return self.head(torch.cat([torch.tanh(out).amax(1), cell[-1]], 1))


class TupleLayer(Network):
    # Breaks rebuilding the layer's output: a list, tuple or named tuple, of which the first is ablated.

    class Several(nn.Linear):
        def __init__(self, kind: Callable[[Tensor, Any], Any]) -> None:
            super().__init__(WIDTH, WIDTH)
            self.kind = kind

        def forward(self, x: Tensor) -> Any:
            h = super().forward(x)
            return self.kind(h, [h * 2])

    KINDS: dict[str, Callable[[Tensor, Any], Any]] = {  # noqa: RUF012  a table
        "tuple": lambda h, others: (h, others),
        "list": lambda h, others: [h, others],
        "named tuple": Pair,
        "tuple of one tensor twice": lambda h, others: (h, [h]),
    }

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.layer = self.Several(self.KINDS[kind])

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(self.stem(x))
        if isinstance(out, Pair):
            return self.head(out.first + out.others[0])
        out[1].append(out[0])
        return self.head(sum(out[1]))


class WithLogits(Network):
    # Breaks comparing outputs as tensors: the model returns an object that carries its logits.

    @dataclass
    class Output:
        logits: Tensor
        hidden: tuple[Tensor, ...]

    def forward(self, x: Tensor) -> Any:
        h = self.stem(x)
        return self.Output(super().forward(x), (h,))


class SeveralInputs(Network):
    # Breaks passing one tensor: there are two inputs, one of integers, and the model writes into the other.

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, WIDTH)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        x.mul_(2)
        return self.head(self.layer(self.stem(x) + self.embed(tokens).sum(1)) + x)
