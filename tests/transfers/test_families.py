"""Every kind of source becomes families of priors, whose means and covariances are known, and goes through transfer."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from bayestl.pretrained.tables import AS_IS, DENSE, Entry
from bayestl.transfers._families import families_of

KEY = jax.random.key(0)
SIZES = (4, 5, 3)
NET = btl.nets.mlp(KEY, SIZES)
SOURCE = btl.nets.mlp(jax.random.key(1), SIZES).params
INPUTS = jax.random.normal(KEY, (6, 4))
LABELS = jnp.tile(jnp.arange(3), 2)
DATA = btl.data.arrays(INPUTS, LABELS)
CATEGORICAL = btl.likelihoods.categorical()
OTHER = jax.tree.map(lambda x: x + 0.1, SOURCE)
ZERO_HEAD = {**SOURCE, "head": jax.tree.map(jnp.zeros_like, SOURCE["head"])}


def fisher(curvature: Any) -> Any:
    net = dataclasses.replace(NET, params=SOURCE)
    return btl.sources.fisher(KEY, net, CATEGORICAL, DATA, scale=0.5, curvature=curvature, batch_size=None)


def laplace_at_the_source() -> Any:
    prior = btl.gaussians.isotropic(SOURCE, scale=1.0)
    joint = btl.LogJoint(NET, CATEGORICAL, prior, num_data=6)
    return btl.infer.laplace(KEY, joint, SOURCE, DATA, curvature=btl.curvature.low_rank(3))


def diagonal() -> Any:
    return btl.gaussians.diagonal(SOURCE, jax.tree.map(lambda x: 0.1 + x**2, SOURCE))


GAUSSIANS: dict[str, Any] = {
    "Fisher, diagonal": lambda: fisher(btl.curvature.diagonal()),
    "Fisher, Kronecker": lambda: fisher(btl.curvature.kronecker()),
    "Laplace, low rank": laplace_at_the_source,
    "checkpoints": lambda: btl.sources.from_checkpoints([SOURCE, OTHER], eps=1e-3),
    "product": lambda: btl.sources.product([diagonal(), btl.sources.point(OTHER, scale=0.5)]),
    "samples": lambda: btl.sources.from_samples(jax.tree.map(lambda x, y: jnp.stack([x, y]), SOURCE, OTHER), eps=1e-2),
}


def families(source: Any, net: btl.Net = NET, new: list[str] | None = None) -> Any:
    """Without those whose head is softened, which turn on the labels: test_softened.py has them."""
    joint = btl.LogJoint(net, CATEGORICAL, None, num_data=6)
    result = families_of(KEY, joint, net, source, new or [], None, btl.Batch(INPUTS, LABELS), True)
    own = [number for number, family in enumerate(result.families) if "head times" not in family.name]
    parts = ("families", "kinds", "log_weights")
    return result._replace(**{part: tuple(getattr(result, part)[number] for number in own) for part in parts})


def names(result: Any) -> list[str]:
    return [family.name for family in result.families]


def equal(one: Any, other: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[pytest.mark.slow] * (kind in ("Laplace, low rank", "checkpoints")))
        for kind in GAUSSIANS
    ],
)
def test_a_gaussian_adds_a_family_with_its_covariance(kind: str):
    gaussian = GAUSSIANS[kind]()
    result = families(gaussian)
    assert names(result) == ["source", "source, head at zero", "source, its own covariance", "fresh, head at zero"]
    equal(result.families[0].prior.mean, gaussian.mean)
    own = result.families[2].prior
    equal(own.mean, gaussian.mean)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), own.variance, gaussian.variance)


def test_a_part_of_a_network():
    """`extend` says of the head what a source of the body leaves open: a mean of zero, not a family of its own."""
    body = btl.sources.point({"dense_0": SOURCE["dense_0"]}, scale=0.3)
    result = families(btl.sources.extend(body, NET.params, scale=1.0))
    assert names(result) == ["source, head at zero", "source, its own covariance", "fresh, head at zero"]
    equal(result.families[0].prior.mean, ZERO_HEAD)
    variance = result.families[1].prior.variance
    np.testing.assert_allclose(jnp.broadcast_to(variance["head"]["kernel"], (5, 3)), 1.0, rtol=1e-6)
    np.testing.assert_allclose(jnp.broadcast_to(variance["dense_0"]["kernel"], (4, 5)), 0.09, rtol=1e-6)
    # The same from the body's weights, and a head that is new.
    equal(families({"dense_0": SOURCE["dense_0"]}, new=["head/**"]).families[0].prior.mean, ZERO_HEAD)


def test_a_mixture_is_its_sources_and_their_weights():
    components = [btl.sources.point(SOURCE, scale=1.0), diagonal().around(OTHER)]
    result = families(btl.sources.mixture(components, weights=[0.75, 0.25]))
    assert names(result)[:3] == ["source 1", "source 1, head at zero", "source 1, its own covariance"]
    assert names(result)[3] == "source 2"
    equal(result.families[3].prior.mean, OTHER)
    expected = [math.log(1.5)] * 3 + [math.log(0.5)] * 3 + [0.0]
    np.testing.assert_allclose(result.log_weights, expected, rtol=1e-5)
    nested = families([NET.params, btl.sources.mixture(components)])
    assert [name for name in names(nested) if "," not in name] == ["source 1", "source 2.1", "source 2.2"]


def test_a_few_draws_are_sources_and_many_are_refused():
    draws = btl.Samples(jax.tree.map(lambda x, y: jnp.stack([x, y]), SOURCE, OTHER), jnp.log(jnp.array([0.2, 0.8])))
    result = families(draws)
    assert names(result)[::2] == ["source 1", "source 2", "fresh, head at zero"]
    np.testing.assert_allclose(result.log_weights[2], math.log(1.6), rtol=1e-5)
    many = btl.Samples(jax.tree.map(lambda x: jnp.stack([x] * 9), SOURCE), jnp.zeros(9))
    with pytest.raises(ValueError, match="source holds 9 draws"):
        families(many)


def test_a_weight_file_with_its_table(tmp_path: Path):
    table = {
        "one.weight": Entry("dense_0/kernel", DENSE),
        "one.bias": Entry("dense_0/bias", AS_IS),
        "fc.weight": Entry("head/kernel", DENSE),
        "fc.bias": Entry("head/bias", AS_IS),
    }
    arrays = {"one.weight": SOURCE["dense_0"]["kernel"].T, "one.bias": SOURCE["dense_0"]["bias"]}
    arrays |= {"fc.weight": SOURCE["head"]["kernel"].T, "fc.bias": SOURCE["head"]["bias"]}
    np.savez(tmp_path / "weights.npz", **{name: np.asarray(x) for name, x in arrays.items()})
    file = btl.pretrained.WeightFile(tmp_path / "weights.npz", table)
    equal(families(file).families[0].prior.mean, SOURCE)
    assert names(families([file, OTHER]))[:4:2] == ["source 1", "source 2"]
    assert names(families(file, new=["head/**"])) == ["source, head at zero", "fresh, head at zero"]
    with pytest.raises(ValueError, match=r"come with a table.*WeightFile"):
        families(tmp_path / "weights.npz")


def test_running_statistics_come_with_the_source():
    """A network that subtracts a statistic: that of the source is what its weights go with."""

    def apply(params: Any, state: Any, x: jax.Array, key: Any) -> Any:
        return NET.apply(params, (), x - state["mean"], key)[0], state

    net = btl.Net(NET.params, {"mean": jnp.zeros(4), "count": jnp.int32(0)}, apply)
    source = btl.Net(SOURCE, {"mean": jnp.ones(4), "count": jnp.int32(7)}, apply)
    state = families(source, net).state
    np.testing.assert_array_equal(state["mean"], 1.0)
    assert int(state["count"]) == 0
    np.testing.assert_array_equal(families(SOURCE, net).state["mean"], 0.0)


def test_a_layer_whose_bias_has_another_variance_has_no_modes_under_it():
    scales = jax.tree.map(lambda x: 1.0 if x.ndim > 1 else 0.1, SOURCE)
    net = dataclasses.replace(NET, params=SOURCE)
    gaussian = btl.sources.fisher(
        KEY, net, CATEGORICAL, DATA, scale=scales, curvature=btl.curvature.kronecker(), batch_size=None
    )
    with pytest.raises(ValueError, match=r"covariance of source has no closed form.*separate"):
        families(gaussian)


def test_heavy_tails_are_refused_with_what_to_do():
    with pytest.raises(TypeError, match="give the Gaussian that it was made from"):
        families(btl.sources.student_t(diagonal(), degrees=3.0))


@pytest.mark.parametrize(
    "kind",
    [
        "Fisher, diagonal",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in [*GAUSSIANS, "mixture"] if kind != "Fisher, diagonal"),
    ],
)
def test_every_kind_goes_through_transfer(kind: str):
    if kind == "mixture":
        source = btl.sources.mixture([btl.sources.point(SOURCE, scale=1.0), btl.sources.point(OTHER, scale=1.0)])
    else:
        source = GAUSSIANS[kind]()
    train = btl.Batch(INPUTS, jnp.argmax(NET(SOURCE, INPUTS), -1).at[:3].set(jnp.arange(3)))
    result = btl.transfer(KEY, NET, source, train, CATEGORICAL, num_scales=3, steps=10)
    assert sum(row.weight for row in result.trust) == pytest.approx(1)
    assert any("its own covariance" in row.name for row in result.trust)
    assert np.all(np.isfinite(result.predict(INPUTS).probs))
    assert np.isfinite(result.held_out)


def test_where_the_last_layer_is_all_there_is_a_zero_head_is_counted_once():
    head = btl.nets.mlp(KEY, (4, 3))
    ones, twos = ({"head": jax.tree.map(lambda x, v=v: jnp.full_like(x, v), head.params["head"])} for v in (1.0, 2.0))
    result = families([ones, twos], head)
    assert names(result) == ["source 1", "source 2", "fresh, head at zero"]
    assert result.merged == ("source 1, head at zero", "source 2, head at zero")
    assert result.kinds == ("source", "source", "from scratch")
    assert result.log_weights == (0.0, 0.0, 0.0)


def test_a_source_of_which_nothing_is_left_is_no_different_from_a_fresh_network():
    params = {"head": {"w": jax.random.normal(KEY, (4, 3)), "b": jnp.zeros(3)}}
    net = btl.nets.from_function(lambda p, x: jnp.tanh(x) @ p["head"]["w"] + p["head"]["b"], params)
    options: dict[str, Any] = {"new": "head/w", "head": "head/**", "num_scales": 3, "steps": 10}
    result = btl.transfer(
        KEY, net, {"head": {"b": jnp.ones(3)}}, btl.Batch(INPUTS, LABELS), CATEGORICAL, by_layer=True, **options
    )
    assert [row.name for row in result.trust if "scale per layer" not in row.name] == ["fresh, head at zero"]
    assert result.verdict is not None
    assert result.verdict.outcome == "no clear difference"
    assert "counted once: source, head at zero" in str(result)
