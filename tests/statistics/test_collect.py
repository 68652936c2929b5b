"""The shared pass is exact, whatever the size of chunks, makes no second pass without need, and lets others listen."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from captum_ablate import LayerMeanActivity, LayerMutualInformation, attribute_together
from captum_ablate.inputs.batches import as_batches
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.statistics import chunks, unit_statistics
from captum_ablate.statistics.collect import LayerRequest, collect
from captum_ablate.statistics.quantiser import Quantiser
from captum_ablate.statistics.requests import HistogramRequest, MomentsRequest, TableRequest


class Two(nn.Module):
    """Returns its input ``[n, units, positions]``, and the double of its first units with the sign turned."""

    def __init__(self, first=None):
        super().__init__()
        self.first = first

    def forward(self, x):
        return x, -2 * x[:, : self.first]


class Net(nn.Module):
    def __init__(self, first=None):
        super().__init__()
        self.two = Two(first)

    def forward(self, x):
        return self.two(x)[0]


class Passes:
    """Batches of values ``[n, units]``, spread over positions; counts how often it is iterated."""

    def __init__(self, values, target, positions=1, size=7):
        values = values if positions == 1 else values[:, :, None].expand(-1, -1, positions)
        self.batches, self.count = as_batches((values, target), batch_size=size), 0

    def __iter__(self):
        self.count += 1
        return iter(self.batches)


REQUESTS = (
    MomentsRequest(),
    HistogramRequest(Quantiser.of(None, None, "width")),
    HistogramRequest(Quantiser.of(None, 5, "width")),
    HistogramRequest(Quantiser.of(0.3, None, "width")),
)


def collected(batches, *requests, net=None, **options):
    """The statistics of each tensor of the layer, by request."""
    net = Net() if net is None else net
    (found,) = collect(net, [LayerRequest(net.two, UnitAxis(), requests)], batches, **options)
    return [dict(zip(requests, one, strict=True)) for one in found.statistics]


def equal(one, other):
    return all(torch.equal(getattr(one, f), getattr(other, f)) for f in type(one).__dataclass_fields__)


@pytest.mark.parametrize("positions", [1, 8])
def test_two_passes_equal_one_pass_for_all_that_streams(monkeypatch, positions):
    batches = Passes(torch.randn(50, 3).double(), torch.arange(50) % 4, positions)
    once = collected(batches, *REQUESTS)
    assert batches.count == 1
    monkeypatch.setattr(unit_statistics, "TABLE_BYTES", 10)
    twice = collected(batches, *REQUESTS)
    assert batches.count == 3
    for one, other in zip(once, twice, strict=True):
        assert all(equal(one[request], other[request]) for request in REQUESTS)


def test_a_tensor_within_the_budget_is_not_counted_again_beside_one_beyond_it(monkeypatch):
    batches, net = Passes(torch.randn(50, 40).double(), torch.arange(50) % 4), Net(first=1)
    once = collected(batches, *REQUESTS, net=net)
    monkeypatch.setattr(unit_statistics, "TABLE_BYTES", 50 * 8 * 2)
    twice = collected(batches, *REQUESTS, net=net)
    assert batches.count == 3
    for one, other in zip(once, twice, strict=True):
        assert all(equal(one[request], other[request]) for request in REQUESTS)


def test_every_method_of_a_comparison_shares_one_pass():
    batches, net = Passes(torch.randn(20, 3).double(), torch.arange(20) % 2), Net()
    requests = [LayerRequest(net.two, UnitAxis(), own) for own in (REQUESTS, (TableRequest(),), REQUESTS[:1])]
    every, table, moments = collect(net, requests, batches)
    assert batches.count == 1
    assert [len(one.statistics) for one in (every, table, moments)] == [2, 2, 2]
    assert every.shapes == ((7, 3), (7, 3))
    assert every.statistics[0][0] is moments.statistics[0][0]
    assert table.statistics[1][0].values.shape == (20, 3)


def test_a_second_pass_is_not_made_for_what_needs_none(monkeypatch):
    monkeypatch.setattr(unit_statistics, "TABLE_BYTES", 10)
    batches = Passes(torch.randn(20, 3).double(), torch.arange(20) % 2)
    collected(batches, MomentsRequest(), HistogramRequest(Quantiser.of(0.0, None, "width")))
    assert batches.count == 1


@pytest.mark.parametrize("request_", [TableRequest(), HistogramRequest(Quantiser.of("median", None, "width"))])
def test_a_table_beyond_its_budget_is_refused(monkeypatch, request_):
    monkeypatch.setattr(unit_statistics, "TABLE_BYTES", 10)
    with pytest.raises(ValueError, match="exceeds its budget"):
        collected(Passes(torch.randn(20, 3).double(), torch.arange(20) % 2), request_)


def test_the_table_keeps_the_order_of_the_data():
    values, target = torch.randn(20, 3).double(), torch.arange(20) % 2
    first, second = (found[TableRequest()] for found in collected(Passes(values, target), TableRequest()))
    assert torch.equal(first.values, values)
    assert torch.equal(second.values, -2 * values)
    assert torch.equal(first.target, target)
    assert first.classes.tolist() == [0, 1]


def test_values_are_copies_of_what_the_model_writes_into_later():
    class Writes(Net):
        def forward(self, x):
            return self.two(x)[0].zero_()

    values, target = torch.randn(20, 3), torch.arange(20) % 2
    found = collected(Passes(values, target), TableRequest(), net=Writes())
    assert torch.equal(found[0][TableRequest()].values, values.double())


@pytest.mark.parametrize("chunk", [1, 40, 2**21])
def test_scores_do_not_depend_on_the_size_of_chunks(monkeypatch, digits_net, small_digits, chunk):
    found = {
        f"{cls.__name__} of {layer}": cls(digits_net, layer)
        for cls in (LayerMeanActivity, LayerMutualInformation)
        for layer in ("relu2", "relu3", "fc2")
    }
    whole = attribute_together(found, *small_digits, batch_size=7)
    monkeypatch.setattr(chunks, "CHUNK_VALUES", chunk)
    for name, scores in attribute_together(found, *small_digits, batch_size=7).items():
        torch.testing.assert_close(scores, whole[name], rtol=1e-12, atol=1e-12)


def test_listeners_hear_each_batch_once_and_its_raw_output_before_it(monkeypatch):
    monkeypatch.setattr(unit_statistics, "TABLE_BYTES", 10)
    values, target, net = torch.randn(20, 3), torch.arange(20) % 2, Net()
    heard = []
    collected(
        Passes(values, target, positions=4),
        *REQUESTS,
        net=net,
        element=0,
        on_output={net.two: lambda part: heard.append(part.clone())},
        on_batch=lambda batch: heard.append(batch.target),
    )
    assert [part.shape for part in heard[::2]] == [(7, 3, 4), (7, 3, 4), (6, 3, 4)]
    assert torch.equal(torch.cat(heard[::2])[:, :, 0], values)
    assert torch.equal(torch.cat(heard[1::2]), target)


def test_one_element_is_looked_at_whatever_the_others_are():
    class Odd(Two):
        def forward(self, x):
            return x, x.flatten(1).sum(1)  # no unit axis

    net, values = Net(), torch.randn(20, 3)
    net.two = Odd()
    (found,) = collected(Passes(values, torch.arange(20) % 2), MomentsRequest(), net=net, element=0)
    torch.testing.assert_close(found[MomentsRequest()].mean, values.double().mean(0), rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="is no unit axis of a layer output"):
        collected(Passes(values, torch.arange(20) % 2), MomentsRequest(), net=net)


def test_tensors_without_the_samples_first_are_left_out_with_a_warning():
    class Odd(Two):
        def forward(self, x):
            return x.sum(), x, x[:1]

    net, values = Net(), torch.randn(20, 3)
    net.two = Odd()
    with pytest.warns(UserWarning, match=r"'two' has 3 tensors; left out .*: number 0 \(\), number 2 \(1, 3\)"):
        (found,) = collected(Passes(values, torch.arange(20) % 2), MomentsRequest(), net=net)
    torch.testing.assert_close(found[MomentsRequest()].mean, values.double().mean(0), rtol=1e-12, atol=1e-12)


def test_without_requests_activations_are_still_checked():
    values = torch.randn(20, 3)
    values[8, 1] = torch.nan
    with pytest.raises(ValueError, match=r"layer 'two' has NaN or infinite activations in batch 1, unit 1"):
        collected(Passes(values, torch.arange(20) % 2))
