"""The model, the process and other threads are unchanged, also after an error in the middle."""

from __future__ import annotations

import copy
import gc
import random
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import networks
import numpy as np
import pytest
import torch
from networks import NETWORKS, WIDTH, Network, built, data
from oracle import assert_matches, evaluated, hook_loop, one_thread
from torch import Tensor, nn


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def evaluate(model: Any, x: Tensor, y: Tensor, layer: str | None = None, units: int = WIDTH, **options: Any) -> Any:
    layer = layer or model.target_layer
    options = {"metric": "logit", "steps": None, "n_random": 2, "batch_size": 3, "seed": 0, **options}
    return evaluated(model, layer, torch.linspace(1, 0, units), (x, y), **options)


class Boom(Exception):
    """The error that the tests raise in the middle of a forward pass."""


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Return all changes that a user could see: identities of attributes and hooks, values, modes, the process."""
    state: dict[str, Any] = {}
    for name, module in model.named_modules():
        own = dict(module.__dict__)
        state[name, "attributes"] = {key: id(value) for key, value in own.items()}
        state[name, "containers"] = {
            key: [(k, id(v)) for k, v in value.items()] if isinstance(value, dict) else [id(v) for v in value]
            for key, value in own.items()
            if isinstance(value, (dict, list, set))
        }
        state[name, "class"] = type(module), module.training
    for name, parameter in model.named_parameters():
        grad = parameter.grad
        state[name, "parameter"] = id(parameter), parameter.data_ptr(), parameter.requires_grad, id(grad)
        state[name, "values"] = parameter.detach().clone(), None if grad is None else grad.clone()
    for name, buffer in model.named_buffers():
        state[name, "buffer"] = id(buffer), buffer.clone()
    state["process"] = process()
    return state


def process() -> dict[str, Any]:
    """Return the state of the process that an engine might be tempted to change."""
    module = nn.modules.module
    hooks = {k: list(v) for k, v in vars(module).items() if k.startswith("_global_") and isinstance(v, dict)}
    return {
        "call": nn.Module.__call__,
        "call impl": nn.Module._call_impl,
        "wrapped call": nn.Module._wrapped_call_impl,
        "setattr": nn.Module.__setattr__,
        "getattr": nn.Module.__getattr__,
        "linear": (nn.Linear.forward, nn.Linear.__call__, torch.nn.functional.linear, torch.where),
        "tensor": (Tensor.numpy, Tensor.add_, Tensor.item, Tensor.__iadd__, Tensor.clone),
        "sequential": (nn.Sequential.forward, nn.Sequential.__call__),
        "global hooks": hooks,
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "dtype": torch.get_default_dtype(),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": (torch.get_num_threads(), [t.name for t in threading.enumerate() if "tqdm" not in t.name]),
        "modes": len(torch.utils._python_dispatch._get_current_dispatch_mode_stack()),
        "functions": torch.overrides._len_torch_function_stack(),
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002  the state that users' code shares
    }


def assert_same(after: Any, before: Any, where: str = "") -> None:
    assert type(after) is type(before), where
    if isinstance(before, Tensor):
        assert torch.equal(after, before), where
    elif isinstance(before, np.ndarray):
        assert np.array_equal(after, before), where
    elif isinstance(before, dict):
        assert after.keys() == before.keys(), where
        for key in before:
            assert_same(after[key], before[key], f"{where} {key}")
    elif isinstance(before, (tuple, list)):
        assert len(after) == len(before), where
        for number, pair in enumerate(zip(after, before, strict=True)):
            assert_same(*pair, f"{where} {number}")
    else:
        assert after == before, where


def lived_in(make: Callable[[], nn.Module]) -> Any:
    """Return a model with hooks, gradients, frozen parameters and mixed modes, as in the middle of a user's work."""
    model = built(make)
    for parameter in list(model.parameters())[::2]:
        parameter.grad = torch.ones_like(parameter)
    list(model.parameters())[1].requires_grad_(False)
    for module in list(model.modules())[::2]:
        module.train()  # no dropout or batch norm in it: allowed
    model.layer.register_forward_hook(lambda _m, _a, out: out * 2)
    model.stem.register_forward_pre_hook(lambda _m, args: None)
    model.register_full_backward_hook(lambda _m, _i, _o: None)
    return model


