"""Closed forms of a linear network, and slopes of errors."""

from __future__ import annotations

import pytest
import torch

from benchmarks.papers.conductance import completeness


def test_closed_forms_hold_on_a_linear_network():
    assert completeness.linear_deviation() < 1e-6


def test_slopes_of_an_error_of_one_over_n_are_minus_one():
    change = torch.ones(4, dtype=torch.float64)
    by_steps = {n: completeness.Completeness("x", change + torch.arange(1, 5) / n, change) for n in (10, 20, 40)}
    assert completeness._slopes(completeness.Case("x", by_steps, {})) == pytest.approx([-1] * 4)
