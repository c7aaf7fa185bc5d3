"""Draws on disk are those that the chain drew, whatever the chunks and the interruptions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bayestl as btl

START = {"a/b": jnp.zeros(2), "c": [jnp.zeros(())]}


def _joint() -> btl.LogJoint:
    net = btl.nets.from_function(lambda params, x: x @ params["a/b"] + params["c"][0], START)
    return btl.LogJoint(net, btl.likelihoods.normal(1.0), None, num_data=6)


def _data() -> Any:
    rng = np.random.default_rng(0)
    return btl.data.arrays(rng.normal(size=(6, 2)), rng.normal(size=6))


def _fit(num_samples: int = 5, **changes: Any) -> btl.FitResult:
    sampler = btl.infer.sgld(_joint(), 0.05, num_samples=num_samples, every=2, start=3)
    settings = {"steps": 31, "chunk_size": 7, "progress": False, **changes}
    return btl.fit(jax.random.key(3), sampler, START, _data(), **settings)


def _equal(found: Any, truth: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(truth)
    jax.tree.map(np.testing.assert_array_equal, found, truth)


def test_every_draw_is_written_once(tmp_path):
    truth = _fit(num_samples=100).posterior
    _fit(callbacks=[btl.infer.SampleWriter(tmp_path / "new")])
    found = btl.infer.read_samples(tmp_path / "new", START)
    assert found.log_weights.shape == (14,)
    _equal(found.draws, truth.draws)
    some = btl.infer.read_samples(tmp_path / "new", START, rows=slice(3, None, 4))
    _equal(some.draws, jax.tree.map(lambda x: x[3::4], truth.draws))
    np.testing.assert_array_equal(some.log_weights, np.zeros(3))


def test_goes_on_where_a_killed_run_left_off(tmp_path):
    truth = _fit(num_samples=100).posterior
    checkpoint = btl.Checkpoint(tmp_path / "run", every=14)

    def kill(event):
        if event.step >= 21:
            raise RuntimeError("killed")

    # Written after step 21, while the last checkpoint on disk may be of an earlier step.
    with pytest.raises(RuntimeError, match="killed"):
        _fit(callbacks=[btl.infer.SampleWriter(tmp_path / "draws"), kill], checkpoint=checkpoint)
    with pytest.raises(FileExistsError, match="holds draws already; give this run a folder of its own"):
        btl.infer.SampleWriter(tmp_path / "draws")
    resumed = btl.infer.SampleWriter(tmp_path / "draws", resume=True)
    _fit(callbacks=[resumed], checkpoint=checkpoint, chunk_size=5)
    _equal(btl.infer.read_samples(tmp_path / "draws", START).draws, truth.draws)


def test_chains_have_folders_of_their_own(tmp_path):
    def make(rate):
        return btl.infer.sgld(_joint(), rate, num_samples=4, every=2)

    keys = jax.random.split(jax.random.key(0), 2)
    many = btl.fit_many(
        keys, make, jnp.array([0.05, 0.02]), START, _data(), steps=8, chunk_size=3, progress=False,
        callbacks=[btl.infer.SampleWriter(tmp_path)],
    )  # fmt: skip
    for m in range(2):
        found = btl.infer.read_samples(tmp_path / f"chain-{m:03d}", START)
        _equal(found.draws, jax.tree.map(lambda x, m=m: x[m], many.posterior.draws))


def test_files_that_are_not_whole_are_refused(tmp_path):
    _fit(callbacks=[btl.infer.SampleWriter(tmp_path)])
    files = sorted(tmp_path.glob("*"))
    assert [file.name for file in files][:2] == [
        "draws-000000000-000000002.safetensors",
        "draws-000000002-000000005.safetensors",
    ]
    (tmp_path / ".draws-000000099-000000100.safetensors.tmp").write_bytes(b"cut short")
    assert btl.infer.read_samples(tmp_path, START).log_weights.shape == (14,)
    with pytest.raises(ValueError, match=r"the draws in .* and like differ: 'other'"):
        btl.infer.read_samples(tmp_path, {**START, "other": jnp.zeros(1)})
    whole = files[1].read_bytes()
    files[1].write_bytes(whole[:100])
    with pytest.raises(ValueError, match=r"draws-000000002.* cannot be read: it is not a safetensors file"):
        btl.infer.read_samples(tmp_path, START)
    files[1].unlink()
    with pytest.raises(ValueError, match="lacks draws 2 to 4; a file was removed"):
        btl.infer.read_samples(tmp_path, START)


def test_refuses(tmp_path):
    with pytest.raises(ValueError, match=r"2 draws were collected .* keeps only 1 \(num_samples\)"):
        _fit(num_samples=1, callbacks=[btl.infer.SampleWriter(tmp_path / "few")])
    with pytest.raises(FileNotFoundError, match="holds no draws that SampleWriter wrote"):
        btl.infer.read_samples(tmp_path / "none", START)
    _fit(callbacks=[btl.infer.SampleWriter(tmp_path / "some")])
    with pytest.raises(ValueError, match=r"takes none of the 14 draws"):
        btl.infer.read_samples(tmp_path / "some", START, rows=slice(20, None))
    with pytest.raises(ValueError, match="rows has step -1; draws are read in their order"):
        btl.infer.read_samples(tmp_path / "some", START, rows=slice(None, None, -1))
    other = btl.infer.map_estimate(_joint(), optax.sgd(0.01))
    with pytest.raises(ValueError, match="MAPState collects no draws; SampleWriter is for the samplers"):
        btl.fit(
            jax.random.key(0),
            other,
            START,
            _data(),
            steps=2,
            progress=False,
            callbacks=[btl.infer.SampleWriter(tmp_path / "x")],
        )
