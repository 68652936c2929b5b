"""Digests: the same sample has the same one wherever and however it comes, and any difference changes it."""

from __future__ import annotations

import hashlib
from collections import UserDict

import numpy as np
import pytest
import torch
from torch import nn

from captum_ablate import Batch
from captum_ablate.inputs.batches import as_batches
from captum_ablate.inputs.fingerprint import DataDigest, sample_digests, weights_digest
from captum_ablate.inputs.unchanged import unchanged


@pytest.fixture
def data():
    return torch.randn(12, 3, 4), torch.arange(12) % 3


def all_digests(data, **options):
    return [one for batch in as_batches(data, **options) for one in sample_digests(batch)]


def digest_of(batches):
    found = DataDigest()
    for batch in as_batches(batches):
        found.add(batch)
    return found


def test_a_digest_is_what_the_docstring_says():
    """Hash the bytes by hand: a text is its length in 8 bytes and itself, a head names argument, type and shape."""

    def text(value):
        return len(value).to_bytes(8, "little") + value.encode()

    x = np.array([[1.5, -2.0]], dtype="<f4")
    heads = text("0 torch.float32 (2,)") + text("1 text ()") + text("'target' torch.int64 ()")
    rows = x.tobytes() + text("a word") + (7).to_bytes(8, "little")
    (found,) = sample_digests(Batch((torch.from_numpy(x), ["a word"]), torch.tensor([7])))
    assert found == hashlib.blake2b(heads + rows, digest_size=16).digest()
    assert found.hex() == "644ca76f8366fb3124102b9dd48a2d7b"  # saved results and checkpoints hold such numbers


def test_neither_batches_nor_memory_nor_device_matter(data):
    x, y = data
    expected = all_digests((x, y))
    assert len(set(expected)) == 12
    assert {len(one) for one in expected} == {16}
    for size in (1, 5, 12):
        assert all_digests((x, y), batch_size=size) == expected
    strided = torch.randn(12, 4, 3).transpose(1, 2)
    strided.copy_(x)
    assert not strided.is_contiguous()
    assert all_digests((strided, y)) == expected
    assert all_digests((x.numpy(), y.to(torch.int32))) == expected
    grown = nn.Parameter(x.clone())
    assert all_digests((grown, y)) == expected
    if torch.cuda.is_available():
        assert sample_digests(Batch((x.cuda(),), y.cuda())) == sample_digests(Batch((x,), y))


def test_every_part_of_a_sample_counts_and_what_is_shared_does_not():
    x, more, y, mask = torch.randn(4, 3), torch.randn(4, 2), torch.zeros(4, dtype=torch.long), torch.ones(4, 3) > 0
    plain = Batch((x,), y, (more, torch.randn(5), 2.0, ["a", "b", "c", "d"]), position_mask=mask)
    first = sample_digests(plain)
    assert sample_digests(
        plain._replace(additional_forward_args=(more, torch.zeros(5), 3.0, ["a", "b", "c", "d"]))
    ) == (first)
    others = [
        plain._replace(inputs=(x + 1,)),
        plain._replace(inputs=(x.double(),)),
        plain._replace(inputs=(x[:, :, None],)),
        plain._replace(target=y + 1),
        plain._replace(additional_forward_args=(more + 1, *plain.additional_forward_args[1:])),
        plain._replace(additional_forward_args=(*plain.additional_forward_args[:3], ["e", "b", "c", "d"])),
        plain._replace(position_mask=~mask),
        plain._replace(position_mask=None),
    ]
    assert len({first[0], *(sample_digests(one)[0] for one in others)}) == len(others) + 1
    shared = Batch((x, torch.randn(4, 4)), y, shared=(1,))
    assert sample_digests(shared) == sample_digests(shared._replace(inputs=(x, torch.zeros(4, 4))))


def test_keys_name_arguments_whatever_their_order():
    ids, length = torch.arange(6).view(3, 2), torch.tensor([1, 2, 1])
    y = torch.zeros(3, dtype=torch.long)
    one = sample_digests(Batch(({"ids": ids, "length": length},), y))
    assert one == sample_digests(Batch(({"length": length, "ids": ids},), y))
    assert one != sample_digests(Batch(({"ids": ids, "size": length},), y))
    words = np.array(["a", "b", "a"])
    found = sample_digests(Batch(({"ids": ids, "word": words},), y))
    assert len(set(found)) == 3
    assert found != sample_digests(Batch(({"ids": ids, "word": np.array(["a", "c", "a"])},), y))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(4, 3).bfloat16(),
        torch.randn(4, 3).half(),
        torch.complex(torch.randn(4, 3), torch.randn(4, 3)).conj(),
        torch.rand(4, 3) > 0.5,
        torch.zeros(4, 0),
        torch.randn(4, 3).relu().to_sparse(),
        torch.quantize_per_tensor(torch.randn(4, 3), 0.1, 0, torch.qint8),
    ],
    ids=["bfloat16", "half", "complex", "bool", "empty", "sparse", "quantised"],
)
def test_any_type_has_a_digest(tensor):
    y = torch.arange(4)
    found = sample_digests(Batch((tensor,), y))
    assert len(set(found)) == 4
    if tensor.layout == torch.strided:
        assert sample_digests(Batch((tensor[1:],), y[1:])) == found[1:]


def test_minus_zero_and_nan_are_bytes_too():
    x = torch.tensor([[0.0], [-0.0], [float("nan")], [float("nan")]])
    first, second, third, fourth = sample_digests(Batch((x,), torch.zeros(4, dtype=torch.long)))
    assert first != second
    assert third == fourth


