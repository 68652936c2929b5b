"""What the constructor takes and refuses: settings, layers, groups of units, and the networks they belong to."""

from __future__ import annotations

import oracles
import pytest
import torch
from captum.attr import LayerActivation, LayerConductance
from curve_checks import SCORES, check, close, name_of, same, unit_mean
from torch import nn

from captum_ablate import CumulativeAblationEvaluator, LayerMeanActivity, LayerUnitAblation, unit_scores


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"n_random": -1}, "n_random must be an int of at least 0; got -1"),
        ({"n_random": 2.0}, "n_random must be an int"),
        ({"seed": -1}, "seed must be an int of at least 0"),
        ({"seed": None}, "seed must be an int of at least 0"),
        ({"metric": "f1"}, "metric must be one of 'accuracy'"),
        ({"reference": "median"}, r'reference must be "zero", "mean", "resample".*got \'median\''),
        ({"reference": 0}, r'reference must be "zero"'),
        ({"unit_dim": 0}, "unit_dim=0 is the axis of the samples"),
        ({"layer_mask": torch.tensor([0, 2])}, "layer_mask must use every group number"),
    ],
    ids=name_of,
)
def test_bad_settings_are_refused_at_once(dense, option, message):
    with pytest.raises((ValueError, TypeError), match=message):
        CumulativeAblationEvaluator(dense, "2", **option)


def test_a_layer_given_by_name_or_as_a_module_is_the_same_layer(dense, dense_data):
    by_name, by_module = (CumulativeAblationEvaluator(dense, layer, n_random=2) for layer in ("2", dense[2]))
    for layer in ("2", dense[2]):
        method = LayerMeanActivity(dense, layer)
        same(by_name.evaluate(method, dense_data), by_module.evaluate(method, dense_data))


def test_a_wrong_list_of_layers_is_refused_clearly(dense):
    with pytest.raises(ValueError, match="the list of layers is empty"):
        CumulativeAblationEvaluator(dense, [])
    with pytest.raises(ValueError, match="named twice"):
        CumulativeAblationEvaluator(dense, ["0", dense[0]])
    with pytest.raises(ValueError, match="unit_dim must be one value, or one for each of the 2 layers; got 3"):
        CumulativeAblationEvaluator(dense, ["0", "2"], unit_dim=[1, 1, 1])


@pytest.mark.filterwarnings("ignore:.*units have an entropy below:UserWarning")
def test_groups_of_units_are_ablated_together(dense, dense_data):
    x, y = dense_data
    groups = torch.tensor([0, 1, 2, 0, 1, 2])
    evaluator = CumulativeAblationEvaluator(dense, "2", layer_mask=groups, steps=None, metric="logit", n_random=3)
    curve = evaluator.evaluate([1.0, 3.0, 2.0], dense_data)
    assert curve.order.tolist() == [1, 2, 0]
    assert curve.n_ablated.tolist() == [0, 1, 2, 3]
    close(
        curve.values,
        oracles.ablation_values(
            dense, dense[2], x, y.tolist(), [1, 4, 2, 5, 0, 3], [0, 2, 4, 6], torch.zeros_like, "logit"
        ),
    )
    method = LayerMeanActivity(dense, "2", layer_mask=groups)
    assert evaluator.evaluate(method, dense_data).scores.shape == (3,)
    assert evaluator.evaluate(LayerConductance(dense, dense[2]), dense_data).scores.shape == (3,)
    by_mean = CumulativeAblationEvaluator(
        dense, "2", layer_mask=groups, steps=None, metric="logit", n_random=0, reference="mean"
    ).evaluate([1.0, 3.0, 2.0], dense_data)
    values = oracles.grouped(oracles.layer_values(dense, dense[2], x), groups.tolist()).mean(0)
    means = torch.tensor([values[g] for g in groups]).float()
    close(
        by_mean.values,
        oracles.ablation_values(
            dense, dense[2], x, y.tolist(), [1, 4, 2, 5, 0, 3], [0, 2, 4, 6], means.expand_as, "logit"
        ),
    )


