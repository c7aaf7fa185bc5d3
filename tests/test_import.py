"""What ``import bayestl`` costs: the libraries at the edges are not loaded with it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("tensorflow", "tensorflow_datasets", "matplotlib", "keras", "torch", "sklearn", "flax", "orbax", "grain")


def modules_after(statement: str) -> set[str]:
    """The modules that a fresh interpreter holds after ``statement``."""
    show = "print(json.dumps(list(sys.modules)))"
    program = f"import json, sys\n{statement}\n{show}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def loaded_after(statement: str) -> set[str]:
    """Top-level packages that a fresh interpreter holds after ``statement``."""
    return {name.split(".")[0] for name in modules_after(statement)}


def test_import_leaves_heavy_libraries_alone():
    loaded = loaded_after("import bayestl")
    assert "bayestl" in loaded
    assert loaded & set(HEAVY) == set()


def test_import_leaves_the_slow_parts_of_scipy_alone():
    assert modules_after("import bayestl") & {"scipy.stats", "scipy.optimize", "scipy.spatial"} == set()


@pytest.mark.parametrize("edge", ["control", "data", "nets", "plots"])
def test_edges_are_attributes_that_load_heavy_libraries_only_when_used(edge: str):
    loaded = loaded_after(f"import bayestl\nassert bayestl.{edge}.__all__")
    assert loaded & set(HEAVY) == set()


def test_the_probe_sees_a_library_that_is_loaded():
    assert "matplotlib" in loaded_after("import matplotlib")


def test_an_unknown_name_is_an_attribute_error():
    import bayestl

    with pytest.raises(AttributeError, match="no attribute 'gaussian'"):
        bayestl.gaussian  # noqa: B018


def test_every_public_name_is_there():
    import bayestl

    assert [name for name in bayestl.__all__ if not hasattr(bayestl, name)] == []
