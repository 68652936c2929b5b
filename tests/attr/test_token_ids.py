"""Path methods on models of token ids: the same as on embedded inputs, with ids and masks as they are."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from captum.attr import (
    InternalInfluence,
    LayerConductance,
    LayerDeepLift,
    LayerGradientShap,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    NoiseTunnel,
)
from token_networks import Bert, Kim
from torch import nn

from captum_ablate import Batch, CumulativeAblationEvaluator, deficit_correlation, unit_scores
from captum_ablate.studies import sample_scores

PATHS = (LayerConductance, LayerIntegratedGradients, InternalInfluence)
METHODS = (*PATHS, LayerGradientXActivation, LayerDeepLift)
Y = torch.arange(12) % 3


class After(nn.Module):
    """A model from its embedded inputs on."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, embedded, *rest):
        return self.model.after(embedded, *rest)


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)
    assert float(other.abs().max()) > 1e-6


@pytest.fixture
def ids():
    return torch.randint(1, 20, (12, 7))


@pytest.fixture
def mask():
    return (torch.arange(7)[None] < torch.arange(12)[:, None] % 4 + 4).long()


@pytest.mark.parametrize("cls", METHODS)
@pytest.mark.parametrize("name", [True, False])
def test_a_cnn_of_words_equals_the_same_on_embedded_words(ids, cls, name):
    model = Kim().eval()
    layer, embedding = model.pooled, "embedding" if name else model.embedding
    found = unit_scores(cls(model, layer), (ids, Y), embedding=embedding)
    with torch.no_grad():
        x, zero = model.embedding(ids), model.embedding(torch.zeros_like(ids))
    baselines = {} if cls is LayerGradientXActivation else {"baselines": zero}
    close(found, unit_scores(cls(After(model).eval(), layer), (x, Y), **baselines))
    by_hand = cls(After(model).eval(), layer).attribute(x, target=Y, **baselines).detach().double().mean(0)
    close(found, by_hand)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("layer", ["block.act", "block.out"])
@pytest.mark.parametrize(
    ("cls", "form"),
    [
        (cls, form)
        for cls in METHODS
        for form in ("inputs", "additional", "dict")
        if (cls, form) != (LayerDeepLift, "dict")  # it takes no function for a model
    ],
)
def test_a_transformer_equals_the_same_on_embedded_inputs(ids, mask, cls, layer, form):
    model, kinds = Bert().eval(), torch.arange(7)[None].expand(12, 7) // 4
    data = {
        "inputs": Batch((ids, mask, kinds), Y),
        "additional": Batch((ids,), Y, (mask, kinds)),
        "dict": [Batch(({"input_ids": ids, "attention_mask": mask, "kinds": kinds},), Y)],
    }[form]
    run = (lambda batch: model(**batch)) if form == "dict" else model
    module = model.get_submodule(layer)
    options = {"unit_dim": -1, "n_steps": 9} if cls in PATHS else {"unit_dim": -1}
    found = unit_scores(cls(run, module), data, embedding=model.embeddings, baseline_ids=3, **options)
    with torch.no_grad():
        x, base = model.embeddings(ids, kinds), model.embeddings(torch.full_like(ids, 3), kinds)
    baselines = {} if cls is LayerGradientXActivation else {"baselines": base}
    after = unit_scores(cls(After(model).eval(), module), Batch((x,), Y, (mask,)), **options, **baselines)
    close(found, after)


@pytest.mark.parametrize("cls", PATHS)
def test_the_embedding_of_words_alone_leaves_positions_where_they_are(ids, cls):
    model = Bert().eval()

    class FromWords(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, words):
            own = self.model.embeddings
            x = own.norm(words + own.position(torch.arange(7)[None]) + own.kind(torch.zeros(1, 7, dtype=torch.long)))
            return self.model.after(x, torch.ones(len(words), 7))

    found = unit_scores(cls(model, model.block.act), (ids, Y), embedding="embeddings.word", unit_dim=-1)
    with torch.no_grad():
        x, base = model.embeddings.word(ids), model.embeddings.word(torch.zeros_like(ids))
    close(found, unit_scores(cls(FromWords().eval(), model.block.act), (x, Y), unit_dim=-1, baselines=base))


def test_integrated_gradients_at_the_embedding_are_captums_on_ids(ids):
    model = Kim().eval()
    attribution = LayerIntegratedGradients(model, model.embedding)
    plain = unit_scores(attribution, (ids, Y), unit_dim=-1)
    close(unit_scores(attribution, (ids, Y), unit_dim=-1, embedding=model.embedding), plain)
    close(plain, attribution.attribute(ids, target=Y).double().sum(1).mean(0))


