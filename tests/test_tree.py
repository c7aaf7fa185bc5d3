"""Paths, patterns, selections and checks on parameter trees."""

from __future__ import annotations

from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from bayestl import _tree

Pair = namedtuple("Pair", ["first", "second"])
PARAMS = {"body": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}, "head": {"kernel": jnp.full((3, 4), 2.0)}}

# ---------------------------------------------------------------- paths


@pytest.mark.parametrize(
    ("tree", "paths"),
    [
        (PARAMS, ["body/bias", "body/kernel", "head/kernel"]),
        ({"a/b": 1.0, "a": {"b": 2.0}}, ["a/b", "a~1b"]),
        ({"~": 1.0, "~1": 2.0}, ["~0", "~01"]),
        ({"a.b": (1.0, [2.0, 3.0])}, ["a.b/0", "a.b/1/0", "a.b/1/1"]),
        ({10: 1.0, 2: 2.0}, ["2", "10"]),
        (Pair(1.0, {"x": 2.0}), ["first", "second/x"]),
        ([None, 1.0], ["1"]),
        (1.0, [""]),
    ],
)
def test_paths(tree, paths):
    assert _tree.paths(tree) == paths
    assert list(_tree.by_paths(tree)) == paths


def test_paths_of_a_state():
    """The value inside an nnx.Variable is no level of its own, so that patterns are those of the other containers."""
    state = nnx.State({"layers": {0: {"kernel": nnx.Param(jnp.ones(2))}}, "scale": nnx.Param(jnp.ones(1))})
    assert _tree.paths(state) == ["layers/0/kernel", "scale"]
    assert _tree.paths(nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Param)) == ["bias", "kernel"]


# ---------------------------------------------------------------- patterns


@pytest.mark.parametrize(
    ("pattern", "fits", "fits_not"),
    [
        ("body/kernel", ["body/kernel"], ["body", "body/kernel/x", "x/body/kernel", "body/kernels"]),
        ("**", ["", "a", "a/b", "a/b/c"], []),
        ("head/**", ["head", "head/a", "head/a/b"], ["heads", "a/head", "heads/a"]),
        ("**/bias", ["bias", "a/bias", "a/b/bias"], ["bias/a", "abias", "a/bias/b"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["a", "z", "az", "a/b"]),
        ("*", ["a", "a~1b"], ["a/b"]),
        (
            "layer_*/kernel",
            ["layer_0/kernel", "layer_/kernel"],
            ["layer_0/x/kernel", "layer/kernel", "layer_0/kernel_2"],
        ),
        ("*/*", ["a/b"], ["a", "a/b/c"]),
        ("a.b", ["a.b"], ["axb"]),
        ("a~1b", ["a~1b"], ["a/b"]),
        ("[ab]", ["[ab]"], ["a"]),
        ("(a", ["(a"], ["a"]),
    ],
)
def test_patterns(pattern, fits, fits_not):
    assert [path for path in fits if not _tree.matches(pattern, path)] == []
    assert [path for path in fits_not if _tree.matches(pattern, path)] == []


# ---------------------------------------------------------------- selections


def test_select():
    part = _tree.select(PARAMS, ["body/bias", "head/**"])
    assert _tree.paths(part) == ["body/bias", "head/kernel"]
    assert part["body"]["kernel"] is None
    assert set(part["body"]) == {"bias", "kernel"}


def test_select_from_a_selection():
    part = _tree.select(_tree.select(PARAMS, "body/**"), "**/kernel")
    assert _tree.paths(part) == ["body/kernel"]


def test_select_nothing():
    with pytest.raises(
        ValueError, match="pattern 'tail' matches no parameter; the paths are 'body/bias', 'body/kernel', 'head"
    ):
        _tree.select(PARAMS, ["head/**", "tail"])


def test_long_lists_of_paths_are_cut():
    with pytest.raises(ValueError, match="'7' and 12 more"):
        _tree.select([jnp.ones(1)] * 20, "x")


@pytest.mark.parametrize(
    "make", [lambda t: t, lambda t: nnx.State(jax.tree.map(nnx.Param, t)), lambda t: (t, [t["head"]])]
)
def test_a_selection_and_its_complement_make_the_whole(make):
    tree = make(PARAMS)
    names = _tree.paths(tree)
    part = _tree.select_where(tree, lambda path: names.index(path) % 2 == 0)
    rest = _tree.complement(tree, part)
    assert _tree.paths(part) == names[::2]
    assert _tree.paths(rest) == names[1::2]
    for whole in (_tree.merge(part, rest), _tree.merge(rest, part)):
        assert jax.tree.structure(whole) == jax.tree.structure(tree)
        assert all(a is b for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(tree), strict=True))
    assert jax.tree.structure(_tree.like_selection(tree, part)) == jax.tree.structure(part)


