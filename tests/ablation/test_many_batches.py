"""Batch after batch, the engine equals full forward passes with a hook, whatever the model does before the layer."""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from captum_ablate.ablation import Chain, Engine, Plan, Site
from captum_ablate.ablation.metrics import as_metric
from captum_ablate.ablation.reference import plain_reference
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.units import UnitAxis

UNITS = 6


class Before(nn.Module):
    """The prefix of the networks here. ``head`` also reads the layer's input, parallel to the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.layer = nn.Conv2d(4, UNITS, 3, padding=1)
        self.beside = nn.Conv2d(4, UNITS, 1)
        self.head = nn.Linear(UNITS, 4)
        nn.init.uniform_(self.stem[1].running_mean, -0.5, 0.5)
        nn.init.uniform_(self.stem[1].running_var, 0.5, 2)

    def begin(self, x: Tensor, *extra: Any) -> Tensor:
        return self.stem(x)

    def forward(self, x: Tensor, *extra: Any) -> Tensor:
        x = self.begin(x, *extra)
        return self.head((self.layer(x).relu() + self.beside(x)).mean((2, 3)))


class InPlaceOnInput(Before):
    def begin(self, x: Tensor, *extra: Any) -> Tensor:
        return self.stem(x.sub_(0.5).mul_(2))


class Padded(Before):
    def begin(self, x: Tensor, *extra: Any) -> Tensor:
        frame = x.new_zeros(x.shape[0], 3, 10, 10)
        frame[:, :, 1:9, 1:9] = x
        return self.stem(frame)


class Table(Before):
    def begin(self, x: Tensor, *extra: Any) -> Tensor:
        rows = torch.arange(x.shape[2], dtype=x.dtype)[:, None]
        return self.stem(x + rows * torch.tensor(0.1))


class Branch(Before):
    def begin(self, x: Tensor, *extra: Any) -> Tensor:
        return self.stem(x if x.sum() > 0 else -x)


class Listed(Before):
    def begin(self, x: Tensor, *extra: Any) -> Tensor:
        return self.stem(x * max(x[0, 0, 0].tolist()))


class Selected(Before):
    def begin(self, x: Tensor, *extra: Any) -> Tensor:
        return self.stem(x + x[x > 0].mean())


class Detour(Before):
    def begin(self, x: Tensor, *extra: Any) -> Tensor:
        return self.stem(x + torch.from_numpy(x.numpy().mean((2, 3), keepdims=True)))


class ByData(Before):
    def begin(self, x: Tensor, *extra: Any) -> Tensor:
        return self.stem(x.data * 2)


class Viewed(Before):
    def begin(self, x: Tensor, *extra: Any) -> Tensor:
        y = x * 1
        y[:, 0].mul_(3)
        return self.stem(y)


class Split(Before):
    def begin(self, x: Tensor, *extra: Any) -> Tensor:
        first, second = x.chunk(2, dim=3)
        return self.stem(torch.cat([second, first], dim=3))


class Scaled(Before):
    def begin(self, x: Tensor, *extra: Any) -> Tensor:
        return self.stem(x * extra[0])


class Counts(Before):
    calls = 0

    def begin(self, x: Tensor, *extra: Any) -> Tensor:
        self.calls += 1
        return self.stem(x)


class Attribute(Before):
    scale = 1.0
    outside = torch.ones(())

    def begin(self, x: Tensor, *extra: Any) -> Tensor:
        return self.stem(x * self.scale + self.outside)


NETWORKS = [
    Before,
    InPlaceOnInput,
    Padded,
    Table,
    Branch,
    Listed,
    Selected,
    Detour,
    ByData,
    Viewed,
    Split,
    Scaled,
    Counts,
    Attribute,
]
NO_GRAPH = {
    Branch: "a branch on the sum of the input",
    Listed: "a number from a list of the input's numbers",
    Selected: "a shape that depends on numbers",
    Detour: "a way through numpy",
}
"""Networks whose pass is not the same list of operators for every input."""


def network(kind: type[Before]) -> Before:
    torch.manual_seed(1)
    return kind().eval()


def batches(sizes: Iterable[int], extra: Callable[[int], tuple[Any, ...]] = lambda k: (2.0,)) -> list[Batch]:
    draw = torch.Generator().manual_seed(2)
    return [
        Batch((torch.randn(n, 3, 8, 8, generator=draw),), torch.randint(0, 4, (n,), generator=draw).sort()[0], extra(k))
        for k, n in enumerate(sizes)
    ]


def engine_for(model: Before, metric: str = "logit") -> tuple[Engine, Plan]:
    plan = Plan.of([Chain(torch.randperm(UNITS), tuple(range(1, UNITS + 1)))], UNITS)
    site = Site(model.layer, "layer", UnitAxis())
    return Engine(model, [site], [plain_reference("zero")], as_metric(metric), plan), plan


def by_hook(model: Before, plan: Plan, data: Iterable[Batch], metric: str = "logit") -> Tensor:
    """Return ``[1 + masks, n]`` by full forward passes."""
    tables = []
    for x, target, extra, *_ in data:
        rows = []
        for mask in (
            torch.zeros(UNITS, dtype=torch.bool),
            *(plan.mask(k, torch.device("cpu")) for k in range(len(plan))),
        ):
            handle = model.layer.register_forward_hook(lambda _m, _i, out, m=mask: out * ~m[:, None, None])
            with torch.no_grad():
                rows.append(as_metric(metric)(model(x[0].clone(), *extra), target))
            handle.remove()
        tables.append(torch.stack(rows))
    return torch.cat(tables, dim=1)


def check(model: Before, data: Any, again: Iterable[Batch], metric: str = "logit") -> Engine:
    engine, plan = engine_for(model, metric)
    measured = engine.run(data)
    found = torch.cat([measured.intact[None], measured.values])
    torch.testing.assert_close(found, by_hook(model, plan, again, metric), rtol=0, atol=2e-6)
    return engine


MAY_FALL_BACK = [
    pytest.mark.may_fall_back,
    pytest.mark.filterwarnings("ignore:.*full forward passes are used instead"),
]


@pytest.mark.parametrize("metric", ["logit", "accuracy"])
@pytest.mark.parametrize("kind", [pytest.param(k, marks=MAY_FALL_BACK if k in NO_GRAPH else ()) for k in NETWORKS])
def test_every_batch_equals_full_passes(kind: type[Before], metric: str) -> None:
    data = batches([7, 7, 7, 7, 7, 3])
    before = [batch.inputs[0].clone() for batch in data]
    engine = check(network(kind), data, data, metric)
    assert all(torch.equal(batch.inputs[0], copy) for batch, copy in zip(data, before, strict=True))
    if kind not in NO_GRAPH:
        assert engine.description.startswith("graph")


class Changing:
    """Batches with a change to the model, ``change(model, number)``, before each."""

    def __init__(self, model: Before, data: list[Batch], change: Callable[[Before, int], None]) -> None:
        self.model, self.data, self.change = model, data, change

    def __iter__(self) -> Iterator[Batch]:
        for number, batch in enumerate(self.data):
            with torch.no_grad():
                self.change(self.model, number)
            yield batch


def set_scale(model: Before, number: int) -> None:
    model.scale = 1.0 + number  # type: ignore[assignment]


def set_outside(model: Before, number: int) -> None:
    model.outside = torch.full((), float(number))  # type: ignore[assignment]


def write_weight(model: Before, number: int) -> None:
    model.stem[0].weight.fill_(0.1 * (1 + number))


def replace_weight(model: Before, number: int) -> None:
    torch.manual_seed(number)
    model.stem[0].weight = nn.Parameter(torch.randn_like(model.stem[0].weight))


def write_buffer(model: Before, number: int) -> None:
    model.stem[1].running_mean.fill_(0.1 * number)


@pytest.mark.may_fall_back
@pytest.mark.filterwarnings("ignore:.*full forward passes are used instead")
@pytest.mark.parametrize("change", [set_scale, set_outside, write_weight, replace_weight, write_buffer])
def test_a_change_of_the_model_between_batches_is_noticed(change: Callable[[Before, int], None]) -> None:
    model, data = network(Attribute), batches([6] * 5)
    check(model, Changing(model, data, change), Changing(model, data, change))


@pytest.mark.may_fall_back
@pytest.mark.filterwarnings("ignore:.*full forward passes are used instead")
def test_another_number_among_the_arguments_is_another_computation() -> None:
    data = batches([6] * 5, extra=lambda k: (1.0 + k,))
    check(network(Scaled), data, data)


@pytest.mark.may_fall_back
@pytest.mark.filterwarnings("ignore:.*full forward passes are used instead")
def test_a_model_made_for_one_batch_size_is_checked_on_whole_batches() -> None:
    class Fixed(Before):
        def begin(self, x: Tensor, *extra: Any) -> Tensor:
            return self.stem(x.view(5, 3, 8, 8))

    data = batches([5] * 4)
    check(network(Fixed), data, data)


@pytest.mark.may_fall_back
@pytest.mark.filterwarnings("ignore:.*full forward passes are used instead")
def test_samples_that_mix_are_checked_together() -> None:
    class Mixes(Before):
        def begin(self, x: Tensor, *extra: Any) -> Tensor:
            return self.stem(x - x.mean(0))

    data = batches([5] * 4)
    check(network(Mixes), data, data)


def unsafe_parts(x: Tensor) -> Tensor:
    first, second = x.unsafe_chunk(2, dim=3)
    return torch.cat([first.sigmoid(), second.clamp(max=0.5)], dim=3)


def unsafe_parts_of_what_is_read_again(x: Tensor) -> Tensor:
    x = x * 2
    first, second = x.unsafe_split(4, dim=3)
    return torch.cat([first.clamp(max=0.5), second], dim=3) + x


def compared_in_place(x: Tensor) -> Tensor:
    return x.clone().gt_(-0.5) + x.clone().gt_(0.5)


def added_in_place_to_a_narrower(x: Tensor) -> Tensor:
    return x.clone().add_(x.double() / 3).mul_(1 / 7)


def data_replaced(x: Tensor) -> Tensor:
    x = x * 1
    x.data = x.clamp(max=0.5)
    return x


def suppressed(x: Tensor) -> Tensor:
    corners = x[:, 0, 0, :4].abs()
    boxes = torch.cat([corners[:, :2], corners[:, :2] + corners[:, 2:] + 0.8], dim=1)
    kept = torchvision.ops.nms(boxes, x[:, 1, 0, 0], 0.05)
    return torch.where(x > 1, x * 2, x) if len(kept) % 2 else x


def looked_at_elsewhere(x: Tensor) -> Tensor:
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(bool(x.max() > 2.8)))
    thread.start()
    thread.join()
    return x.clamp(max=1.0) if found[0] else x


def looked_at_in_memory(x: Tensor) -> Tensor:
    first = ctypes.c_float.from_address(x.contiguous().data_ptr()).value
    return x.clamp(max=1.0) if first > 0 else x


def made_of_a_list(x: Tensor) -> Tensor:
    return torch.where(torch.tensor(list(x[:, 0, 0, 0])) > 0, 2.0, 1.0)[:, None, None, None] * x


def printed(x: Tensor) -> Tensor:
    return x.clamp(max=1.0) if "-" in repr(x[-1, 0, 0, :1]) else x


def written_out(x: Tensor) -> Tensor:
    return x.clamp(max=1.0) if "-" in f"{x[-1, 0, 0, :1]}" else x


def split_at_numbers(x: Tensor) -> Tensor:
    first, second = torch.tensor_split(x, 1 + (x[:, 0, 0, :1].sum() > 0).long()[None], dim=3)
    return torch.cat([first * 3, second], dim=3)


def mapped(x: Tensor) -> Tensor:
    return x.clone().map_(x, lambda a, b: min(a, 0.5 * b))  # type: ignore[no-any-return]


def indexed_by_a_list(x: Tensor) -> Tensor:
    y = x.clone()
    where = (x[:, 0, 0, 0] > 0).long()
    y[list(where), list(1 - where)] = 0.25
    return y


def sent_by_dlpack(x: Tensor) -> Tensor:
    return x + torch.from_dlpack(torch.utils.dlpack.to_dlpack(x.mean((1, 2, 3), keepdim=True)))


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize(
    "change",
    [
        unsafe_parts,
        unsafe_parts_of_what_is_read_again,
        compared_in_place,
        added_in_place_to_a_narrower,
        data_replaced,
        suppressed,
        looked_at_elsewhere,
        looked_at_in_memory,
        made_of_a_list,
        printed,
        written_out,
        split_at_numbers,
        mapped,
        indexed_by_a_list,
        sent_by_dlpack,
    ],
)
@pytest.mark.may_fall_back
@pytest.mark.filterwarnings("ignore:.*full forward passes are used instead")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # a thread of the model, captured
def test_reads_that_no_operator_shows_change_nothing(change: Callable[[Tensor], Tensor], where: str) -> None:
    class Hides(Before):
        def begin(self, x: Tensor, *extra: Any) -> Tensor:
            return self.stem(change(x) if where == "before" else x)

        def forward(self, x: Tensor, *extra: Any) -> Tensor:
            x = self.begin(x)
            y = self.layer(x)
            y = change(y) if where == "after" else y
            return self.head((y.relu() + self.beside(x)).mean((2, 3)))

    data = batches([6] * 5 + [3])
    before = [batch.inputs[0].clone() for batch in data]
    check(network(Hides), data, data)
    assert all(torch.equal(batch.inputs[0], copy) for batch, copy in zip(data, before, strict=True))


class Held(Before):
    """A network that clips large inputs: a change of the limit shows in a few samples alone."""

    kind_limit = 4.0

    def __init__(self) -> None:
        super().__init__()
        self.settings = SimpleNamespace(limit=4.0)
        self.nested = {"a": {"limit": 4.0}}
        self.queue = deque([4.0])
        self.array = np.array([4.0])
        self.weight = nn.Parameter(torch.full((), 4.0))

    def begin(self, x: Tensor, *extra: Any) -> Tensor:
        held = (self.settings.limit, self.nested["a"]["limit"], self.queue[0], float(self.array[0]), self.kind_limit)
        return self.stem(torch.minimum(x.clamp(max=min(held)), self.weight * 1))


def set_settings(model: Any, value: float) -> None:
    model.settings.limit = value


def set_nested(model: Any, value: float) -> None:
    model.nested["a"]["limit"] = value


def set_queue(model: Any, value: float) -> None:
    model.queue[0] = value


def set_array(model: Any, value: float) -> None:
    model.array[0] = value


def set_kind(model: Any, value: float) -> None:
    Held.kind_limit = value


def set_data(model: Any, value: float) -> None:
    model.weight.data.fill_(value)


@pytest.mark.may_fall_back
@pytest.mark.filterwarnings("ignore:.*full forward passes are used instead")
@pytest.mark.parametrize("put", [set_settings, set_nested, set_queue, set_array, set_kind, set_data])
def test_a_change_of_what_a_model_holds_is_noticed(put: Callable[[Any, float], None]) -> None:
    model, data = network(Held), batches([6] * 5)

    def change(model: Before, number: int) -> None:
        put(model, 3.0 - 0.5 * number)

    try:
        check(model, Changing(model, data, change), Changing(model, data, change))
    finally:
        Held.kind_limit = 4.0


def test_jumps_before_the_layer_are_not_moved_by_rounding() -> None:
    class Jumps(Before):
        def begin(self, x: Tensor, *extra: Any) -> Tensor:
            return (self.stem(x) * 8).round() / 8

    data = batches([9] * 4)
    check(network(Jumps), data, data)


def test_labels_are_copies() -> None:
    model, data = network(Before), batches([6] * 3)
    labels = torch.zeros(6, dtype=torch.int64)

    def reused() -> Iterator[Batch]:
        for batch in data:
            labels.copy_(batch.target)
            yield batch._replace(target=labels)

    class Loader:
        def __iter__(self) -> Iterator[Batch]:
            return reused()

    engine, _ = engine_for(model)
    assert torch.equal(engine.run(Loader()).target, torch.cat([batch.target for batch in data]))
