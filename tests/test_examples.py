"""The examples in the docstrings run as they stand, without the names of their module, and print what they say."""

from __future__ import annotations

import doctest
from importlib import import_module
from pkgutil import walk_packages

import pytest
import torch

import captum_ablate

MODULES = [module.name for module in walk_packages(captum_ablate.__path__, "captum_ablate.")]


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_the_examples_of_a_module_run(name):
    torch.manual_seed(0)
    failed, _ = doctest.testmod(import_module(name), globs={}, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0
