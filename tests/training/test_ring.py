"""A ring holds the newest trees, and goes one step back without a copy of all rows."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayestl.training._loop import all_finite
from bayestl.training._ring import Ring, if_else


def _filled(capacity: int, num: int) -> Ring:
    ring = Ring.empty({"w": jnp.zeros(2)}, capacity)
    for number in range(num):
        ring = ring.add({"w": jnp.full(2, float(number))})
    return ring


@pytest.mark.parametrize("num", [0, 1, 3, 4, 11])
def test_the_newest_come_oldest_first(num):
    kept = min(num, 4)
    newest = _filled(4, num).newest(kept)["w"]
    assert newest[:, 0].tolist() == list(range(num - kept, num))


def test_what_is_not_wanted_leaves_no_trace():
    before = _filled(3, 5)
    after = before.add({"w": jnp.ones(2)}, adds=jnp.array(False))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), before, after))


@pytest.mark.parametrize("num", [2, 3, 7])  # with room, just full, and where the new row takes the place of an old one
@pytest.mark.parametrize("added", [True, False])
def test_a_step_taken_back_is_as_if_it_had_not_been(num, added):
    before = _filled(3, num)
    after = before.add({"w": jnp.full(2, jnp.nan)}, adds=added)
    members = jax.tree.map(lambda a, b: jnp.stack([a, b]), (after, jnp.float32(1)), (after, jnp.float32(1)))
    olds = jax.tree.map(lambda a: jnp.stack([a, a]), (before, jnp.float32(0)))
    chosen = jax.jit(jax.vmap(if_else))(jnp.array([True, False]), members, olds)
    for number, wanted in enumerate(((after, 1), (before, 0))):
        mine = jax.tree.map(lambda x, number=number: x[number], chosen)
        jax.tree.map(np.testing.assert_array_equal, mine, wanted)


def test_rows_are_not_looked_at_for_finiteness():
    ring = _filled(2, 0).add({"w": jnp.full(2, jnp.nan)})
    assert bool(all_finite({"ring": ring, "params": jnp.ones(2)}))
    assert not bool(all_finite({"ring": ring, "params": jnp.full(2, jnp.inf)}))
