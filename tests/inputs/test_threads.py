"""Threads: calls on one model take turns, calls on two models do not, and the user's own passes stay their own."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from captum.attr import LayerConductance, LayerDeepLift, LayerGradientShap, LayerIntegratedGradients
from torch import nn

from captum_ablate import (
    CumulativeAblationEvaluator,
    LayerClassSelectivity,
    LayerLinearProbe,
    LayerMeanActivity,
    LayerMutualInformation,
    LayerTaylor,
    LayerUnitAblation,
    LayerWeightNorm,
    attribute_together,
    unit_scores,
)
from captum_ablate.diagnostics import activation_spectrum
from captum_ablate.inputs.threads import hooks_of_own_pass, one_at_a_time
from captum_ablate.inputs.unchanged import unchanged

pytestmark = pytest.mark.filterwarnings("ignore:.*")


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 3)
    return nn.Sequential(*layers).eval()


def samples(n: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(1)), torch.arange(n) % 3


def calls_of(model: nn.Module) -> dict[str, object]:
    """One call of each kind, each of which returns tensors."""
    x, y = samples()

    def compared(reference: str) -> list[torch.Tensor]:
        evaluator = CumulativeAblationEvaluator(model, "1", reference=reference, n_random=3, steps=4, metric="logit")
        methods = {
            "activity": LayerMeanActivity(model, "1"),
            "conductance": LayerConductance(model, model[1]),
            "shap": partial(unit_scores, LayerGradientShap(model, model[1]), baselines=x[:5]),
        }
        found = evaluator.compare(methods, (x, y), batch_size=20)
        return [found[name].values for name in methods]

    return {
        "activity": lambda: [LayerMeanActivity(model, "3").attribute(x, target=y)],
        "selectivity": lambda: [LayerClassSelectivity(model, "1").attribute(x, target=y, batch_size=20)],
        "information": lambda: [LayerMutualInformation(model, "1").attribute(x, target=y)],
        "probe": lambda: [LayerLinearProbe(model, "1", C=1.0).attribute(x, target=y)],
        "ablation": lambda: [LayerUnitAblation(model, "1", reference="mean").attribute(x, target=y)],
        "taylor": lambda: [LayerTaylor(model, "1").attribute(x, target=y)],
        "norms": lambda: [LayerWeightNorm(model, "1").attribute(x, target=y)],
        "together": lambda: list(
            attribute_together({"a": LayerMeanActivity(model, "1"), "b": LayerMeanActivity(model, "3")}, x, y).values()
        ),
        "conductance": lambda: [unit_scores(LayerConductance(model, model[1]), (x, y), n_steps=5)],
        "gradients": lambda: [unit_scores(LayerIntegratedGradients(model, model[3]), (x, y), n_steps=5)],
        "deeplift": lambda: [unit_scores(LayerDeepLift(model, model[1]), (x, y))],
        "spectrum": lambda: [torch.tensor(activation_spectrum(model, "1", x, replicates=0).eigenvalues)],
        "zero": lambda: compared("zero"),
        "mean": lambda: compared("mean"),
    }


def assert_same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def hooks_of(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules())


def test_four_threads_on_one_model_get_what_one_gets():
    model = network()
    calls = calls_of(model)
    expected = {name: call() for name, call in calls.items()}
    names = [random.Random(thread).sample([*calls, *calls], 20) for thread in range(4)]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(lambda own: [calls[name]() for name in own], names)]
    for own, results in zip(names, found, strict=True):
        for name, result in zip(own, results, strict=True):
            assert_same(result, expected[name])
    assert hooks_of(model) == 0
    assert "__call__" not in vars(torch.Tensor)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_threads_on_models_of_their_own_get_what_one_gets():
    calls = [calls_of(network(seed)) for seed in range(3)]
    names = ["zero", "information", "shap", "mean", "conductance", "zero"]
    names = [name for name in names if name in calls[0]]
    expected = [[own[name]() for name in names] for own in calls]
    with ThreadPoolExecutor(3) as pool:
        found = [*pool.map(lambda own: [own[name]() for name in names], calls)]
    for results, right in zip(found, expected, strict=True):
        for one, other in zip(results, right, strict=True):
            assert_same(one, other)


@pytest.mark.parametrize("kind", ["activity", "zero"])
def test_two_models_run_at_the_same_time(kind):
    meeting = threading.Barrier(2, timeout=60)

    class Meets(nn.Module):
        met = False

        def forward(self, x):
            if not self.met:
                self.met = True
                meeting.wait()  # passes only where both models are inside a forward pass
            return x

    def work(seed):
        model = nn.Sequential(*network(seed), Meets()).eval()
        return calls_of(model)[kind]()

    with ThreadPoolExecutor(2) as pool:
        assert len([*pool.map(work, range(2))]) == 2


class Checked(threading.Thread):
    """A user's own forward passes, until it is stopped, held against what they returned before."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.x = model, torch.randn(4, 6)
        self.expected, self.wrong, self.passes, self.on = model(self.x).detach(), 0, 0, True

    def run(self) -> None:
        while self.on:
            self.passes += 1
            self.wrong += not torch.equal(self.model(self.x).detach(), self.expected)


