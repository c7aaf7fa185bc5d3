"""What methods report of each step: one kind of info for each family of methods."""

from __future__ import annotations

from typing import NamedTuple

import jax


class ELBOInfo(NamedTuple):
    """What a variational method reports of a step.

    Attributes:
        objective: what is minimised, ``-ELBO`` per effective datum: at T = 1 ``nll + kl / (kappa N)``.
        elbo: estimate of the evidence lower bound, nats of the full data set, up is good.
        nll: mean negative log likelihood of the batch under draws from q, nats per example. None where the method does
            not tell the two parts apart (:func:`bayestl.bridges.svi`).
        kl: KL(q || prior), the prior tempered by T, nats; or None.
    """

    objective: jax.Array
    elbo: jax.Array
    nll: jax.Array | None = None
    kl: jax.Array | None = None


class SamplerInfo(NamedTuple):
    """What a stochastic-gradient sampler reports of a step.

    Attributes:
        objective: ``-log joint`` per effective datum, up to a constant: ``nll - log_prior / (kappa N)``.
        nll: mean negative log likelihood of the batch, nats per example.
        log_prior: log prior up to a constant, nats.
        step_size: of this step; of SGHMC its learning rate.
        step_to_noise: squared length of the gradient's part of the step over the expected one of the noise's: of SGLD
            ``step_size/4 |grad U|^2_P / D``, of SGHMC ``step_size / (2 friction) |grad U|^2_P / D``.
        temperature: 1 where the chain samples its target; above 1 by what the length of the steps and the noise of the
            batches add. Of SGLD ``1 + step_to_noise``, whose mean, once stationary, is exactly
            ``E[(theta - c)^T grad U] / D``, whatever c; of SGHMC the kinetic one, ``v^T P^-1 v / (step_size D)``.
        noisy: 1, or 0 at a step without noise, as those of the cyclical samplers that explore. There
            ``step_to_noise`` (of SGLD ``temperature`` too) is that of the step with noise.
    """

    objective: jax.Array
    nll: jax.Array
    log_prior: jax.Array
    step_size: jax.Array
    step_to_noise: jax.Array
    temperature: jax.Array
    noisy: jax.Array
