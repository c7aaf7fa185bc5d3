"""Sentences: from film reviews to product reviews, where the source helps, and to questions, where it hardly can.

Sources: nothing, GloVe vectors, and a network trained on 10,662 sentences about films (rt-polarity), itself from GloVe.
Targets: reviews of products (custrev, two classes) and the type of a question (TREC, six). The network is the mean of
the word vectors of a sentence and a linear head. Few labels, a fixed validation set for every choice, a test set that
is scored once.
"""

from __future__ import annotations

import functools
from pathlib import Path

import bayestl as btl
from benchmarks._records import Rows, command_line, provenance
from benchmarks.tasks.sentiment_cnn import run_cnn
from benchmarks.tasks.sentiment_config import (
    AS_IS,
    CNN_SOURCE_STEPS,
    CNN_TRANSFER,
    SCRATCH,
    SOURCE,
    TARGETS,
    TRANSFER,
    VECTORS,
    Config,
)
from benchmarks.tasks.sentiment_data import sentences
from benchmarks.tasks.sentiment_words import (
    from_network,
    from_vectors,
    run_as_is,
    run_transfer,
    run_tuned,
    train_source,
)


def run(config: Config, rows: Rows, data_dir: Path, progress: bool = True) -> None:
    """Run what is missing in ``rows``: a cell is one target at one number of labels, for all seeds."""
    provided = provenance(command_line())
    cells = [(t, n, kind) for t in config.targets for n in config.num_labels for kind in _kinds(config, t, n)]
    missing = [(t, n, kind) for t, n, kind in cells if not rows.have(target=t, n=n, method=kind)]
    if not missing:
        return
    everything = {name: sentences(name, data_dir / path, num) for name, (path, num) in TARGETS.items()}
    extra = tuple(word for target in everything.values() for word in target.vocab[2:])
    films = sentences("rt-polarity", data_dir / SOURCE, 2, extra)
    vectors = btl.pretrained.read_vectors(data_dir / VECTORS, words=set(films.vocab))
    origin = train_source(config, films, vectors, progress)
    print(f"source: accuracy {origin.accuracy:.3f} on 1000 film reviews, {origin.seconds:.0f} s", flush=True)
    convolutional = None
    if any(kind == CNN_TRANSFER for _, _, kind in missing):
        shorter = config._replace(source_steps=CNN_SOURCE_STEPS)
        convolutional = train_source(shorter, films, vectors, progress, btl.nets.text_cnn)
    for number, (name, n, kind) in enumerate(missing, 1):
        target = everything[name]
        sources = [from_vectors(target, vectors), from_network(target, origin)]
        what = "tuned methods" if kind == SCRATCH else kind
        print(f"[{number}/{len(missing)}] {name}, {n} labels, {what}", flush=True)
        runs = {
            SCRATCH: functools.partial(run_tuned, config, target, sources, n),
            AS_IS: functools.partial(run_as_is, config, target, sources[1]),
            TRANSFER: functools.partial(run_transfer, config, target, sources[1], n),
        }
        source = origin
        if kind == CNN_TRANSFER and convolutional is not None:
            source = convolutional
            around = from_network(target, source, btl.nets.text_cnn)
            runs[CNN_TRANSFER] = functools.partial(run_cnn, config, target, around, n)
        key = {"task": "sentiment", "target": name, "n": n}
        told = {"kappa": 1.0, "temperature": 1.0, "source_accuracy": source.accuracy, **provided}
        rows.add([{**key, **row, **told} for row in runs[kind]()])


def _kinds(config: Config, target: str, num: int) -> list[str]:
    """What is run: the tuned methods together, named by the first, and the others."""
    as_it_is = [AS_IS] if TARGETS[target][1] == TARGETS["custrev"][1] else []
    return [
        SCRATCH,
        *as_it_is,
        *([TRANSFER] if num in config.transfer_at else []),
        *([CNN_TRANSFER] if num in config.cnn_at else []),
    ]
