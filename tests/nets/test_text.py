"""Networks for texts, against their definition word by word; curvature of their tables, against dense algebra."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import bayestl as btl
from bayestl import curvature

KEY = jax.random.key(0)
V, D, CLASSES = 7, 3, 3
TOKENS = np.array([[5, 2, 6, 2], [1, 1, 1, 0], [3, 0, 0, 0], [4, 6, 0, 0], [0, 0, 0, 0]])
NETS = {
    "bag of words": btl.nets.bag_of_words(KEY, V, D, CLASSES, hidden=(4,), activation=jnp.tanh),
    "CNN": btl.nets.text_cnn(KEY, V, D, CLASSES, channels=2, widths=(2, 3)),
}


def moved(net: btl.Net) -> Any:
    """Parameters of which none is zero, as biases are at the start; float64 where that is on."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x) + 0.3 * rng.normal(size=x.shape), float), net.params)


def bag_by_hand(params: Any, texts: list[list[int]]) -> np.ndarray:
    p = jax.tree.map(np.asarray, params)
    means = np.array([p["embedding"]["table"][text].mean(0) if text else np.zeros(D) for text in texts])
    hidden = np.tanh(means @ p["dense_0"]["kernel"] + p["dense_0"]["bias"])
    return hidden @ p["head"]["kernel"] + p["head"]["bias"]


def cnn_by_hand(params: Any, texts: list[list[int]]) -> np.ndarray:
    """Window by window, as the paper has it: products, bias, relu, and the largest."""
    p = jax.tree.map(np.asarray, params)
    rows = []
    for text in texts:
        features = []
        for width in (2, 3):
            kernel, bias = p[f"conv_{width}"]["kernel"], p[f"conv_{width}"]["bias"]
            values = [np.zeros(2)]
            for start in range(1 - width, len(text)):
                value = bias.copy()
                for offset in range(width):
                    if 0 <= start + offset < len(text):
                        value += p["embedding"]["table"][text[start + offset]] @ kernel[offset]
                values.append(np.maximum(value, 0))
            features.append(np.max(values if text else [np.zeros(2)], 0))
        rows.append(np.concatenate(features) @ p["head"]["kernel"] + p["head"]["bias"])
    return np.array(rows)


@pytest.mark.x64
@pytest.mark.parametrize(("name", "by_hand"), [("bag of words", bag_by_hand), ("CNN", cnn_by_hand)])
def test_outputs_are_those_of_the_definition(name, by_hand):
    params = moved(NETS[name])
    texts = [[token for token in text if token] for text in TOKENS.tolist()]
    outputs = jax.jit(NETS[name].__call__)(params, jnp.asarray(TOKENS))
    np.testing.assert_allclose(outputs, by_hand(params, texts), rtol=1e-10, atol=1e-12)


@pytest.mark.x64
@pytest.mark.parametrize("name", NETS)
def test_the_length_of_padding_changes_nothing_and_texts_without_words_are_finite(name):
    net, params = NETS[name], moved(NETS[name])
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=5)
    # As they are, with padding behind the texts, and with padding before them; the last text is empty.
    versions = [jnp.asarray(np.pad(TOKENS, ((0, 0), padding))) for padding in ((0, 0), (0, 5), (3, 0))]

    @jax.jit
    def losses(params: Any) -> list[Any]:
        batches = [btl.Batch(tokens, jnp.arange(5) % CLASSES) for tokens in versions]
        return [jax.value_and_grad(lambda p, b=batch: joint.loss(p, b)[0])(params) for batch in batches]

    (value, gradient), *padded = losses(params)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((value, gradient)))
    for again, other in padded:
        np.testing.assert_allclose(again, value, rtol=1e-12)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-13), other, gradient)
    assert not np.any(np.asarray(gradient["embedding"]["table"])[0])  # padding has a row that nothing reads


def test_tokens_outside_the_table_are_not_mistaken_for_words():
    net = NETS["bag of words"]
    outputs = net(net.params, jnp.array([[1, V], [1, -1], [1, V - 1]]))
    assert np.isnan(outputs[:2]).all()
    assert np.isfinite(outputs[2]).all()
    with pytest.raises(TypeError, match=r"tokens have shape \(2, 3\) and dtype float32; give whole numbers \(B, L\)"):
        net(net.params, jnp.zeros((2, 3)))
    with pytest.raises(TypeError, match=r"tokens have shape \(2,\)"):
        net(net.params, jnp.zeros(2, int))


