"""The part before the layer as a tape: batch after batch it gives what full forward passes with a hook give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_ablate.data import Batch
from captum_ablate.metrics import as_metric
from captum_ablate.replay import Chain, Engine, Plan, Site
from captum_ablate.replay.choice import Choice
from captum_ablate.replay.reference import plain_reference
from captum_ablate.units import UnitAxis

UNITS = 6


class Before(nn.Module):
    """What stands before the layer in the networks here; ``head`` sees the input too, beside the layer."""

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
SERVED = {Before, InPlaceOnInput, Table, Split, Scaled}
"""Networks whose part before the layer must run as a tape, or nothing is won."""


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
    for x, target, extra in data:
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


def served(engine: Engine) -> int:
    return 0 if engine._prefix is None else engine._prefix.batches


@pytest.mark.parametrize("metric", ["logit", "accuracy"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_every_batch_is_as_by_full_passes(kind: type[Before], metric: str) -> None:
    data = batches([7, 7, 7, 7, 7, 3])
    before = [batch.inputs[0].clone() for batch in data]
    engine = check(network(kind), data, data, metric)
    assert all(torch.equal(batch.inputs[0], copy) for batch, copy in zip(data, before, strict=True))
    if kind in SERVED and served(engine) != 4:
        pytest.fail(f"{served(engine)} of 4 batches by the tape")


@pytest.mark.parametrize("kind", [Before, Table, Split])
def test_rewritten_it_is_as_by_full_passes(kind: type[Before], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Choice, "is_rewritable", lambda self, ready: True)
    data = batches([9] * 5)
    engine = check(network(kind), data, data)
    assert served(engine) == 4
    assert "before the layer channels last, folded batch norm" in engine.description


class Changing:
    """Batches that come with a change to the model: ``change(model, number)`` before each."""

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


@pytest.mark.parametrize("change", [set_scale, set_outside, write_weight, replace_weight, write_buffer])
def test_a_model_that_changes_between_batches_is_followed(change: Callable[[Before, int], None]) -> None:
    model, data = network(Attribute), batches([6] * 5)
    check(model, Changing(model, data, change), Changing(model, data, change))


def test_another_number_beside_the_images_is_another_computation() -> None:
    data = batches([6] * 5, extra=lambda k: (1.0 + k,))
    assert served(check(network(Scaled), data, data)) == 0


def test_a_batch_made_for_one_size_is_recorded() -> None:
    class Fixed(Before):
        def begin(self, x: Tensor, *extra: Any) -> Tensor:
            return self.stem(x.view(5, 3, 8, 8))

    data = batches([5] * 4)
    assert served(check(network(Fixed), data, data)) == 0


def test_samples_that_mix_are_recorded() -> None:
    class Mixes(Before):
        def begin(self, x: Tensor, *extra: Any) -> Tensor:
            return self.stem(x - x.mean(0))

    data = batches([5] * 4)
    assert served(check(network(Mixes), data, data)) == 0
