"""Data in two halves: disjoint, complete, seeded, every class in proportion, in any form that the library takes."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)

from captum_ablate import Batch
from captum_ablate.commands.halves import at_most, halves
from captum_ablate.inputs.batches import as_batches

N = 101
X = torch.arange(N, dtype=torch.float32)[:, None]
Y = torch.tensor([0] * 60 + [1] * 30 + [2] * 10 + [3])


class WithTargets(torch.utils.data.Dataset):
    targets = Y.tolist()

    def __len__(self):
        return N

    def __getitem__(self, k):
        return X[k], self.targets[k]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(list(zip(X, Y.tolist(), strict=True)))


class Shuffled:
    """Batches in another order at each pass."""

    def __init__(self):
        self.pass_ = 0

    def __iter__(self):
        self.pass_ += 1
        order = torch.randperm(N, generator=torch.Generator().manual_seed(self.pass_))
        for rows in order.split(17):
            yield X[rows], Y[rows]


FORMS = {
    "tensors": lambda: (X, Y),
    "arrays": lambda: (X.numpy(), Y.numpy()),
    "a batch": lambda: Batch((X,), Y),
    "a dict of inputs": lambda: ({"x": X}, Y),
    "a data set": lambda: WithTargets(),
    "a part of a data set": lambda: Subset(WithTargets(), range(N)),
    "tensors as a data set": lambda: TensorDataset(X, Y),
    "a loader": lambda: DataLoader(WithTargets(), batch_size=16),
    "a shuffling loader": lambda: DataLoader(WithTargets(), batch_size=16, shuffle=True),
    "a loader with a sampler": lambda: DataLoader(
        WithTargets(), batch_size=16, sampler=WeightedRandomSampler(torch.ones(N), N, replacement=False)
    ),
    "a loader with a sampler of batches": lambda: DataLoader(
        WithTargets(), batch_sampler=BatchSampler(RandomSampler(WithTargets()), 16, drop_last=False)
    ),
    "batches": lambda: [(X[:50], Y[:50]), (X[50:], Y[50:])],
    "shuffled batches": Shuffled,
    "a stream": Stream,
}
BY_DIGEST = {
    "a loader with a sampler",
    "a loader with a sampler of batches",
    "batches",
    "shuffled batches",
    "a stream",
}


def samples(data):
    """The numbers of all samples, and their labels, sorted."""
    found = []
    for batch in as_batches(data):
        (value,) = batch.inputs
        numbers = (value["x"] if isinstance(value, dict) else value).flatten().tolist()
        found += list(zip(map(int, numbers), batch.target.tolist(), strict=True))
    return sorted(found)


@pytest.mark.parametrize("form", FORMS)
def test_the_halves_are_disjoint_and_complete_in_every_pass(form):
    ranking, evaluation = halves(FORMS[form](), seed=0)
    for _ in range(2):
        assert sorted(samples(ranking) + samples(evaluation)) == list(zip(range(N), Y.tolist(), strict=True))
    assert 35 <= len(samples(ranking)) <= 66


@pytest.mark.parametrize("form", sorted(set(FORMS) - BY_DIGEST - {"tensors as a data set"}))
def test_every_class_is_in_proportion(form):
    ranking, evaluation = halves(FORMS[form](), seed=0)
    for k, n in enumerate(Y.bincount().tolist()):
        counts = [sum(label == k for _, label in samples(half)) for half in (ranking, evaluation)]
        assert abs(counts[0] - counts[1]) <= 1
        assert sum(counts) == n


@pytest.mark.parametrize("form", FORMS)
def test_a_seed_decides(form):
    first, again, other = (samples(halves(FORMS[form](), seed=seed)[0]) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_a_loader_keeps_its_options():
    def join(items):
        return torch.stack([x for x, _ in items]) + 1000, torch.tensor([y for _, y in items])

    ranking, _ = halves(DataLoader(WithTargets(), batch_size=7, collate_fn=join, num_workers=0), seed=0)
    assert ranking.batch_size == 7
    assert next(iter(ranking))[0].min() >= 1000


@pytest.mark.parametrize("form", sorted(set(FORMS) - BY_DIGEST))
def test_at_most_so_many_samples_keep_the_classes_in_proportion(form):
    found = samples(at_most(FORMS[form](), 20, 0, "--data"))
    assert len(set(found)) == 20
    assert samples(at_most(FORMS[form](), N + 5, 0, "--data")) == samples(FORMS[form]())
    if form != "tensors as a data set":  # which does not tell its labels
        assert sum(label == 0 for _, label in found) in (11, 12, 13)


def test_samples_without_positions_cannot_be_limited():
    with pytest.raises(ValueError, match="--samples needs data whose samples have positions: --data must be tensors"):
        at_most(FORMS["batches"](), 20, 0, "--data")


def test_one_sample_and_a_generator_are_refused():
    with pytest.raises(ValueError, match="at least two samples"):
        halves((X[:1], Y[:1]), seed=0)
    with pytest.raises(ValueError, match="one-shot generator"):
        halves(((X, Y) for _ in range(2)), seed=0)


def test_samples_that_cannot_be_told_apart_are_refused():
    class Graph:
        pass

    ranking, _ = halves([Batch((Graph(),), Y)], seed=0)
    with pytest.raises(ValueError, match="so they cannot be halved; pass --ranking-data"):
        list(ranking)


def test_batches_with_a_target_of_any_type_are_halved():
    target = torch.randn(N, 2)
    parts = halves([(X[:50], target[:50]), (X[50:], target[50:])], seed=0)
    found = [torch.cat([batch.target for batch in as_batches(part, classes=False)]) for part in parts]
    assert sorted(torch.cat(found).flatten().tolist()) == sorted(target.flatten().tolist())
