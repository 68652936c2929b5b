"""The model, the data and the random states come back as they were; results say how they came about."""

from __future__ import annotations

import random
from functools import partial

import numpy as np
import pytest
import torch
from captum.attr import LayerConductance, LayerGradientShap
from curve_checks import SCORES, same
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from captum_ablate import CumulativeAblationEvaluator, LayerMeanActivity, LayerUnitAblation, unit_scores


class Brittle(nn.Module):
    """Raises when its input is small in a way that only ablation makes it, if asked to."""

    on = False

    def forward(self, x):
        if Brittle.on and bool((x == 0).all(dim=0).sum() >= 2):
            raise RuntimeError("the network is on fire")
        return x * 1.5


@pytest.mark.parametrize("forward", ["module", "function"])
@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("reference", ["zero", "resample"])
def test_everything_comes_back_as_it_was(dense_data, forward, raises, reference):
    model = nn.Sequential(nn.Linear(5, 6), Brittle(), nn.Linear(6, 4), nn.Dropout(0.0), nn.Linear(4, 3))
    model[0].bias.grad = torch.full((6,), 3.0)
    model[2].bias.requires_grad_(False)
    model[4].train()
    seen = []
    handle = model[0].register_forward_hook(lambda *_: seen.append(1))
    x, y = dense_data
    x.requires_grad_()
    loader = DataLoader(
        TensorDataset(x.detach(), y), batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(5)
    )
    before = x.detach().clone(), y.clone(), {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    keys = [sorted(m.__dict__) for m in model.modules()]
    hooks = [(list(m._forward_hooks), list(m._forward_pre_hooks), list(m._backward_hooks)) for m in model.modules()]
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate(), loader.generator.get_state()  # noqa: NPY002
    evaluator = CumulativeAblationEvaluator(
        model if forward == "module" else lambda x: model(x), model[0], reference=reference, n_random=4
    )
    methods = {
        "conductance": LayerConductance(evaluator.forward_func, model[0]),
        "shap": partial(unit_scores, LayerGradientShap(evaluator.forward_func, model[0]), baselines=x[:5].detach()),
        "activity": LayerMeanActivity(evaluator.forward_func, model[0]),
        "ablation": LayerUnitAblation(evaluator.forward_func, model[0]),
        "mine": torch.arange(6.0),
    }
    Brittle.on = raises
    try:
        for data in (loader, (x, y)):
            if raises and reference == "zero":
                with pytest.raises(RuntimeError, match="the network is on fire"):
                    evaluator.compare(methods, data, ranking_data=loader, batch_size=16)
            else:
                evaluator.compare(methods, data, ranking_data=loader, batch_size=16)
    finally:
        Brittle.on = False
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])
    assert x.grad is None
    assert x.requires_grad
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[2][name])
    assert [m.training for m in model.modules()] == modes
    assert [sorted(m.__dict__) for m in model.modules()] == keys
    assert hooks == [
        (list(m._forward_hooks), list(m._forward_pre_hooks), list(m._backward_hooks)) for m in model.modules()
    ]
    assert torch.equal(model[0].bias.grad, torch.full((6,), 3.0))
    assert not model[2].bias.requires_grad
    assert all(p.grad is None for n, p in model.named_parameters() if n != "0.bias")
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert random.getstate() == states[2]
    assert torch.equal(loader.generator.get_state(), states[3])
    handle.remove()


def test_evaluating_twice_gives_the_same_and_keeps_nothing(dense, dense_data):
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=3, reference="mean")
    before = dict(vars(evaluator))
    first = evaluator.evaluate(LayerMeanActivity(dense, "2"), dense_data)
    evaluator.evaluate(SCORES, (dense_data[0] * 3, dense_data[1]))
    same(evaluator.evaluate(LayerMeanActivity(dense, "2"), dense_data), first)
    assert vars(evaluator) == before


def test_results_do_not_share_memory_with_what_was_given(dense, dense_data):
    scores, target = SCORES.double().clone(), dense_data[1].clone()
    curve = CumulativeAblationEvaluator(dense, "2", n_random=0).evaluate(scores, (dense_data[0], target))
    kept = curve.scores.clone(), curve.target.clone()
    scores.zero_()
    target.fill_(1)
    assert torch.equal(curve.scores, kept[0])
    assert torch.equal(curve.target, kept[1])


def test_progress_is_shown_only_on_request(dense, dense_data, capsys):
    CumulativeAblationEvaluator(dense, "2", n_random=0).evaluate(SCORES, dense_data)
    assert capsys.readouterr().err == ""
    CumulativeAblationEvaluator(dense, "2", n_random=0).evaluate(SCORES, dense_data, show_progress=True)
    assert "ablating 2" in capsys.readouterr().err


def test_a_forward_pass_inside_no_grad_is_fine_and_gradients_still_flow(dense, dense_data):
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=0)
    expected = evaluator.evaluate(LayerConductance(dense, dense[2]), dense_data)
    with torch.no_grad():
        same(evaluator.evaluate(LayerConductance(dense, dense[2]), dense_data), expected)
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()
