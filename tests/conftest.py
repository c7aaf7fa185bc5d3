"""What every test shares: float64 where a test asks for it, and the data directory where one is given."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from pathlib import Path

import jax
import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "x64: run with 64-bit floats, for comparisons with float64 oracles")
    config.addinivalue_line("markers", "slow: takes minutes, or repeats a law over an exhaustive grid: `make test-all`")
    config.addinivalue_line("markers", "optimized: compiled as a user's programs are, also where `make test` hurries")
    config.addinivalue_line("markers", "once: CI runs it on one of its Python versions, `make test VERSIONS=other` not")
    config.addinivalue_line(
        "markers", "representative(*cases): of a parametrised test `make test` runs these cases; the others are slow"
    )


# Rooms of examples, scripts, files, formulas and other libraries: little in them turns on the compiler that JAX brings,
# which differs between Python versions. The laws of priors, curvature, training and inference run on every version.
_ONCE = (
    *("test_docs.py", "test_hostile_files.py", "benchmarks", "bridges", "data", "diagnostics", "likelihoods"),
    *("metrics", "nets", "peers", "plots", "pretrained", "sources", "training/mesh"),
)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Of a grid that ``representative`` marks, all cases but those named are slow. For one version are some rooms, and
    of a test with many cases all but the first: what another version breaks, it breaks in that too."""
    place = item.path.relative_to(Path(__file__).parent)
    mark, grid = item.get_closest_marker("representative"), getattr(item, "callspec", None)
    if mark is not None and grid is not None:
        is_first, is_slow = grid.id == mark.args[0], grid.id not in mark.args
    else:
        is_first, is_slow = grid is None or not any(grid.indices.values()), False
    if is_slow:
        item.add_marker("slow")
    if not is_first or any(place.is_relative_to(room) for room in _ONCE):
        item.add_marker("once")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A case that a mark names and its grid does not have is an error: it would never run in `make test`."""
    if any("::" in argument for argument in config.args):
        return  # single cases were asked for, which say nothing about the others
    cases: dict[tuple[str, str], set[str]] = {}
    for item in items:
        mark, grid = item.get_closest_marker("representative"), getattr(item, "callspec", None)
        if mark is not None and grid is not None:
            place = (str(item.path), getattr(item, "originalname", item.name))
            cases.setdefault(place, set(mark.args)).discard(grid.id)
    missing = {place: left for place, left in cases.items() if left}
    if missing:
        raise pytest.UsageError(f"marks name cases that their grids do not have: {missing}")


@pytest.fixture(autouse=True)
def _precision(request: pytest.FixtureRequest):
    """64-bit floats inside tests marked ``x64`` and nowhere else."""
    wanted = request.node.get_closest_marker("x64") is not None
    jax.config.update("jax_enable_x64", wanted)
    yield
    jax.config.update("jax_enable_x64", False)


# A process may have some 65,000 memory maps, of which each compiled program takes a few; XLA dies when they run out.
_MOST_MAPS = 40_000
# Memory that programs gave back does not all return to the system, so that growth since the last time is what counts.
_MOST_GROWTH = 3 << 30
_after_clearing = 0


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _holds_too_much() -> bool:
    """Whether compiled programs should be given up; where the system does not say, after every test."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return True
    return _resident() > _after_clearing + _MOST_GROWTH or maps.read_bytes().count(b"\n") > _MOST_MAPS


@pytest.fixture(autouse=True)
def _room_for_programs():
    """Compiled programs serve later tests too, until there are too many of them for one process."""
    global _after_clearing
    yield
    if _holds_too_much():
        jax.clear_caches()
        gc.collect()
        if sys.platform == "linux":
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL("libc.so.6").malloc_trim(0)
            _after_clearing = _resident()


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