MAKES = [
    networks.SharedReLU,
    networks.CountsCalls,
    networks.InplaceAfter,
    networks.DenseNet,
    networks.FillsOwnCache,
    partial(networks.Stashes, "read"),
    partial(networks.Stashes, "pop"),
    partial(networks.Stashes, "clear"),
    networks.CachesFirstCall,
    networks.Threads,
    networks.Parametrized,
]


@pytest.mark.may_fall_back
@pytest.mark.filterwarnings("ignore:.*full forward passes are used instead")
@pytest.mark.parametrize("make", MAKES)
def test_model_and_process_are_unchanged(make: Callable[[], nn.Module]) -> None:
    x, y = data()
    model = lived_in(make)
    before, inputs = snapshot(model), x.clone()
    evaluate(model, x, y)
    assert_same(snapshot(model), before)
    assert torch.equal(x, inputs)


COLLECTED_LATER = {
    "LayerLast": "its layer is named otherwise",
    "Threads": "the error of its thread, met in a capture, keeps its frames until the garbage collector runs",
    "InplaceLayerOnPart": "it has fewer units",
    "InnerGradient: across, unused allowed": "its gradient of a captured pass is freed by the garbage collector",
}
"""Networks left out of the test that weights are freed with the model, and why."""
ONE_OF_EACH = list({name.split(":")[0]: name for name in NETWORKS}.values())


@pytest.mark.may_fall_back
@pytest.mark.filterwarnings("ignore:.*full forward passes are used instead")
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_special_network_is_unchanged(name: str) -> None:
    x, y = data()
    model = built(NETWORKS[name])
    layer = {"LayerLast": "layer"}.get(name, model.target_layer)
    units = 4 if name == "InplaceLayerOnPart" else WIDTH
    before = snapshot(model)
    if name != "SecondName":  # another test asks which of two names is used
        evaluate(model, x, y, layer, units, n_random=0)
    assert_same(snapshot(model), before)


@pytest.mark.may_fall_back
@pytest.mark.parametrize(
    "make",
    [
        networks.RunsItsLayerTwice,
        networks.CallsForward,
        networks.UsesWeight,
        partial(networks.Drifts, "after"),
        partial(networks.Noisy, "torch", "before"),
        partial(networks.Noisy, "numpy", "after"),
    ],
)
def test_refused_model_is_unchanged(make: Callable[[], nn.Module]) -> None:
    x, y = data()
    model = lived_in(make)
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"times|did not run|repeat"):
        evaluate(model, x, y)
    assert_same(snapshot(model), before)


@pytest.mark.may_fall_back
def test_model_that_raises_when_all_is_ablated_is_unchanged() -> None:
    x, y = data()
    model = lived_in(networks.RaisesWhenAllAblated)
    model.layer._forward_hooks.clear()
    before = snapshot(model)
    with pytest.raises(FloatingPointError):
        evaluate(model, x, y)
    assert_same(snapshot(model), before)


class Bomb(networks.SharedReLU):
    """Raise once, at the given call of its stem, block or head, and count calls outside the model."""

    def __init__(self, where: str, fuse: list[int], error: type[BaseException]) -> None:
        super().__init__()

        def burn(_module: nn.Module, _args: Any) -> None:
            fuse[0] -= 1
            if fuse[0] == 0:
                raise error("the fuse is burnt")

        self.get_submodule(where).register_forward_pre_hook(burn)

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.block(self.stem(x)))
        return self.head(self.act(self.layer(h)) + h)


