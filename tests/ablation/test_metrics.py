"""Per-sample metrics against loops over single samples, and their errors for outputs that they cannot use."""

from __future__ import annotations

import math

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_ablate.ablation.metrics import (
    accuracy,
    as_metric,
    check_labels,
    class_outputs,
    log_likelihood,
    logit,
    margin,
)
from captum_ablate.ablation.metrics import metric_name as name_of

METRICS = {"accuracy": accuracy, "log_likelihood": log_likelihood, "logit": logit, "margin": margin}
each = pytest.mark.parametrize("name", list(METRICS))


@each
@given(n=st.integers(1, 9), classes=st.integers(2, 7), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_a_metric_equals_the_loop_over_samples(name, n, classes, seed):
    stream = torch.Generator().manual_seed(seed)
    outputs = torch.randn(n, classes, generator=stream, dtype=torch.float64) * 5
    target = torch.randint(classes, (n,), generator=stream)
    values = as_metric(name)(outputs, target)
    assert values.shape == (n,)
    np.testing.assert_allclose(values.numpy(), oracles.metric_values(name, outputs, target.tolist()), atol=1e-10)


@each
def test_half_precision_outputs_are_measured_in_single(name):
    outputs, target = torch.tensor([[10.0, 10.01], [3.0, -3.0]]), torch.tensor([1, 0])
    for dtype in (torch.float16, torch.bfloat16):
        values = METRICS[name](outputs.to(dtype), target)
        assert values.dtype == torch.float32
        torch.testing.assert_close(values, METRICS[name](outputs.to(dtype).float(), target))


@each
def test_doubles_stay_doubles(name):
    values = METRICS[name](torch.randn(3, 4, dtype=torch.float64), torch.tensor([0, 1, 3]))
    assert values.dtype == (torch.float32 if name == "accuracy" else torch.float64)


@each
def test_large_outputs_do_not_overflow(name):
    values = METRICS[name](torch.tensor([[1e4, -1e4], [-1e4, 1e4]]), torch.tensor([0, 0]))
    assert torch.isfinite(values).all()
    assert values[0] > values[1]


def test_a_uniform_network_has_log_likelihood_minus_log_classes():
    values = log_likelihood(torch.zeros(5, 8), torch.arange(5))
    torch.testing.assert_close(values, torch.full((5,), -math.log(8)))


def test_a_positive_margin_means_right():
    outputs, target = torch.randn(50, 4), torch.arange(50) % 4
    assert torch.equal((margin(outputs, target) > 0).float(), accuracy(outputs, target))


@each
def test_outputs_are_not_written_to(name):
    outputs, target = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    before = outputs.clone(), target.clone()
    METRICS[name](outputs, target)
    assert torch.equal(outputs, before[0])
    assert torch.equal(target, before[1])


@each
@pytest.mark.parametrize("outputs", [torch.randn(5), torch.randn(4, 2, 2), torch.randn(3, 2), {"logits": 1}])
def test_outputs_without_classes_are_refused(name, outputs):
    with pytest.raises(ValueError, match=r"needs model outputs \[n, classes\] with n = 4, or one logit.*metric=f"):
        METRICS[name](outputs, torch.zeros(4, dtype=torch.long))


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_one_logit_is_the_difference_of_two(shape):
    z, target = torch.tensor([2.0, -1.0, -3.0, 0.5]), torch.tensor([1, 1, 0, 0])
    outputs = z.reshape(shape)
    assert METRICS["accuracy"](outputs, target).tolist() == [1, 0, 1, 0]
    assert METRICS["logit"](outputs, target).tolist() == [2, -1, 3, -0.5]
    assert METRICS["margin"](outputs, target).tolist() == [2, -1, 3, -0.5]
    bce = torch.nn.functional.binary_cross_entropy_with_logits(z, target.float(), reduction="none")
    torch.testing.assert_close(METRICS["log_likelihood"](outputs, target), -bce)
    assert METRICS["accuracy"](torch.full(shape, torch.nan), target).isnan().all()


@each
@pytest.mark.parametrize("bad", [-1, 3])
def test_labels_beyond_the_outputs_are_refused(name, bad):
    with pytest.raises(ValueError, match=rf"labels must be 0\.\.2, the indices of the model's 3 outputs; got {bad}"):
        check_labels(METRICS[name], torch.randn(2, 3), torch.tensor([0, bad]))


def test_a_users_metric_receives_labels_unchanged():
    check_labels(lambda outputs, target: outputs[:, 0], torch.randn(2, 3), torch.tensor([0, 99]))


def test_nan_outputs_are_neither_right_nor_wrong():
    values = accuracy(torch.tensor([[0.0, float("nan")], [1.0, 0.0]]), torch.tensor([0, 0]))
    assert torch.isnan(values[0])
    assert values[1] == 1


def test_a_metric_has_its_own_or_its_functions_name():
    def brier(outputs, target):
        return outputs[:, 0]

    assert name_of("logit") == "logit"
    assert name_of(brier) == "brier"
    assert as_metric(brier) is brier


def test_an_unknown_metric_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'accuracy', 'log_likelihood', 'logit', 'margin'.*got 'f1'"):
        as_metric("f1")


def test_logits_of_output_objects_are_found():
    class Output:
        logits = torch.zeros(2, 3)

    assert class_outputs(Output()) is Output.logits
    assert class_outputs(5) == 5
