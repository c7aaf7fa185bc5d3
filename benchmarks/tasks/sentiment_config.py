"""What is run in the task with sentences, and what its methods are called."""

from __future__ import annotations

from typing import NamedTuple

VECTORS = "vectors/glove.6B.50d.top60k.txt.gz"
SOURCE = "text/rt-polarity.all"
TARGETS = {"custrev": ("text/custrev.all", 2), "TREC": ("text/TREC.train.all", 6)}
ENCODING = "latin-1"
# Percent of their sentences that are rt-polarity's, from the README of the data.
LEAKS = {"SST": 82, "SUBJ": 42}

SCRATCH, AS_IS, TRANSFER = "from scratch", "rt-polarity, as it is", "rt-polarity, transfer"
FROZEN, INITIALISATION, L2_SP, ROW_WISE = "frozen", "initialisation only", "L2-SP", "row-wise"
HOWS = (FROZEN, INITIALISATION, L2_SP, ROW_WISE)
SOURCES = ("GloVe", "rt-polarity")
TUNED = (SCRATCH, *(f"{source}, {how}" for source in SOURCES for how in HOWS))
CNN_TRANSFER = "Kim CNN, rt-polarity, L2-SP"
METHODS = (*TUNED, AS_IS, TRANSFER, CNN_TRANSFER)
DIMENSION, LENGTH, MIN_COUNT = 50, 48, 2
TEST, VALIDATION = 1000, 200
SPLIT_SEED, INIT_KEY, TRANSFER_KEY, WORDS_KEY = 7, 4, 5, 6
HEAD_SCALE, FLAT, ZERO = 1.0, 1e3, 1e-6
CNN_SCALES, CNN_RATE, CNN_STEPS, CNN_BATCH, CNN_SOURCE_STEPS = (0.01, 0.03, 0.1), 0.05, 60, 32, 200
# A word that comes so often has the scale itself in row-wise priors, rarer ones have a wider one.
TYPICAL_COUNT = 10


class Config(NamedTuple):
    """What is run.

    Attributes:
        targets: names of the targets.
        num_labels: labels in all.
        seeds: number of seeds.
        steps: steps of every target run.
        scales: standard deviations among which the scale of a prior is chosen.
        learning_rate: of every method with a prior, falling to zero.
        rates: learning rates among which that without a prior chooses; as many as ``scales``.
        transfer_at: numbers of labels at which ``btl.transfer`` runs, by far the dearest; none by default.
        cnn_at: numbers of labels at which the convolutional network runs.
        source_steps: steps of the source network.
    """

    targets: tuple[str, ...] = tuple(TARGETS)
    num_labels: tuple[int, ...] = (20, 100, 500)
    seeds: int = 5
    steps: int = 100
    scales: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    learning_rate: float = 0.5
    rates: tuple[float, ...] = (0.03, 0.06, 0.125, 0.25, 0.5, 1.0)
    transfer_at: tuple[int, ...] = ()
    cnn_at: tuple[int, ...] = (20, 100, 500)
    source_steps: int = 600


# What may differ between a run and an earlier one whose rows it takes up.
MAY_GROW = ("targets", "num_labels", "transfer_at", "cnn_at")


def checked(config: Config) -> Config:
    """The configuration, when it can be run.

    Raises:
        SystemExit: an unknown target, or one that the source has seen.
    """
    for name in config.targets:
        if name in LEAKS:
            raise SystemExit(
                f"--targets has {name}, which shares {LEAKS[name]}% of its sentences with rt-polarity: a source that "
                f"was trained on them cannot be judged there; there are {', '.join(TARGETS)}"
            )
        if name not in TARGETS:
            raise SystemExit(f"--targets has {name!r}; there are {', '.join(TARGETS)}")
    if config.seeds < 1 or config.steps < 2 or min(config.num_labels) < 2:
        raise SystemExit("--seeds must be at least 1, --steps and --n at least 2")
    return config


