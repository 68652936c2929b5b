"""Compiled models and layers run their Python code in our calls, and are compiled again afterwards."""

from __future__ import annotations

import time
import warnings

import pytest
import torch
from runtime_uses import NAMES, X, Y, close, network, uses
from torch import nn

from captum_ablate import LayerMeanActivity, list_layers


def compiled_in_place():
    model = network()
    model.compile(backend="eager")
    return model, model[1], "1"


def compiled_outside():
    model = network()
    return torch.compile(model, backend="eager"), model[1], "1"


def compiled_outside_by_long_name():
    model = network()
    return torch.compile(model, backend="eager"), model[1], "_orig_mod.1"


def compiled_layer():
    model = network()
    model[1] = torch.compile(model[1], backend="eager")
    return model, model[1], "1"


def compiled_layer_by_its_inner_module():
    model = network()
    model[1] = torch.compile(model[1], backend="eager")
    return model, model[1]._orig_mod, "1._orig_mod"


def layer_compiled_in_place():
    model = network()
    model[1].compile(backend="eager")
    return model, model[1], "1"


def compiled_around_the_layer():
    model = network()
    front = torch.compile(nn.Sequential(model[0], model[1]), backend="eager")
    return nn.Sequential(front, *model[2:]).eval(), model[1], "0.1"


def compiled_behind_the_layer():
    model = network()
    behind = torch.compile(nn.Sequential(*model[2:]), backend="eager")
    return nn.Sequential(model[0], model[1], behind).eval(), model[1], "1"


MAKES = [
    compiled_in_place,
    compiled_outside,
    compiled_outside_by_long_name,
    compiled_layer,
    compiled_layer_by_its_inner_module,
    layer_compiled_in_place,
    compiled_around_the_layer,
    compiled_behind_the_layer,
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("make", MAKES)
def test_a_compiled_model_gives_what_the_plain_one_gives(make, by_name, name):
    model, layer, layer_name = make()
    plain = network()
    expected = uses(plain, plain[1])[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = uses(model, layer_name if by_name else layer, captum_layer=layer)[name]()
    close(found, expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_function_around_a_compiled_model_gives_what_the_plain_one_gives(name):
    plain, model = network(), network()
    compiled = torch.compile(model, backend="eager")
    close(uses(lambda x: compiled(x), model[1])[name](), uses(plain, plain[1])[name]())


def test_our_passes_compile_nothing_and_the_users_do_as_before():
    seen = []

    def backend(graph, _inputs):
        seen.append(graph)
        return graph.forward

    for make in (lambda m: m.compile(backend=backend) or m, lambda m: torch.compile(m, backend=backend)):
        graphs = []
        for is_used in (False, True):
            torch._dynamo.reset()
            seen.clear()
            model = network()
            compiled = make(model)
            if is_used:
                for use in uses(compiled, model[1]).values():
                    use()
                list_layers(compiled, X)
            assert seen == []
            close(compiled(X), network()(X))
            graphs.append(len(seen))
        assert graphs[0] == graphs[1]
    assert graphs == [1, 1], "torch 2.5 compiles nothing in place, but here it does"


def test_compiled_code_comes_back_after_an_error():
    model = network()
    model.compile(backend="eager")
    compiled = model._compiled_call_impl
    with pytest.raises(ValueError, match="unit_dim"):
        LayerMeanActivity(model, "1", unit_dim=7).attribute(X, target=Y)
    assert model._compiled_call_impl is compiled


def test_a_model_compiled_in_place_is_as_fast_as_a_plain_one():
    plain, compiled = network(), network()
    compiled.compile(backend="eager")

    def seconds(model):
        start = time.perf_counter()
        uses(model, model[1])["evaluator"]()
        return time.perf_counter() - start

    seconds(plain)
    assert min(seconds(compiled) for _ in range(3)) < 5 * max(seconds(plain) for _ in range(3))
