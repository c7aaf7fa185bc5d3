"""Hugging Face ids: the cache, what is said without a network, and downloads through a hub that is not there."""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from bayestl.pretrained import _hub
from bayestl.pretrained._read import read

hub = pytest.importorskip("huggingface_hub")
pytest.importorskip("huggingface_hub.constants")
pytest.importorskip("huggingface_hub.errors")

pytest.importorskip("huggingface_hub.utils")

GET_SESSION = hub.utils.get_session
REPOSITORY = "someone/net-1.0"
COMMIT = "0" * 40


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, and no network: whatever would be downloaded fails the test."""

    def never(*arguments, **options):
        raise AssertionError("the network was asked")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "hf_hub_download", never)
    monkeypatch.setattr(hub.utils, "get_session", never)
    return tmp_path / "cache"


@pytest.fixture
def network(monkeypatch):
    """A hub that answers, but from which nothing can be downloaded yet."""

    class Session:
        def head(self, address, timeout):
            assert timeout <= 10

    monkeypatch.setattr(hub.utils, "get_session", Session)


@pytest.fixture
def snapshot(cache) -> Path:
    """The folder of a cached commit that ``main`` points at."""
    repository = cache / "models--someone--net-1.0"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "snapshots" / COMMIT).mkdir(parents=True)
    return repository / "snapshots" / COMMIT


def test_a_cached_file_needs_no_network(snapshot):
    save_file({"w": np.arange(3.0)}, snapshot / "model.safetensors")
    weights = read(REPOSITORY)
    np.testing.assert_array_equal(weights.arrays["w"], np.arange(3.0))
    assert weights.source == "someone/net-1.0@main/model.safetensors"


def test_filename_and_revision(snapshot):
    save_file({"a": np.ones(1)}, snapshot / "model.safetensors")
    np.savez(snapshot / "other.npz", b=np.ones(1))
    assert list(read(REPOSITORY, filename="other.npz").arrays) == ["b"]
    assert list(read(REPOSITORY, revision=COMMIT).arrays) == ["a"]
    assert read(REPOSITORY, revision=COMMIT).source == f"someone/net-1.0@{COMMIT}/model.safetensors"


def test_cached_shards(snapshot):
    (snapshot / "sub").mkdir()
    save_file({"a": np.ones(2)}, snapshot / "sub" / "m1.safetensors")
    save_file({"b": np.ones(3)}, snapshot / "sub" / "m2.safetensors")
    where = {"a": "m1.safetensors", "b": "m2.safetensors"}
    (snapshot / "sub" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    assert read(REPOSITORY, filename="sub/model.safetensors.index.json").size == 5


def test_a_local_folder_comes_first(tmp_path):
    (tmp_path / "someone" / "net-1.0").mkdir(parents=True)
    save_file({"local": np.ones(1)}, tmp_path / "someone" / "net-1.0" / "x.safetensors")
    assert list(read(REPOSITORY, filename="x.safetensors").arrays) == ["local"]


@pytest.mark.parametrize("known", [False, True])
def test_offline_names_the_file_and_where_to_put_it(cache, monkeypatch, request, known):
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    folder = request.getfixturevalue("snapshot") if known else cache / "models--someone--net-1.0" / "snapshots" / "main"
    with pytest.raises(FileNotFoundError) as caught:
        read(REPOSITORY)
    message = str(caught.value)
    assert "'model.safetensors' of 'someone/net-1.0' is not in the cache, and HF_HUB_OFFLINE forbids" in message
    assert "https://huggingface.co/someone/net-1.0/resolve/main/model.safetensors" in message
    assert f"put it into the folder {folder}, or give its path" in message
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"w": np.ones(2)}, folder / "model.safetensors")
    assert list(read(REPOSITORY).arrays) == ["w"]  # the advice works


def test_a_hub_that_is_lost_while_downloading(network, monkeypatch):
    def unreachable(repository, name, *, revision, etag_timeout):
        assert etag_timeout <= 10
        raise hub.errors.LocalEntryNotFoundError("no connection") from ConnectionError("refused")

    monkeypatch.setattr(hub, "hf_hub_download", unreachable)
    with pytest.raises(FileNotFoundError, match=r"'x.npz' of .* and the hub cannot be reached \(ConnectionError\)"):
        read(REPOSITORY, filename="x.npz")


def test_a_hub_that_does_not_answer(monkeypatch):
    """The library's own session, against ports of this machine: one that refuses, one that never answers."""
    monkeypatch.setattr(hub.utils, "get_session", GET_SESSION)
    monkeypatch.setattr(_hub, "_TIMEOUT", 0.5)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for listens in (False, True):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen() if listens else None
            monkeypatch.setattr(hub.constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
            start = time.monotonic()
            with pytest.raises(FileNotFoundError, match=r"'x.npz' of .* and the hub cannot be reached"):
                read(REPOSITORY, filename="x.npz")
            assert time.monotonic() - start < 5


def test_downloads_take_the_first_usual_name_that_is_there(tmp_path, network, monkeypatch):
    asked = []

    def download(repository, name, *, revision, etag_timeout):
        asked.append((repository, name, revision))
        if name != "flax_model.msgpack":
            raise hub.errors.EntryNotFoundError("404")
        (tmp_path / name).write_bytes(save({"w": np.ones(1)}))
        return str(tmp_path / name)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    assert read(REPOSITORY, revision="v2").source == "someone/net-1.0@v2/flax_model.msgpack"
    assert asked[0] == (REPOSITORY, "model.safetensors", "v2")
    with pytest.raises(FileNotFoundError, match=r"has no weights.bin; name the file with filename="):
        read(REPOSITORY, filename="weights.bin")


def test_repositories_that_are_not_there(network, monkeypatch):
    class NotThere(hub.errors.RepositoryNotFoundError):
        def __init__(self):
            pass

    def download(*arguments, **options):
        raise NotThere

    monkeypatch.setattr(hub, "hf_hub_download", download)
    with pytest.raises(
        FileNotFoundError, match=r"no repository 'someone/net-1.0' with revision 'main' that you may read"
    ):
        read(REPOSITORY)


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        ImportError, match=r"'someone/net-1.0' is not a file or folder here.*bayestl\[hub\].*/resolve/main/"
    ):
        read(REPOSITORY)


def test_a_damaged_cached_file_is_named(snapshot):
    (snapshot / "model.safetensors").write_bytes(save({"w": np.ones(4)})[:-1])
    with pytest.raises(ValueError, match=r"someone/net-1.0@main/model.safetensors: .*cut short"):
        read(REPOSITORY)