def test_a_model_in_training_mode_is_refused(dense_data):
    for extra in (nn.Dropout(0.5), nn.BatchNorm1d(4)):
        model = nn.Sequential(nn.Linear(5, 4), extra, nn.Linear(4, 3)).train()
        with pytest.raises(ValueError, match=rf"training mode: {type(extra).__name__} '1'.*model\.eval\(\)"):
            CumulativeAblationEvaluator(model, "0").evaluate(torch.randn(4), dense_data)
        CumulativeAblationEvaluator(model.eval(), "0", n_random=0).evaluate(torch.randn(4), dense_data)


def test_a_layer_that_is_not_there_or_does_not_run_is_refused(dense, dense_data):
    with pytest.raises(ValueError, match=r"no layer '9'"):
        CumulativeAblationEvaluator(dense, "9")
    with pytest.raises(ValueError, match=r"Linear is not a module of the model"):
        CumulativeAblationEvaluator(dense, nn.Linear(2, 2))
    dense.add_module("spare", nn.Identity())
    dense.forward = lambda x: dense[4](dense[3](dense[2](dense[1](dense[0](x)))))
    with pytest.raises(ValueError, match=r"layer 'spare' did not run in the forward pass"):
        CumulativeAblationEvaluator(dense, "spare").evaluate(SCORES, dense_data)


def test_outputs_with_logits_count_as_their_logits(dense, dense_data):
    class Output:
        def __init__(self, logits):
            self.logits, self.loss = logits, None

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = dense

        def forward(self, x):
            return Output(self.net(x))

    expected = CumulativeAblationEvaluator(dense, "2", n_random=3, metric="logit").evaluate(SCORES, dense_data)
    evaluator = CumulativeAblationEvaluator(Wrapped().eval(), "net.2", n_random=3, metric="logit")
    same(evaluator.evaluate(SCORES, dense_data), expected, exact=False)


def test_predictions_of_a_model_with_logits_can_be_attributed(dense, dense_data):
    class Output(dict):
        @property
        def logits(self):
            return self["logits"]

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = dense

        def forward(self, x):
            return Output(logits=self.net(x))

    model = Wrapped().eval()
    evaluator = CumulativeAblationEvaluator(model, "net.2", n_random=0)
    expected = CumulativeAblationEvaluator(dense, "2", n_random=0)
    for own, plain in (
        (LayerActivation(model, dense[2]), LayerActivation(dense, dense[2])),
        (LayerMeanActivity(model, "net.2"), LayerMeanActivity(dense, "2")),
        (LayerUnitAblation(model, "net.2"), LayerUnitAblation(dense, "2")),
    ):
        same(evaluator.evaluate(own, dense_data), expected.evaluate(plain, dense_data), exact=False)


@pytest.mark.parametrize("reference", ["zero", "mean"])
def test_a_plain_function_can_be_evaluated(dense, dense_data, reference):
    def run(x):
        return dense(x) * 2

    evaluator = CumulativeAblationEvaluator(run, dense[2], reference=reference, metric="logit", n_random=3)
    curve = evaluator.evaluate(LayerConductance(run, dense[2]), dense_data, batch_size=25)
    assert curve.engine.startswith("hook loop")
    means = unit_mean(dense, dense[2], dense_data[0])
    replacement = torch.zeros_like if reference == "zero" else lambda output: means.to(output).expand_as(output)
    check(run, dense[2], *dense_data, curve, replacement, "logit")
    close(curve.scores, unit_scores(LayerConductance(run, dense[2]), dense_data))
    with pytest.raises(TypeError, match="is a name, but forward_func is no nn"):
        CumulativeAblationEvaluator(run, "2")


def test_tokens_taken_for_units_are_warned_of():
    model = nn.Sequential(nn.Linear(4, 5), nn.Flatten(), nn.Linear(15, 2)).eval()
    x, y = torch.randn(8, 3, 4), torch.arange(8) % 2
    with pytest.warns(UserWarning, match=r"unit_dim=1 makes its 3 positions the units; pass unit_dim=-1 for its 5"):
        CumulativeAblationEvaluator(model, "0", n_random=0).evaluate(torch.rand(3), (x, y))
    with pytest.warns(UserWarning, match="pass unit_dim=-1"):
        LayerMeanActivity(model, "0").attribute(x, target=y)
