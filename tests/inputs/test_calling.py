"""A model that writes into its inputs leaves the user's data as they were."""

from __future__ import annotations

import pytest
import torch
from captum.attr import LayerGradientXActivation
from torch import nn

from captum_ablate import CumulativeAblationEvaluator, LayerMeanActivity, unit_scores


class Writes(nn.Module):
    """Writes into its inputs where their largest value is above ``above``."""

    def __init__(self, above):
        super().__init__()
        self.above, self.linear = above, nn.Linear(5, 3)

    def forward(self, x):
        if x.max() > self.above:
            x.mul_(0.5)
        return self.linear(x)


def test_a_model_that_writes_into_its_inputs_gets_copies(dense_data):
    x, y = dense_data
    before, net = x.clone(), Writes(-100.0).eval()
    scores = LayerMeanActivity(net, "linear").attribute(x, target=y, batch_size=13)
    assert torch.equal(x, before)
    torch.testing.assert_close(scores, net.linear(before / 2).double().mean(0), rtol=1e-5, atol=1e-5)


def test_a_model_that_begins_to_write_into_its_inputs_is_refused(dense_data):
    x = dense_data[0].clamp(-1, 1)
    x[30:] += 5
    with pytest.raises(ValueError, match="wrote into its inputs, which it did not do in the first batch"):
        LayerMeanActivity(Writes(2.0).eval(), "linear").attribute(x, target=dense_data[1], batch_size=20)


def net():
    return nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).eval()


CALLS = {
    "statistics": lambda model, data: LayerMeanActivity(model, model[1]).attribute(data),
    "per sample": lambda model, data: unit_scores(LayerGradientXActivation(model, model[1]), data),
    "evaluator": lambda model, data: CumulativeAblationEvaluator(model, "1").evaluate(torch.rand(4), data),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_batch_with_the_index_of_each_sample_is_told_what_a_batch_is(dense_data, call):
    x, y = dense_data
    with pytest.raises(
        TypeError, match=r"gives the model 2 positional arguments: of \(\*inputs, labels\) all but the last.*unpack"
    ):
        call(net(), [(x, y, torch.arange(len(x)))])


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.uint8])
def test_inputs_of_another_type_than_the_weights_are_named(dense_data, call, dtype):
    x, y = dense_data
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(RuntimeError, match=f"the inputs are {name} and the model's weights float32: convert one"):
        call(net(), [(x.to(dtype), y)])


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    "error", [TypeError("f() takes 2 positional arguments but 3 were given"), RuntimeError("unknown dtype")]
)
def test_an_error_of_the_model_itself_stays_as_it_is(dense_data, call, error):
    class Raises(nn.Module):
        def forward(self, x):
            raise error

    model = net()
    model[1] = Raises()
    with pytest.raises(type(error)) as caught:
        call(model, [dense_data])
    assert caught.value is error


def test_a_model_with_keyword_arguments_only_works_through_a_function(dense_data):
    class Keywords(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, *, x):
            return self.net(x)

    model = Keywords().eval()
    with pytest.raises(TypeError, match=r"1 positional argument: .*such as lambda x: model\(x=x\)"):
        LayerMeanActivity(model, "net.1").attribute([dense_data])
    layer = model.net[1]
    evaluator = CumulativeAblationEvaluator(lambda x: model(x=x), layer, steps=4, n_random=2)
    expected = CumulativeAblationEvaluator(model.net, layer, steps=4, n_random=2)
    scores = torch.rand(4)
    values = [e.evaluate(scores, dense_data).values for e in (evaluator, expected)]
    assert torch.equal(*values)
