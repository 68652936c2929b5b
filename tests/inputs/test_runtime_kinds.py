"""Kinds of models and inputs: sparse inputs, models on no device, wrapped, traced, exported and scripted ones."""

from __future__ import annotations

import pytest
import torch
from runtime_uses import NAMES, X, Y, close, network, uses
from torch import nn

pytestmark = pytest.mark.filterwarnings("ignore:")

SPARSE = {
    "COO": lambda x: x.to_sparse(),
    "COO, not coalesced": lambda x: torch.sparse_coo_tensor(
        torch.cat([x.to_sparse().indices()] * 2, dim=1), torch.cat([x.to_sparse().values() / 2] * 2), x.shape
    ),
    "CSR": lambda x: x.to_sparse_csr(),
    "CSC": lambda x: x.to_sparse_csc(),
}


def right(name, data=(X, Y)):
    model = network()
    return uses(model, model[1], data)[name]()


class TakesSparse(nn.Module):
    """A bag of features: the first layer multiplies a sparse matrix."""

    def __init__(self):
        super().__init__()
        self.inner = network()

    def forward(self, x):
        first = self.inner[0]
        hidden = (
            torch.sparse.mm(x, first.weight.T) if x.layout is not torch.strided else x @ first.weight.T
        ) + first.bias
        return self.inner[1:](hidden)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch_size", [None, 15])
@pytest.mark.parametrize("kind", SPARSE)
def test_sparse_inputs_count_like_dense_ones(kind, batch_size, name):
    model, x = TakesSparse().eval(), X * (X > 0)
    found = uses(model, model.inner[1], (SPARSE[kind](x), Y), batch_size=batch_size)[name]()
    close(found, right(name, (x, Y)))


@pytest.mark.parametrize("name", NAMES)
def test_batches_of_sparse_inputs(name):
    model, x = TakesSparse().eval(), X * (X > 0)
    if name in ("conductance", "feature ablation", "evaluator"):
        data = [(x[i : i + 10].to_sparse_csr(), Y[i : i + 10]) for i in range(0, 40, 10)]
        close(uses(model, model.inner[1], data)[name](), right(name, (x, Y)))


@pytest.mark.parametrize("name", NAMES)
def test_a_model_on_the_meta_device_is_refused(name):
    model = network().to("meta")
    with pytest.raises(ValueError, match=r"meta device, without numbers \(first '0.weight'\); load its weights first"):
        uses(model, model[1])[name]()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layer", ["1", "module.1"])
def test_data_parallelism_on_one_device_is_unwrapped(layer, name):
    model = network()
    close(uses(nn.DataParallel(model), layer, captum_layer=model[1])[name](), right(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_that_fx_traced_is_a_model(name):
    model = torch.fx.symbolic_trace(network())
    close(uses(model, "1", captum_layer=model.get_submodule("1"))[name](), right(name))


@pytest.mark.parametrize("name", NAMES)
def test_an_exported_program_is_refused_with_a_way_out(name):
    program = torch.export.export(network(), (X,), dynamic_shapes=({0: torch.export.Dim("n")},))
    for model in (program, program.module()):
        with pytest.raises(TypeError, match=r"is an exported program.*torch\.export\.unflatten\(program\)"):
            uses(model, "1", captum_layer=nn.ReLU())[name]()
    if torch.__version__.startswith("2.5."):
        pytest.skip("torch 2.5 cannot unflatten an nn.Sequential")
    model = torch.export.unflatten(program)
    close(uses(model, "1", captum_layer=model.get_submodule("1"))[name](), right(name))


def test_an_exported_part_of_a_model_runs():
    front = torch.export.export(network()[:2], (X,), dynamic_shapes=({0: torch.export.Dim("n")},)).module()
    model = nn.Sequential(front, nn.Identity(), *network()[2:])
    for name in NAMES:
        close(uses(model, "1", captum_layer=model[1])[name](), right(name))


@pytest.mark.parametrize("name", NAMES)
def test_scripted_models_and_layers_are_refused(name):
    scripted = torch.jit.script(network())
    with pytest.raises(TypeError, match="scripted or traced model, on which Python hooks have no effect"):
        uses(scripted, "1", captum_layer=nn.ReLU())[name]()
    model = network()
    model[1] = torch.jit.script(model[1])
    with pytest.raises(TypeError, match="the layer ReLU is scripted or traced, and takes no Python hook"):
        uses(model, "1", captum_layer=model[1])[name]()


@pytest.mark.parametrize("name", NAMES)
def test_a_scripted_part_of_a_model_runs(name):
    model = network()
    model[0] = torch.jit.script(model[0])
    model[3] = torch.jit.trace(model[3], torch.randn(2, 7))
    close(uses(model, "1", captum_layer=model[1])[name](), right(name))
