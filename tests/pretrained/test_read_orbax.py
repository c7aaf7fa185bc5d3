"""Orbax folders: what Orbax writes, damaged ones, and folders that are none."""

from __future__ import annotations

import re
import shutil
import time

import jax.numpy as jnp
import orbax.checkpoint as ocp
import pytest
from trees import TREE, check

from bayestl.pretrained._read import read

# Where one array cannot be opened, Orbax closes its event loop while the others are on their way.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("orbax")
    ocp.PyTreeCheckpointer().save(folder / "tree", {**TREE, "note": "text"})
    with ocp.CheckpointManager(folder / "run") as manager:
        manager.save(5, args=ocp.args.StandardSave({"params": TREE["params"]}))
        manager.wait_until_finished()
    return folder


def test_orbax(saved):
    weights = read(saved / "tree")
    assert (weights.format, weights.metadata) == ("orbax", {"other": {"note": "text"}})
    assert weights.arrays.pop("step") == 7
    check(weights.arrays)


@pytest.mark.parametrize("where", ["run/5", "run/5/default"])
def test_a_step_of_a_manager(saved, where):
    check(read(saved / where).arrays)


def test_orbax_part(saved):
    assert sorted(read(saved / "tree", key="params/Dense_0").arrays) == ["bias", "kernel"]


def test_folders_that_are_no_checkpoint(saved, tmp_path):
    with pytest.raises(ValueError, match=r"run: it holds the checkpoints of steps \['5'\]; give the folder of one"):
        read(saved / "run")
    with pytest.raises(ValueError, match="holds no Orbax checkpoint; for one file in it give filename="):
        read(tmp_path)
    shutil.copytree(saved / "tree", tmp_path / "a")
    shutil.copytree(saved / "tree", tmp_path / "b")
    with pytest.raises(ValueError, match=r"it holds 2 checkpoints, \['a', 'b'\]; give one of them"):
        read(tmp_path)


@pytest.mark.parametrize("lost", ["_METADATA", "manifest.ocdbt", "d", "half of _METADATA", "half of the numbers"])
def test_damaged_checkpoints(saved, tmp_path, lost):
    folder = tmp_path / "tree"
    shutil.copytree(saved / "tree", folder)
    if lost == "half of the numbers":
        for file in [*folder.glob("d/*"), *folder.glob("ocdbt.process_0/d/*")]:
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif lost.startswith("half of "):
        file = folder / lost.removeprefix("half of ")
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    else:
        shutil.rmtree(folder / "d") if lost == "d" else (folder / lost).unlink()
        if lost == "d":
            shutil.rmtree(folder / "ocdbt.process_0")
    with pytest.raises(ValueError, match=re.escape(f"{folder}: ")):
        read(folder)
    time.sleep(0.2)  # so that what is on its way ends within this test


def test_orbax_beyond_the_bound(tmp_path):
    ocp.PyTreeCheckpointer().save(tmp_path / "x", {"w": jnp.zeros((1000, 1000))})
    with pytest.raises(ValueError, match=r"its arrays take 4,000,000 bytes, .*more than max_bytes=100,000 allows"):
        read(tmp_path / "x", max_bytes=100_000)