@pytest.mark.may_fall_back
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("where", ["", "stem", "head"])
@pytest.mark.parametrize("error", [Boom, KeyboardInterrupt, RuntimeError])
def test_error_at_any_call_changes_nothing(where: str, error: type[BaseException]) -> None:
    """The model's error is raised, or the batch is still evaluated correctly. An interrupt is always raised."""
    x, y = data(4)
    fuse = [-1]
    model = built(partial(Bomb, where, fuse, error))
    whole = evaluate(model, x, y)
    calls = -1 - fuse[0]
    assert calls > 2
    expected = torch.as_tensor(whole.values)
    before = snapshot(model)
    for number in sorted({*range(1, 8), *range(8, calls, 11), calls - 1, calls}):
        fuse[0] = number
        try:
            curve = evaluate(model, x, y)
        except error:
            pass
        else:
            assert fuse[0] > 0 or error is not KeyboardInterrupt, "an interrupt was swallowed"
            assert torch.equal(torch.as_tensor(curve.values), expected)
        fuse[0] = -1
        assert_same(snapshot(model), before)
    assert torch.equal(torch.as_tensor(evaluate(model, x, y).values), expected)


@pytest.mark.may_fall_back
@pytest.mark.parametrize("part", ["metric", "reference"])
@pytest.mark.parametrize("after", [0, 1, 2, 5, 9])
def test_error_of_the_users_function_changes_nothing(part: str, after: int) -> None:
    x, y = data()
    model = lived_in(networks.SharedReLU)
    before = snapshot(model)
    calls = [0]

    def fails(values: Tensor, target: Tensor) -> Tensor:
        calls[0] += 1
        if calls[0] > after:
            raise Boom
        return values.sum(1) if part == "metric" else values * 0.5

    options: dict[str, Any] = {part: fails}
    try:
        evaluate(model, x, y, **options)
    except Boom:
        pass
    else:
        assert calls[0] <= after, "the error of the user's function was swallowed"
    assert_same(snapshot(model), before)


def test_random_numbers_continue_as_if_nothing_had_run() -> None:
    x, y = data()
    torch.manual_seed(5)
    before = torch.rand(3)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), before)
    evaluate(built(networks.SharedReLU), x, y)
    assert torch.equal(torch.rand(3), expected)


def test_model_can_be_copied_and_trained_afterwards() -> None:
    x, y = data()
    model = built(networks.DenseNet)
    alone = copy.deepcopy(model)
    evaluate(model, x, y)
    for network in (model, alone):
        nn.functional.cross_entropy(network(x), y).backward()
    for mine, other in zip(model.parameters(), alone.parameters(), strict=True):
        assert (mine.grad is None) == (other.grad is None)
        assert mine.grad is None or torch.equal(mine.grad, other.grad)
    copy.deepcopy(model)(x)


@pytest.mark.may_fall_back
def test_no_activation_is_kept_alive() -> None:
    x, y = data()
    model = built(networks.DenseNet)
    alive: list[weakref.ref[Tensor]] = []
    for part in (model.stem, model.layer, model.second, model.head):
        part.register_forward_hook(lambda _m, _a, out: alive.append(weakref.ref(out)))
    curve = evaluate(model, x, y)
    gc.collect()
    assert alive
    assert not [ref for ref in alive if ref() is not None]
    del curve


def _freed(run: Callable[[nn.Module], object], make: Callable[[], nn.Module]) -> list[bool]:
    """Run a new model twice; tell for each weight whether it is freed with it, without a garbage collection."""
    model = make()
    run(model)
    gc.collect()
    gc.disable()
    try:
        run(model)
        weights = [weakref.ref(weight) for weight in model.parameters()]
        del model
        return [weight() is None for weight in weights]
    finally:
        gc.enable()


@pytest.mark.parametrize("layers", [["layer"], ["first.inner"], ["layer", "second"]])
@pytest.mark.parametrize("reference", ["zero", "mean", "resample"])
def test_weights_are_freed_with_the_model(layers: list[str], reference: str) -> None:
    """Objects that refer to each other keep GPU memory until Python happens to collect garbage."""
    x, y = data()
    scores = [torch.linspace(1, 0, WIDTH)] * len(layers)

    def run(model: nn.Module) -> None:
        layer, given = (layers[0], scores[0]) if len(layers) == 1 else (layers, scores)
        evaluated(model, layer, given, (x, y), batch_size=3, reference=reference, steps=4, n_random=2)

    assert all(_freed(run, lambda: built(networks.DenseNet)))


