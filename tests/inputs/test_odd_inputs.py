"""Inputs and labels in every container that people have give the numbers of plain tensors."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from captum.attr import LayerGradientXActivation
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from captum_ablate import Batch, CumulativeAblationEvaluator, LayerMeanActivity, unit_scores
from captum_ablate.inputs.batches import as_batches
from captum_ablate.inputs.targets import as_target

N = 24


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 3)).eval()


@pytest.fixture
def data():
    torch.manual_seed(1)
    return torch.randn(N, 6), torch.arange(N) % 3


class Unpacking(nn.Module):
    """A model that reads its tensor out of whatever holds it."""

    def __init__(self, net, read):
        super().__init__()
        self.net, self.read = net, read

    def forward(self, held):
        return self.net(self.read(held))


@dataclasses.dataclass
class Graph:
    nodes: torch.Tensor


def as_list(x):
    return list(x.unbind())


HOLDERS = {
    "user dict": (lambda x: collections.UserDict(x=x), lambda held: held["x"]),
    "data class": (Graph, lambda held: held.nodes),
    "list of samples": (as_list, torch.stack),
    "dict with None": (lambda x: {"x": x, "mask": None}, lambda held: held["x"]),
    "dict": (lambda x: {"x": x}, lambda held: held["x"]),
    "ordered dict": (lambda x: collections.OrderedDict(x=x), lambda held: held["x"]),
    "tuple": (lambda x: (x[:, :3], x[:, 3:]), lambda held: torch.cat(held, 1)),
    "dict of lists": (lambda x: {"x": as_list(x)}, lambda held: torch.stack(held["x"])),
    "texts": (
        lambda x: [" ".join(map(repr, row)) for row in x.tolist()],
        lambda held: torch.tensor([[float(word) for word in text.split()] for text in held]),
    ),
    "packed": (
        lambda x: nn.utils.rnn.pack_padded_sequence(x[:, None], torch.ones(len(x), dtype=torch.long), batch_first=True),
        lambda held: nn.utils.rnn.pad_packed_sequence(held, batch_first=True)[0][:, 0],
    ),
    "sparse": (torch.Tensor.to_sparse, torch.Tensor.to_dense),
    "sparse rows": (torch.Tensor.to_sparse_csr, torch.Tensor.to_dense),
}


@pytest.mark.parametrize("kind", HOLDERS)
@pytest.mark.parametrize("batch_size", [None, 5])
@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_samples_may_be_held_by_anything(net, data, kind, batch_size):
    wrap, read = HOLDERS[kind]
    x, y = data
    model = Unpacking(net, read)
    held = Batch((wrap(x),), y)
    assert torch.allclose(
        LayerMeanActivity(model, "net.1").attribute(held, batch_size=batch_size),
        LayerMeanActivity(net, "1").attribute(x, target=y),
    )
    own = CumulativeAblationEvaluator(model, "net.1", n_random=2, reference="mean", steps=None)
    plain = CumulativeAblationEvaluator(net, "1", n_random=2, reference="mean", steps=None)
    curve = own.evaluate(LayerMeanActivity(model, "net.1"), held, batch_size=batch_size)
    assert torch.equal(curve.values, plain.evaluate(LayerMeanActivity(net, "1"), (x, y)).values)


def test_samples_that_cannot_be_cut_say_why(data):
    x, y = data
    with pytest.raises(ValueError, match=r"cannot be cut apart: argument 0 is, or holds, UserDict"):
        Batch((collections.UserDict(x=x),), y).take(slice(2))
    with pytest.raises(ValueError, match="no argument has one row for each of the 24 samples"):
        Batch((x[:5],), y).take(slice(2))


@pytest.mark.parametrize(
    "convert",
    [
        np.asarray,
        lambda x: x.numpy().astype(np.float64),
        lambda x: x.flip(0).numpy()[::-1],
        lambda x: np.asarray(x, dtype=">f4"),
        lambda x: pd.DataFrame(x.numpy(), index=range(100, 100 + N)),
        lambda x: pd.DataFrame(x.numpy().astype(object)),
    ],
    ids=["numpy", "float64", "negative strides", "big endian", "frame", "objects"],
)
def test_inputs_may_be_numpy_or_pandas(net, data, convert):
    x, y = data
    expected = LayerMeanActivity(net, "1").attribute(x, target=y)
    assert torch.allclose(LayerMeanActivity(net, "1").attribute(convert(x), target=y), expected)
    assert torch.allclose(LayerMeanActivity(net, "1").attribute([(convert(x), y)]), expected)
    scores = unit_scores(LayerGradientXActivation(net, net[1]), (convert(x), y))
    assert torch.allclose(scores, unit_scores(LayerGradientXActivation(net, net[1]), (x, y)))
    evaluator = CumulativeAblationEvaluator(net, "1", n_random=2)
    curve = evaluator.evaluate(expected, (convert(x), y))
    assert torch.allclose(curve.values, evaluator.evaluate(expected, (x, y)).values)


def test_a_model_in_double_precision_gets_doubles(net, data):
    x, y = data
    found = LayerMeanActivity(net.double(), "1").attribute(x.numpy(), target=y)
    assert torch.allclose(found, LayerMeanActivity(net, "1").attribute(x.double(), target=y))


def test_a_frame_with_strings_is_refused_in_words(net, data):
    frame = pd.DataFrame({"a": ["x"] * N, "b": range(N)})
    with pytest.raises(TypeError, match=r"the inputs of batch 0 must be numbers.*got DataFrame with 'x'"):
        LayerMeanActivity(net, "1").attribute(frame, target=data[1])


@pytest.mark.parametrize(
    "convert",
    [
        lambda y: y.flip(0).numpy()[::-1],
        lambda y: pd.Series(y.numpy(), index=range(500, 500 + N)),
        lambda y: pd.Series(y.numpy(), dtype="category"),
        lambda y: pd.Series(y.numpy(), dtype="Int64"),
        lambda y: pd.Series(y.numpy(), dtype=object),
        lambda y: pd.DataFrame({"label": y.numpy()}),
        lambda y: pd.Index(y.numpy()),
        lambda y: list(y),
        lambda y: [np.int64(label) for label in y],
    ],
    ids=["negative strides", "series", "category", "Int64", "object", "frame", "index", "tensors", "numpy ints"],
)
def test_labels_come_in_every_container(net, data, convert):
    x, y = data
    assert torch.equal(as_target(convert(y)), y)
    assert_same_curve(net, (x, convert(y)), data)


def assert_same_curve(net, own, data):
    evaluator = CumulativeAblationEvaluator(net, "1", n_random=2)
    scores = torch.arange(7.0)
    assert torch.equal(evaluator.evaluate(scores, own).values, evaluator.evaluate(scores, data).values)


@pytest.mark.parametrize("labels", [["cat"] * N, np.array(["cat"] * N), pd.Series(["cat"] * N)])
def test_strings_are_to_be_encoded(net, data, labels):
    with pytest.raises(TypeError, match=r"holds strings such as 'cat'; encode them: .*numpy.unique\(labels"):
        LayerMeanActivity(net, "1").attribute(data[0], target=labels)
    with pytest.raises(TypeError, match=r"holds strings such as 'cat'; encode them"):
        CumulativeAblationEvaluator(net, "1").evaluate(torch.arange(7.0), (data[0], labels))


class Dicts(Dataset):
    def __init__(self, data):
        self.data = data

    def __len__(self):
        return N

    def __getitem__(self, i):
        return {"x": self.data[0][i], "y": int(self.data[1][i])}


class Pairs(Dataset):
    def __init__(self, data):
        self.data = data

    def __len__(self):
        return N

    def __getitem__(self, i):
        return self.data[0][i], int(self.data[1][i])


class Samples(IterableDataset):
    def __init__(self, data):
        self.data = data

    def __iter__(self):
        return iter([(x, int(y)) for x, y in zip(*self.data, strict=True)])


class ReadyBatches(Samples):
    def __iter__(self):
        return iter(zip(self.data[0].split(5), self.data[1].split(5), strict=True))


def unpack(batch):
    return Batch(batch["x"], batch["y"])


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (Dicts, {"unpack_batch": unpack}),
        (lambda d: DataLoader(Dicts(d), batch_size=7), {"unpack_batch": unpack}),
        (lambda d: DataLoader(Pairs(d), batch_size=7, num_workers=1), {}),
        (lambda d: DataLoader(Pairs(d), batch_size=8, drop_last=True), {}),
        (lambda d: DataLoader(Pairs(d), batch_size=None, sampler=[list(range(12)), list(range(12, N))]), None),
        (Samples, {}),
        (ReadyBatches, {}),
    ],
    ids=["dicts", "loader of dicts", "worker", "drop last", "own batches", "samples", "batches"],
)
def test_data_sets_of_every_kind(net, data, make, options):
    if options is None:
        pairs = [(data[0][:12], data[1][:12]), (data[0][12:], data[1][12:])]
        made, options = pairs, {}
    else:
        made = make(data)
    evaluator = CumulativeAblationEvaluator(net, "1", n_random=2)
    scores = torch.arange(7.0)
    curve = evaluator.evaluate(scores, made, **options)
    assert torch.equal(curve.values, evaluator.evaluate(scores, data).values)
    expected = LayerMeanActivity(net, "1").attribute(data[0], target=data[1])
    assert torch.allclose(LayerMeanActivity(net, "1").attribute(made, **options), expected)


def test_estimate_takes_batches_of_dicts(net, data):
    loader = DataLoader(Dicts(data), batch_size=7)
    evaluator = CumulativeAblationEvaluator(net, "1", n_random=2)
    found = evaluator.estimate({"mean": LayerMeanActivity(net, "1")}, loader, unpack_batch=unpack)
    assert found.batches == 4
    assert found.seconds > 0


def test_a_function_that_makes_batches_is_refused_with_what_to_pass(data):
    def batches():
        yield data

    with pytest.raises(TypeError, match=r"got function; if it makes batches, pass a list of them, list\(f\(\)\)"):
        as_batches(batches)


def test_a_list_of_single_samples_is_refused_with_what_to_pass(data):
    samples = [(x, int(y)) for x, y in zip(*data, strict=True)]
    with pytest.raises(ValueError, match=r"single samples: join them to batches with DataLoader"):
        list(as_batches(samples))


def test_a_tuple_of_tensors_is_refused_with_what_to_pass(data):
    with pytest.raises(TypeError, match=r"several inputs with labels are one tuple \(inputs, target\): \(\(x1, x2\)"):
        as_batches((data[0], data[0], data[1]))


@pytest.mark.parametrize("size", [np.int64(5), np.int32(5), torch.tensor(5)])
def test_whole_numbers_of_every_type_are_numbers(net, data, size):
    assert [len(b.target) for b in as_batches(data, batch_size=size)] == [5, 5, 5, 5, 4]
    one = type(size)(1) if isinstance(size, np.integer) else 1
    evaluator = CumulativeAblationEvaluator(net, "1", unit_dim=one, n_random=size, seed=size, steps=size)
    plain = CumulativeAblationEvaluator(net, "1", n_random=5, seed=5, steps=5)
    scores = torch.arange(7.0)
    own, expected = evaluator.evaluate(scores, data, batch_size=size), plain.evaluate(scores, data)
    assert torch.equal(own.values, expected.values)
    assert own.gap == expected.gap
