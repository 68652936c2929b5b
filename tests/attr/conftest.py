"""A few samples, because a per-sample method runs each of them many times."""

from __future__ import annotations

import pytest


@pytest.fixture
def data(dense_data):
    return dense_data[0][:17], dense_data[1][:17]


@pytest.fixture
def image_data(small_digits):
    return small_digits[0][:9], small_digits[1][:9]
