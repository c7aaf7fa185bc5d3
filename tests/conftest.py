"""What every test shares: float64 where a test asks for it, and the data directory where one is given."""

from __future__ import annotations

import gc
import itertools
import os
from pathlib import Path

import jax
import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "x64: run with 64-bit floats, for comparisons with float64 oracles")
    config.addinivalue_line("markers", "slow: takes minutes; left out of `make test`")


@pytest.fixture(autouse=True)
def _precision(request: pytest.FixtureRequest):
    """64-bit floats inside tests marked ``x64`` and nowhere else."""
    wanted = request.node.get_closest_marker("x64") is not None
    jax.config.update("jax_enable_x64", wanted)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(autouse=True, scope="module")
def _programs_of_one_module():
    """Compiled programs do not outlive their module: each maps memory, and a process may have some 65,000 maps."""
    yield
    jax.clear_caches()
    gc.collect()


_TESTS = itertools.count(1)


@pytest.fixture(autouse=True)
def _programs_of_some_tests():
    """The same within modules of many tests."""
    yield
    if next(_TESTS) % 100 == 0:
        jax.clear_caches()


@pytest.fixture
def data_dir() -> Path:
    """The directory of real weights and data; without it the test is skipped, in CI it fails."""
    value = os.environ.get("BAYESTL_DATA_DIR")
    if value is None:
        message = "needs real data: set BAYESTL_DATA_DIR to the data directory"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return Path(value)
