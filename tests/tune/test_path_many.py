"""Paths of several targets in one program against the paths of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl

RNG = np.random.default_rng(5)


def dense(params: dict, x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ params["a"]) @ params["b"]


def by_convolution(params: dict, x: jax.Array) -> jax.Array:
    """The same network; on CPUs its steps are dispatched one by one."""
    hidden = jax.lax.conv_general_dilated(x[:, None], params["a"].T[:, None], (1,), "VALID")[:, :, 0]
    return jnp.tanh(hidden) @ params["b"]


PARAMS = {"a": jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32), "b": jnp.zeros((4, 2))}
NET = btl.nets.from_function(dense, PARAMS)
JOINT = btl.LogJoint(NET, btl.likelihoods.categorical(), None, num_data=8)
DRAWS = [
    btl.Batch(jnp.asarray(RNG.normal(size=(8, 3)), jnp.float32), jnp.asarray(RNG.permutation(8) % 2))
    for _ in range(3)
]  # fmt: skip
GROUPS = [np.asarray(RNG.permutation(8) % 4) for _ in DRAWS]
FRESH = [{"a": jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32), "b": jnp.zeros((4, 2))} for _ in DRAWS]
# The second target has a family less, and the third one of another structure.
FAMILIES = [[btl.tune.isotropic_family("source", PARAMS)] for _ in DRAWS]
FAMILIES[0].append(btl.tune.isotropic_family("fresh", FRESH[0]))
FAMILIES[2].append(
    btl.tune.Family("wider body", btl.gaussians.diagonal(FRESH[2], jax.tree.map(lambda x: 1 + x**2, FRESH[2])))
)
SCALES = [[-3.0, -1.0, 1.0], [-2.0, 0.0, 1.0], [-3.0, 0.0, 2.0]]
KEYS = jax.random.split(jax.random.key(0), 3)
CRITERIA = {
    "closed form": [btl.tune.leave_out(groups) for groups in GROUPS],
    "folds": [btl.tune.k_fold(groups) for groups in GROUPS],
}


@pytest.mark.parametrize(("criterion", "apply"), [("closed form", dense), ("folds", dense), ("folds", by_convolution)])
def test_each_path_is_that_of_its_target_alone(criterion: str, apply: Any):
    net, criteria = btl.nets.from_function(apply, PARAMS), CRITERIA[criterion]
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=8)
    many = btl.tune.path_many(KEYS, joint, FAMILIES, DRAWS, SCALES, criteria, steps=20)
    for number, path in enumerate(many):
        alone = btl.tune.path(
            KEYS[number], joint, FAMILIES[number], DRAWS[number], SCALES[number], criteria[number], steps=20
        )
        np.testing.assert_allclose(path.scores, alone.scores, atol=2e-5)
        assert (path.steps, path.choice, path.families) == (alone.steps, alone.choice, alone.families)
        np.testing.assert_array_equal(path.log_scales, alone.log_scales)
        for ours, theirs in zip(path.params, alone.params, strict=True):
            jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5), ours, theirs)


def test_weights_and_batches_are_those_of_each_target():
    """An example of weight 0 is none, whatever its target."""
    weighed = [
        batch._replace(weights=jnp.array([1.0] * 6 + [0.0, w])) for batch, w in zip(DRAWS, (0, 2, 1), strict=True)
    ]
    changed = [
        batch._replace(targets=batch.targets.at[6].set(1 - batch.targets[6])) if number != 1 else batch
        for number, batch in enumerate(weighed)
    ]
    made = [
        btl.tune.path_many(
            KEYS, JOINT, FAMILIES, batches, SCALES, [btl.tune.validation(DRAWS[0])] * 3, steps=20, batch_size=4
        )
        for batches in (weighed, changed)
    ]
    for one, other in zip(*made, strict=True):
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)
    # The two targets with one family in common have seen different examples.
    assert np.abs(made[0][0].scores[0, -1] - made[0][1].scores[0, -1]).max() > 1e-3


def test_an_interrupted_call_goes_on_to_the_same_bits(tmp_path: Path):
    given = (KEYS, JOINT, FAMILIES, DRAWS, SCALES, CRITERIA["folds"])
    whole = btl.tune.path_many(*given, steps=5)

    class Interruption(Exception):
        pass

    lines = []

    def stop_at_the_third(line: str) -> None:
        lines.append(line)
        if len(lines) == 3:
            raise Interruption

    with pytest.raises(Interruption):
        btl.tune.path_many(*given, steps=5, report=stop_at_the_third, checkpoint=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    resumed = btl.tune.path_many(*given, steps=5, checkpoint=tmp_path)
    for one, other in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(one.scores, other.scores)
        assert one.steps == other.steps
    swapped = [*DRAWS[1:], DRAWS[0]]
    with pytest.raises(ValueError, match="belongs to another call"):
        btl.tune.path_many(KEYS, JOINT, FAMILIES, swapped, SCALES, CRITERIA["folds"], steps=5, checkpoint=tmp_path)


def test_targets_that_do_not_fit_into_one_program_are_named():
    short = jax.tree.map(lambda x: x[:6], DRAWS[1])
    folds = CRITERIA["folds"]
    with pytest.raises(ValueError, match=r"3 keys, 2 families, 3 data"):
        btl.tune.path_many(KEYS, JOINT, FAMILIES[:2], DRAWS, SCALES, folds)
    criteria = [folds[0], btl.tune.k_fold(GROUPS[1][:6]), folds[2]]
    with pytest.raises(ValueError, match=r"data\[1\] has inputs \(6, 3\)"):
        btl.tune.path_many(KEYS, JOINT, FAMILIES, [DRAWS[0], short, DRAWS[2]], SCALES, criteria)
    with pytest.raises(ValueError, match=r"log_scales\[2\] has 1, and log_scales\[0\] 3"):
        btl.tune.path_many(KEYS, JOINT, FAMILIES, DRAWS, [*SCALES[:2], [0.0]], folds)
    with pytest.raises(ValueError, match=r"criteria\[1\] has 2 groups, and criteria\[0\] 4 groups"):
        btl.tune.path_many(KEYS, JOINT, FAMILIES, DRAWS, SCALES, [folds[0], btl.tune.k_fold(GROUPS[1] % 2), folds[2]])
