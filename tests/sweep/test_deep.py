"""No way to spoil an argument ends in a traceback of another package's."""

from __future__ import annotations

import pytest

from tests.sweep.deep import METHODS, sweep
from tests.sweep.test_sweep import ROOMS

# Rooms whose functions all take a while.
NOTHING_CHEAP = ("bayestl.training", "bayestl.transfers")


@pytest.mark.slow
@pytest.mark.parametrize("room", [*ROOMS, METHODS])
def test_no_foreign_traceback(room: str, tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)  # some functions write files
    outcome = sweep(room.removeprefix("bayestl").removeprefix("."))
    assert outcome.foreign == {}
    assert outcome.num_calls > 0 or room in NOTHING_CHEAP
