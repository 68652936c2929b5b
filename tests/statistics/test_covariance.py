"""The covariance is a sum over samples: any split, any order, any number of processes give the same."""

from __future__ import annotations

import os
import socket
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_ablate.statistics.covariance import Covariance, eigenvalues, processes


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 30),
    st.integers(1, 6),
    st.lists(st.integers(0, 30), max_size=4),
    st.sampled_from([0.0, 1e6]),
    st.integers(0, 2**31),
)
def test_parts_of_any_size_add_up_to_the_whole(n, units, cuts, offset, seed):
    values = torch.randn(n, units, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + offset
    bounds = sorted({0, n, *(min(cut, n) for cut in cuts)})
    parts = [values[:0], *(values[a:b] for a, b in pairwise(bounds)), values[:0]]
    merged = Covariance.of(parts[0])
    for part in parts[1:]:
        merged = merged + Covariance.of(part)
    assert merged.count == n
    np.testing.assert_allclose(merged.mean, values.mean(0), rtol=1e-12)
    expected = np.atleast_2d(np.cov(values.numpy(), rowvar=False))
    np.testing.assert_allclose(merged.matrix, expected, rtol=1e-8 if offset else 1e-10, atol=1e-8 if offset else 1e-12)


def test_a_mean_far_from_zero_costs_no_digits():
    values = torch.randn(1000, 3, dtype=torch.float64) + 1e8
    merged = Covariance.of(values[:400]) + Covariance.of(values[400:])
    naive = values.T @ values - len(values) * torch.outer(values.mean(0), values.mean(0))
    exact = np.cov(values.numpy(), rowvar=False)
    assert np.abs(merged.matrix.numpy() / exact - 1).max() < 1e-5
    assert np.abs(naive.numpy() / 999 / exact - 1).max() > 0.1  # what sums of plain products would give


def test_eigenvalues_come_largest_first_and_none_below_zero():
    values = torch.randn(5, 8, dtype=torch.float64)  # rank 4 of 8
    found = Covariance.of(values).eigenvalues
    singular = torch.linalg.svdvals(values - values.mean(0))
    np.testing.assert_allclose(found[:4], singular[:4] ** 2 / 4, rtol=1e-10)
    assert (found[4:] >= 0).all()
    assert (found[:-1] >= found[1:]).all()
    assert eigenvalues(torch.stack([torch.eye(3), 2 * torch.eye(3)])).tolist() == [[1, 1, 1], [2, 2, 2]]


def test_layers_of_other_width_are_not_merged():
    with pytest.raises(ValueError, match="of 3 and of 4 units cannot be merged"):
        Covariance.of(torch.randn(5, 3)) + Covariance.of(torch.randn(5, 4))


def test_without_torch_distributed_there_is_one_process():
    assert processes() == 1


def work(rank, port, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    from captum_ablate.diagnostics import activation_spectrum

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(5, 70), torch.nn.Tanh()).double()
    samples = torch.randn(301, 5, dtype=torch.float64) + 100
    shard = samples[:200] if rank == 0 else samples[200:]
    whole = Covariance.of(shard).all_reduced()
    empty = Covariance.of(shard if rank == 0 else shard[:0]).all_reduced()
    spectrum = activation_spectrum(net, "0", shard, fit_range=(1, 5), replicates=20)
    torch.save(
        [whole.count, whole.matrix, empty.matrix, spectrum.n, spectrum.eigenvalues, tuple(spectrum.interval)],
        f"{folder}/{rank}.pt",
    )
    dist.destroy_process_group()


def test_two_processes_with_a_shard_each_get_what_one_gets(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, args=(port, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(5, 70), torch.nn.Tanh()).double()
    samples = torch.randn(301, 5, dtype=torch.float64) + 100
    for result in (first, second):
        assert result[0] == result[3] == 301
        np.testing.assert_allclose(result[1], Covariance.of(samples).matrix, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(result[2], Covariance.of(samples[:200]).matrix, rtol=1e-12, atol=1e-14)
        with torch.no_grad():
            expected = Covariance.of(net[0](samples)).eigenvalues
        np.testing.assert_allclose(result[4], expected, rtol=1e-9, atol=1e-10)
    assert first[5] == second[5]
    assert first[5][0] < first[5][1]
