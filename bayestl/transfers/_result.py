"""What a transfer gives back: predictions, and what was trusted, in words."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import posteriors
from bayestl._log_joint import LogJoint
from bayestl._types import Inputs, Likelihood, Net, Posterior
from bayestl.gaussians import Gaussian
from bayestl.posteriors import Mixture, Point
from bayestl.predict import monte_carlo
from bayestl.transferability import Verdict
from bayestl.transfers._left_out import LeftOutPredictions
from bayestl.transfers._predictive import predictive
from bayestl.tune import LayerScales


class Trust(NamedTuple):
    """How far one family of priors is trusted.

    Attributes:
        name: of the family.
        kind: "source" or "from scratch".
        log_scales: natural logarithms of the factor on its covariance, (K,).
        deviations: the priors' standard deviations, averaged over parameters, (K,).
        weights: of each scale, (K,); those of all families sum to 1.
        errors: standard deviations of the weights over which examples there happen to be, (K,).
        held_out: mean held-out log predictive at each scale, nats per example, (K,).
        held_out_errors: their standard errors over the examples, (K,).
    """

    name: str
    kind: str
    log_scales: tuple[float, ...]
    deviations: tuple[float, ...]
    weights: tuple[float, ...]
    errors: tuple[float, ...]
    held_out: tuple[float, ...]
    held_out_errors: tuple[float, ...]

    @property
    def weight(self) -> float:
        """Of the family: the sum over its scales."""
        return float(np.sum(self.weights))


@dataclasses.dataclass(frozen=True)
class TransferResult:
    """A target's posterior, chosen without validation data; printed, a short report. Made by :func:`transfer`.

    Attributes:
        joint: network and likelihood of the target, without a prior.
        posterior: the mixture that predicts, the best member by itself first: modes for classes; for regression with
            one noise the Laplace posteriors around them, of the linearised network, up to 2000 targets.
        prior: that of the first member.
        places: the numbers of family and scale of each member.
        noises: the noise of each member, a standard deviation, for regression; else None.
        trust: for every family of priors, the weight of each scale.
        held_out: mean held-out log predictive of the mixture, nats per example: for each example with the weights that
            the others give.
        single_cost: by how much the best member alone, chosen in the same way, is worse than that, nats per example.
        verdict: whether the source helped; None where nothing was left out to tell by.
        notes: what is to be known about the data, the criterion, and scales at an edge.
        criterion: in words.
        steps: gradient steps, those of the fits without left-out examples included.
        seconds: of all.
        left_out: predictions of the training examples by fits that have not seen them, which stand in for held-out data
            where there are none: ``predict.calibrate.temperature(left_out.predictive, left_out.targets)``. None where
            nothing was left out, where the criterion gives no predictions, for targets that are neither classes nor
            normal, and in what :meth:`load` reads.
        layers: the scales of layers that ``by_layer`` has learned, beside the shared scale; None without it, and in
            what :meth:`load` reads.
    """

    joint: LogJoint
    posterior: Posterior
    prior: Gaussian
    places: tuple[tuple[int, int], ...]
    noises: tuple[float, ...] | None
    trust: tuple[Trust, ...]
    held_out: float
    single_cost: float
    verdict: Verdict | None
    notes: tuple[str, ...]
    criterion: str
    steps: int
    seconds: float
    left_out: LeftOutPredictions | None = None
    layers: LayerScales | None = None

    @property
    def single(self) -> Posterior:
        """The member that predicts best by itself, where one network is wanted; see :attr:`single_cost`."""
        if isinstance(self.posterior, Mixture):
            return self.posterior.components[0]
        samples: Any = self.posterior
        return Point(jax.tree.map(lambda x: x[0], samples.draws))

    def predict(self, inputs: Inputs, *, batch_size: int | None = None) -> Any:
        """The predictive of the targets at ``inputs``, leaves (B, ...): ``probs``, ``mean``, ``log_prob`` of it.

        Args:
            inputs: as the network takes them.
            batch_size: inputs seen at once; None for all.
        """
        if isinstance(self.posterior, Mixture) and self.noises is not None:
            return predictive(self.joint, self.posterior, self.noises, inputs, batch_size)
        return monte_carlo(jax.random.key(0), self.joint, self.posterior, batch_size=batch_size)(inputs)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything but network and likelihood to one file, which ``btl.load`` reads as a posterior too.

        Args:
            path: where to; an existing file is replaced.
        """
        fields = {
            "trust": [row._asdict() for row in self.trust],
            **{name: getattr(self, name) for name in ("held_out", "single_cost", "criterion", "steps", "seconds")},
            "notes": list(self.notes),
            "places": [list(place) for place in self.places],
            "noises": None if self.noises is None else list(self.noises),
            "verdict": None if self.verdict is None else _verdict_fields(self.verdict),
        }
        # The prior goes along as a component of weight 0.
        both = Mixture((self.posterior, self.prior), jnp.log(jnp.array([1.0, 0.0])))
        posteriors.save(path, both, net_state=self.joint.state, settings={"transfer": fields})

    @staticmethod
    def load(path: str | os.PathLike[str], net: Net, likelihood: Likelihood) -> TransferResult:
        """What :meth:`save` wrote.

        Args:
            path: the file.
            net: the network that it is for.
            likelihood: of the target.

        Raises:
            ValueError: a file that holds something else.
        """
        loaded = posteriors.load(path, net)
        if "transfer" not in loaded.settings or not isinstance(loaded.posterior, Mixture):
            raise ValueError(f"{os.fspath(path)} is not the result of a transfer; read it with btl.load")
        posterior, prior = loaded.posterior.components
        assert isinstance(prior, Gaussian)
        fields = dict(loaded.settings["transfer"])
        trust = tuple(_trust_of(row) for row in fields.pop("trust"))
        verdict, notes = _verdict_of(fields.pop("verdict")), tuple(fields.pop("notes"))
        places = tuple((int(family), int(scale)) for family, scale in fields.pop("places"))
        noises = fields.pop("noises")
        noises = None if noises is None else tuple(map(float, noises))
        joint = LogJoint(net, likelihood, None, num_data=1).replace(state=loaded.net_state)
        return TransferResult(joint, posterior, prior, places, noises, trust, verdict=verdict, notes=notes, **fields)

    def __str__(self) -> str:
        lines = [
            f"{self.criterion}; {self.steps:,} steps, {self.seconds:.1f} s",
            _table(self.trust),
            f"held out: {self.held_out:.3f} nats per example by the mixture, {self.held_out - self.single_cost:.3f} by "
            "its best member alone",
        ]
        lines += [] if self.verdict is None else [str(self.verdict)]
        return "\n".join([*lines, *(f"Note: {note}" for note in self.notes)])

    def __repr__(self) -> str:
        return str(self)