def test_dropout_takes_features_while_training_alone():
    """With a key: unbiased, and other than without one; the head sees the features scaled by 1 / (1 - p)."""
    net = btl.nets.text_cnn(KEY, V, D, CLASSES, channels=2, widths=(2, 3), dropout=0.5)
    plain, tokens = NETS["CNN"], jnp.asarray(TOKENS[:1])
    np.testing.assert_array_equal(net(net.params, tokens), plain(net.params, tokens))
    keys = jax.random.split(KEY, 4000)
    draws = np.asarray(jax.vmap(lambda key: net.apply(net.params, (), tokens, key)[0][0])(keys))
    error = draws.std(0) / np.sqrt(len(draws))
    assert (error > 0).all()
    # Five standard errors of the mean of the test itself.
    assert (np.abs(draws.mean(0) - np.asarray(plain(net.params, tokens))[0]) < 5 * error).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: btl.nets.bag_of_words(KEY, 0, 3, 2), "num_rows is 0; give a number of at least 1"),
        (lambda: btl.nets.bag_of_words(KEY, 3, 3, 2, hidden=(0,)), r"hidden is \(0,\); give sizes"),
        (lambda: btl.nets.text_cnn(KEY, 3, 3, 2, channels=0), "channels is 0"),
        (lambda: btl.nets.text_cnn(KEY, 3, 3, 2, widths=(3, 3)), r"widths is \(3, 3\); give different numbers"),
        (lambda: btl.nets.text_cnn(KEY, 3, 3, 2, widths=()), r"widths is \(\)"),
        (lambda: btl.nets.text_cnn(KEY, 3, 3, 2, dropout=1.0), r"dropout is 1.0; give a share in \[0, 1\)"),
    ],
)
def test_what_is_wrong_is_said(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---------------------------------------------------------------- curvature


def problem(name: str, tokens: np.ndarray) -> tuple[btl.LogJoint, Any, Any]:
    net, params = NETS[name], moved(NETS[name])
    targets = jnp.arange(len(tokens)) % CLASSES
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=len(tokens))
    return joint, params, btl.data.arrays(jnp.asarray(tokens), targets)


def built(builder: Any, joint: btl.LogJoint, params: Any, data: Any) -> Any:
    return jax.jit(lambda params: builder(KEY, joint, params, data, curvature.ggn, 5))(params)


def matrix(function: Any, params: Any) -> np.ndarray:
    flat, unflat = ravel_pytree(params)
    return np.asarray(jax.jit(jax.vmap(lambda e: ravel_pytree(function(unflat(e)))[0]))(jnp.eye(flat.size)))


@pytest.mark.x64
@pytest.mark.parametrize("name", NETS)
def test_laplace_by_diagonal_and_low_rank_curvature_is_that_of_dense_curvature(name):
    """Words repeated in a text and in several, padding, an empty text, one variance per row of the table."""
    joint, params, data = problem(name, TOKENS)
    rows = jnp.linspace(0.1, 2.0, V)[:, None]
    variances = {**jax.tree.map(jnp.ones_like, params), "embedding": {"table": rows}}
    prior = btl.gaussians.diagonal(params, variances)
    truth = built(curvature.dense(), joint, params, data).matrix
    flat = np.asarray(ravel_pytree(prior.variance)[0])
    posterior = built(curvature.diagonal(), joint, params, data).precision_update(prior, params, 1.0, 1.0)
    expected = 1 / (np.diag(truth) + 1 / flat)
    np.testing.assert_allclose(ravel_pytree(posterior.variance)[0], expected, rtol=1e-9)
    joint = joint.replace(prior=prior)
    whole = built(curvature.low_rank(rank=15), joint, params, data)
    posterior = whole.precision_update(prior, params, 1.0, 1.0)
    # 5 texts and 3 classes leave 10 directions, so that rank 15 holds all of the curvature.
    expected = np.linalg.inv(truth + np.diag(1 / flat))
    np.testing.assert_allclose(matrix(posterior.covariance_mv, params), expected, rtol=1e-6, atol=1e-9)


def _table_block(truth: np.ndarray, params: Any) -> np.ndarray:
    flags = {**jax.tree.map(jnp.zeros_like, params), "embedding": {"table": jnp.ones((V, D))}}
    where = np.flatnonzero(np.asarray(ravel_pytree(flags)[0]))
    return truth[np.ix_(where, where)]


@pytest.mark.x64
@pytest.mark.parametrize("tokens", [[[4, 0, 0]], [[4, 4, 0]], [[4, 4, 4]]], ids=str)
def test_kronecker_curvature_of_one_word_is_exact(tokens):
    """One example whose words are all the same: ``H = e_v e_v^T (x) G``, which reduce gives exactly, padding or not."""
    joint, params, data = problem("bag of words", np.array(tokens))
    truth = _table_block(built(curvature.dense(), joint, params, data).matrix, params)
    given = matrix(built(curvature.kronecker(curvature.reduce), joint, params, data).mv, params)
    np.testing.assert_allclose(_table_block(given, params), truth, rtol=1e-9, atol=1e-14)


@pytest.mark.x64
@pytest.mark.parametrize("sharing", ["expand", "reduce"])
def test_padding_is_no_position_of_a_table_for_kronecker_curvature(sharing):
    builder = curvature.kronecker(getattr(curvature, sharing))
    whole = [built(builder, *problem("bag of words", np.pad(TOKENS, ((0, 0), (0, n))))).layers for n in (0, 4)]
    for short, long in zip(*whole, strict=True):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-14), short, long)
    # By hand, the share of each word in each text.
    (table,) = (layer for layer in whole[0] if layer.layout.weights == "embedding/table")
    counts = np.zeros(V)
    for text in TOKENS:
        words = text[text > 0]
        for word in set(words.tolist()):
            share = np.mean(words == word)
            counts[word] += (share if sharing == "expand" else share**2) / len(TOKENS)
    np.testing.assert_allclose(table.inputs[:, 0, 0], counts, rtol=1e-12, atol=1e-15)
