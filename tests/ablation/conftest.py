"""Tests of the engine run the graph whatever it costs, unless they ask for another execution."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder with ``execution("graph")``: by cost, all these small networks would run hooked."""
    for item in items:
        if Path(item.path).is_relative_to(Path(__file__).parent) and item.get_closest_marker("execution") is None:
            item.add_marker(pytest.mark.execution("graph"))