def _table(trust: tuple[Trust, ...]) -> str:
    """One line per family: its weight, the scales that carry it, and how its best scale predicts."""
    rows = [("prior", "trust", "scale of weights", "held out, best scale")]
    for row in trust:
        best = int(np.argmax(row.held_out))
        carried = [d for d, w in zip(row.deviations, row.weights, strict=True) if w > 0.1 * max(row.weights)]
        scales = f"{min(carried):.2g} to {max(carried):.2g}" if len(carried) > 1 else f"{carried[0]:.2g}"
        error = float(np.sqrt(np.sum(np.square(row.errors))))
        rows.append(
            (
                row.name,
                f"{row.weight:.2f} ± {min(error, 0.5):.2f}",
                scales,
                f"{row.held_out[best]:+.3f} ± {row.held_out_errors[best]:.3f}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _trust_of(fields: dict[str, Any]) -> Trust:
    columns = {name: tuple(value) for name, value in fields.items() if name not in ("name", "kind")}
    return Trust(name=fields["name"], kind=fields["kind"], **columns)


def _verdict_fields(verdict: Verdict) -> dict[str, Any]:
    """A verdict as JSON, where an infinite interval has no numbers."""
    fields = dataclasses.asdict(verdict)
    fields["pairs"] = [pair._asdict() for pair in verdict.pairs]

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        return None if isinstance(value, float) and not np.isfinite(value) else value

    return plain(fields)


def _verdict_of(fields: dict[str, Any] | None) -> Verdict | None:
    if fields is None:
        return None
    from bayestl.transferability import Pair

    def interval(values: list[Any]) -> tuple[float, float]:
        low, high = (edge if value is None else value for value, edge in zip(values, (-np.inf, np.inf), strict=True))
        return float(low), float(high)

    pairs = tuple(Pair(**{**pair, "interval": interval(pair["interval"])}) for pair in fields["pairs"])
    # Files written before there was a margin were made without one.
    return Verdict(**{"margin": 0.0, **fields, "interval": interval(fields["interval"]), "pairs": pairs})
