"""Replay equals the plain hook loop on networks that break careless versions of it, or refuses them."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import networks
import pytest
import torch
from networks import NETWORKS, NO_GRAPH, WIDTH, Network, built, data
from oracle import assert_matches, assert_order, check, evaluated, hook_loop, is_exact, one_thread, scores_for
from torch import Tensor, nn

from captum_ablate import CumulativeAblationEvaluator


def other_samples(activation: Tensor, target: Tensor) -> Tensor:
    """Return a reference that depends on the whole batch, on the positions and on the labels."""
    return 0.3 - activation.detach().flip(0) + 0.1 * target.reshape(-1, *[1] * (activation.ndim - 1))


REFERENCES = {"zero": "zero", "function": other_samples}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def evaluate(model: Any, layer: Any, x: Any, y: Tensor, **options: Any) -> Any:
    scores = options.pop("scores", None)
    if scores is None:
        scores = torch.linspace(1, 0, WIDTH)
    options = {"metric": "logit", "steps": None, "n_random": 0, "batch_size": 3, **options}
    return evaluated(model, layer, scores, (x, y), **options)


MAY_FALL_BACK = [
    pytest.mark.may_fall_back,
    pytest.mark.filterwarnings("ignore:.*full forward passes are used instead"),
]
SOME_FALL_BACK = [pytest.param(name, marks=MAY_FALL_BACK if name in NO_GRAPH else ()) for name in NETWORKS]


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("name", SOME_FALL_BACK)
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_curve_equals_hook_loop(name: str, reference: str) -> None:
    make = NETWORKS[name]
    x, y = data()
    curve = check(partial(built, make), built(make).target_layer, x, y, reference=REFERENCES[reference])
    assert curve.engine.startswith("hook loop" if name in NO_GRAPH else "graph")


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param("update, stacked, folded", marks=pytest.mark.execution("update, stacked, folded")),
        *(
            pytest.param(execution, marks=[pytest.mark.execution(execution), pytest.mark.slow])
            for execution in ("stacked", "closed form, update, stacked")
        ),
    ],
)
@pytest.mark.parametrize("name", SOME_FALL_BACK)
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.may_fall_back  # a network that mixes samples must not be stacked
@pytest.mark.filterwarnings("ignore:.*full forward passes are used instead")
def test_curve_of_every_execution_equals_hook_loop(name: str, asked: str) -> None:
    make = NETWORKS[name]
    x, y = data()
    check(partial(built, make), built(make).target_layer, x, y, reference=other_samples)


# --- refused -----------------------------------------------------------------------------------------


def test_layer_that_runs_twice_is_refused() -> None:
    x, y = data()
    with pytest.raises(ValueError, match="2 times"):
        evaluate(built(networks.RunsItsLayerTwice), "layer", x, y)


@pytest.mark.parametrize("make", [networks.CallsForward, networks.UsesWeight])
def test_layer_that_no_hook_sees_is_refused(make: Callable[[], Network]) -> None:
    x, y = data()
    with pytest.raises(ValueError, match="did not run"):
        evaluate(built(make), "layer", x, y)


@pytest.mark.may_fall_back
def test_layer_that_does_not_run_on_a_batch_is_refused() -> None:
    x, y = data()
    with pytest.raises(ValueError, match="did not run"):
        evaluate(built(networks.LayerNotInEveryBatch), "layer", x, y)


@pytest.mark.may_fall_back
@pytest.mark.filterwarnings("ignore:.*full forward passes are used instead")
@pytest.mark.parametrize("where", ["before", "after"])
def test_drifting_model_is_refused(where: str) -> None:
    x, y = data()
    with pytest.raises(ValueError, match="repeat"):
        evaluate(built(partial(networks.Drifts, where)), "layer", x, y)


@pytest.mark.may_fall_back
@pytest.mark.filterwarnings("ignore:.*full forward passes are used instead")
@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("noise", networks.Noisy.NOISE)
def test_noisy_model_is_refused(noise: str, where: str) -> None:
    x, y = data()
    with pytest.raises(ValueError, match="repeat"):
        evaluate(built(partial(networks.Noisy, noise, where)), "layer", x, y)


@pytest.mark.may_fall_back
@pytest.mark.filterwarnings("ignore:.*full forward passes are used instead")
def test_error_of_the_model_reaches_the_user() -> None:
    x, y = data()
    with pytest.raises(FloatingPointError, match="nothing left"):
        evaluate(built(networks.RaisesWhenAllAblated), "layer", x, y)


@pytest.mark.parametrize("convert", [torch.jit.script, partial(torch.jit.trace, example_inputs=torch.ones(2, WIDTH))])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_scripted_and_traced_models_are_refused(convert: Callable[[nn.Module], Any]) -> None:
    x, y = data()
    model = convert(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 3)).eval())
    with pytest.raises(TypeError, match="scripted or traced"):
        evaluate(model, "0", x, y)


def test_data_parallel_over_several_devices_is_refused() -> None:
    model = nn.DataParallel(built(Network))
    model.device_ids = [0, 1]
    x, y = data()
    with pytest.raises(TypeError, match="DataParallel"):
        evaluate(model, "module.layer", x, y)


@pytest.mark.parametrize("layer", ["encoder.layers.1.self_attn.out_proj", "attention.out_proj"])
def test_projection_that_attention_uses_as_a_weight_is_refused(layer: str) -> None:
    x, y = data(5, 6, 4)
    with pytest.raises(ValueError, match="did not run"):
        evaluate(built(networks.Encoder), layer, x, y, unit_dim=-1, scores=torch.arange(8.0))


# --- attention and recurrence ------------------------------------------------------------------------


INSIDE = ("linear1", "dropout", "linear2", "norm1", "self_attn")
ENCODER_LAYERS = [
    *(("plain", layer) for layer in ("embed", "encoder", "attention", "encoder.layers.0.norm2", "encoder.layers.1")),
    *((kind, f"encoder.layers.1.{layer}") for kind in ("plain", "norm_first", "weights") for layer in INSIDE),
    # Inside a padded encoder PyTorch itself fails as soon as there is a hook.
    *(pytest.param("padded", layer, marks=MAY_FALL_BACK) for layer in ("embed", "encoder", "attention")),
]


@pytest.mark.parametrize(("kind", "layer"), ENCODER_LAYERS)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors", "ignore:enable_nested_tensor is True")
def test_encoder_equals_hook_loop(kind: str, layer: str) -> None:
    x, y = data(5, 6, 4)
    options = {} if kind == "plain" else {kind: True}
    build = partial(built, partial(networks.Encoder, **options))
    check(build, layer, x, y, unit_dim=-1, steps=3, reference=other_samples, exact=False)


@pytest.mark.parametrize("layer", ["first", "layer"])
def test_recurrent_layer_equals_hook_loop(layer: str) -> None:
    x, y = data(5, 4, 4)
    check(partial(built, networks.Recurrent), layer, x, y, unit_dim=-1)


@pytest.mark.parametrize("kind", networks.TupleLayer.KINDS)
def test_first_tensor_of_several_is_ablated(kind: str) -> None:
    x, y = data()
    check(partial(built, partial(networks.TupleLayer, kind)), "layer", x, y, reference=other_samples)


# --- what is passed, and what comes out ----------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 2, 5, None])
def test_batches_of_any_size_equal_hook_loop(batch_size: int | None) -> None:
    x, y = data()
    check(partial(built, networks.SharedReLU), "layer", x, y, batch_size=batch_size)


@pytest.mark.parametrize("steps", [1, 2, 4, 50, None, [0, 1, 5, 6], [3]])
def test_any_counts_equal_hook_loop(steps: Any) -> None:
    x, y = data()
    check(partial(built, networks.InplaceAfter), "layer", x, y, steps=steps)


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, groups=4)
        self.relu, self.norm, self.head = nn.ReLU(inplace=True), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.stem(x))
        return self.head(self.relu(self.norm(self.layer(h)) + h[..., 1:-1, 1:-1]).amax((2, 3)))


@pytest.mark.parametrize("unit_dim", [1, -1, 2, None])
@pytest.mark.parametrize("reference", ["zero", "mean", other_samples])
def test_any_axis_of_units_equals_hook_loop(unit_dim: int | None, reference: Any) -> None:
    x, y = data(5, 3, 6, 6)
    check(partial(built, Convolutional), "layer", x, y, unit_dim=unit_dim, reference=reference, steps=4)


REFERENCE_TENSORS = {
    "number": torch.tensor(0.5),
    "per unit": torch.linspace(-1, 1, 4).reshape(4, 1, 1),
    "per position": torch.linspace(-1, 1, 16).reshape(4, 4),
    "per element": torch.linspace(-1, 1, 64).reshape(4, 4, 4),
}


@pytest.mark.parametrize("name", REFERENCE_TENSORS)
def test_any_reference_tensor_equals_hook_loop(name: str) -> None:
    x, y = data(5, 3, 6, 6)
    check(partial(built, Convolutional), "layer", x, y, reference=REFERENCE_TENSORS[name], steps=4)


def writes_into_its_argument(activation: Tensor, target: Tensor) -> Tensor:
    activation.mul_(-1).add_(target.reshape(-1, 1))
    return activation


def returns_its_argument(activation: Tensor, target: Tensor) -> Tensor:
    return activation


@pytest.mark.parametrize(
    "reference",
    [
        lambda a, t: a.mean(0, keepdim=True).expand_as(a),
        lambda a, t: a * (t == 0)[:, None],
        lambda a, t: torch.full_like(a, 0.2),
        writes_into_its_argument,
    ],
)
@pytest.mark.parametrize("make", [Network, networks.InplaceAfter])
def test_any_reference_function_equals_hook_loop(make: Callable[[], Network], reference: Any) -> None:
    x, y = data()
    check(partial(built, make), "layer", x, y, reference=reference)


def test_reference_that_changes_nothing_costs_nothing() -> None:
    x, y = data()
    curve = check(partial(built, networks.InplaceAfter), "layer", x, y, reference=returns_its_argument, sensitive=False)
    values = torch.as_tensor(curve.values)
    assert torch.equal(values, values[:1].expand_as(values))


def test_reference_may_run_a_part_of_the_model() -> None:
    x, y = data()
    model, twin = built(networks.SharedReLU), built(networks.SharedReLU)

    def of_blank_image(network: Any, activation: Tensor, target: Tensor) -> Tensor:
        return network.act(network.block(torch.ones(1, WIDTH))).expand_as(activation) + network.act(activation)

    curve = evaluate(model, "layer", x, y, reference=partial(of_blank_image, model))
    expected = hook_loop(
        twin,
        "layer",
        x,
        y,
        curve.order,
        curve.n_ablated,
        reference=partial(of_blank_image, twin),
        batch_size=3,
    )
    assert_matches(curve, expected)


@pytest.mark.parametrize("metric", ["accuracy", "log_likelihood", lambda out, t: out.softmax(1).amax(1) - t])
def test_any_metric_equals_hook_loop(metric: Any) -> None:
    x, y = data()
    check(partial(built, networks.SharedReLU), "layer", x, y, metric=metric, sensitive=False)


def test_metric_may_run_the_model() -> None:
    x, y = data()
    model, twin = built(networks.SharedReLU), built(networks.SharedReLU)

    def against_intact(network: nn.Module, outputs: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            return (outputs - network(x[: len(target)])).abs().sum(1)

    curve = evaluate(model, "layer", x, y, metric=partial(against_intact, model))
    # The oracle's hook is gone when it asks for the metric: the model inside the metric is intact.
    expected = hook_loop(
        twin, "layer", x, y, curve.order, curve.n_ablated, metric=partial(against_intact, twin), batch_size=3
    )
    assert_matches(curve, expected)


def test_metric_may_write_to_the_outputs() -> None:
    x, y = data()

    def shifted(outputs: Tensor, target: Tensor) -> Tensor:
        return outputs.sub_(outputs.mean(1, keepdim=True)).gather(1, target[:, None])[:, 0]

    check(partial(built, Network), "layer", x, y, metric=shifted)


def test_random_orders_do_not_change_the_curve() -> None:
    x, y = data()
    alone = check(partial(built, networks.DenseNet), "layer", x, y)
    beside = check(partial(built, networks.DenseNet), "layer", x, y, n_random=2)
    assert torch.equal(torch.as_tensor(alone.values), torch.as_tensor(beside.values))


def test_areas_equal_hook_loop() -> None:
    x, y = data()
    curve = check(partial(built, networks.InplaceAfter), "layer", x, y, n_random=2)
    fraction = torch.as_tensor(curve.n_ablated).double() / WIDTH

    def area(order: Tensor) -> float:
        values = hook_loop(built(networks.InplaceAfter), "layer", x, y, order, curve.n_ablated, batch_size=3)
        return float((values[0] - torch.trapezoid(values.double(), fraction, dim=0)).mean())

    order = torch.as_tensor(curve.order)
    assert curve.deletion == pytest.approx(area(order), abs=1e-5)
    assert curve.insertion == pytest.approx(-area(order.flip(0)), abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("reference", ["zero", "mean", torch.tensor(0.25)])
def test_any_float_type_equals_hook_loop(dtype: torch.dtype, reference: Any) -> None:
    x, y = data()
    curve = check(lambda: built(networks.SharedReLU).to(dtype), "layer", x.to(dtype), y, reference=reference)
    if dtype == torch.float64 and reference == "zero":
        assert torch.as_tensor(curve.values).dtype == torch.float64


@pytest.mark.parametrize("context", [torch.inference_mode, torch.enable_grad, torch.no_grad])
def test_users_gradient_mode_changes_nothing(context: Callable[[], Any]) -> None:
    x, y = data()
    with context():
        check(partial(built, networks.DenseNet), "layer", x, y)


def test_inputs_that_need_gradients_equal_hook_loop() -> None:
    x, y = data()
    x.requires_grad_()
    check(partial(built, networks.InplaceAfter), "layer", x, y)
    assert x.grad is None


def test_autocast_equals_hook_loop() -> None:
    x, y = data()
    with torch.autocast("cpu", torch.bfloat16):
        check(partial(built, networks.DenseNet), "layer", x, y)


def test_channels_last_equals_hook_loop() -> None:
    x, y = data(5, 3, 6, 6)
    check(
        lambda: built(Convolutional).to(memory_format=torch.channels_last),
        "layer",
        x.to(memory_format=torch.channels_last),
        y,
    )


def test_outputs_with_logits_equal_hook_loop() -> None:
    x, y = data()
    check(partial(built, networks.WithLogits), "layer", x, y)


def test_several_inputs_equal_hook_loop_and_are_unchanged() -> None:
    x, y = data()
    tokens = torch.arange(10).reshape(5, 2)
    before = x.clone()
    check(partial(built, networks.SeveralInputs), "layer", (x, tokens), y)
    assert torch.equal(x, before)


@pytest.mark.parametrize("when", ["before", "after", "data"])
def test_inputs_that_the_model_writes_to_are_unchanged(when: str) -> None:
    x, y = data()
    before = x.clone()
    evaluate(built(partial(networks.WritesIntoInput, when)), "layer", x, y)
    assert torch.equal(x, before)


def test_infinite_unit_equals_hook_loop() -> None:
    x, y = data()
    check(partial(built, networks.Endless), "layer", x, y)


@pytest.mark.may_fall_back
@pytest.mark.filterwarnings("ignore:.*full forward passes are used instead")
def test_layer_without_effect_has_a_flat_curve() -> None:
    x, y = data()
    check(partial(built, networks.LayerNeverMatters), "layer", x, y, sensitive=False)


def test_the_model_may_be_its_own_layer() -> None:
    x, y = data()
    check(partial(built, Network), "", x, y)


# --- wrappers ----------------------------------------------------------------------------------------


def test_compiled_model_is_unwrapped() -> None:
    x, y = data()
    model = built(networks.SharedReLU)
    curve = evaluate(torch.compile(model, backend="eager"), model.layer, x, y)
    expected = hook_loop(built(networks.SharedReLU), "layer", x, y, curve.order, curve.n_ablated, batch_size=3)
    assert_matches(curve, expected)


@pytest.mark.skipif(torch.cuda.is_available(), reason="DataParallel takes the devices that there are")
def test_data_parallel_without_devices_equals_hook_loop() -> None:
    x, y = data()
    check(lambda: nn.DataParallel(built(networks.SharedReLU), device_ids=[]), "module.layer", x, y)


@pytest.mark.parametrize("make", [networks.SharedReLU, networks.DenseNet, networks.InplaceAfter])
@pytest.mark.parametrize("wrap", ["function", "bound method", "partial"])
def test_plain_function_runs_the_hook_loop(make: Callable[[], Network], wrap: str) -> None:
    x, y = data()
    model, twin = built(make), built(make)
    function = {
        "function": lambda inputs: model(inputs),
        "bound method": types.MethodType(lambda self, inputs: self(inputs), model),
        "partial": partial(nn.Module.__call__, model),
    }[wrap]
    curve = evaluate(function, model.layer, x, y)
    assert curve.engine.startswith("hook loop")
    assert len(curve.engine) > len("hook loop: ")
    assert_order(curve, torch.linspace(1, 0, WIDTH))
    assert_matches(curve, hook_loop(twin, "layer", x, y, curve.order, curve.n_ablated, batch_size=3))


def test_module_and_name_are_the_same_layer() -> None:
    x, y = data()
    model = built(networks.DenseNet)
    by_module, by_name = evaluate(model, model.layer, x, y), evaluate(model, "layer", x, y)
    assert torch.equal(torch.as_tensor(by_module.values), torch.as_tensor(by_name.values))


def test_one_evaluator_may_evaluate_twice() -> None:
    x, y = data()
    model = built(networks.DenseNet)
    evaluator = CumulativeAblationEvaluator(model, "layer", metric="logit", steps=None, n_random=2, seed=0)
    scores = torch.linspace(1, 0, WIDTH)
    first, other, again = (evaluator.evaluate(s, (x, y)) for s in (scores, -scores, scores))
    assert torch.equal(torch.as_tensor(first.values), torch.as_tensor(again.values))
    expected = hook_loop(built(networks.DenseNet), "layer", x, y, other.order, other.n_ablated)
    assert_matches(other, expected)


# --- hooks of the user ---------------------------------------------------------------------------------


def _write_tensor(_module: nn.Module, _args: Any, output: Tensor) -> None:
    output.mul_(2)


def _keeps_for_later(model: Any) -> None:
    kept: list[Tensor] = []
    model.stem.register_forward_hook(lambda _m, _a, out: kept.append(out.clone()))
    model.head.register_forward_hook(lambda _m, _a, out: out + kept.pop()[:, :3])


def _keeps_the_intact_output(model: Any) -> None:
    kept: list[Tensor] = []
    model.layer.register_forward_hook(lambda _m, _a, out: kept.append(out))
    model.head.register_forward_hook(lambda _m, _a, out: out + kept[-1][:, :3])


def _runs_the_stem_again(model: Any) -> None:
    model.head.register_forward_pre_hook(lambda _m, args: (args[0] + model.stem(args[0]),))


def _runs_the_stem_early(model: Any) -> None:
    model.block.register_forward_pre_hook(lambda _m, args: (args[0] + model.stem(torch.tanh(args[0])),))


USER_HOOKS: dict[str, Callable[[Any], Any]] = {
    "layer output": lambda m: m.layer.register_forward_hook(lambda _m, _a, out: out * 2 + 1),
    "layer output in place": lambda m: m.layer.register_forward_hook(_write_tensor),
    "layer output, always called": lambda m: m.layer.register_forward_hook(
        lambda _m, _a, out: out * 2 + 1, always_call=True
    ),
    "layer output, first and with keywords": lambda m: m.layer.register_forward_hook(
        lambda _m, _a, _k, out: out * 2 + 1, prepend=True, with_kwargs=True
    ),
    "layer input": lambda m: m.layer.register_forward_pre_hook(lambda _m, args: (args[0] * 3,)),
    "prefix output": lambda m: m.stem.register_forward_hook(lambda _m, _a, out: out * 2 + 1),
    "prefix output in place": lambda m: m.stem.register_forward_hook(_write_tensor),
    "prefix input": lambda m: m.stem.register_forward_pre_hook(lambda _m, args: (args[0] + 1,)),
    "inside a served block": lambda m: m.block[0].register_forward_hook(lambda _m, _a, out: out.abs()),
    "shared module": lambda m: m.act.register_forward_hook(lambda _m, _a, out: out - 0.1),
    "suffix output": lambda m: m.head.register_forward_hook(lambda _m, _a, out: out * 2 + 1),
    "model output": lambda m: m.register_forward_hook(lambda _m, _a, out: out * 2 + 1),
    "prefix keeps, suffix adds": _keeps_for_later,
    "layer keeps, suffix adds": _keeps_the_intact_output,
    "suffix runs the stem": _runs_the_stem_again,
    "prefix runs the stem": _runs_the_stem_early,
}


class Hooked(networks.SharedReLU):
    def __init__(self, hook: str) -> None:
        super().__init__()
        USER_HOOKS[hook](self)

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.stem(x) + self.block(x))
        return self.head(self.act(self.layer(h)) + 0.3 * h)


@pytest.mark.may_fall_back
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("hook", [name for name in USER_HOOKS if "in place" not in name])
@pytest.mark.parametrize("reference", REFERENCES)
def test_users_hooks_act_as_in_the_hook_loop(hook: str, reference: str) -> None:
    x, y = data()
    check(partial(built, partial(Hooked, hook)), "layer", x, y, reference=REFERENCES[reference])


@pytest.mark.may_fall_back
@pytest.mark.parametrize("hook", [name for name in USER_HOOKS if "in place" in name])
def test_users_hooks_may_write_in_place(hook: str) -> None:
    x, y = data()
    check(partial(built, partial(Hooked, hook)), "layer", x, y, reference=other_samples)


def _pre_write(_module: nn.Module, args: Any) -> None:
    args[0].mul_(2)


@pytest.mark.may_fall_back
@pytest.mark.parametrize("where", ["", "stem", "block", "layer", "head"])
def test_users_hooks_may_write_to_arguments(where: str) -> None:
    def build() -> nn.Module:
        model = built(networks.SharedReLU)
        model.get_submodule(where).register_forward_pre_hook(_pre_write)
        return model

    x, y = data()
    before = x.clone()
    check(build, "layer", x, y)
    assert torch.equal(x, before)


@pytest.mark.may_fall_back
def test_users_hooks_for_all_modules_act_as_in_the_hook_loop() -> None:
    x, y = data()
    handles = [
        nn.modules.module.register_module_forward_pre_hook(
            lambda m, args: (args[0] + 0.1,) if isinstance(m, nn.Linear) else None
        ),
        nn.modules.module.register_module_forward_hook(
            lambda m, _a, out: out * 1.5 if isinstance(m, (nn.Linear, nn.ReLU)) else None
        ),
    ]
    try:
        check(partial(built, networks.SharedReLU), "layer", x, y, reference=other_samples)
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.may_fall_back
@pytest.mark.parametrize("where", ["block", "layer", "act", "tail", ""])
def test_users_hooks_receive_the_same_as_in_the_hook_loop(where: str) -> None:
    x, y = data()
    seen: dict[str, list[Tensor]] = {"engine": [], "oracle": []}

    def watched(who: str) -> nn.Module:
        model = built(networks.SharedReLU)
        model.get_submodule(where).register_forward_hook(lambda _m, _a, out: seen[who].append(out.clone()))
        return model

    curve = evaluate(watched("engine"), "layer", x, y)
    hook_loop(watched("oracle"), "layer", x, y, curve.order, curve.n_ablated, batch_size=3)
    assert is_exact(curve)
    for shown in seen["oracle"]:
        assert any(torch.equal(shown, other) for other in seen["engine"])


def test_hook_loop_of_these_tests_is_plain() -> None:
    x, y = data()
    model = built(Network)
    order = scores_for(model, "layer", x).argsort(descending=True)
    values = hook_loop(model, "layer", x, y, order, range(WIDTH + 1))
    hidden = model.layer(model.stem(x)).detach()
    for count in range(WIDTH + 1):
        ablated = hidden.clone()
        ablated[:, order[:count]] = 0
        outputs = model.head(ablated).detach()
        assert torch.equal(values[count], outputs[torch.arange(len(y)), y])
