"""The benchmark of small jobs counts passes without a hook, and fails where a job is short twice."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

small = pytest.importorskip("benchmarks.small", reason="the benchmarks are not beside the tests")


def test_passes_are_counted_without_a_hook_and_the_class_is_given_back():
    model, forward = nn.Sequential(nn.Linear(3, 2)), nn.Sequential.forward
    with small.counted_passes(model) as calls:
        for _ in range(3):
            model(torch.zeros(1, 3))
        assert not model._forward_hooks
    assert calls == [3]
    assert nn.Sequential.forward is forward


@pytest.mark.parametrize(("again", "failed"), [(1.0, 0), (0.9, 1)])
def test_a_small_job_is_short_only_if_it_is_so_twice(again, failed, tmp_path, monkeypatch, capsys):
    """The first turns say 0.5x; a job whose later turns are under the limit too makes the command fail."""
    turns = []

    def fake(rounds, _runs, _device):
        turns.append(rounds)
        ratio = 0.5 if rounds == 5 else again
        return {"plain": np.full(rounds, ratio), "ours": np.ones(rounds)}, {}

    def ready(_kind, _job, _device):
        return small.Ready(nn.Sequential(), lambda: None, lambda: SimpleNamespace(engine="graph"))

    monkeypatch.setattr(small, "in_turns", fake)
    monkeypatch.setattr(small.Ready, "of", classmethod(ready))
    job, out = "squeezenet1_1 features.9, 16 images", tmp_path / "small.csv"
    assert small.main(["--quick", "--only", job, "--out", str(out)]) == failed
    assert turns == [5, 15]
    assert f"{failed} of 1 jobs under 0.95x twice" in capsys.readouterr().out
    assert list(pd.read_csv(out)["ratio"]) == [again]
