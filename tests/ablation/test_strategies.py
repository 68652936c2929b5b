"""Every strategy of a tape against full forward passes with a hook, and networks that must have no tape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from captum_ablate import CumulativeAblationEvaluator
from captum_ablate.ablation import search
from captum_ablate.ablation.hook_loop import full_forward, probe
from captum_ablate.ablation.plan import Chain, Plan
from captum_ablate.ablation.program import Program
from captum_ablate.ablation.recording import Recording, record
from captum_ablate.ablation.site import Site
from captum_ablate.ablation.strategy import Strategy
from captum_ablate.ablation.tape import Tape
from captum_ablate.ablation.weights import Weights
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.units import UnitAxis


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 6, 1, bias=False)
        )
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        out = self.body(x)
        out += x
        return self.head(nn.functional.max_pool2d(out, 2).relu_().mean((2, 3)))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 5, 3, padding=1),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(5 * 16, 7),
        nn.Tanh(),
        nn.Linear(7, 4),
    )


def settled(model: nn.Module) -> nn.Module:
    """Return the model in evaluation mode, with batch norms that change their input."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


def channels_last() -> nn.Module:
    """Return a network whose pooling rewrites the strides of its result."""
    layers = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


CASES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "first convolution": (convolutional, "0"),
    "second convolution": (convolutional, "4"),
    "pooled": (convolutional, "3"),
    "dense": (convolutional, "8"),
    "channels last": (channels_last, "0"),
    "residual stem": (Residual, "stem"),
    "residual inside": (Residual, "body.0"),
}
STRATEGIES = [Strategy(k, last, folded, updated) for k, last, folded, updated in product((1, 3), *[(False, True)] * 3)]


def opened(name: str, n: int = 5) -> tuple[nn.Module, Site, Batch, Recording]:
    torch.manual_seed(3)
    make, layer = CASES[name]
    model = settled(make())
    batch = Batch((torch.randn(n, 3, 8, 8),), torch.zeros(n, dtype=torch.int64))
    site = Site(model.get_submodule(layer), layer, UnitAxis())
    seen = probe(model, [site], batch)
    assert seen.path is not None
    with torch.no_grad():
        return model, site, batch, record(model, [site], batch, seen.path)


def nested(units: int) -> Plan:
    """Chains that end with all units ablated, with all but one, and with all of an order that leaves one unit out."""
    order, most = torch.randperm(units), torch.randperm(units)[:-1]
    all_but_one = tuple(range(1, units))
    chains = [Chain(order, (*all_but_one, units)), Chain(order.flip(0), all_but_one), Chain(most, all_but_one)]
    return Plan.of(chains, units)


def program(recording: Recording, sites: Sequence[Site], reference: Tensor, strategy: Strategy) -> Program:
    assert isinstance(recording.tape, Tape), recording.tape
    return Program(recording.tape, sites, recording.activation, [reference], strategy, Weights())


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_every_strategy_equals_full_passes(name: str, strategy: Strategy) -> None:
    model, site, batch, recording = opened(name)
    units = recording.activation.shape[1]
    for reference in (torch.zeros(()), torch.randn(recording.activation.shape)):
        plan, found = nested(units), {}
        for numbers, outputs in program(recording, [site], reference, strategy).outputs(plan, range(len(plan))):
            for number, part in zip(numbers, outputs.split(len(batch.target)), strict=True):
                assert number not in found
                found[number] = part
        assert set(found) == set(range(len(plan)))
        for number, outputs in found.items():
            mask = plan.mask(number, torch.device("cpu"))
            full = full_forward(model, [site], batch, [lambda a, m=mask, r=reference: site.ablated(a, m, r)])
            if strategy.is_exact:
                assert torch.equal(outputs, full)
            torch.testing.assert_close(outputs, full, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_a_mask_for_each_sample_equals_its_own_pass(name: str) -> None:
    model, site, batch, recording = opened(name)
    masks = torch.rand(len(batch.target), recording.activation.shape[1]) < 0.5
    outputs = program(recording, [site], torch.zeros(()), Strategy()).by_row(masks)
    for k, mask in enumerate(masks):
        full = full_forward(model, [site], batch, [lambda a, m=mask: site.ablated(a, m, torch.zeros(()))])
        torch.testing.assert_close(outputs[k], full[k], rtol=0, atol=1e-6)


class Branches(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (2 if x.sum() > 0 else 1)


class Lists(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * max(x[0].tolist())


class Arrays(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.from_numpy(x.detach().numpy().copy()).sum()


class Shapes(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x[x > 0].sum()


class Aliases(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        first = y[:, :1]
        y += 1
        return y * first


@pytest.mark.parametrize("kind", [Branches, Lists, Arrays, Shapes, Aliases])
@torch.no_grad()
def test_no_tape_if_it_would_be_wrong(kind: type[nn.Linear]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), kind(5, 3)).eval()
    batch = Batch((torch.randn(4, 4),), torch.zeros(4, dtype=torch.int64))
    site = Site(model[0], "0", UnitAxis())
    seen = probe(model, [site], batch)
    assert seen.path is not None
    tape = record(model, [site], batch, seen.path).tape
    assert isinstance(tape, str), tape


@torch.no_grad()
def test_what_does_not_depend_on_the_ablation_runs_once() -> None:
    _, _, _, recording = opened("residual inside")
    assert isinstance(recording.tape, Tape)
    names = [op.name for op in recording.tape.ops]
    assert names.count("convolution") == 1  # the second one: the first is the layer itself
    assert names[0] == "ablate"


@pytest.mark.parametrize("has_norm", [True, False])
def test_a_folded_batch_norm_is_named_only_where_one_is_folded(has_norm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, value in (("SMALL", 0), ("FASTER", float("inf")), ("SLOWER", float("inf"))):
        monkeypatch.setattr(search, limit, value)  # the first rewrite that agrees is taken
    torch.manual_seed(0)
    norm = [nn.BatchNorm2d(5)] if has_norm else []
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), *norm, nn.ReLU(), nn.Flatten(), nn.Linear(80, 3)
    )
    data = torch.randn(6, 3, 8, 8), torch.arange(6) % 3
    curve = CumulativeAblationEvaluator(settled(model).eval(), "1", metric="logit").evaluate(torch.rand(4), data)
    assert "channels last" in curve.engine
    assert ("folded batch norm" in curve.engine) == has_norm