@pytest.mark.parametrize(
    "kind",
    ["activity", "together", "taylor", "norms", "ablation", "conductance", "gradients", "deeplift", "zero", "mean"],
)
@pytest.mark.parametrize("starts", ["before", "inside"])
def test_the_users_own_passes_are_neither_heard_nor_changed(kind, starts):
    model = network()
    expected = calls_of(model)[kind]()
    own = Checked(model)
    late = None
    if starts == "inside":
        late = model[4].register_forward_hook(lambda *_: None if own.ident else own.start())
    else:
        own.start()
    try:
        for _ in range(4):
            assert_same(calls_of(model)[kind](), expected)
    finally:
        own.on = False
        own.join()
        if late is not None:
            late.remove()
    assert own.wrong == 0
    assert own.passes > 0
    assert hooks_of(model) == 0


def test_a_layer_that_runs_in_a_thread_of_the_model_is_heard():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right, self.head = nn.Linear(6, 5), nn.Linear(6, 5), nn.Linear(5, 3)

        def forward(self, x):
            with ThreadPoolExecutor(2) as pool, torch.no_grad():
                left, right = pool.map(lambda branch: branch(x).detach(), (self.left, self.right))
            return self.head(left * right)

    model, (x, y) = Branches().eval(), samples()
    expected = torch.stack([model.right(x)[y == c].mean(0) for c in range(3)]).mean(0).detach().double()
    torch.testing.assert_close(LayerMeanActivity(model, "right").attribute(x, target=y), expected, rtol=1e-5, atol=1e-6)


def test_a_function_and_its_model_take_turns():
    model, (x, y) = network(), samples()
    expected = LayerMeanActivity(model, "1").attribute(x, target=y)
    inside, highest, lock = [0], [0], threading.Lock()

    def forward(batch):
        with lock:
            inside[0] += 1
            highest[0] = max(highest[0], inside[0])
        outputs = model(batch)
        with lock:
            inside[0] -= 1
        return outputs

    def work(_):
        return LayerMeanActivity(forward, model[1]).attribute(x, target=y, batch_size=2)

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(work, range(8)):
            torch.testing.assert_close(found, expected)
    assert highest[0] == 1


def test_random_states_come_back_when_the_last_thread_is_done():
    early, late = network(), network(1)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    first, second = threading.Event(), threading.Event()

    def one():
        with unchanged(early):
            torch.rand(3)
            first.set()
            assert second.wait(60)

    def other():
        assert first.wait(60)
        with unchanged(late):
            np.random.rand(2), random.random()  # noqa: NPY002
            second.set()
            thread.join(60)

    thread = threading.Thread(target=one)
    thread.start()
    other()
    thread.join()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert random.getstate() == states[2]


def test_two_threads_that_would_wait_for_ever_are_refused():
    left, right = nn.Linear(1, 1), nn.Linear(1, 1)
    ready, refused = threading.Barrier(2, timeout=60), []

    def work(first, second):
        with one_at_a_time([first]):
            ready.wait()
            try:
                with one_at_a_time([second]):
                    pass
            except RuntimeError as error:
                refused.append(str(error))

    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(work, left, right), pool.submit(work, right, left)]
        for one in done:
            one.result(60)
    assert len(refused) == 1
    assert "wait for each other" in refused[0]


def test_a_call_that_fails_lets_the_next_thread_in():
    model, (x, y) = network(), samples()
    with pytest.raises(ValueError, match="unit_dim"):
        LayerMeanActivity(model, "1", unit_dim=5).attribute(x, target=y)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(LayerMeanActivity(model, "1").attribute, x, y).result(60).shape == (12,)


def test_registering_hooks_is_as_before_afterwards():
    before = nn.Module.register_forward_hook, nn.Module.register_forward_pre_hook
    with hooks_of_own_pass(), hooks_of_own_pass():
        assert nn.Module.register_forward_hook is not before[0]
    assert before == (nn.Module.register_forward_hook, nn.Module.register_forward_pre_hook)
