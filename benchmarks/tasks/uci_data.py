"""The standard regression sets with their standard splits, each scaled by its training part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

DATASETS = ("concrete", "energy", "yacht", "wine-quality-red")
SPLITS = 5
# Share of a training part that is held out for the choice of settings.
VALIDATION = 0.2


class Examples(NamedTuple):
    """Inputs (N, D) and targets (N, 1), with mean 0 and variance 1 over the training part."""

    inputs: np.ndarray
    targets: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Examples:
        return Examples(self.inputs[rows], self.targets[rows])


class Split(NamedTuple):
    """One split of a data set.

    Attributes:
        train: the whole training part.
        fitted: the rows of it that are fitted while settings are chosen.
        held_out: the rows of it that choose.
        test: scored once.
        unit: standard deviation of the training targets: one unit of the scaled targets in the original one.
    """

    train: Examples
    fitted: np.ndarray
    held_out: np.ndarray
    test: Examples
    unit: float


def splits(name: str, data_dir: Path, numbers: Sequence[int]) -> list[Split]:
    """The standard splits of a data set with these numbers.

    Raises:
        SystemExit: the data directory does not have them.
    """
    folder = data_dir / "uci" / name
    if not folder.is_dir():
        raise SystemExit(f"the data directory has no uci/{name}; put the standard splits there under this name")
    table = np.loadtxt(folder / "data.txt")
    inputs = table[:, np.loadtxt(folder / "index_features.txt").astype(int)]
    targets = table[:, int(np.loadtxt(folder / "index_target.txt"))]
    return [_split(folder, number, inputs, targets) for number in numbers]


def _split(folder: Path, number: int, inputs: np.ndarray, targets: np.ndarray) -> Split:
    train, test = (np.loadtxt(folder / f"index_{part}_{number}.txt").astype(int) for part in ("train", "test"))
    spread, unit = inputs[train].std(0), targets[train].std()
    scaled = Examples(
        ((inputs - inputs[train].mean(0)) / np.where(spread > 0, spread, 1)).astype(np.float32),
        ((targets - targets[train].mean()) / unit).astype(np.float32)[:, None],
    )
    order = np.random.default_rng(number).permutation(len(train))
    num_held_out = round(VALIDATION * len(train))
    return Split(scaled[train], order[num_held_out:], order[:num_held_out], scaled[test], float(unit))
