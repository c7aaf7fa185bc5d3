"""Files of Hugging Face repositories: from the cache where they are there, else downloaded once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NoReturn

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_CANDIDATES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "flax_model.msgpack",
    "model.weights.h5",
    "tf_model.h5",
)
_TIMEOUT = 5.0


def is_id(source: str) -> bool:
    """Whether ``source`` could be ``"organisation/name"``."""
    return _ID.fullmatch(source) is not None


def fetch(repository: str, filename: str | None, revision: str | None) -> Path:
    """The local path of a file of a repository.

    Args:
        repository: ``"organisation/name"``.
        filename: the file; None for the first of the usual names that is there.
        revision: branch, tag or commit; None for ``main``.

    Raises:
        ImportError: huggingface_hub is not installed.
        FileNotFoundError: it is not in the cache and cannot be downloaded; the message says where to put it.
    """
    names = (filename,) if filename else _CANDIDATES
    hub = _library(repository, names[0], revision)
    for name in names:
        cached = hub.try_to_load_from_cache(repository, name, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
    if hub.constants.HF_HUB_OFFLINE:
        _missing(hub, repository, names[0], revision, "and HF_HUB_OFFLINE forbids downloading it")
    _ask_once(hub, repository, names[0], revision)
    for name in names:
        try:
            return Path(hub.hf_hub_download(repository, name, revision=revision, etag_timeout=_TIMEOUT))
        except hub.errors.LocalEntryNotFoundError as error:
            reason = f"and the hub cannot be reached ({type(error.__cause__ or error).__name__})"
            _missing(hub, repository, names[0], revision, reason, error)
        except hub.errors.EntryNotFoundError:
            continue
        except (hub.errors.RepositoryNotFoundError, hub.errors.RevisionNotFoundError) as error:
            raise FileNotFoundError(
                f"the hub has no repository {repository!r} with revision {revision or 'main'!r} that you may read, and "
                "there is no such file or folder here; check the spelling, or log in with `hf auth login`"
            ) from error
        except (OSError, hub.errors.HfHubHTTPError) as error:
            _missing(hub, repository, name, revision, f"and downloading it failed ({type(error).__name__})", error)
    raise FileNotFoundError(f"repository {repository!r} has no {' or '.join(names)}; name the file with filename=")


def _library(repository: str, name: str, revision: str | None) -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError as error:
        raise ImportError(
            f"{repository!r} is not a file or folder here, and looking for it on the hub needs huggingface_hub: "
            f'pip install "bayestl[hub]"; or download {_address(repository, name, revision)} and give its path'
        ) from error
    return huggingface_hub


def _ask_once(hub: Any, repository: str, name: str, revision: str | None) -> None:
    """Fail quickly if the hub cannot be reached; a download would retry for half a minute."""
    try:
        hub.utils.get_session().head(hub.constants.ENDPOINT, timeout=_TIMEOUT)
    except Exception as error:  # whatever the HTTP library of the day raises
        _missing(hub, repository, name, revision, f"and the hub cannot be reached ({type(error).__name__})", error)


def _missing(
    hub: Any, repository: str, name: str, revision: str | None, reason: str, cause: Exception | None = None
) -> NoReturn:
    cached = Path(hub.constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    reference = cached / "refs" / (revision or "main")
    snapshot = reference.read_text().strip() if reference.is_file() else revision or "main"
    raise FileNotFoundError(
        f"{name!r} of {repository!r} is not in the cache, {reason}. Download {_address(repository, name, revision)} "
        f"where there is a network, and put it into the folder {cached / 'snapshots' / snapshot}, or give its path"
    ) from cause


def _address(repository: str, name: str, revision: str | None) -> str:
    return f"https://huggingface.co/{repository}/resolve/{revision or 'main'}/{name}"