def test_baseline_ids_may_keep_special_tokens(ids):
    model = Kim().eval()
    own = torch.tensor([1, 5, 5, 5, 5, 5, 2])
    found = unit_scores(LayerConductance(model, model.pooled), (ids, Y), embedding="embedding", baseline_ids=own)
    with torch.no_grad():
        x, base = model.embedding(ids), model.embedding(own)[None].expand(12, 7, 6)
    close(found, unit_scores(LayerConductance(After(model).eval(), model.pooled), (x, Y), baselines=base))
    with pytest.raises(
        ValueError, match=r"baseline_ids must be one id, or ids that broadcast to \(12, 7\); got \(3,\)"
    ):
        unit_scores(
            LayerConductance(model, model.pooled), (ids, Y), embedding="embedding", baseline_ids=torch.arange(3)
        )


@pytest.mark.parametrize("batch_size", [None, 5])
@pytest.mark.parametrize("target", ["label", "prediction", 1])
def test_targets_and_batches_of_ids(ids, batch_size, target):
    model = Kim().eval()
    options = {"target": target, "batch_size": batch_size}
    found = unit_scores(LayerConductance(model, model.pooled), (ids, Y), embedding="embedding", **options)
    with torch.no_grad():
        x, base = model.embedding(ids), model.embedding(torch.zeros_like(ids))
    after = LayerConductance(After(model).eval(), model.pooled)
    close(found, unit_scores(after, (x, Y), target=target, baselines=base))


def test_a_noise_tunnel_adds_noise_to_the_embedding(ids):
    model = Kim().eval()
    tunnel = NoiseTunnel(LayerGradientXActivation(model, model.pooled))
    options = {"nt_samples": 3, "stdevs": 0.2}
    torch.manual_seed(2)
    found = unit_scores(tunnel, (ids, Y), embedding="embedding", **options)
    with torch.no_grad():
        x = model.embedding(ids)
    torch.manual_seed(2)
    after = NoiseTunnel(LayerGradientXActivation(After(model).eval(), model.pooled))
    close(found, after.attribute(x, target=Y, **options).detach().double().mean(0))


@pytest.mark.parametrize(
    "make",
    [
        lambda m: LayerConductance(m, m.pooled),
        lambda m: InternalInfluence(m, m.pooled),
        lambda m: partial(LayerGradientShap, m)(m.pooled),
        lambda m: NoiseTunnel(LayerGradientXActivation(m, m.pooled)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_ids_without_embedding_are_refused_with_what_to_pass(ids, make, dtype):
    model = Kim().eval()
    options = {"baselines": torch.zeros(1, 7)} if isinstance(make(model), LayerGradientShap) else {}
    message = (
        r"interpolates the inputs of the model, and input 0 holds integers .*pass embedding=, the module whose output"
    )
    with pytest.raises(ValueError, match=message):
        unit_scores(make(model), (ids.to(dtype), Y), **options)


@pytest.mark.parametrize(
    ("embedding", "message"),
    [
        ("embeding", r"no layer 'embeding'; nearest: 'embedding'"),
        ("pooled", r"embedding 'pooled' receives no integers"),
        ("convolutions", r"embedding 'convolutions' must run once in a forward pass.*it runs 0 times"),
    ],
)
def test_what_is_no_embedding_is_refused(ids, embedding, message):
    model = Kim().eval()
    with pytest.raises(ValueError, match=message):
        unit_scores(LayerConductance(model, model.pooled), (ids, Y), embedding=embedding)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_ids_are_compared(ids):
    model = Kim().eval()
    before = copy.deepcopy(model.state_dict())
    evaluator = CumulativeAblationEvaluator(model, "pooled", n_random=2, steps=2)
    conductance = LayerConductance(model, model.pooled)
    methods = {
        "conductance": partial(unit_scores, conductance, embedding=model.embedding),
        "bare": conductance,
        "activation": LayerGradientXActivation(model, model.pooled),
    }
    comparison = evaluator.compare(methods, (ids, Y))
    assert list(comparison.curves) == ["conductance", "activation"]
    assert "pass embedding=" in comparison.failed["bare"]
    close(comparison["conductance"].scores, unit_scores(conductance, (ids, Y), embedding="embedding"))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_studies_take_ids_too(ids):
    model = Kim().eval()
    conductance = LayerConductance(model, model.pooled)
    scores = sample_scores(conductance, (ids, Y), embedding="embedding")
    close(scores.mean(0), unit_scores(conductance, (ids, Y), embedding="embedding"))
    found = deficit_correlation(conductance, (ids, Y), embedding="embedding")
    assert found.scores.shape == (12, 8)
