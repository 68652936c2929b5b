"""Padding counts in nothing: a masked batch equals its samples one by one, each with its own tokens alone."""

from __future__ import annotations

import pytest
import torch
from captum.attr import LayerConductance, LayerFeatureAblation, LayerGradientXActivation
from torch import nn

from captum_ablate import (
    Batch,
    CumulativeAblationEvaluator,
    LayerActivationNorm,
    LayerClassSelectivity,
    LayerKLSelectivity,
    LayerMeanActivity,
    LayerMutualInformation,
    LayerTaylor,
    LayerUnitAblation,
    activation_spectrum,
    unit_scores,
)

N, LENGTH, D = 24, 5, 4


class Tokens(nn.Module):
    """Features of tokens, averaged over those that the mask keeps."""

    def __init__(self):
        super().__init__()
        self.first, self.act, self.last = nn.Linear(D, 6), nn.ReLU(), nn.Linear(6, 3)

    def forward(self, x, mask):
        h = self.act(self.first(x))
        return self.last((h * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))


@pytest.fixture
def case():
    torch.manual_seed(0)
    model = Tokens().eval()
    x, y = torch.randn(N, LENGTH, D), torch.arange(N) % 3
    mask = torch.arange(LENGTH)[None] < torch.randint(1, LENGTH + 1, (N, 1))
    x[~mask] = 50.0  # what padding holds would be seen
    return model, Batch((x,), y, (mask.float(),), position_mask=mask)


def one_by_one(batch):
    """The samples without padding, each a batch."""
    (x,), y, mask = batch.inputs, batch.target, batch.position_mask
    return [Batch((x[k : k + 1, mask[k]],), y[k : k + 1], (torch.ones(1, int(mask[k].sum())),)) for k in range(len(y))]


KINDS = [
    LayerMeanActivity,
    LayerClassSelectivity,
    LayerMutualInformation,
    LayerKLSelectivity,
    LayerActivationNorm,
    LayerTaylor,
    LayerUnitAblation,
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_size", [None, 7])
@pytest.mark.parametrize("groups", [None, torch.tensor([0, 0, 1, 1, 2, 2])])
@pytest.mark.filterwarnings("ignore")
def test_attributions_count_each_sample_s_own_tokens(case, kind, batch_size, groups):
    model, batch = case
    attribution = kind(model, "act", unit_dim=-1, layer_mask=groups)
    own = attribution.attribute(batch, batch_size=batch_size)
    torch.testing.assert_close(own, attribution.attribute(one_by_one(batch)), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", [LayerGradientXActivation, LayerConductance, LayerFeatureAblation])
@pytest.mark.parametrize("positions", ["sum", "mean"])
def test_captum_s_attributions_count_each_sample_s_own_tokens(case, kind, positions):
    model, batch = case
    attribution = kind(model, model.act)
    options = {"unit_dim": -1, "positions": positions}
    own = unit_scores(attribution, batch, batch_size=9, **options)
    torch.testing.assert_close(own, unit_scores(attribution, one_by_one(batch), **options), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("reference", ["zero", "mean"])
def test_the_evaluator_counts_each_sample_s_own_tokens(case, reference):
    model, batch = case
    methods = {
        "activity": LayerMeanActivity(model, "act", unit_dim=-1),
        "gradient": LayerGradientXActivation(model, model.act),
    }
    evaluator = CumulativeAblationEvaluator(
        model, "act", unit_dim=-1, reference=reference, metric="log_likelihood", n_random=2
    )
    own, expected = evaluator.compare(methods, batch, batch_size=9), evaluator.compare(methods, one_by_one(batch))
    for name in methods:
        torch.testing.assert_close(own[name].scores, expected[name].scores, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(own[name].values, expected[name].values, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_spectra_count_each_sample_s_own_tokens(case):
    model, batch = case
    options = {"unit_dim": -1, "replicates": 0, "fit_range": (1, 5)}
    own = activation_spectrum(model, "act", batch, **options)
    expected = activation_spectrum(model, "act", one_by_one(batch), **options)
    torch.testing.assert_close(own.eigenvalues, expected.eigenvalues, rtol=1e-5, atol=1e-7)


def test_pictures_have_positions_in_two_axes():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 12, 2)).eval()
    x, y, mask = torch.randn(6, 1, 3, 4), torch.arange(6) % 2, torch.rand(6, 3, 4) > 0.4
    mask[:, 0, 0] = True
    activation = torch.relu(net[0](x)).detach().double()
    expected = torch.stack([activation[k][:, mask[k]].mean(1) for k in range(6)]).mean(0)
    for one in (mask, mask.flatten(1), mask.numpy(), mask.long()):
        found = LayerMeanActivity(net, "1").attribute(Batch((x,), y, position_mask=one))
        torch.testing.assert_close(found, expected)
    flat = LayerMeanActivity(net, "3").attribute(Batch((x,), y, position_mask=mask))
    torch.testing.assert_close(flat, LayerMeanActivity(net, "3").attribute(x, target=y))


def test_padding_that_is_not_finite_counts_in_nothing(case):
    model, batch = case
    x = batch.inputs[0].clone()
    x[~batch.position_mask] = torch.nan
    found = LayerMeanActivity(model, "first", unit_dim=-1).attribute(batch._replace(inputs=(x,)))
    torch.testing.assert_close(found, LayerMeanActivity(model, "first", unit_dim=-1).attribute(batch))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.rand(N, LENGTH), r"position_mask must be bool \[n, positions\].*got torch.float32"),
        (torch.ones(N - 1, LENGTH, dtype=torch.bool), r"with n = 24 in batch 0; got torch.bool \(23, 5\)"),
        (torch.ones(N, dtype=torch.bool), r"got torch.bool \(24,\)"),
        (torch.arange(N)[:, None].expand(N, LENGTH) > 0, "leaves sample 0 of batch 0 without any position"),
        (torch.ones(N, 3, dtype=torch.bool), r"has 5 positions beside its units \(unit_dim=-1\)"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(case, mask, message):
    model, batch = case
    with pytest.raises(ValueError, match=message):
        LayerMeanActivity(model, "act", unit_dim=-1).attribute(batch._replace(position_mask=mask))


def test_every_element_a_unit_has_no_positions_to_mask(case):
    model, batch = case
    with pytest.raises(ValueError, match="with unit_dim=None every element is a unit"):
        LayerMeanActivity(model, "act", unit_dim=None).attribute(batch)
