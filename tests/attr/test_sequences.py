"""Recurrent layers: the tensor with the samples first is scored, in padded sequences; what cannot be is refused."""

from __future__ import annotations

import oracles
import pytest
import torch
from captum.attr import LayerActivation, LayerConductance, LayerFeatureAblation, LayerGradientXActivation
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from captum_ablate import CumulativeAblationEvaluator, LayerMeanActivity, LayerTaylor, LayerUnitAblation, unit_scores

pytestmark = pytest.mark.filterwarnings("ignore:.*left out because:UserWarning")


class Reads(nn.Module):
    """A recurrent layer of [n, time, width], an Identity on its outputs, and a head on the last of them."""

    def __init__(self, kind, **options):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.after = kind(6, 10, batch_first=True, **options), nn.Identity()
        self.head = nn.Linear(10, 3)

    def forward(self, x):
        return self.head(self.after(self.inner(x)[0])[:, -1])


def data(n=24):
    torch.manual_seed(1)
    return torch.randn(n, 5, 6), torch.arange(n) % 3


KINDS = [nn.GRU, nn.RNN, nn.LSTM]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("batch_size", [None, 2])  # as many samples as layers: the last state has them first by chance
def test_statistics_and_ablation_of_a_recurrent_layer_are_of_its_outputs(kind, layers, batch_size):
    model, (x, y) = Reads(kind, num_layers=layers).eval(), data()
    expected = oracles.mean_activity(oracles.layer_values(model, model.after, x, unit_dim=-1))
    scores = LayerMeanActivity(model, "inner", unit_dim=-1).attribute(x, target=y, batch_size=batch_size)
    torch.testing.assert_close(scores, torch.from_numpy(expected))
    found = [
        LayerUnitAblation(model, layer, unit_dim=-1, reference="mean").attribute(x, target=y, batch_size=batch_size)
        for layer in ("inner", "after")
    ]
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", [LayerActivation, LayerConductance, LayerGradientXActivation, LayerFeatureAblation])
def test_captums_attributions_of_a_recurrent_layer_are_of_its_outputs(kind, method):
    model, (x, y) = Reads(kind, num_layers=2).eval(), data()
    found = [unit_scores(method(model, layer), (x, y), unit_dim=-1) for layer in (model.inner, model.after)]
    torch.testing.assert_close(found[0], found[1], atol=1e-6, rtol=1e-5)
    assert not model.inner._forward_hooks


def test_a_recurrent_layer_in_a_comparison():
    model, (x, y) = Reads(nn.GRU).eval(), data()
    found = [
        CumulativeAblationEvaluator(model, layer, unit_dim=-1, metric="logit", n_random=2).compare(
            {"conductance": LayerConductance(model, layer), "activity": LayerMeanActivity(model, layer, unit_dim=-1)},
            (x, y),
        )
        for layer in (model.inner, model.after)
    ]
    for name in ("conductance", "activity"):
        torch.testing.assert_close(found[0][name].values, found[1][name].values, atol=1e-5, rtol=1e-5)


def test_what_is_left_out_is_said():
    model, (x, y) = Reads(nn.GRU).eval(), data()
    with pytest.warns(UserWarning, match=r"layer 'inner' has 2 tensors; left out because .*: number 1 \(1, 24, 10\)"):
        LayerMeanActivity(model, "inner", unit_dim=-1).attribute(x, target=y)


def test_a_tensor_that_the_model_does_not_use_has_no_gradient_and_says_so():
    class LastState(Reads):
        def forward(self, x):
            return self.head(self.inner(x)[1][-1])

    model = LastState(nn.GRU).eval()
    with pytest.raises(ValueError, match="none reaches 'inner': the outputs do not depend on all"):
        unit_scores(LayerConductance(model, model.inner), data(), unit_dim=-1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 5, 12])
def test_time_first_is_refused_whatever_the_number_of_samples(kind, n):
    class TimeFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = kind(6, 10, num_layers=2), nn.Linear(10, 3)

        def forward(self, x):
            return self.head(self.inner(x.transpose(0, 1))[0][-1])

    model, x, y = TimeFirst().eval(), torch.randn(n, 5, 6), torch.arange(n) % 3
    with pytest.raises(ValueError, match=r"the first axis of its output must be the samples.*batch_first=True"):
        LayerMeanActivity(model, "inner", unit_dim=-1).attribute(x, target=y)
    with pytest.raises(ValueError, match=r"its first axis must be the samples|the first axis of its output"):
        CumulativeAblationEvaluator(model, "inner", unit_dim=-1).evaluate(torch.rand(10), (x, y))


class Packed(Reads):
    def forward(self, x):
        lengths = torch.full((len(x),), x.shape[1])
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        padded, _ = pad_packed_sequence(self.inner(packed)[0], batch_first=True)
        return self.head(self.after(padded)[:, -1])


@pytest.mark.parametrize("at_input", [False, True])
def test_packed_sequences_are_refused_with_what_to_name_instead(at_input):
    model, (x, y) = Packed(nn.GRU).eval(), data()
    message = rf"'inner' {'receives' if at_input else 'returns'} a PackedSequence, .*after pad_packed_sequence"
    with pytest.raises(ValueError, match=message):
        LayerMeanActivity(model, "inner", unit_dim=-1).attribute(x, target=y, attribute_to_layer_input=at_input)
    with pytest.raises(ValueError, match=message):
        CumulativeAblationEvaluator(model, "inner", unit_dim=-1, attribute_to_layer_input=at_input).evaluate(
            torch.rand(6 if at_input else 10), (x, y)
        )
    if not at_input:
        with pytest.raises(ValueError, match=message):
            unit_scores(LayerConductance(model, model.inner), (x, y), unit_dim=-1)
    assert LayerMeanActivity(model, "after", unit_dim=-1).attribute(x, target=y).shape == (10,)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_the_loss_at_a_recurrent_layer_are_of_its_outputs(kind):
    model, (x, y) = Reads(kind, num_layers=2).eval(), data()
    found = [LayerTaylor(model, layer, unit_dim=-1).attribute(x, target=y) for layer in ("inner", "after")]
    torch.testing.assert_close(found[0], found[1], atol=1e-9, rtol=1e-6)
