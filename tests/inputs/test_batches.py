"""Data in every form: what comes in as tensors, loaders, dicts or generators comes out as checked batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from captum_ablate import Batch
from captum_ablate.inputs.batches import as_batches, batches_of_call
from captum_ablate.inputs.calling import call
from captum_ablate.inputs.model import device_of
from captum_ablate.inputs.targets import as_target


def samples():
    return torch.arange(20.0).reshape(10, 2), torch.arange(10) % 3


def joined(batches):
    """All samples of some batches: ``(inputs, labels)``."""
    batches = list(batches)
    return torch.cat([b.inputs[0] for b in batches]), torch.cat([b.target for b in batches])


def assert_same(batches, x, y):
    inputs, labels = joined(batches)
    assert torch.equal(inputs, x)
    assert torch.equal(labels, y)
    assert labels.dtype == torch.int64


class Samples(Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, i):
        return torch.tensor([2.0 * i, 2.0 * i + 1]), i % 3


class Stream(IterableDataset):
    def __iter__(self):
        return ((torch.tensor([2.0 * i, 2.0 * i + 1]), i % 3) for i in range(10))


@pytest.mark.parametrize(
    "data",
    [
        samples(),
        Batch((samples()[0],), samples()[1]),
        [(a, b) for a, b in zip(samples()[0].split(4), samples()[1].split(4), strict=True)],
        [[a, b.numpy()] for a, b in zip(samples()[0].split(4), samples()[1].split(4), strict=True)],
        tuple((a, b.tolist()) for a, b in zip(samples()[0].split(5), samples()[1].split(5), strict=True)),
        TensorDataset(*samples()),
        Samples(),
        DataLoader(Samples(), batch_size=3),
        DataLoader(Stream(), batch_size=3),
    ],
    ids=[
        "tensors",
        "batch",
        "tuples",
        "lists",
        "tuple of two",
        "tensor data set",
        "data set",
        "loader",
        "stream",
    ],
)
def test_every_form_holds_the_same_samples_each_time(data):
    batches = as_batches(data)
    assert_same(batches, *samples())
    assert_same(batches, *samples())


@pytest.mark.parametrize(("batch_size", "sizes"), [(None, [10]), (4, [4, 4, 2]), (1, [1] * 10), (11, [10])])
def test_batch_size_splits_tensors_with_an_uneven_end(batch_size, sizes):
    batches = as_batches(samples(), batch_size=batch_size)
    assert [len(b.target) for b in batches] == sizes
    assert len(batches) == len(sizes)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, True])
def test_a_batch_size_that_is_no_positive_int_is_refused(batch_size):
    with pytest.raises(ValueError, match="batch_size must be a positive int or None"):
        as_batches(samples(), batch_size=batch_size)


def test_additional_arguments_are_split_only_where_they_hold_one_entry_per_sample():
    x, y = samples()
    per_sample, shared = torch.arange(10), torch.arange(3)
    batches = list(as_batches(Batch((x,), y, (per_sample, shared, "mode")), batch_size=6))
    assert [b.additional_forward_args[0].tolist() for b in batches] == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9]]
    assert all(torch.equal(b.additional_forward_args[1], shared) for b in batches)
    assert all(b.additional_forward_args[2] == "mode" for b in batches)


def test_a_batch_of_several_inputs_has_its_labels_last():
    x, y = samples()
    (batch,) = as_batches([(x, 2 * x, y)])
    assert len(batch.inputs) == 2
    assert torch.equal(batch.inputs[1], 2 * x)
    assert torch.equal(batch.target, y)


@pytest.mark.parametrize(
    "as_result",
    [lambda d: Batch(d["x"], d["y"]), lambda d: ((d["x"],), d["y"]), lambda d: (d["x"], d["y"], ())],
)
def test_unpack_batch_reads_batches_of_another_form(as_result):
    x, y = samples()
    dicts = [{"x": a, "y": b} for a, b in zip(x.split(4), y.split(4), strict=True)]
    assert_same(as_batches(dicts, unpack_batch=as_result), x, y)


def test_dict_batches_without_unpack_batch_are_refused_with_the_way_in():
    x, y = samples()
    with pytest.raises(TypeError, match=r"got dict\. Pass unpack_batch=f, where f\(batch\) returns Batch"):
        list(as_batches([{"x": x, "y": y}]))


def test_unpack_batch_that_returns_something_else_is_refused():
    with pytest.raises(TypeError, match=r"unpack_batch must return Batch.*got dict"):
        list(as_batches([{"x": 1}], unpack_batch=lambda d: d))


@pytest.mark.parametrize("data", [torch.zeros(3, 2), np.zeros((3, 2)), {"x": 1}, "train", 3, None])
def test_what_is_no_data_is_refused(data):
    with pytest.raises(TypeError, match=r"data must be a tuple \(inputs, target\), or an iterable of batches"):
        as_batches(data)


@pytest.mark.parametrize("item", [(torch.zeros(3, 2),), [], ()])
def test_a_batch_without_inputs_or_labels_is_refused(item):
    with pytest.raises((ValueError, TypeError), match=r"has no inputs|missing"):
        list(as_batches([item]))


def test_a_one_shot_generator_serves_once():
    x, y = samples()
    batches = as_batches((a, b) for a, b in zip(x.split(4), y.split(4), strict=True))
    assert_same(batches, x, y)
    with pytest.raises(ValueError, match=r"one-shot generator.*pass a list of batches, a DataLoader"):
        list(batches)


@pytest.mark.parametrize("data", [[], [(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))], DataLoader([])])
def test_an_empty_data_set_is_refused(data):
    with pytest.raises(ValueError, match="the data set is empty"):
        list(as_batches(data))


def test_an_empty_batch_among_others_is_passed_over():
    x, y = samples()
    assert_same(as_batches([(x[:0], y[:0]), (x, y), (x[:0], y[:0])]), x, y)


def test_inputs_and_labels_of_different_counts_are_refused_with_both_and_the_batch():
    x, y = samples()
    with pytest.raises(ValueError, match=r"batch 1 has 3 labels for inputs of shape \(4, 2\)"):
        list(as_batches([(x[:4], y[:4]), (x[4:8], y[4:7])]))


def test_bad_labels_name_their_batch():
    x, y = samples()
    with pytest.raises(ValueError, match=r"target of batch 1 must hold one integer class per sample"):
        list(as_batches([(x, y), (x, y.float())]))


@pytest.mark.parametrize(
    "labels",
    [
        torch.tensor([3, 17, 250]),
        torch.tensor([3, 17, 250], dtype=torch.uint8),
        torch.tensor([3, 17, 250], dtype=torch.int16),
        torch.tensor([3, 17, 250], dtype=torch.int32),
        torch.tensor([3, 17, 250], dtype=torch.uint16),
        torch.tensor([[3], [17], [250]]),
        [3, 17, 250],
        [[3], [17], [250]],
        (3, 17, 250),
        [np.int64(3), np.int64(17), np.int64(250)],
        np.array([3, 17, 250]),
        np.array([3, 17, 250], dtype=np.uint8),
        np.array([[3], [17], [250]], dtype=np.uint64),
    ],
)
def test_labels_of_every_integer_form_are_read(labels):
    read = as_target(labels)
    assert read.dtype == torch.int64
    assert read.tolist() == [3, 17, 250]


def test_boolean_labels_are_two_classes():
    assert as_target(torch.tensor([True, False])).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (None, ValueError, "labels are missing"),
        (4, ValueError, r"got the single number 4\. One output index for all samples"),
        (np.int64(4), ValueError, "got the single number 4"),
        (torch.tensor(4), ValueError, "got the single number 4"),
        (
            torch.rand(4, 3),
            ValueError,
            r"torch\.float32 \(4, 3\).*Soft labels, multi-label targets and regression",
        ),
        (torch.ones(4, 3, dtype=torch.long), ValueError, r"torch\.int64 \(4, 3\)"),
        (np.array([0.5, 1.0]), ValueError, r"torch\.float64 \(2,\)"),
        (["a", "b"], TypeError, "must be integers"),
        ([[0, 1], [2]], TypeError, "must be integers"),
        ({0, 1}, TypeError, "must be integers"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels, error, message):
    with pytest.raises(error, match=message):
        as_target(labels)


def test_a_call_with_tensors_needs_a_target():
    x, y = samples()
    for inputs in (x, (x,), (x, y)):
        with pytest.raises(ValueError, match=r"target is missing: pass target=, the class of each sample"):
            batches_of_call(inputs, None, None, forward_func=None)


def test_a_call_with_batches_brings_its_own_labels_and_arguments():
    x, y = samples()
    for target, extra in ((y, None), (None, 3)):
        with pytest.raises(ValueError, match=r"go with tensor inputs; an iterable of batches brings its own"):
            batches_of_call([(x, y)], target, extra, forward_func=None)


def test_batches_move_to_the_device_of_the_model():
    model = nn.Linear(2, 2).to("meta")
    (batch,) = as_batches(
        Batch(samples()[0], samples()[1], (torch.ones(10), {"mask": torch.ones(3)})), forward_func=model
    )
    assert device_of(model).type == "meta"
    assert {batch.inputs[0].device.type, batch.target.device.type} == {"meta"}
    assert batch.additional_forward_args[0].device.type == "meta"
    assert batch.additional_forward_args[1]["mask"].device.type == "meta"


def test_the_device_is_that_of_parameters_or_else_of_buffers():
    assert device_of(nn.ReLU()) is None
    assert device_of(nn.BatchNorm1d(2, affine=False)).type == "cpu"
    assert device_of(nn.Linear(2, 2).to("meta").forward).type == "meta"
    assert device_of(lambda x: x) is None


def test_a_model_may_write_into_its_inputs_without_the_user_seeing_it():
    x, y = samples()
    before = x.clone()
    outputs = call(lambda a: a.mul_(2), Batch((x,), y))
    assert torch.equal(outputs, 2 * before)
    assert torch.equal(x, before)
