"""Whole-network orders: several layers ranked and ablated together, against plain hooks on each."""

from __future__ import annotations

import pytest
import torch
from captum.attr import LayerActivation, LayerConductance
from torch import Tensor, nn

from captum_ablate import CumulativeAblationEvaluator, LayerMutualInformation
from captum_ablate.evaluation.estimate import Estimate


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 3)
    ).eval()


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(30, 5), torch.arange(30) % 3


LAYERS, UNITS = ("1", "3", "5"), (8, 6, 7)


def shifted(activation: Tensor, target: Tensor) -> Tensor:
    """A reference that looks at the activation, so that it matters which one it sees."""
    return activation * 0.5 + 1


def by_hooks(network: nn.Module, x: Tensor, y: Tensor, order: Tensor, counts: Tensor) -> Tensor:
    rows = []
    for count in counts.tolist():
        mask = torch.zeros(sum(UNITS), dtype=torch.bool)
        mask[order[:count]] = True
        handles = []
        for name, own in zip(LAYERS, mask.split(UNITS), strict=True):

            def ablate(_m: nn.Module, _a: object, out: Tensor, own: Tensor = own, name: str = name) -> Tensor:
                return torch.where(own, shifted(out, y) if name == "3" else torch.zeros(()), out)

            handles.append(network.get_submodule(name).register_forward_hook(ablate))
        with torch.no_grad():
            rows.append(network(x).gather(1, y[:, None]).squeeze(1))
        for handle in handles:
            handle.remove()
    return torch.stack(rows)


@pytest.mark.parametrize("offsets", [(0.0, 0.0, 0.0), (2.0, 1.0, 0.0), (0.0, 1.0, 2.0), (1.0, 0.0, 2.0)])
@pytest.mark.parametrize("order_given", [(0, 1, 2), (2, 0, 1)])
def test_curves_over_layers_equal_hooks_on_all(network, data, offsets, order_given):
    x, y = data
    scores = [torch.rand(u) * 0.9 + o for u, o in zip(UNITS, offsets, strict=True)]
    references = ["zero", shifted, "zero"]
    evaluator = CumulativeAblationEvaluator(
        network,
        [LAYERS[k] for k in order_given],
        reference=[references[k] for k in order_given],
        steps=None,
        n_random=0,
        metric="logit",
    )
    curve = evaluator.evaluate([scores[k] for k in order_given], data, batch_size=11)
    starts = torch.tensor([0, 8, 14])
    own = torch.cat([torch.arange(UNITS[k]) + starts[k] for k in order_given])  # the unit in the order of the network
    for values, order in ((curve.values, curve.order), (curve.ascending_values, curve.order.flip(0))):
        expected = by_hooks(network, x, y, own[order], curve.n_ablated)
        torch.testing.assert_close(values, expected.double(), rtol=0, atol=1e-6)
    located = curve.located(curve.order)
    assert [
        own[u].item() - starts[LAYERS.index(name)].item() for u, (name, _) in zip(curve.order, located, strict=True)
    ] == [k for _, k in located]


def test_every_form_of_a_ranking_gives_the_same_order(network, data):
    evaluator = CumulativeAblationEvaluator(network, list(LAYERS[:2]), n_random=2, metric="logit")
    scores = [torch.randn(8), torch.randn(6)]
    layers = [network[1], network[3]]
    comparison = evaluator.compare(
        {
            "list": scores,
            "one tensor": torch.cat(scores),
            "mapping": dict(zip(LAYERS[:2], scores, strict=True)),
            "statistic": LayerMutualInformation(network, list(LAYERS[:2])),
            "statistics": [LayerMutualInformation(network, name) for name in LAYERS[:2]],
            "captum": LayerActivation(network, layers),
            "captums": [LayerActivation(network, layer) for layer in layers],
        },
        data,
    )
    assert not comparison.failed
    for one, other in (("list", "one tensor"), ("list", "mapping"), ("statistic", "statistics"), ("captum", "captums")):
        assert torch.equal(comparison[one].order, comparison[other].order)
    assert comparison["list"].layers == {"1": 8, "3": 6}
    assert "1 + 3 (14 units" in str(comparison)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: torch.randn(5), r"one tensor per layer, of 8, 6 units, or one Tensor \[14\]; got shape \(5,\)"),
        (lambda m: [torch.randn(8)], r"one tensor or attribution is needed for each of the 2 layers; got 1"),
        (lambda m: [torch.randn(8), torch.randn(5)], r"3: scores must have one value for each of the 6 units"),
        (lambda m: LayerConductance(m, m[1]), r"belongs to one layer, and the evaluator ablates 2"),
        (lambda m: LayerActivation(m, [m[1], m[5]]), r"belongs to the layers \['1', '5'\]"),
        (lambda m: {"1": torch.randn(8)}, r"must have the layers \['1', '3'\] for its keys"),
    ],
)
def test_what_does_not_fit_the_layers_is_reported(network, data, make, message):
    evaluator = CumulativeAblationEvaluator(network, ["1", "3"], n_random=0)
    with pytest.raises(ValueError, match=message):
        evaluator.evaluate(make(network), data)


def test_an_estimate_tells_the_work_of_the_comparison(network, data):
    evaluator = CumulativeAblationEvaluator(network, "1", n_random=3, steps=None)
    estimate = evaluator.estimate({"a": torch.randn(8), "b": LayerMutualInformation(network, "1")}, data, batch_size=10)
    assert isinstance(estimate, Estimate)
    assert estimate.batches == 3
    assert 8 <= estimate.masks <= 2 * 5 * 8
    assert estimate.seconds > estimate.ranking_seconds >= 0
    assert estimate.peak_bytes >= 0
    assert "3 batches under" in str(estimate)
    assert set(estimate.method_seconds) == {"a", "b"}
    assert estimate.method_seconds["a"] == 0  # a tensor ranks in no time
    assert 0 < estimate.method_seconds["b"] <= estimate.ranking_seconds


def test_an_estimate_names_the_method_that_takes_over_half_of_the_time():
    def of(seconds):
        return Estimate(10.0, 8.0, 0, 3, 40, {"quick": 1.0, "slow": seconds})

    assert of(5.1).longest == "slow"
    assert str(of(5.1)).endswith("; over half of the time is the ranking by slow")
    assert of(4.9).longest is None
    assert "over half" not in str(of(4.9))
    assert of(5.1).by_method() == "slow 5.1 s, quick 1 s"
    many = Estimate(100.0, 8.0, 0, 3, 40, {f"m{k}": float(k) for k in range(1, 8)})
    assert many.by_method() == "m7 7 s, m6 6 s, m5 5 s, m4 4 s, m3 3 s, all others 3 s"
