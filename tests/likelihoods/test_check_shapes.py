import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest

from bayestl import likelihoods


def shaped(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def test_what_fits_passes_also_while_tracing():
    likelihoods.check_shapes(likelihoods.categorical(), shaped(32, 10), shaped(32, dtype=jnp.uint8), shaped(32))
    likelihoods.check_shapes(likelihoods.bernoulli(), shaped(32), shaped(32, dtype=bool))
    likelihoods.check_shapes(likelihoods.normal(1.0), shaped(32, 2), shaped(32, 2))
    likelihoods.check_shapes(likelihoods.normal(), (shaped(32, 2), shaped()), shaped(32, 2))

    @jax.jit
    def traced(scale, outputs, labels):
        likelihoods.check_shapes(likelihoods.normal(scale), outputs, labels, jnp.ones(4))
        return 0

    traced(1.0, jnp.zeros(4), jnp.zeros(4))


@pytest.mark.parametrize(
    "likelihood", [likelihoods.bernoulli(), likelihoods.from_function(lambda f: dist.Normal(f, 1))]
)
def test_one_output_per_example_with_a_last_axis(likelihood):
    message = (
        r"the likelihood on outputs of shape \(32, 1\) has batch shape \(32, 1\), but must have \(32,\), one per "
        r"example; for a network with one output per example drop the last axis: outputs\[\.\.\., 0\]"
    )
    with pytest.raises(ValueError, match=message):
        likelihoods.check_shapes(likelihood, shaped(32, 1), shaped(32, dtype=int))


def test_other_batch_shapes():
    with pytest.raises(ValueError, match=r"has batch shape \(8, 5\), but must have \(8,\).*to_event"):
        likelihoods.check_shapes(likelihoods.categorical(), shaped(8, 5, 3), shaped(8, 5, dtype=int))
    with pytest.raises(ValueError, match=r"has batch shape \(\), but must have \(8,\)"):
        likelihoods.check_shapes(
            likelihoods.from_function(lambda f: dist.Normal(f, 1.0).to_event(2)), shaped(8, 5), shaped(8, 5)
        )
    with pytest.raises(ValueError, match=r"has batch shape \(5,\), but must have \(8,\)"):
        likelihoods.check_shapes(
            likelihoods.from_function(lambda f: dist.Normal(f.sum(0), 1.0)), shaped(8, 5), shaped(5)
        )


@pytest.mark.parametrize(
    ("likelihood", "outputs", "targets", "message"),
    [
        (likelihoods.categorical(), (8, 3), (7,), r"targets have shape \(7,\), but the likelihood is over \(8,\)"),
        (likelihoods.categorical(), (8, 3), (8, 1), r"\(8, 1\).*targets\[\.\.\., 0\]"),
        (likelihoods.categorical(), (8, 3), (8, 3), r"\(8, 3\).*argmax"),
        (likelihoods.normal(1.0), (8, 1), (8,), r"\(8,\), but the likelihood is over \(8, 1\).*outputs\[\.\.\., 0\]"),
        (likelihoods.normal(1.0), (8, 2), (8, 3), r"\(8, 3\), but the likelihood is over \(8, 2\)"),
    ],
)
def test_targets_of_another_shape(likelihood, outputs, targets, message):
    with pytest.raises(ValueError, match=message):
        likelihoods.check_shapes(likelihood, shaped(*outputs), shaped(*targets, dtype=int))


def test_mask_of_another_shape():
    with pytest.raises(ValueError, match=r"mask has shape \(8, 1\), but must have \(8,\)"):
        likelihoods.check_shapes(likelihoods.bernoulli(), shaped(8), shaped(8, dtype=int), shaped(8, 1))


def test_float_labels():
    with pytest.raises(TypeError, match=r"targets have dtype float32, but the likelihood is CategoricalLogits.*astype"):
        likelihoods.check_shapes(likelihoods.categorical(), shaped(8, 3), shaped(8))


def test_a_function_that_gives_no_distribution():
    with pytest.raises(TypeError, match=r"must give a numpyro distribution, but gives .*Tracer"):
        likelihoods.check_shapes(lambda outputs: outputs, shaped(8), shaped(8))
