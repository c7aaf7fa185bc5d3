"""Sources and targets of four kinds of data, each as rows of numbers that one network can take."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import bayestl as btl
from benchmarks.tasks import control_config as names
from benchmarks.tasks.control_cloning import experts
from benchmarks.tasks.control_worlds import POLICY, environment, evaluated, source

CIFAR, VECTORS = "cifar10_jpeg.tar.gz", "vectors/glove.6B.50d.top60k.txt.gz"
ANIMALS, VEHICLES = (2, 3, 4, 5, 6, 7), (0, 1, 8, 9)
TEXTS = {"films": "rt-polarity.all", "products": "custrev.all", "questions": "TREC.train.all"}
# Of expectation-maximisation, as ``benchmarks.run control`` chose them on the source's own task.
EXPERT = names.Shared(temperature=0.25, rate=0.003, passes=20)


class Examples(NamedTuple):
    """Rows (N, D) of about unit variance, and their classes from 0 on."""

    inputs: np.ndarray
    labels: np.ndarray


class Domain(NamedTuple):
    """What is transferred between.

    Attributes:
        name: in the rows.
        sources: name to the task that a network is to be trained on, or to a network that was trained elsewhere; None
            for one that nothing was taught.
        targets: name to a task.
        left_out: source and target that share their data.
        hidden: widths of the hidden layers of all networks.
        activation: after each of these.
    """

    name: str
    sources: Mapping[str, Examples | btl.Net | None]
    targets: Mapping[str, Examples]
    left_out: tuple[tuple[str, str], ...] = ()
    hidden: tuple[int, ...] = (128, 64)
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu

    def network(self, key: Any, num_classes: int) -> btl.Net:
        """A new network of this domain."""
        num_inputs = next(iter(self.targets.values())).inputs.shape[1]
        return btl.nets.mlp(key, (num_inputs, *self.hidden, num_classes), self.activation)


def digits() -> Domain:
    """8x8 digits, the first half for sources, the second for targets."""
    from sklearn.datasets import load_digits

    rows, labels = load_digits(return_X_y=True)
    pictures, labels = np.asarray(rows, np.float32).reshape(-1, 8, 8) / 8 - 0.6, np.asarray(labels)
    half, rng = len(labels) // 2, np.random.default_rng(0)
    order = rng.permutation(64)
    views: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "sharp": lambda x: x,
        "low resolution": lambda x: x.reshape(-1, 4, 2, 4, 2).mean((2, 4)).repeat(2, 1).repeat(2, 2),
        "inverted": lambda x: 0.8 - x,
        "noisy": lambda x: x + np.random.default_rng(1).normal(0, 0.8, x.shape),
        "turned": lambda x: np.rot90(x, axes=(1, 2)),
        "scattered": lambda x: x.reshape(-1, 64)[:, order].reshape(-1, 8, 8),
    }

    def seen(view: str, part: slice) -> Examples:
        return Examples(np.asarray(views[view](pictures[part]), np.float32).reshape(-1, 64), labels[part])

    first, second = slice(None, half), slice(half, None)
    sources: dict[str, Examples | None] = {name: seen(name, first) for name in views}
    sharp = seen("sharp", first)
    low = sharp.labels < 5
    sources["0 to 4"] = Examples(sharp.inputs[low], sharp.labels[low])
    sources["wrong labels"] = sharp._replace(labels=rng.permutation(sharp.labels))
    sources["untrained"] = None
    targets = {name: seen(name, second) for name in ("low resolution", "inverted", "noisy", "turned")}
    return Domain("digits", sources, targets)


def cifar(data_dir: Path, cache: Path) -> Domain:
    """CIFAR-10 behind JPEG at 8x8 pixels: subsets of the classes, and corruptions."""

    def load(root: str, per_class: int) -> Examples:
        records = btl.data.folder(data_dir / CIFAR, cache, root=root)
        rows = np.arange(len(records)).reshape(10, -1)[:, :per_class].ravel()
        data = btl.data.load(records.take(rows), lambda r: (btl.data.decode_picture(r["image"]), r["label"]))
        pictures = np.asarray(data.inputs, np.float32).reshape(-1, 8, 4, 8, 4, 3).mean((2, 4)) / 64 - 1.9
        return Examples(pictures.reshape(len(pictures), -1), np.asarray(data.targets))

    def only(examples: Examples, classes: Iterable[int]) -> Examples:
        places = {c: number for number, c in enumerate(classes)}
        rows = np.isin(examples.labels, list(places))
        return Examples(examples.inputs[rows], np.array([places[c] for c in examples.labels[rows]]))

    def noisy(examples: Examples) -> Examples:
        noise = np.random.default_rng(2).normal(0, 0.7, examples.inputs.shape).astype(np.float32)
        return examples._replace(inputs=examples.inputs + noise)

    train, test = load("train", 400), load("test", 150)
    sources = {
        "all classes": train,
        "animals": only(train, ANIMALS),
        "vehicles": only(train, VEHICLES),
        "negatives": train._replace(inputs=-train.inputs),
        "noisy": noisy(train),
        "wrong labels": train._replace(labels=np.random.default_rng(0).permutation(train.labels)),
        "untrained": None,
    }
    targets = {"animals": only(test, ANIMALS), "vehicles": only(test, VEHICLES), "all, noisy": noisy(test)}
    return Domain("CIFAR", sources, targets)


def texts(data_dir: Path) -> Domain:
    """Sentences as means of word vectors: of films, of products, of questions."""
    vectors = btl.pretrained.read_vectors(data_dir / VECTORS)
    places = {word: number for number, word in enumerate(vectors.words)}
    table = np.asarray(vectors.vectors, np.float32)

    def load(name: str) -> Examples:
        inputs, labels = [], []
        for line in (data_dir / "text" / TEXTS[name]).read_text("latin-1").split("\n"):
            label, _, sentence = line.partition(" ")  # not splitlines, which splits at more than newlines
            rows = [places[word] for word in sentence.lower().split() if word in places]
            if rows:
                inputs.append(table[rows].mean(0))
                labels.append(int(label))
        array = np.stack(inputs)
        order = np.random.default_rng(0).permutation(len(array))[:3000]
        return Examples(2 * array[order], np.array(labels)[order])

    tasks = {name: load(name) for name in TEXTS}
    sources: dict[str, Examples | None] = dict(tasks)
    sources["wrong labels"] = tasks["films"]._replace(
        labels=np.random.default_rng(0).permutation(tasks["films"].labels)
    )
    sources["untrained"] = None
    return Domain("text", sources, tasks, tuple((name, name) for name in TEXTS))


def control(data_dir: Path, config: names.Config | None = None, episodes: int = 16) -> Domain:
    """Decisions of experts on CartPole under other physics, from policies that were trained on it.

    The expert of a target learned it from scratch, so that no source is nearer to it by descent: of those of all seeds
    the one that earns most. One more source is the first run with its eyes for the cart and for the pole exchanged.
    """
    config = config or names.Config()
    left = source(data_dir, config.seeds)

    def network(params: Any) -> btl.Net:
        return btl.Net(params, (), POLICY.apply)

    def run(policies: Any, number: int) -> Any:
        return jax.tree.map(lambda x: x[number], policies)

    def decisions(target: str) -> Examples:
        learned = experts(config, left, target, names.SCRATCH, EXPERT)
        best = int(np.argmax(evaluated(btl.Point(learned), target, 64)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a pole that still stands after 500 steps is no mistake
            net = network(run(learned, best))
            shown = btl.control.demonstrations(jax.random.key(70), net, environment(target), episodes)
        rows = np.random.default_rng(0).permutation(shown.num_examples)[:3000]
        return Examples(np.asarray(shown.inputs)[rows], np.asarray(shown.targets)[rows])

    sources: dict[str, btl.Net | None] = {
        f"run {number}": network(run(left.policy, number)) for number in range(config.seeds)
    }
    first = run(left.policy, 0)
    eyes = first["dense_0"]["kernel"][jnp.array([2, 3, 0, 1])]
    sources["cart and pole exchanged"] = network(first | {"dense_0": first["dense_0"] | {"kernel": eyes}})
    sources["untrained"] = None
    targets = {name: decisions(name) for name in config.targets}
    return Domain("control", sources, targets, hidden=(32, 32), activation=jnp.tanh)