def test_samples_that_cannot_be_cut_have_none():
    graph = UserDict(x=torch.randn(4, 3))
    y = torch.arange(4)
    ragged = torch.nested.nested_tensor([torch.randn(k, 2) for k in (1, 2, 3, 1)])
    for inputs in ((graph,), ([torch.randn(k, 2) for k in (1, 2, 3, 1)],), (ragged,), (torch.randn(4, 2), ragged)):
        assert sample_digests(Batch(inputs, y)) is None
    data = DataDigest()
    data.add(Batch((torch.randn(2, 3),), torch.arange(2)))
    data.add(Batch((graph,), y))
    assert (data.known, data.n, data.hexdigest()) == (False, 6, None)
    assert data.shared_with(digest_of((torch.randn(4, 3), y))) is None


def test_the_digest_of_a_data_set_counts_samples_and_not_their_order(data):
    x, y = data
    order = torch.randperm(12)
    whole = digest_of((x, y))
    assert whole.n == 12
    assert whole.hexdigest() == digest_of([(x[order[:5]], y[order[:5]]), (x[order[5:]], y[order[5:]])]).hexdigest()
    assert whole.hexdigest() != digest_of((x[:11], y[:11])).hexdigest()
    twice = torch.tensor([*range(12), 0])
    doubled = digest_of((x[twice], y[twice]))
    assert doubled.hexdigest() != whole.hexdigest()
    assert (doubled.shared_with(whole), whole.shared_with(doubled)) == (13, 12)
    assert digest_of((x[:4], y[:4])).shared_with(digest_of((x[3:], y[3:]))) == 1
    assert digest_of((x[:4], y[:4])).shared_with(digest_of((x[4:], y[4:]))) == 0


def test_batches_keep_the_digest_of_their_first_whole_pass(data):
    batches = as_batches(data, batch_size=5)
    list(batches)
    assert batches.digest is None  # nobody asked
    batches.keep_digest()
    next(iter(batches))
    assert batches.digest is None
    assert len(list(batches)) == 3
    first = batches.digest
    assert first.hexdigest() == digest_of(data).hexdigest()
    list(batches)
    assert batches.digest is first


def test_digests_of_parts_add_up(data):
    x, y = data
    whole = digest_of((x[:5], y[:5]))
    whole.extend(digest_of((x[5:], y[5:])))
    assert (whole.n, whole.hexdigest()) == (12, digest_of(data).hexdigest())
    graph = DataDigest()
    graph.add(Batch((UserDict(x=x),), y))
    whole.extend(graph)
    assert (whole.n, whole.known, whole.hexdigest()) == (24, False, None)


def test_the_digest_of_weights_follows_every_value_and_name(dense):
    whole = weights_digest(dense)
    assert len(whole) == 32
    assert whole == weights_digest(dense.forward)
    assert whole == weights_digest(nn.Sequential(*dense))
    with torch.no_grad():
        dense[0].bias[2] += 1
    assert whole != weights_digest(dense)
    assert weights_digest(nn.Sequential(nn.Identity(), nn.Linear(2, 2))) != weights_digest(nn.Linear(2, 2))
    normed = nn.BatchNorm1d(3)
    before = weights_digest(normed)
    normed.running_mean += 1
    assert weights_digest(normed) != before
    assert weights_digest(lambda x: x) is None
    assert weights_digest(nn.Linear(2, 2, device="meta")) is None


def test_quantised_weights_have_a_digest():
    torch.manual_seed(1)
    nets = [nn.Sequential(nn.Linear(4, 3)) for _ in range(2)]
    one, other = (torch.ao.quantization.quantize_dynamic(net, {nn.Linear}) for net in nets)
    assert weights_digest(one) == weights_digest(one) != weights_digest(other)


@pytest.mark.parametrize("place", [0, 16_383, 16_384, 70_000, 99_998, 99_999])
def test_any_bit_of_large_weights_counts(place: int) -> None:
    layer = nn.Linear(100_003, 1, bias=False)
    before = weights_digest(layer)
    layer.weight.data.view(torch.int32)[0, place] ^= 1
    assert weights_digest(layer) != before
    layer.weight.data.view(torch.int32)[0, place] ^= 1
    assert weights_digest(layer) == before


def test_swapped_values_of_large_weights_count() -> None:
    layer = nn.Linear(100_000, 1, bias=False)
    before = weights_digest(layer)
    layer.weight.data[0, :4] = layer.weight.data[0, [2, 3, 0, 1]].clone()
    assert weights_digest(layer) != before


WEIGHTS = {
    "coo": lambda: torch.eye(4).to_sparse(),
    "csr": lambda: torch.eye(4).to_sparse_csr(),
    "csc": lambda: torch.eye(4).to_sparse_csc(),
    "bsr": lambda: torch.eye(4).to_sparse_bsr((2, 2)),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "jagged": lambda: torch.nested.nested_tensor([torch.ones(2, 2), torch.ones(3, 2)], layout=torch.jagged),
    "mkldnn": lambda: torch.eye(4).to_mkldnn(),
}


@pytest.mark.filterwarnings("ignore:.*(Sparse|[Nn]ested).*:UserWarning")
@pytest.mark.parametrize("layout", WEIGHTS)
def test_weights_of_any_layout_have_a_digest_and_stay(layout):
    class Holds(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("adjacency", WEIGHTS[layout]())

    model = Holds()
    with unchanged(model):
        assert weights_digest(model) is not None
    assert weights_digest(model) == weights_digest(Holds())
    assert weights_digest(model) != weights_digest(nn.Module())
