"""Every example runs: those in docstrings, and the Python blocks of the README and the documents."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import re
import typing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bayestl as btl

ROOT = Path(__file__).parent.parent
GLOBALS = {"jax": jax, "jnp": jnp, "np": np, "optax": optax, "btl": btl}
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
BLOCK = re.compile(r"^```python[ \t]*(?P<mark>[^\n]*)\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)


def module_names() -> list[str]:
    # From the files, so that a module that cannot be imported fails its own test and not the collection.
    files = sorted((ROOT / "bayestl").rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    return [name.removesuffix(".__init__") for name in names]


def public_packages() -> list[str]:
    return sorted(path.parent.name for path in (ROOT / "bayestl").glob("*/__init__.py"))


def documents() -> list[Path]:
    return [path for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if path.exists()]


def blocks(text: str) -> list[str]:
    """Python blocks in order, without those marked ``no-run``; empty lines before the code keep its line numbers."""
    return [
        "\n" * text.count("\n", 0, found.start("code")) + found["code"]
        for found in BLOCK.finditer(text)
        if "no-run" not in found["mark"].split()
    ]


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Examples may write files, and draw without a screen."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")


@pytest.mark.parametrize("name", module_names())
def test_examples_in_docstrings(name: str):
    module = importlib.import_module(name)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    for example in doctest.DocTestFinder().find(module, name, extraglobs=GLOBALS):
        runner.run(example, out=report.append)
    assert not runner.failures, "".join(report)


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_python_blocks_of_documents(path: Path, request: pytest.FixtureRequest):
    """The blocks of one page run one after another in one namespace, as a reader would type them."""
    if any("BAYESTL_DATA_DIR" in code for code in blocks(path.read_text())):
        request.getfixturevalue("data_dir")
    namespace: dict[str, object] = {"__name__": "__main__"}
    for code in blocks(path.read_text()):
        exec(compile(code, str(path), "exec"), namespace)


def test_the_readme_is_short_and_its_links_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) < 600
    assert len(blocks(text)) == text.count("```python") == 1  # it runs as it stands
    links = re.findall(r"\]\(([^)#]+)", text)
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_reference_pages_begin_with_what_their_tables_name():
    pytest.importorskip("griffe")
    spec = importlib.util.spec_from_file_location("_docstrings", ROOT / "docs" / "_docstrings.py")
    assert spec is not None
    assert spec.loader is not None
    docstrings = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(docstrings)
    names = ["AInfo", "AState", "Result", "a", "b", "c"]
    assert docstrings.in_order(names, "| run | `b`, `a` |\n") == ["b", "a", "c", "Result", "AInfo", "AState"]


def test_blocks_are_found():
    text = "```python\na = 1\n```\n\n```python no-run\nb = 1\n```\n\n```text\nc\n```\n\n```python\nd = 1\n```\n"
    assert [code.lstrip("\n") for code in blocks(text)] == ["a = 1\n", "d = 1\n"]
    assert blocks(text)[1].count("\n") == text.count("\n") - 1


def test_a_wrong_example_fails():
    def function():
        """
        >>> jnp.add(1, 1).item()
        3
        """

    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    (example,) = doctest.DocTestFinder().find(function, extraglobs=GLOBALS, globs={})
    runner.run(example, out=lambda _: None)
    assert runner.failures == 1


@pytest.mark.parametrize("package", public_packages())
def test_each_room_has_its_page(package: str):
    page = (ROOT / "docs" / "api" / f"{package}.md").read_text()
    assert f"::: bayestl.{package}\n" in page + "\n"
    assert f"api/{package}.md" in (ROOT / "mkdocs.yml").read_text()


@pytest.mark.parametrize("package", ["bayestl", *(f"bayestl.{name}" for name in public_packages())])
def test_public_names_are_documented(package: str):
    module = importlib.import_module(package)
    public = {name: getattr(module, name) for name in module.__all__ if not name.startswith("__")}
    # Names of types, as Callable[...], hold no docstring; theirs stands below them in the source.
    public = {name: value for name, value in public.items() if typing.get_origin(value) is None}
    # Dataclasses and named tuples without words of their own have their signature for a docstring.
    undocumented = [name for name, value in public.items() if (value.__doc__ or f"{name}(").startswith(f"{name}(")]
    assert undocumented == []
