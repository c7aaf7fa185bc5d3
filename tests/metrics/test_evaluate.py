"""A report over batches is the report on all data at once, whatever the predictive, the data and the batch size."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.special
import scipy.stats

import bayestl as btl
from bayestl import metrics

KEY = jax.random.key(0)
NUM = 37
INPUTS = np.random.default_rng(0).normal(size=(NUM, 3)).astype(np.float32)
WEIGHTS = np.random.default_rng(2).integers(0, 4, NUM).astype(np.float32)
NET = btl.nets.mlp(KEY, (3, 5, 4))
SPREAD = btl.gaussians.isotropic(NET.params, 0.3)


def _with_dropout(params, state, inputs, key):
    mask = 1.0 if key is None else 2.0 * jax.random.bernoulli(key, 0.5, inputs.shape)
    return NET.apply(params, state, inputs * mask, None)


TARGETS = {
    "classes": np.random.default_rng(1).integers(0, 4, NUM),
    "numbers": np.random.default_rng(1).normal(size=(NUM, 4)).astype(np.float32),
}
DROPPING = btl.Net(NET.params, (), _with_dropout)
JOINTS = {
    "classes": btl.LogJoint(DROPPING, btl.likelihoods.categorical(), None, num_data=NUM),
    "numbers": btl.LogJoint(DROPPING, btl.likelihoods.normal(0.7), None, num_data=NUM),
}
PREDICT = {
    "monte_carlo": lambda joint: btl.predict.monte_carlo(KEY, joint, SPREAD, 6),
    "monte_carlo_average": lambda joint: btl.predict.monte_carlo_average(KEY, joint, SPREAD, 6),
    "linearized": lambda joint: btl.predict.linearized(joint, SPREAD),
    "mc_dropout": lambda joint: btl.predict.mc_dropout(KEY, joint, NET.params, 3),
}


def held(targets):
    return btl.data.arrays(INPUTS, targets)


def streamed(targets):
    return btl.data.stream([*zip(INPUTS, targets, strict=True)], lambda record: record)


def evaluated(predict, data, **options):
    """The values of the metrics, without standard errors."""
    table = metrics.evaluate(KEY, predict, data, num_bootstrap=0, **options)
    assert all(score.dataset == "test" and np.isnan(score.standard_error) for score in table.scores)
    return {score.metric: score.value for score in table.scores}


CASES = [(name, kind, held) for name in PREDICT for kind in TARGETS] + [("monte_carlo", k, streamed) for k in TARGETS]


@pytest.mark.parametrize(("name", "kind", "data"), CASES)
def test_equals_the_report_on_all_data_at_once(name, kind, data):
    predict, targets = PREDICT[name](JOINTS[kind]), TARGETS[kind]
    ours = evaluated(predict, data(targets), batch_size=8)
    at_once = metrics.report(predict(jnp.asarray(INPUTS)), targets)
    assert list(ours) == list(at_once)
    for metric, value in at_once.items():
        np.testing.assert_allclose(ours[metric], value, rtol=1e-5, atol=1e-6, err_msg=metric)  # float32 rounding


@pytest.mark.parametrize("kind", TARGETS)
def test_weight_two_is_the_row_twice(kind):
    predict, targets = PREDICT["monte_carlo"](JOINTS[kind]), TARGETS[kind]
    weighted = btl.Batch(jnp.asarray(INPUTS), jnp.asarray(targets), jnp.asarray(WEIGHTS))
    rows = np.repeat(np.arange(NUM), WEIGHTS.astype(int))
    repeated = metrics.report(predict(jnp.asarray(INPUTS[rows])), targets[rows])
    for ours in (
        evaluated(predict, weighted, batch_size=8),
        metrics.report(predict(weighted.inputs), targets, WEIGHTS),
    ):
        for metric, value in repeated.items():
            np.testing.assert_allclose(ours[metric], value, rtol=1e-5, atol=1e-6, err_msg=metric)  # float32 rounding


def test_no_more_than_one_batch_is_predicted_at_once():
    sizes = []

    def predict(inputs):
        sizes.append(len(inputs))
        return btl.predict.from_probabilities(jax.nn.softmax(inputs))

    evaluated(predict, held(TARGETS["classes"] % 3), batch_size=10)
    assert sizes == [10] * 4


def test_a_label_outside_the_classes_is_named_in_whichever_batch():
    targets = TARGETS["classes"].copy()
    targets[30] = -1
    predict = PREDICT["monte_carlo"](JOINTS["classes"])
    for data in (held(targets), streamed(targets)):
        with pytest.raises(ValueError, match=r"1 of 7 targets lie .* from -1 to 3, valid is 0 to 3; .* in row 0"):
            evaluated(predict, data, batch_size=10)
    left_out = btl.Batch(jnp.asarray(INPUTS), jnp.asarray(targets), jnp.asarray(np.arange(NUM) != 30, jnp.float32))
    assert np.isfinite(evaluated(predict, left_out)["nll"])


def test_every_metric_refuses_labels_that_indexing_would_take_for_others():
    given = btl.predict.from_probabilities(jnp.full((2, 3), 1 / 3))
    for metric in (metrics.accuracy, metrics.macro_accuracy, metrics.nll, metrics.brier, metrics.ece, metrics.report):
        for labels in ([0, -1], [3, 1]):
            for form in (jnp.array(labels), labels):
                with pytest.raises(ValueError, match=r"1 of 2 targets lie outside .*, valid is 0 to 2"):
                    metric(given, form)
        weights = jnp.array([1.0, 0.0])
        assert metric(given, jnp.array([0, -1]), weights) == metric(given, jnp.array([0, 1]), weights)
        assert np.isnan(jax.tree.leaves(metric(given, [0, -1], np.zeros(2)))).all()
        with pytest.raises(ValueError, match=r"weights has negative or non-finite values \(1 of 2\)"):
            metric(given, jnp.array([0, 1]), jnp.array([1.0, -1.0]))


def test_a_predictive_of_all_examples_together_is_refused():
    predict = btl.predict.linearized_joint(JOINTS["numbers"], SPREAD)
    with pytest.raises(TypeError, match="a JointPredictive is about all of them together"):
        evaluated(predict, held(TARGETS["numbers"]))  # pyright: ignore[reportArgumentType]


def test_every_metric_refuses_targets_outside_the_support():
    counts = btl.predict.Predictive(
        jnp.zeros((1, 3)), btl.likelihoods.from_function(lambda f: dist.Poisson(jnp.exp(f))), jnp.zeros(1)
    )
    normals = btl.predict.Predictive(jnp.zeros((1, 3)), btl.likelihoods.normal(1.0), jnp.zeros(1))
    linear = btl.predict.linearized(JOINTS["numbers"], SPREAD)(jnp.asarray(INPUTS[:3]))
    averages = btl.predict.monte_carlo_average(KEY, JOINTS["numbers"], SPREAD, 2)(jnp.asarray(INPUTS[:3]))
    rows = np.array([[0.0] * 4, [np.nan] * 4, [1.0] * 4])
    cases = (
        (counts, np.array([0, -2, 3]), "1 of 3 targets lie outside .* valid is .*the first is in row 1", metrics.nll),
        (normals, np.array([0.0, np.inf, 3.0]), "targets hold 1 non-finite of 3 values", metrics.crps),
        (linear, rows, "targets hold 4 non-finite of 12 values", metrics.interval_coverage),
        (averages, rows, "targets hold 4 non-finite of 12 values", metrics.rmse),
    )
    for given, targets, message, metric in cases:
        for score in (metric, metrics.report):
            with pytest.raises(ValueError, match=message):
                score(given, targets)
        assert np.isfinite([*metrics.report(given, targets, np.array([1, 0, 1])).values()]).all()


def test_traced_labels_outside_the_classes_score_nan():
    given = btl.predict.from_probabilities(jnp.array([[0.2, 0.3, 0.5], [0.1, 0.8, 0.1]]))
    for metric in (metrics.accuracy, metrics.macro_accuracy, metrics.nll, metrics.brier, metrics.ece):
        traced = jax.jit(metric)
        for label in (-1, 3):
            assert np.isnan(traced(given, jnp.array([2, label])))
        assert np.isfinite(traced(given, jnp.array([2, -1]), jnp.array([1.0, 0.0])))


class TwoHeads(dist.Distribution):
    """A class and a number, independent given the outputs."""

    support = None  # pyright: ignore[reportAssignmentType]  numpyro declares a property

    def __init__(self, outputs):
        self.heads = dist.CategoricalLogits(outputs["kind"]), dist.Normal(outputs["size"], 0.5)
        super().__init__(batch_shape=jnp.shape(outputs["size"]), validate_args=False)

    def log_prob(self, value):
        return self.heads[0].log_prob(value["kind"]) + self.heads[1].log_prob(value["size"])


def test_targets_of_two_heads():
    outputs = {"kind": jnp.asarray(INPUTS), "size": jnp.asarray(INPUTS[:, 0])}
    targets = {"kind": TARGETS["classes"] % 3, "size": TARGETS["numbers"][:, 0]}
    given = btl.predict.Predictive(
        jax.tree.map(lambda x: x[None], outputs), btl.likelihoods.from_function(TwoHeads), jnp.zeros(1)
    )
    each = scipy.stats.norm.logpdf(targets["size"], INPUTS[:, 0], 0.5)
    each += scipy.special.log_softmax(INPUTS, axis=1)[np.arange(NUM), targets["kind"]]
    found = metrics.report(given, targets)
    assert list(found) == ["nll"]
    np.testing.assert_allclose(found["nll"], -each.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics.nll(given, targets, WEIGHTS), -np.average(each, weights=WEIGHTS), rtol=1e-5)

    def predict(inputs):
        outputs = {"kind": inputs, "size": inputs[:, 0]}
        return btl.predict.Predictive(jax.tree.map(lambda x: x[None], outputs), given.likelihood, jnp.zeros(1))

    np.testing.assert_allclose(evaluated(predict, held(targets), batch_size=8)["nll"], -each.mean(), rtol=1e-5)