@pytest.mark.may_fall_back
@pytest.mark.filterwarnings("ignore:.*full forward passes are used instead")
@pytest.mark.parametrize("name", [name for name in ONE_OF_EACH if name not in COLLECTED_LATER])
def test_weights_of_special_networks_are_freed_with_the_model(name: str) -> None:
    x, y = data()

    def run(model: nn.Module) -> None:
        evaluate(model, x, y)

    with torch.no_grad():
        alone = _freed(lambda model: model(x.clone()), lambda: built(NETWORKS[name]))
    assert _freed(run, lambda: built(NETWORKS[name])) == alone


# --- other threads -----------------------------------------------------------------------------------


class Worker(threading.Thread):
    """Run ``task`` repeatedly until stopped, and keep its errors."""

    def __init__(self, task: Callable[[], bool]) -> None:
        super().__init__(daemon=True)
        self.task, self.stopped, self.rounds, self.errors = task, threading.Event(), 0, []

    def run(self) -> None:
        while not self.stopped.is_set():
            try:
                if not self.task():
                    self.errors.append("another result")
            except Exception as error:
                self.errors.append(repr(error))
            self.rounds += 1

    def __enter__(self) -> Worker:
        self.start()
        return self

    def __exit__(self, *_error: Any) -> None:
        self.stopped.set()
        self.join(20)


@pytest.mark.parametrize("make", [networks.SharedReLU, networks.DenseNet, Network])
def test_other_model_in_another_thread_is_undisturbed(make: Callable[[], Any]) -> None:
    x, y = data()
    model, other = built(make), built(make)  # the same classes, so that patching one would show
    with torch.no_grad():
        usual = other(x)
    seen: list[int] = []
    other.layer.register_forward_hook(lambda _m, _a, _out: seen.append(1))

    def task() -> bool:
        outputs = other(x)  # gradients are on in this thread, whatever the evaluation does in the other
        return outputs.requires_grad and torch.equal(outputs, usual)

    alone = torch.as_tensor(evaluate(model, x, y).values)
    with Worker(task) as worker:
        for _ in range(4):
            assert torch.equal(torch.as_tensor(evaluate(model, x, y).values), alone)
    assert worker.rounds > 3
    assert not worker.errors, worker.errors[0]
    assert len(seen) >= worker.rounds


def test_training_in_another_thread_is_undisturbed() -> None:
    x, y = data()
    model = built(networks.DenseNet)

    def trained(steps: int = 3) -> list[Tensor]:
        other = built(networks.DenseNet).train()
        optimiser = torch.optim.SGD(other.parameters(), 0.1)
        for _ in range(steps):
            optimiser.zero_grad()
            nn.functional.cross_entropy(other(x), y).backward()
            optimiser.step()
        return [p.detach().clone() for p in other.parameters()]

    with torch.random.fork_rng(devices=[]):  # `built` seeds the process: only before and after the threads
        usual = trained()
    start = copy.deepcopy(built(networks.DenseNet)).train()

    def task() -> bool:
        other = copy.deepcopy(start)
        optimiser = torch.optim.SGD(other.parameters(), 0.1)
        for _ in range(3):
            optimiser.zero_grad()
            nn.functional.cross_entropy(other(x), y).backward()
            optimiser.step()
        return all(torch.equal(p, q) for p, q in zip(other.parameters(), usual, strict=True))

    with Worker(task) as worker:
        for _ in range(4):
            evaluate(model, x, y)
    assert worker.rounds > 1
    assert not worker.errors, worker.errors[0]


def test_two_evaluations_in_two_threads_equal_hook_loop() -> None:
    x, y = data()
    models = [built(networks.SharedReLU), built(networks.DenseNet)]
    alone = [evaluate(model, x, y) for model in models]

    def task() -> bool:
        values = torch.as_tensor(evaluate(models[1], x, y).values)
        return torch.equal(values, torch.as_tensor(alone[1].values))

    with Worker(task) as worker:
        for _ in range(6):
            values = torch.as_tensor(evaluate(models[0], x, y).values)
            assert torch.equal(values, torch.as_tensor(alone[0].values))
    assert worker.rounds > 1
    assert not worker.errors, worker.errors[0]
    for model, curve in zip(models, alone, strict=True):
        twin = built(type(model))
        expected = hook_loop(twin, "layer", x, y, curve.order, curve.n_ablated, batch_size=3)
        assert_matches(curve, expected)