def test_as_selection():
    part = _tree.select(PARAMS, "body/**")
    for selection in ("body/**", ["body/bias", "body/kernel"], ("body/*",), part):
        assert _tree.paths(_tree.as_selection(PARAMS, selection)) == ["body/bias", "body/kernel"]


def test_a_selection_of_another_tree():
    message = (
        r"must be the same tree with None at the leaves left out; it has 'head/kernel', the parameters have 'body/bias'"
    )
    with pytest.raises(ValueError, match=message):
        _tree.as_selection(PARAMS, {"head": PARAMS["head"]})


def test_an_empty_selection():
    with pytest.raises(ValueError, match="the selection leaves out every parameter; the paths are 'body/bias'"):
        _tree.as_selection(PARAMS, jax.tree.map(lambda _: None, PARAMS))


def test_restructure():
    leaves = {"0/w": 1.0, "1/w": 2.0, "x": 3.0}
    assert _tree.restructure(leaves, [{"w": 0.0}, {"w": 0.0, "b": 0.0}]) == [{"w": 1.0}, {"w": 2.0, "b": None}]


# ---------------------------------------------------------------- algebra


def test_products_and_norms():
    x = {"a": jnp.array([1.0, 2.0]), "b": (jnp.array([[3.0]]), jnp.array(4.0))}
    y = {"a": jnp.array([5.0, 6.0]), "b": (jnp.array([[7.0]]), jnp.array(8.0))}
    assert _tree.vdot(x, y) == 5 + 12 + 21 + 32
    assert _tree.squared_norm(x) == 1 + 4 + 9 + 16
    assert _tree.size(x) == 4
    assert jax.tree.leaves(_tree.add(x, y))[0].tolist() == [6, 8]
    assert jax.tree.leaves(_tree.sub(x, y))[0].tolist() == [-4, -4]
    assert jax.tree.leaves(_tree.scale(2.0, x))[-1] == 8
    assert _tree.squared_norm(_tree.zeros_like(x)) == 0


def test_gradient_of_the_squared_norm_at_zero():
    assert jax.grad(_tree.squared_norm)({"w": jnp.zeros(2)})["w"].tolist() == [0, 0]


def test_sum_of_no_leaves():
    assert _tree.squared_norm({}) == 0
    assert _tree.size({"a": None}) == 0


@pytest.mark.x64
def test_columns():
    """Against numpy on flattened leaves."""
    rng = np.random.default_rng(0)
    shapes = {"a": (2, 3), "b": (), "c": (1, 2, 2)}
    make = lambda k: {name: rng.normal(size=(k, *shape)) for name, shape in shapes.items()}  # noqa: E731
    flat = lambda tree: np.concatenate([x.reshape(len(x), -1) for x in tree.values()], axis=1)  # noqa: E731
    c, d, v, z = make(4), make(3), make(1), rng.normal(size=(5, 4))
    one = {name: x[0] for name, x in v.items()}
    np.testing.assert_allclose(_tree.columns_dot(c, one), flat(c) @ flat(v)[0], rtol=1e-13)
    np.testing.assert_allclose(_tree.columns_gram(c, d), flat(c) @ flat(d).T, rtol=1e-12)
    combined = _tree.columns_mv(c, jnp.asarray(z))
    assert {name: x.shape for name, x in combined.items()} == {name: (5, *shape) for name, shape in shapes.items()}
    np.testing.assert_allclose(flat(jax.tree.map(np.asarray, combined)), z @ flat(c), rtol=1e-13)


@pytest.mark.x64
def test_dtypes_are_kept():
    """Sums over float32 leaves are float32 in a session with 64-bit floats."""
    x = {"w": jnp.ones(3, jnp.float32)}
    columns = {"w": jnp.ones((2, 3), jnp.float32)}
    results = _tree.vdot(x, x), _tree.columns_gram(columns, columns), _tree.columns_mv(columns, jnp.ones(2))
    assert {str(r.dtype) for r in jax.tree.leaves(results)} == {"float32"}


# ---------------------------------------------------------------- noise


def test_normal_like():
    tree = {"a": jnp.ones((300, 20)), "b": (jnp.ones(4000), jnp.ones(()))}
    noise = _tree.normal_like(jax.random.key(0), tree)
    assert jax.tree.map(jnp.shape, noise) == jax.tree.map(jnp.shape, tree)
    for leaf in jax.tree.leaves(noise)[:2]:
        # Kolmogorov-Smirnov against the standard normal; the seed is fixed.
        assert stats.kstest(np.ravel(leaf), "norm").pvalue > 1e-4
    first, second = np.ravel(noise["a"])[:4000], np.asarray(noise["b"][0])
    # Leaves of their own noise: a correlation of independent draws has standard deviation 1 / sqrt(n).
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(4000)


