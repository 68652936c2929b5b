"""The table of a model's layers: names, shapes, units and calls, for every way to call a model."""

from __future__ import annotations

import pytest
import torch
from captum_networks import BasicModel_MultiLayer, BasicModelWithReusedModules
from torch import nn

from captum_ablate import (
    Batch,
    CumulativeAblationEvaluator,
    LayerMeanActivity,
    LayerUnitAblation,
    list_layers,
)


def test_list_layers_gives_names_shapes_units_and_calls_in_running_order(digits_net, small_digits):
    frame = list_layers(digits_net, small_digits[0][:4])
    assert list(frame.columns) == ["name", "type", "output_shape", "units", "calls"]
    assert frame["name"].tolist() == [name for name, _ in digits_net.named_children()]
    row = frame.set_index("name").loc["conv2"]
    assert (row["type"], row["output_shape"], row["units"], row["calls"]) == ("Conv2d", (4, 16, 2, 2), 16, 1)


def test_list_layers_counts_calls_and_puts_idle_layers_last():
    frame = list_layers(BasicModelWithReusedModules(), torch.zeros(2, 3)).set_index("name")
    assert frame["calls"].to_dict() == {"lin1": 1, "relu": 2, "lin2": 1}
    frame = list_layers(BasicModel_MultiLayer(), torch.zeros(2, 3)).set_index("name")
    assert frame["calls"]["multi_relu.relu1"] == 0
    assert frame.index[-1] not in ("linear0", "linear1", "relu", "linear2")


def test_list_layers_counts_units_along_unit_dim(digits_net, small_digits):
    frame = list_layers(digits_net, small_digits[0][:4], unit_dim=None).set_index("name")
    assert frame["units"]["conv2"] == 64
    assert list_layers(nn.Sequential(nn.Flatten(0)), torch.zeros(2, 3))["units"].isna().all()


def test_list_layers_leaves_model_and_inputs_as_they_were(digits_net, small_digits):
    hooks = [len(m._forward_hooks) for m in digits_net.modules()]
    x = small_digits[0][:4].clone()
    list_layers(nn.Sequential(nn.ReLU(inplace=True)), x.neg_())
    assert (x <= 0).all()
    list_layers(digits_net, x)
    assert [len(m._forward_hooks) for m in digits_net.modules()] == hooks


def test_list_layers_needs_a_module():
    with pytest.raises(TypeError, match=r"list_layers needs an nn\.Module; got function"):
        list_layers(lambda x: x, torch.zeros(2, 3))


class Encoder(nn.Module):
    """A model of keywords, as of transformers: ids, a mask, and a recurrent layer with two tensors."""

    def __init__(self):
        super().__init__()
        self.table, self.inner, self.head = nn.Embedding(9, 6), nn.GRU(6, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, ids=None, mask=None):
        outputs, _ = self.inner(self.table(ids) * mask[..., None])
        return {"logits": self.head(outputs[:, -1])}


def test_list_layers_takes_positional_and_keyword_inputs_dicts_and_batches():
    ids, mask = torch.randint(9, (2, 5)), torch.ones(2, 5)
    model = Encoder().eval()
    expected = list_layers(model, ids, mask)
    assert expected["name"].tolist() == ["table", "inner", "head"]
    for inputs, keywords in (
        ((), {"ids": ids, "mask": mask}),
        ((ids,), {"mask": mask}),
        ((Batch((ids,), torch.zeros(2), (mask,)),), {}),
    ):
        assert list_layers(model, *inputs, **keywords).equals(expected)

    class OfDict(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = model

        def forward(self, batch):
            return self.encoder(**batch)

    assert list_layers(OfDict(), {"ids": ids, "mask": mask})["calls"].tolist() == [1] * 4


def test_list_layers_counts_the_units_of_the_first_tensor():
    frame = list_layers(Encoder(), torch.randint(9, (2, 5)), torch.ones(2, 5), unit_dim=-1).set_index("name")
    assert frame["output_shape"]["inner"] == ((2, 5, 4), (1, 2, 4))
    assert frame["units"].tolist() == [6, 4, 3]


def test_list_layers_shows_what_layers_receive():
    frame = list_layers(
        Encoder(), torch.randint(9, (2, 5)), torch.ones(2, 5), unit_dim=-1, attribute_to_layer_input=True
    ).set_index("name")
    assert frame["input_shape"].tolist() == [(2, 5), (2, 5, 6), (2, 4)]
    assert frame["units"].tolist() == [5, 6, 4]


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(12, 4, batch_first=True), nn.Linear(12, 3)

    def forward(self, x):
        return self.head(self.attention(x, x, x)[0].mean(1))


NEVER = "nn.MultiheadAttention uses its weights without calling it, so no hook sees the heads"


def test_the_projection_of_multihead_attention_is_never_called_and_the_table_says_why():
    frame = list_layers(Attends().eval(), torch.randn(2, 5, 12)).set_index("name")
    assert frame["calls"].to_dict() == {"attention": 1, "head": 1, "attention.out_proj": 0}
    assert frame["note"].to_dict() == {"attention": "", "head": "", "attention.out_proj": NEVER}


@pytest.mark.parametrize("layer", ["attention.out_proj", ["head", "attention.out_proj"]])
def test_naming_that_projection_is_refused_with_what_to_do(layer):
    model, x, y = Attends().eval(), torch.randn(6, 5, 12), torch.arange(6) % 3
    message = f"layer 'attention.out_proj' did not run.*{NEVER}.*a projection that is called.*attribute_to_layer_input"
    for cls in (LayerMeanActivity, LayerUnitAblation):
        with pytest.raises(ValueError, match=message):
            cls(model, layer, unit_dim=-1).attribute(x, target=y, attribute_to_layer_input=True)
    evaluator = CumulativeAblationEvaluator(model, layer, unit_dim=-1, attribute_to_layer_input=True)
    with pytest.raises(ValueError, match=message):
        evaluator.evaluate(torch.rand(24 if isinstance(layer, list) else 12), (x, y))


def test_a_typo_names_the_nearest_layers_also_in_a_list_and_for_input_units():
    model = Encoder()
    for layer in ("inner.", ["table", "iner"]):
        with pytest.raises(ValueError, match=r"no layer 'i.*nearest: 'inner'"):
            CumulativeAblationEvaluator(model, layer, attribute_to_layer_input=True)
