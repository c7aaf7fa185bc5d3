"""What the cats-against-dogs task runs: names of heads and methods, and the settings of a run."""

from __future__ import annotations

from typing import NamedTuple

LINEAR, DENSE = "linear", "dense 256"
HIDDEN = {LINEAR: None, DENSE: 256}

TRANSFER, TRANSFER_HEAD = "transfer", "transfer, head"
SCRATCH, FROZEN, FROZEN_PRIOR = "from scratch", "frozen body", "frozen body, head prior"
RECIPE, INITIALISATION_ONLY = "fine-tuning, RMSprop 2e-5", "initialisation only"
ZERO_MEAN, L2_SP = "zero-mean prior", "L2-SP"
FISHER, ITERATES = "learned, Fisher", "learned, iterates"
FISHER_OF_TARGET = "learned, Fisher on target"
BODY_VI, HEAD_VI = "L2-SP, mean-field VI", "head, mean-field VI"
METHODS = (
    TRANSFER,
    TRANSFER_HEAD,
    SCRATCH,
    FROZEN,
    FROZEN_PRIOR,
    RECIPE,
    INITIALISATION_ONLY,
    ZERO_MEAN,
    L2_SP,
    FISHER,
    FISHER_OF_TARGET,
    ITERATES,
    BODY_VI,
    HEAD_VI,
)


class Config(NamedTuple):
    """What is run.

    Attributes:
        network: a published one, of ``benchmarks._published``.
        methods: names of those that are run with the linear head.
        dense_methods: names of those that are run with the dense head.
        num_labels: labelled photographs, half of them cats.
        dense_at: the numbers of labels at which the dense head is run.
        seeds: number of seeds.
        steps: steps of a run on cached feature maps, after those of the head alone.
        copies: augmented copies of each photograph that are cached.
        scales: standard deviations among which the scale of a prior around the source is chosen; 100 times these
            for weights around zero (less takes the features apart), 10 times for a head.
        rates: learning rates among which every method chooses; they fall to zero on a half cosine.
        recipe_at: numbers of labels at which the original recipe is run, always with the dense head.
        recipe_steps: its steps, each with augmentation and the whole network.
        scratch_at: numbers of labels at which the network from scratch is run.
        scratch_rates: its learning rates.
        scratch_steps: its steps; it is read at a third, two thirds and the end.
        size: height and width of the pictures.
        pool_per_class: training pool.
        validation_per_class: validation set; the rest is the test set.
        per_class: photographs of each class that are used at all; None for all.
        source_pictures: pictures of CIFAR-10 that give a learned prior its shape.
        source_epochs: passes over them whose iterates are collected in the second half.
    """

    network: str = "mobilenet"
    methods: tuple[str, ...] = METHODS
    dense_methods: tuple[str, ...] = METHODS
    num_labels: tuple[int, ...] = (20, 100, 500)
    dense_at: tuple[int, ...] = (20, 100, 500)
    seeds: int = 5
    steps: int = 400
    copies: int = 8
    scales: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3)
    rates: tuple[float, ...] = (0.003, 0.01, 0.03)
    recipe_at: tuple[int, ...] = (100,)
    recipe_steps: int = 3000
    scratch_at: tuple[int, ...] = (20, 100, 500)
    scratch_rates: tuple[float, ...] = (0.0003, 0.001, 0.003, 0.01)
    scratch_steps: int = 1200
    size: int = 96
    pool_per_class: int = 310
    validation_per_class: int = 50
    per_class: int | None = None
    source_pictures: int = 5000
    source_epochs: int = 20


def demo(config: Config) -> Config:
    """A version for two cores: fewer steps and settings."""
    return config._replace(
        dense_methods=(FROZEN, FROZEN_PRIOR, HEAD_VI, L2_SP),
        dense_at=(100,),
        steps=100,
        copies=4,
        scales=(0.01, 0.03, 0.1, 0.3),
        rates=(0.01,),
        recipe_steps=300,
        scratch_at=(100,),
        scratch_rates=(0.001,),
        scratch_steps=60,
        source_pictures=1000,
        source_epochs=10,
    )


# What may differ between a run and an earlier one whose rows it takes up.
MAY_GROW = ("methods", "dense_methods", "num_labels", "dense_at", "recipe_at", "scratch_at")


def checked(config: Config) -> Config:
    """The configuration, when it can be run.

    Raises:
        SystemExit: an unknown method, or numbers that do not fit the photographs.
    """
    unknown = sorted(set(config.methods) - set(METHODS))
    if unknown:
        raise SystemExit(f"--methods has {', '.join(map(repr, unknown))}; there are {', '.join(map(repr, METHODS))}")
    if config.seeds < 1:
        raise SystemExit(f"--seeds is {config.seeds}; give at least 1")
    most = 2 * config.pool_per_class
    for n in config.num_labels:
        if n < 2 or n % 2 or n > most:
            raise SystemExit(f"--n has {n}; half of the photographs are cats: give even numbers from 2 to {most}")
    return config
