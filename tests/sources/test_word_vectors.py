"""Word vectors as start and prior, rows matched by name, and what that does to training."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bayestl as btl
from bayestl.pretrained import WordVectors
from bayestl.sources import match, word_vectors

KEY = jax.random.key(0)
VALUES = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
VECTORS = WordVectors(("good", "bad", "film", "does", "n't"), VALUES, "glove", "here")
VOCAB = btl.data.text.vocabulary(["a good film", "a bad bad film", "a zzz"], extra=["does", "spare"])


def test_known_words_have_their_vectors_and_new_ones_a_wide_prior():
    words = word_vectors(KEY, VECTORS, VOCAB, scale=0.1, new_scale=3.0)
    mean, start = (np.asarray(tree["embedding"]["table"]) for tree in (words.prior.mean, words.start))
    variance = np.asarray(words.prior.diagonal["embedding"]["table"])
    assert variance.shape == (len(VOCAB), 1)
    for row, word in enumerate(VOCAB):
        known = word in VECTORS.words
        np.testing.assert_array_equal(mean[row], VECTORS.vector(word) if known else np.zeros(3))
        assert variance[row] == pytest.approx(0.01 if known else 9.0)
        # Words of the texts without a vector start at random, and what the texts never hold at zero.
        drawn = word in ("a", "zzz")
        np.testing.assert_array_equal(start[row] == mean[row], not drawn)
    assert words.report.is_known.tolist() == [word in VECTORS.words for word in VOCAB]
    # good film bad bad film are known, of nine words.
    assert words.report.share == pytest.approx(5 / 9)
    assert words.report.new == ("a", "zzz")


def test_new_words_start_with_the_spread_of_the_vectors():
    many = [f"w{i}" for i in range(4000)]
    words = word_vectors(KEY, VECTORS, ["good", *many], scale=0.1)
    drawn = np.asarray(words.start["embedding"]["table"])[1:]
    spread = np.sqrt(np.mean(VALUES.astype(float) ** 2))
    # 12,000 draws: the standard deviation is known to 1 / sqrt(24,000) of it; five times that.
    assert abs(drawn.std() / spread - 1) < 5 / np.sqrt(24_000)
    np.testing.assert_allclose(words.prior.variance["embedding"]["table"][1], spread**2, rtol=1e-6)
    assert words.report.share == pytest.approx(1 / 4001)  # of rows, where nothing says how often words come


def test_one_scale_per_row():
    scale = np.linspace(0.1, 1.0, len(VOCAB))
    for given in (scale, scale[:, None]):
        words = word_vectors(KEY, VECTORS, VOCAB, given, 2.0, path="body/words")
        variance = np.asarray(words.prior.diagonal["body"]["words"])[:, 0]
        np.testing.assert_allclose(variance, np.where(words.report.is_known, scale**2, 4.0), rtol=1e-6)


def test_a_traced_scale():
    def log_det(scale: jax.Array) -> jax.Array:
        return word_vectors(KEY, VECTORS, VOCAB, scale, 1.0).prior.log_det_covariance()

    # Four known rows of three numbers, each with variance s^2.
    assert jax.grad(log_det)(0.5) == pytest.approx(4 * 3 * 2 / 0.5)


def test_contractions_in_one_piece_are_told():
    vocab = btl.data.text.vocabulary(["it doesn't do"], split=str.split, extra=["good"])
    report = word_vectors(KEY, VECTORS, vocab, scale=0.1).report
    assert report.contractions == 1
    assert "1 of them are contractions" in str(report)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vectors": VALUES}, r"vectors is a ndarray; give pretrained\.read_vectors"),
        ({"vectors": WordVectors(("a",), VALUES, "", "")}, r"1 words and vectors of shape \(5, 3\)"),
        ({"vectors": WordVectors(("a", "b"), np.full((2, 2), np.nan), "", "")}, "vector of 'a' is not finite"),
        ({"vectors": WordVectors((), np.zeros((0, 3)), "", "")}, "vectors holds no word; .* are not in its file"),
        ({"vocab": "good"}, "vocab is a str; give a list"),
        ({"vocab": ["good", 3]}, "vocab holds a int at row 1"),
        ({"vocab": ["Good", "Bad"]}, "no word of the vocabulary .'Good'.* has a vector; those begin with 'good'"),
        ({"scale": 0.0}, "scale is to be positive and finite"),
        ({"scale": np.ones(3)}, r"scale has shape \(3,\); give one number, or one for every row, \(9,\)"),
        ({"new_scale": -1.0}, "new_scale is to be positive"),
        ({"path": "/"}, "path is '/'"),
    ],
)
def test_what_is_wrong_is_said(arguments, message):
    valid: dict[str, Any] = {"key": KEY, "vectors": VECTORS, "vocab": VOCAB, "scale": 0.1}
    with pytest.raises((TypeError, ValueError), match=message):
        word_vectors(**valid | arguments)


# ---------------------------------------------------------------- rows matched by name


def test_rows_are_matched_by_name():
    source = {"embedding": {"table": jnp.arange(12.0).reshape(4, 3)}, "head": jnp.ones(2)}
    target = {"embedding": {"table": -jnp.ones((5, 3))}, "head": jnp.zeros(2)}
    names = (["<padding>", "film", "", "good"], ["<padding>", "bad", "good", "", "film"])
    given = match(source, target, rows={"embedding/table": names}, verbose=False)
    expected = [[0, 1, 2], [-1, -1, -1], [9, 10, 11], [-1, -1, -1], [3, 4, 5]]
    assert given.params["embedding"]["table"].tolist() == expected
    assert given.rows["embedding/table"].tolist() == [True, False, True, False, True]
    assert given.reused == ("embedding/table", "head")
    assert "rows:   3 of 5 rows of 'embedding/table'" in str(given)
    assert match(target, target, verbose=False).rows == {}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"table": (["a"], ["a"])}, "rows names 'table', which the target does not have"),
        ({"head": (["a"], ["a"])}, "'head' is in rows and in new"),
        ({"embedding": ["a", "b"]}, "a pair of vocabularies"),
        ({"embedding": (["a"], ["a", "b"])}, r"names 1 rows of the source's table, whose shape is \(2, 3\)"),
        ({"embedding": (["a", "b"], ["a", "b", "c"])}, r"names 3 rows of the target's table, whose shape is \(2, 3\)"),
        ({"embedding": (["a", "b"], ["c", "d"])}, "no name in common"),
    ],
)
def test_rows_that_do_not_fit_are_refused(rows, message):
    tree = {"embedding": jnp.zeros((2, 3)), "head": jnp.zeros(2)}
    with pytest.raises((TypeError, ValueError), match=message):
        match(tree, tree, new=["head"], rows=rows, verbose=False)


def test_rows_of_other_sizes_are_refused():
    source, target = {"table": jnp.zeros((2, 3))}, {"table": jnp.zeros((2, 4))}
    with pytest.raises(ValueError, match=r"rows of 'table' have shape \(3,\) in the source and \(4,\) in the target"):
        match(source, target, rows={"table": (["a", "b"], ["a", "b"])}, verbose=False)


# ---------------------------------------------------------------- laws of training

TEXTS = ["a good film", "a bad film", "good", "a bad bad zzz film"]
LABELS = jnp.array([1, 0, 1, 0])
TOKENS = jnp.asarray(btl.data.text.encode(TEXTS, VOCAB).tokens)
DATA = btl.data.arrays(TOKENS, LABELS)


def problem(scale: float) -> tuple[btl.Net, Any, Any]:
    """The network, and a prior and its mean: word vectors, and a head around zero."""
    net = btl.nets.bag_of_words(jax.random.key(1), len(VOCAB), 3, 2)
    words = word_vectors(KEY, VECTORS, VOCAB, scale, 1.0)
    head = btl.gaussians.isotropic(btl.tree.zeros_like(net.params), 1.0)
    prior = btl.gaussians.by_path({"embedding/**": words.prior, "head/**": head}, like=net.params)
    return net, prior, words


@pytest.mark.parametrize("optimizer", [optax.sgd(0.1, momentum=0.9), optax.adam(0.01)], ids=["sgd", "adam"])
def test_rows_of_absent_words_stay_at_the_prior_mean_bit_by_bit(optimizer):
    net, prior, _ = problem(0.3)
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=4)
    fitted = btl.fit(
        KEY, btl.infer.map_estimate(joint, optimizer), prior.mean, DATA, steps=30, batch_size=2, progress=False
    )
    table, mean = (np.asarray(tree["embedding"]["table"]) for tree in (fitted.params, prior.mean))
    absent = np.setdiff1d(np.arange(len(VOCAB)), np.asarray(TOKENS))
    assert {VOCAB[row] for row in absent} == {"<unknown>", "does", "spare"}
    absent = [0, *absent]  # padding
    np.testing.assert_array_equal(table[absent].view(np.uint32), mean[absent].view(np.uint32))
    present = np.setdiff1d(np.asarray(TOKENS), [0])
    assert (table[present] != mean[present]).any(1).all()


def test_a_scale_of_zero_is_freezing():
    """Scales to 0, by proximal steps that are exact for them, against a table that is frozen."""
    net, _, words = problem(1.0)
    start = match(words.start, net.params, new=["head/**"], verbose=False).params
    start["embedding"] = words.prior.mean["embedding"]
    frozen = btl.nets.freeze(btl.Net(start, (), net.apply), "embedding/**")
    head = btl.gaussians.isotropic(btl.tree.zeros_like(start), 1.0)

    def fitted(net: btl.Net, prior: Any, params: Any) -> Any:
        joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=4)
        method = btl.infer.proximal_map(joint, 0.5, momentum=0.5)
        return btl.fit(KEY, method, params, DATA, steps=50, batch_size=4, progress=False).params

    def head_of(tree: Any) -> Any:
        return tree["head"]["kernel"]

    expected = head_of(fitted(frozen, head.restrict(frozen.params), frozen.params))
    errors = []
    for scale in (0.1, 0.01, 1e-4):
        rows = word_vectors(KEY, VECTORS, VOCAB, scale, scale).prior
        prior = btl.gaussians.by_path({"embedding/**": rows, "head/**": head}, like=start)
        params = fitted(net, prior, start)
        errors.append(float(jnp.abs(head_of(params) - expected).max()))
    moved = np.abs(np.asarray(params["embedding"]["table"]) - np.asarray(start["embedding"]["table"])).max()
    # The table moves by scale^2 times its gradient, at most N = 4 here, and the head follows in proportion.
    assert moved < 4e-8 + 1e-7
    assert errors[0] > 10 * errors[1] > 0
    assert errors[2] < 1e-5


# ---------------------------------------------------------------- memory

MEMORY = """
import sys
import jax, jax.numpy as jnp, numpy as np, optax
import bayestl as btl