def test_normal_like_with_a_leading_axis():
    noise = _tree.normal_like(jax.random.key(0), {"a": jnp.ones((2, 3)), "b": None}, 7)
    assert noise["a"].shape == (7, 2, 3)
    assert noise["b"] is None
    assert len(np.unique(noise["a"])) == 42
    assert _tree.normal_like(jax.random.key(0), {}, 7) == {}


def test_normal_like_keeps_dtypes():
    assert _tree.normal_like(jax.random.key(0), jnp.ones(2, jnp.bfloat16)).dtype == jnp.bfloat16


# ---------------------------------------------------------------- checks


def test_at_least_float32():
    tree = {"half": jnp.ones(2, jnp.bfloat16), "single": jnp.ones(2), "number": 1.0, "numpy": np.ones(2, np.float16)}
    assert {str(x.dtype) for x in jax.tree.leaves(_tree.at_least_float32(tree))} == {"float32"}


def test_is_concrete():
    seen = []
    jax.jit(lambda x: seen.append(_tree.is_concrete({"w": x})))(jnp.ones(2))
    assert seen == [False]
    assert _tree.is_concrete({"w": jnp.ones(2), "n": 1.0, "none": None})
    assert not _tree.is_concrete({"w": jax.ShapeDtypeStruct((2,), jnp.float32)})


DIFFERENT = [
    (
        {"head": {"kernel": (512, 10)}},
        {"head": {"kernel": (512, 1000)}},
        r"^prior and params differ at 'head/kernel': \(512, 10\) against \(512, 1000\); do this$",
    ),
    (
        {"a": (2,)},
        {"a": (2,), "b/c": (3,)},
        r"^prior and params differ: 'b~1c' of shape \(3,\) is in params and not in prior, which has 'a'; do this$",
    ),
    (
        {"a": (2,), "b": (3,)},
        {"a": (2,)},
        r"^prior and params differ: 'b' of shape \(3,\) is in prior and not in params; do this$",
    ),
    ([(2,), (3,)], {0: (2,), 1: (3,)}, r"^prior and params hold the same paths in different containers: .*; do this$"),
    ({}, {"a": ()}, "'a' of shape .* is in params and not in prior, which has none; do this"),
]


def _zeros(shapes):
    return jax.tree.map(jnp.zeros, shapes, is_leaf=lambda x: isinstance(x, tuple))


@pytest.mark.parametrize(("tree", "reference", "message"), DIFFERENT)
def test_check_same_structure(tree, reference, message):
    with pytest.raises(ValueError, match=message):
        _tree.check_same_structure("prior", _zeros(tree), "params", _zeros(reference), "do this")


def test_check_same_structure_passes():
    shapes = jax.eval_shape(lambda: PARAMS)
    _tree.check_same_structure("prior", PARAMS, "params", shapes, "do this")


def test_checks_of_values():
    with pytest.raises(
        TypeError, match="params at 'n' has dtype int32; parameters must be floating point: keep counters"
    ):
        _tree.check_floating("params", {"n": jnp.arange(3), "w": jnp.ones(2)})
    with pytest.raises(TypeError, match="params has dtype bool"):
        _tree.check_floating("params", True)
    with pytest.raises(ValueError, match="params holds no parameters"):
        _tree.check_floating("params", {})
    with pytest.raises(ValueError, match="x at 'w' has 1 non-finite of 2 values; do this"):
        _tree.check_finite("x", {"w": jnp.array([jnp.inf, 0.0])}, "do this")
    with pytest.raises(ValueError, match=r"x at 'w' has 1 of 2 values <= 0 \(smallest 0\); variances must be positive"):
        _tree.check_positive("x", {"w": jnp.array([1.0, 0.0])})
    with pytest.raises(ValueError, match="x has 1 non-finite of 1 values"):
        _tree.check_positive("x", np.nan)


def test_checks_look_at_constants_and_not_at_tracers():
    """Inside a traced function too."""
    good, bad = {"w": jnp.ones(2)}, {"w": jnp.array([1.0, -1.0])}

    def program(x):
        _tree.check_positive("traced", {"w": x - 2})
        _tree.check_positive("good", good)
        _tree.check_positive("bad", bad)

    with pytest.raises(ValueError, match="bad at 'w' has 1 of 2 values <= 0"):
        jax.jit(program)(jnp.ones(2))
