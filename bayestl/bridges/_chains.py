"""Draws of Markov chains that remember their chains, and how well these mixed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from numpyro import diagnostics

from bayestl._posteriors import Samples
from bayestl._types import Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Chains(Samples):
    """Equally weighted draws of C chains of n draws each, chain after chain: a :class:`~bayestl.Samples`, S = C n.

    Attributes:
        diverging: (C, n), whether the trajectory to this draw diverged; such draws are kept.
        accept_prob: (C, n), mean acceptance probability along each trajectory.
    """

    diverging: jax.Array
    accept_prob: jax.Array

    @property
    def num_divergences(self) -> int:
        """How many trajectories diverged; draws are to be trusted where none did."""
        return int(self.diverging.sum())

    def by_chain(self, function: Callable[[Params], Any] | None = None) -> Any:
        """The draws, or a function of them, by chain: leaves (C, n, ...)."""
        draws = self.draws if function is None else jax.vmap(function)(self.draws)
        return jax.tree.map(lambda x: x.reshape(*self.diverging.shape, *x.shape[1:]), draws)

    def r_hat(self, function: Callable[[Params], Any] | None = None) -> Any:
        """Split R-hat: the spread over halves of all chains against that within them; near 1 where they agree.

        Args:
            function: params -> pytree of arrays, of which it is asked; None for each parameter.

        Reference:
            Gelman et al. 2013, "Bayesian Data Analysis", third edition, section 11.4.
        """
        return self._each(diagnostics.split_gelman_rubin, function)

    def effective_sample_size(self, function: Callable[[Params], Any] | None = None) -> Any:
        """How many independent draws would know the mean as well: its standard error is sd / sqrt(this).

        Args:
            function: params -> pytree of arrays, of which it is asked; None for each parameter.

        Reference:
            Geyer 2011, "Introduction to Markov Chain Monte Carlo", section 1.10.2.
        """
        return self._each(diagnostics.effective_sample_size, function)

    def _each(self, diagnostic: Callable[[Any], Any], function: Callable[[Params], Any] | None) -> Any:
        return jax.tree.map(lambda x: diagnostic(np.asarray(x, np.float64)), self.by_chain(function))
