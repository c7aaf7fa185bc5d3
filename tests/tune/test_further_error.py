"""One further mistake: against enumeration, what it changes, and what it refuses."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl


def test_it_is_what_is_left_of_the_probabilities():
    right = np.random.default_rng(0).uniform(0.05, 0.95, (3, 4))
    np.testing.assert_allclose(btl.tune.further_error(np.log(right)), np.log(1 - right).mean(1), rtol=1e-12)
    assert btl.tune.further_error(np.zeros((1, 2))) == pytest.approx(np.log(1e-14))


def test_few_examples_that_are_all_right_do_not_make_certainty_the_best_candidate():
    """Two candidates that are right throughout; with 200 examples the surer one is to be believed."""
    for num, surer_wins in ((10, False), (200, True)):
        scores = np.log(np.repeat([[0.93], [0.999]], num, 1))
        plain = btl.tune.average(jax.random.key(0), scores).pseudo_bma
        careful = btl.tune.average(jax.random.key(0), scores, btl.tune.further_error(scores)).pseudo_bma
        assert plain[1] > 0.6
        assert (careful[1] > 0.5) == surer_wins
        assert careful[1] < plain[1] + 1e-12


def test_densities_and_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"holds 0.3; give log probabilities of classes"):
        btl.tune.further_error(jnp.array([[-1.0, 0.3]]))
    with pytest.raises(ValueError, match=r"shape \(3,\); give \(candidates, examples\)"):
        btl.tune.further_error(jnp.zeros(3))
