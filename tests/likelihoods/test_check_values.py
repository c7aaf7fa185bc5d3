import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from bayestl import likelihoods


def shaped(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            [0, 3, 1, 4],
            r"2 of 4 targets.*go from 0 to 4, valid is 0 to 2; number the classes from 0.*in row 1",
        ),
        ([0, -1, 2], r"1 of 3 targets.*go from -1 to 2, valid is 0 to 2"),
    ],
)
def test_labels_outside_the_classes(labels, message):
    with pytest.raises(ValueError, match=message):
        likelihoods.check_values(likelihoods.categorical(), shaped(32, 3), np.array(labels))


def test_labels_of_a_short_dtype_do_not_wrap_around():
    # 1000 classes: the bound 999 does not fit uint8, and compared in that dtype would become 231.
    likelihoods.check_values(likelihoods.categorical(), shaped(32, 1000), np.array([0, 255], np.uint8))
    with pytest.raises(ValueError, match="go from 0 to 4294967297, valid is 0 to 2"):
        likelihoods.check_values(likelihoods.categorical(), shaped(32, 3), np.array([0, 2**32 + 1]))


def test_a_binary_target_that_is_neither():
    with pytest.raises(ValueError, match=r"1 of 3 targets.*from 0 to 2, valid is 0 or 1"):
        likelihoods.check_values(likelihoods.bernoulli(), shaped(32), np.array([0, 1, 2]))
    likelihoods.check_values(likelihoods.bernoulli(), shaped(32), np.array([True, False]))


def test_float_labels():
    with pytest.raises(TypeError, match="targets have dtype float64, but the likelihood is BernoulliLogits"):
        likelihoods.check_values(likelihoods.bernoulli(), shaped(32), np.array([0.0, 1.0]))


def test_non_finite_targets():
    with pytest.raises(ValueError, match="targets hold 2 non-finite of 6 values; drop those examples, or mask"):
        likelihoods.check_values(likelihoods.normal(1.0), shaped(32, 2), np.array([[0, np.nan], [1, 2], [3, np.inf]]))


def test_values_outside_a_bounded_support():
    likelihood = likelihoods.from_function(lambda f: dist.Exponential(jnp.exp(f)))
    with pytest.raises(ValueError, match=r"1 of 2 targets.*from -1.0 to 2.0.*transform the targets"):
        likelihoods.check_values(likelihood, shaped(32), np.array([-1.0, 2.0]))


def test_a_support_that_depends_on_the_outputs_is_not_judged():
    likelihood = likelihoods.from_function(lambda f: dist.Uniform(f, f + 1))
    likelihoods.check_values(likelihood, shaped(32), np.array([5.0]))


def test_targets_of_another_shape():
    with pytest.raises(ValueError, match=r"targets have shape \(100, 3\), but the likelihood is over \(100, 2\)"):
        likelihoods.check_values(likelihoods.normal(1.0), shaped(32, 2), np.zeros((100, 3)))


def test_learned_noise_without_a_batch_axis():
    likelihoods.check_values(likelihoods.normal(), (shaped(32, 2), shaped(2)), np.zeros((100, 2)))


def test_a_whole_data_set_of_many_classes_builds_no_table():
    rows = []

    def record(logits):
        rows.append(logits.shape[0])
        return dist.CategoricalLogits(logits)

    labels = np.zeros(1_000_000, int)
    likelihoods.check_values(likelihoods.from_function(record), shaped(1_000_000, 50_000), labels)
    # eval_shape sees the full shape and allocates nothing; the concrete ones hold one example.
    assert sorted(rows) == [1, 1, 1_000_000]


def test_traced_targets_are_let_through_and_nested_ones_refused():
    @jax.jit
    def traced(labels):
        likelihoods.check_values(likelihoods.categorical(), shaped(32, 3), labels)
        return 0

    traced(jnp.array([7]))
    with pytest.raises(TypeError, match="a CategoricalLogits is over one array"):
        likelihoods.check_values(likelihoods.categorical(), shaped(32, 3), {"a": np.array([7])})