MINILM, FILMS = "MiniLM", "MiniLM, films"
PROBE = f"{MINILM}, probe (penalty chosen on test)"
MAP, LAPLACE, VI = "MAP", "Laplace", "VI"
ADAPTER, BLOCK = "adapter", "last block"
FILMS_AS_IS = f"{FILMS}, as it is"
FROZEN_ENCODERS = tuple(f"{source}, {FROZEN}" for source in (MINILM, FILMS))
HEAD_TRANSFERS = tuple(f"{source}, {FROZEN}, transfer" for source in (MINILM, FILMS))
POSTERIORS = tuple(
    f"{source}, {part} {how}" for source in (MINILM, FILMS) for part in (ADAPTER, BLOCK) for how in (MAP, LAPLACE, VI)
)
ENCODER_METHODS = (PROBE, *FROZEN_ENCODERS, *HEAD_TRANSFERS, FILMS_AS_IS, *POSTERIORS)
# What is run by default, and what of it only at some numbers of labels. Around the film reviews' head and block only
# where their classes are the target's.
DEAR = (
    *(f"{MINILM}, {part} {how}" for part, how in ((ADAPTER, MAP), (ADAPTER, LAPLACE), (ADAPTER, VI), (BLOCK, MAP))),
    f"{FILMS}, {ADAPTER} {VI}",
    f"{FILMS}, {BLOCK} {MAP}",
)
CHEAP = (
    PROBE,
    *FROZEN_ENCODERS,
    *HEAD_TRANSFERS,
    FILMS_AS_IS,
    f"{FILMS}, {ADAPTER} {MAP}",
    f"{FILMS}, {ADAPTER} {LAPLACE}",
)


class EncoderConfig(NamedTuple):
    """What is run with MiniLM.

    Attributes:
        targets: names of the targets.
        num_labels: labels in all.
        seeds: number of seeds.
        methods: those that are run.
        dear_at: numbers of labels at which the dearest of them are run.
        length: tokens of a sentence; longer ones are cut.
        rank: of the adapters.
        steps: of every run of an adapter or of the last block.
        batch_size: of these.
        head_scales: standard deviations of the head around its source, among which is chosen first.
        head_rate: learning rate of the head alone, falling to zero.
        head_steps: steps of the head alone.
        adapter_scales: likewise of adapters, at the head's scale.
        adapter_rate: their learning rate, falling to zero.
        block_scales: likewise of the last block.
        block_rate: its learning rate, falling to zero.
        draws: that a prediction of VI averages over.
        penalties: inverse penalties of the probe, of which the test set chooses the best.
        film_steps: steps on the film reviews.
        film_rate: learning rate there, falling to zero.
        film_batch: batch size there.
    """

    targets: tuple[str, ...] = tuple(TARGETS)
    num_labels: tuple[int, ...] = (20, 100, 500)
    seeds: int = 5
    methods: tuple[str, ...] = (*CHEAP, *DEAR)
    dear_at: tuple[int, ...] = (100,)
    length: int = 32
    rank: int = 8
    steps: int = 40
    batch_size: int = 16
    head_scales: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8)
    head_rate: float = 0.05
    head_steps: int = 300
    adapter_scales: tuple[float, ...] = (0.1, 0.3)
    adapter_rate: float = 3e-3
    block_scales: tuple[float, ...] = (0.01, 0.03)
    block_rate: float = 3e-4
    draws: int = 4
    penalties: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0)
    film_steps: int = 300
    film_rate: float = 2e-4
    film_batch: int = 32


# What may differ between a run and an earlier one whose rows it takes up.
ENCODER_MAY_GROW = ("targets", "num_labels", "methods", "dear_at")


def checked_encoder(config: EncoderConfig) -> EncoderConfig:
    """The configuration, when it can be run.

    Raises:
        SystemExit: a method that there is not.
    """
    if unknown := [name for name in config.methods if name not in ENCODER_METHODS]:
        raise SystemExit(f"--minilm has {', '.join(unknown)}; there are: {'; '.join(ENCODER_METHODS)}")
    return config