rows, size, num = 60_000, 50, 64
rng = np.random.default_rng(0)
names = [f"w{i}" for i in range(rows)]
vectors = btl.pretrained.WordVectors(tuple(names), rng.normal(size=(rows, size)).astype(np.float32), "glove", "here")
words = btl.sources.word_vectors(jax.random.key(0), vectors, names, scale=1.0 / np.arange(1, rows + 1))
net = btl.nets.text_cnn(jax.random.key(1), rows, size, 2)
start = btl.sources.match(words.start, net.params, new=["conv_*/**", "head/**"], verbose=False).params
rest = btl.gaussians.isotropic(btl.tree.zeros_like(net.params), 1.0)
prior = btl.gaussians.by_path({"embedding/**": words.prior, "**": rest}, like=net.params)
joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=num)
data = btl.data.arrays(jnp.asarray(rng.integers(1, rows, (num, 20))), jnp.arange(num) % 2)
if sys.argv[1] == "vi":
    method = btl.infer.mean_field_vi(joint, optax.adam(1e-3), initial_scale=1e-2)
    fitted = btl.fit(jax.random.key(2), method, start, data, steps=20, batch_size=32, progress=False)
    posterior = fitted.posterior
else:
    posterior = btl.infer.laplace(
        jax.random.key(2), joint, start, data, curvature=btl.curvature.kronecker(), batch_size=16
    )
predict = btl.predict.monte_carlo(jax.random.key(3), joint, posterior, num_samples=2)
assert np.isfinite(predict(data.inputs[:8]).probs).all()
# Of this process alone: ru_maxrss begins with that of the process which started it.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) * 1024 / 1e9)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is measured by Linux's means")
@pytest.mark.parametrize("method", ["vi", "laplace"])
def test_60000_word_vectors_take_less_than_2_gb(method):
    """From start to predictions, with Python, JAX and the compiler in it: one table takes 12 MB."""
    done = subprocess.run([sys.executable, "-c", MEMORY, method], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout.split()[-1]) < 2.0
