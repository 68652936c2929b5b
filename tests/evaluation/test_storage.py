"""What is saved or pickled comes back to the bit, as plain JSON and arrays."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
import torch
from all_kinds import compared
from matplotlib.figure import Figure
from torch import Tensor

from captum_ablate import Comparison, CumulativeAblationEvaluator


def assert_equal(one, other):
    """Equal to the bit, field by field, whatever the fields hold."""
    kinds = (Tensor, bool, int, float, str, tuple)
    assert type(one) is type(other) or [isinstance(one, k) for k in kinds] == [isinstance(other, k) for k in kinds]
    if isinstance(one, Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, float):
        assert one == other or (math.isnan(one) and math.isnan(other))
    elif isinstance(one, tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    elif hasattr(one, "items"):
        assert list(one) == list(other)
        for key in one:
            assert_equal(one[key], other[key])
    elif hasattr(one, "__dataclass_fields__"):
        for field in fields(one):
            assert_equal(getattr(one, field.name), getattr(other, field.name))
    else:
        assert one == other


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_random": 0},
        {"metric": "log_likelihood", "reference": "mean", "seed": 3},
        {"metric": lambda outputs, target: outputs[:, 0], "reference": lambda a, _: a / 3},
        {"reference": torch.ones(8), "steps": None, "n_random": 1},
    ],
    ids=lambda options: "-".join(options) or "default",
)
def test_what_is_saved_comes_back_to_the_bit(setting, tmp_path, options):
    comparison = compared(setting, **options)
    folder = tmp_path / "not yet" / "there"
    assert comparison.save(folder) == folder
    assert sorted(file.name for file in folder.iterdir()) == ["comparison.json", "comparison.npz"]
    loaded = Comparison.load(folder)
    assert_equal(loaded, comparison)
    assert str(loaded) == str(comparison)
    assert loaded._repr_html_() == comparison._repr_html_()
    pd.testing.assert_frame_equal(loaded.leaderboard, comparison.leaderboard, check_exact=True)
    pd.testing.assert_frame_equal(loaded.to_frame(), comparison.to_frame(), check_exact=True)
    loaded.plot(Figure().subplots())


def test_saving_twice_and_loading_from_a_string_give_the_same(comparison, tmp_path):
    str(comparison)  # the board is made by now, and must not be saved as a field
    first = comparison.save(str(tmp_path / "run"))
    again = Comparison.load(str(tmp_path / "run")).save(tmp_path / "again")
    assert (first / "comparison.json").read_bytes() == (again / "comparison.json").read_bytes()
    comparison.save(first)
    assert_equal(Comparison.load(first), comparison)


def test_odd_names_survive(setting, tmp_path):
    model, data, _ = setting
    names = ['a/b\\c "quoted" \N{GREEK SMALL LETTER ALPHA}', "curve1", "x.scores", ""]
    evaluator = CumulativeAblationEvaluator(model, "1", n_random=2, steps=2)
    comparison = evaluator.compare(
        {**{name: torch.randn(8) for name in names}, "\N{GREEK SMALL LETTER OMEGA}": torch.zeros(3)}, data
    )
    loaded = Comparison.load(comparison.save(tmp_path))
    assert_equal(loaded, comparison)
    assert list(loaded.curves) == names


def test_what_is_saved_is_plain_json_and_arrays_without_pickles(comparison, tmp_path):
    folder = comparison.save(tmp_path)
    about = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    assert about["failed"] == dict(comparison.failed)
    with np.load(folder / "comparison.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind in "fiub" for name in arrays.files)


def test_the_json_file_may_be_named_in_the_place_of_its_folder(comparison, tmp_path):
    folder = comparison.save(tmp_path)
    assert_equal(Comparison.load(folder / "comparison.json"), comparison)


def damaged(folder, how):
    """Spoil what was saved, and return the place to load it from."""
    about, arrays = folder / "comparison.json", folder / "comparison.npz"
    if how == "no folder":
        return folder / "elsewhere"
    if how == "no arrays":
        arrays.unlink()
    elif how == "cut JSON":
        about.write_text(about.read_text()[:100])
    elif how == "cut arrays":
        arrays.write_bytes(arrays.read_bytes()[:100])
    elif how == "foreign":
        about.write_text('{"some": "settings"}')
    elif how == "newer":
        about.write_text(about.read_text().replace('"format": 1', '"format": 99'))
    elif how == "other arrays":
        np.savez(arrays, x=np.zeros(3))
    return folder


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("no folder", FileNotFoundError, r"holds no saved comparison: 'comparison.json' is missing"),
        ("no arrays", FileNotFoundError, r"holds no saved comparison: 'comparison.npz' is missing"),
        ("cut JSON", ValueError, r"the saved comparison in .* is damaged"),
        ("cut arrays", ValueError, r"the saved comparison in .* is damaged"),
        ("other arrays", ValueError, r"the saved comparison in .* is damaged: tensor .* is missing"),
        ("foreign", ValueError, r"is no saved comparison: it does not say its format"),
        ("newer", ValueError, r"has format 99, and this version reads up to 1; upgrade captum_ablate"),
    ],
)
def test_what_cannot_be_loaded_is_told(comparison, tmp_path, how, error, message):
    with pytest.raises(error, match=message):
        Comparison.load(damaged(comparison.save(tmp_path), how))


def test_a_comparison_can_be_pickled_and_looped_over(dense, dense_data):
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=2)
    comparison = evaluator.compare({"a": torch.arange(6.0), "b": -torch.arange(6.0)}, dense_data)
    again = pickle.loads(pickle.dumps(comparison))
    assert list(again) == ["a", "b"]
    assert len(again) == 2
    assert str(again) == str(comparison)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float16, torch.complex64], ids=str)
def test_targets_of_any_type_come_back(dense, tmp_path, dtype):
    target = torch.rand(6, 2).to(dtype).conj()

    def metric(outputs, wanted):
        return -(outputs[:, :2] - wanted.to(torch.complex64).real).square().sum(1)

    evaluator = CumulativeAblationEvaluator(dense, "1", metric=metric)
    comparison = evaluator.compare({"a": torch.rand(7)}, (torch.rand(6, 5), target))
    loaded = Comparison.load(comparison.save(tmp_path))
    assert loaded["a"].target.dtype == dtype
    assert torch.equal(loaded["a"].target.to(torch.complex64), target.to(torch.complex64))
    assert torch.equal(loaded["a"].values, comparison["a"].values)
