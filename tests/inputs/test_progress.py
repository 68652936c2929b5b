"""Bars count samples and know how many there are; without being asked for, nothing is shown."""

from __future__ import annotations

import pytest
import torch
from captum.attr import LayerActivation
from torch.utils.data import DataLoader, TensorDataset

from captum_ablate import LayerMeanActivity, LayerUnitAblation, attribute_together, unit_scores
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.batches import as_batches
from captum_ablate.inputs.progress import ticking, with_progress


def runs(model):
    activity = LayerMeanActivity(model, "1")
    return {
        "attribute": lambda data, show: activity.attribute(data, show_progress=show),
        "together": lambda data, show: attribute_together({"a": activity}, data, show_progress=show),
        "unit_scores": lambda data, show: unit_scores(LayerActivation(model, model[1]), data, show_progress=show),
        "unit ablation": lambda data, show: LayerUnitAblation(model, "1").attribute(data, show_progress=show),
    }


@pytest.mark.parametrize("run", ["attribute", "together", "unit_scores", "unit ablation"])
def test_a_bar_counts_samples_only_on_request(dense, dense_data, capsys, run):
    loader = DataLoader(TensorDataset(*dense_data), batch_size=25)
    runs(dense)[run](loader, False)
    assert capsys.readouterr().err == ""
    runs(dense)[run](loader, True)
    shown = capsys.readouterr().err
    assert "100%" in shown
    assert "60/60" in shown
    assert "sample" in shown


def test_the_number_of_samples_is_known_where_the_source_knows_it(dense_data):
    x, y = dense_data
    data = TensorDataset(x, y)
    assert as_batches((x, y), batch_size=7).samples == 60
    assert as_batches(data, batch_size=7).samples == 60
    assert as_batches(DataLoader(data, batch_size=7)).samples == 60
    assert as_batches(DataLoader(data, batch_size=7, drop_last=True)).samples == 56
    assert as_batches(DataLoader(data, batch_size=None)).samples is None
    assert as_batches([(x, y)]).samples is None
    assert as_batches(iter([(x, y)])).samples is None


def test_samples_are_counted_where_their_number_is_not_known(capsys):
    batches = [Batch((torch.zeros(n),), torch.zeros(n)) for n in (3, 4)]
    assert list(with_progress(iter(batches), "name", True)) == batches
    assert "7sample" in capsys.readouterr().err


def test_parts_of_samples_add_up_to_whole_ones(capsys):
    with ticking("name", True, 4) as tick:
        for _ in range(3 * 4):
            tick(1 / 3)
    assert "4/4" in capsys.readouterr().err
    with ticking("name", True) as tick:
        for _ in range(3):
            tick()
    assert "3sample" in capsys.readouterr().err
    with ticking("name", False, 4) as tick:
        tick(2)
        tick()
    assert capsys.readouterr().err == ""
