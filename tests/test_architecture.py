"""Imports go down only, heavy libraries are imported late, and no file holds the address of one machine."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "bayestl"

# Lower first. A module may import what lies in a lower layer.
LAYERS = (
    {
        "_applied",
        "_argument_kinds",
        "_arguments",
        "_generator",
        "_infos",
        "_limits",
        "_types",
        "_tree",
        "_rearrangement",
        "_words",
    },
    {"_containers", "_convolutions", "_dispatch", "_part", "_safetensors", "_static", "_placement", "layers"},
    {"passes"},
    {
        "posteriors",
        "_log_joint",
        "gaussians",
        "likelihoods",
        "metrics",
    },
    {"_condition", "_data_size"},
    {"training"},
    {"curvature"},
    {"sources"},
    {"infer", "predict", "bridges"},
    {"diagnostics"},
    {"tune"},
    {"transferability"},
    {"transfers"},
)
# Within a layer only this.
WITHIN = {
    "_applied": {"_tree"},
    "_argument_kinds": set(),
    "_arguments": {"_argument_kinds", "_types"},
    "_generator": {"_types"},
    "_infos": set(),
    "_tree": {"_types"},
    "_rearrangement": set(),
    "_words": set(),
    "_placement": set(),
    "_convolutions": {"_dispatch"},
    "layers": set(),
    "posteriors": {"gaussians"},
    "_log_joint": {"gaussians", "likelihoods", "posteriors"},
}
# The core never imports these; they may import the core.
EDGES = {"control", "nets", "pretrained", "data", "plots"}
# What an edge may import of another.
BETWEEN_EDGES = {"control": {"data"}}
CORE = set().union(*LAYERS)
HEAVY = {
    "tensorflow",
    "tensorflow_datasets",
    "absl",
    "array_record",
    "h5py",
    "huggingface_hub",
    "equinox",
    "keras",
    "torch",
    "matplotlib",
    "sklearn",
    "flax",
    "grain",
    "orbax",
    "PIL",
}
# The backbones are Flax modules, and a class needs its base class. Edges are themselves imported when first used.
AT_IMPORT = {"pretrained": {"flax"}}


class Import(NamedTuple):
    """One import statement: the dotted name it asks for, and whether it runs when the module is imported."""

    target: str
    line: int
    at_import: bool


def imports(source: str, module: str, is_package: bool) -> Iterator[Import]:
    """Every import in ``source``; for ``from a import b`` the name a.b, and a relative one made absolute."""
    base = module.split(".") if is_package else module.split(".")[:-1]

    def visit(node: ast.AST, at_import: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = base[: len(base) - node.level + 1] if node.level else []
            origin = ".".join(above + ([node.module] if node.module else []))
            yield from (Import(f"{origin}.{alias.name}", node.lineno, at_import) for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for child in [*node.body, *node.orelse]:
                yield from visit(child, at_import and child in node.orelse)
        else:
            late = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from visit(child, at_import and not late)

    yield from visit(ast.parse(source), True)


def unit(module: str) -> str:
    """The room of a module: ``bayestl.gaussians._kl`` lives in ``gaussians``; the package itself is ``""``."""
    return [*module.split("."), ""][1]


def room_errors(source: str, module: str, is_package: bool = False) -> list[str]:
    """What is wrong with the imports of one module of the package."""
    errors = []
    here = unit(module)
    if not here:
        return errors
    layer = {name: number for number, names in enumerate(LAYERS) for name in names}
    if here not in CORE | EDGES:
        return [f"{module}: the plan of rooms does not know {here!r}; give it a place in LAYERS or EDGES"]
    for target, line, at_import in imports(source, module, is_package):
        parts = target.split(".")
        where = f"{module}:{line} imports {target}"
        if at_import and parts[0] in HEAVY - AT_IMPORT.get(here, set()):
            errors.append(f"{where}: import it inside the function that needs it")
        # The package's version is no room; inside a function, where the package has been imported, it may be read.
        if parts[0] != "bayestl" or (target == "bayestl.__version__" and not at_import):
            continue
        there = unit(target)
        if there not in CORE | EDGES:
            errors.append(f"{where}: import the room itself, not through the top of the package")
        elif there == here:
            continue
        elif any(part.startswith("_") for part in parts[2:]):
            errors.append(f"{where}: private to {there}")
        elif there in EDGES - BETWEEN_EDGES.get(here, set()):
            errors.append(f"{where}: {there} is an edge, which nothing else may import")
        elif here in CORE and layer[there] >= layer[here] and there not in WITHIN.get(here, set()):
            errors.append(f"{where}: {there} does not lie below {here}")
    return errors


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found.append((".".join(parts[:-1] if parts[-1] == "__init__" else parts), path))
    return found


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_go_down_only(module: str, path: Path):
    errors = room_errors(path.read_text(), module, path.name == "__init__.py")
    assert not errors, "\n".join(errors)


@pytest.mark.parametrize(
    ("source", "module", "message"),
    [
        ("from bayestl.infer import map_estimate", "bayestl.gaussians._kl", "infer does not lie below gaussians"),
        ("from bayestl import infer", "bayestl.training._fit", "infer does not lie below training"),
        ("from bayestl.likelihoods import normal", "bayestl.metrics._nll", "likelihoods does not lie below metrics"),
        ("from bayestl import gaussians", "bayestl._tree", "gaussians does not lie below _tree"),
        ("from bayestl.data import arrays", "bayestl.training._fit", "data is an edge"),
        ("from bayestl.nets import mlp", "bayestl.data._arrays", "nets is an edge"),
        ("from bayestl.gaussians._kl import kl_divergence", "bayestl.infer._vi", "private to gaussians"),
        ("from bayestl.gaussians import _kl", "bayestl.infer._vi", "private to gaussians"),
        ("from ..gaussians._kl import kl_divergence", "bayestl.infer._vi", "private to gaussians"),
        ("from bayestl.training import _fit", "bayestl.infer._vi", "private to training"),
        ("def f():\n    from bayestl import predict", "bayestl.sources._point", "predict does not lie below sources"),
        ("import bayestl as btl", "bayestl.infer._vi", "not through the top"),
        ("from bayestl import LogJoint", "bayestl.infer._vi", "not through the top"),
        ("from bayestl import __version__", "bayestl.gaussians._io", "not through the top"),
        ("import numpy as np", "bayestl._shapes", "does not know '_shapes'"),
        ("import flax.linen as nn", "bayestl.nets._linen", "inside the function"),
        ("try:\n    import torch\nexcept ImportError:\n    torch = None", "bayestl.nets._x", "inside the function"),
        ("class A:\n    from matplotlib import pyplot", "bayestl.plots._x", "inside the function"),
    ],
)
def test_wrong_imports_are_seen(source: str, module: str, message: str):
    errors = room_errors(source, module)
    assert len(errors) == 1
    assert message in errors[0]


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("from bayestl.gaussians import Gaussian", "bayestl._log_joint"),
        ("from bayestl import _tree, gaussians", "bayestl.infer._vi"),
        ("from bayestl._log_joint import LogJoint", "bayestl.infer._vi"),
        ("from bayestl._types import Batch", "bayestl.data._arrays"),
        ("from bayestl.gaussians._kl import kl_divergence", "bayestl.gaussians._by_path"),
        ("from ._kl import kl_divergence", "bayestl.gaussians._by_path"),
        ("def f():\n    import matplotlib.pyplot as plt", "bayestl.plots._x"),
        ("def f():\n    from bayestl import __version__", "bayestl.gaussians._io"),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import flax", "bayestl.nets._x"),
    ],
)
def test_right_imports_pass(source: str, module: str):
    assert room_errors(source, module) == []


# ---------------------------------------------------------------- covariance structures


def structures() -> dict[str, Path]:
    """The covariance structures by name, each with the file that defines it."""
    result = {}
    for path in sorted((PACKAGE / "gaussians").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "Gaussian" for base in node.bases):
                result[node.name] = path
    return result


def asked_by_name(source: str, names: set[str]) -> list[str]:
    """Where a program asks which of these classes an object is of, or matches it against them."""
    errors = []
    for node in ast.walk(ast.parse(source)):
        asked: list[ast.AST] = []
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass") and len(node.args) > 1:
            asked = [node.args[1]]
        elif isinstance(node, ast.Compare) and any(
            ast.unparse(x).startswith("type(") for x in ast.walk(node) if isinstance(x, ast.Call)
        ):
            asked = [node]
        elif isinstance(node, ast.MatchClass):
            asked = [node.cls]
        inside = [x for each in asked for x in ast.walk(each)]
        called = {x.id for x in inside if isinstance(x, ast.Name)} | {
            x.attr for x in inside if isinstance(x, ast.Attribute)
        }
        errors += [f"{getattr(node, 'lineno', 0)}: asks for {name}" for name in sorted(called & names)]
    return errors


def test_nobody_asks_which_structure_a_gaussian_is():
    """What others must know of a structure, a method of Gaussian says: so a new one is one file."""
    known = structures()
    assert {"Blocks", "Dense", "Diagonal", "Kronecker", "LowRank"} <= set(known)
    errors = []
    for _, path in modules():
        foreign = {name for name, home in known.items() if home != path}
        errors += [f"{path.relative_to(ROOT)}:{error}" for error in asked_by_name(path.read_text(), foreign)]
    assert errors == []


@pytest.mark.parametrize(
    "line",
    [
        "isinstance(prior, Blocks)",
        "isinstance(prior, gaussians.Diagonal | LowRank)",
        "isinstance(prior, (int, Dense))",
        "type(prior) is Kronecker",
        "match prior:\n    case Diagonal(mean=m):\n        pass",
    ],
)
def test_questions_are_seen(line: str):
    names = {"Blocks", "Diagonal", "LowRank", "Dense", "Kronecker"}
    assert asked_by_name(line, names)
    assert not asked_by_name("Diagonal(mean, variances) if isinstance(prior, Gaussian) else LowRank(prior)", names)


PRIVATE = re.compile(
    r"^\s*(?:from|import) bayestl[\w.]*\._\w+|^\s*from bayestl[\w.]* import .*\b_[a-z]\w*",
    re.MULTILINE,
)


@pytest.mark.parametrize("where", ["benchmarks/**/*.py", "docs/**/*.md", "README.md"])
def test_users_of_the_package_stay_with_public_names(where: str):
    found = {str(path.relative_to(ROOT)): PRIVATE.findall(path.read_text()) for path in ROOT.glob(where)}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "line", ["from bayestl.training._fit import fit", "  import bayestl.infer._vi", "from bayestl import infer, _tree"]
)
def test_private_names_are_seen(line: str):
    assert PRIVATE.search(line)


# ---------------------------------------------------------------- likelihoods

# Their classes; what one of them knows is asked of the likelihood, never looked up by its name.
CONCRETE = {"Bernoulli", "Categorical", "FromFunction", "Given", "Normal"}


def named_likelihoods(source: str) -> list[str]:
    """Where a module asks for a likelihood or a numpyro distribution by name: imports of the classes of likelihoods,
    and ``isinstance``, ``issubclass`` or ``is`` with a class of ``numpyro.distributions``."""
    tree = ast.parse(source)
    likelihoods, numpyro, errors = {"likelihoods"}, set(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            origin = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            for alias in node.names:
                if origin.startswith("bayestl.likelihoods") and alias.name in CONCRETE:
                    errors.append(f"line {node.lineno} imports {alias.name}")
                if f"{origin}.{alias.name}".strip(".").startswith("numpyro.distributions"):
                    numpyro.add(alias.asname or alias.name.split(".")[0])
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in CONCRETE and ast.unparse(node.value) in likelihoods:
            errors.append(f"line {node.lineno} names {ast.unparse(node)}")
        asks = isinstance(node, ast.Call) and ast.unparse(node.func) in {"isinstance", "issubclass"}
        compares = isinstance(node, ast.Compare) and any(isinstance(op, ast.Is | ast.IsNot) for op in node.ops)
        if asks or compares:
            names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            if names & numpyro:
                errors.append(f"line {node.lineno} asks for {ast.unparse(node)}")
    return errors


def test_likelihoods_are_asked_and_not_named():
    errors = [
        f"{path.relative_to(ROOT)}: {error}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if "likelihoods" not in path.relative_to(PACKAGE).parts
        for error in named_likelihoods(path.read_text())
    ]
    assert not errors, "\n".join(errors)


@pytest.mark.parametrize(
    "source",
    [
        "from bayestl.likelihoods import Normal, check",
        "from bayestl import likelihoods\nx = isinstance(y, likelihoods.Normal)",
        "import numpyro.distributions as dist\nx = isinstance(y, dist.Normal | dist.Poisson)",
        "import numpyro.distributions as dist\nx = type(y) is dist.Normal",
        "from numpyro.distributions import Normal\nx = issubclass(y, (int, Normal))",
    ],
)
def test_named_likelihoods_are_seen(source: str):
    assert len(named_likelihoods(source)) == 1


def test_a_distribution_that_is_used_passes():
    assert named_likelihoods("import numpyro.distributions as dist\nx = dist.Normal(0, 1).cdf(0.5)") == []


# ---------------------------------------------------------------- files

LOCAL = re.compile(
    r"/(?:root|Users)/\w|/home/\w+/|[A-Z]:\\Users\\"  # home directories
    r"|https?://[^\s\"')>]+/simple\b|(?i:index[-_]url|find[-_]links)\b",  # addresses of package registries
)
TEXT = {".py", ".md", ".toml", ".yml", ".yaml", ".json", ".jsonl", ".txt", ".cfg", ".ini", ".svg", ".sh", ".csv", ""}


def tracked() -> list[Path]:
    """What belongs to the repository, or will with the next commit."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout, so what belongs to the repository is not known")
    return [path for path in map(ROOT.joinpath, listed) if path.is_file()]


def test_no_file_holds_the_address_of_one_machine():
    found = []
    for path in tracked():
        if path.suffix not in TEXT:
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
            if path != Path(__file__) and (hit := LOCAL.search(line)):
                found.append(f"{path.relative_to(ROOT)}:{number}: {hit.group()}")
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "data = '/root/x'",
        "/home/anna/data",
        "/Users/anna/data",
        "https://packages.example.org/simple/",
        "pip install --extra-index-url there",
    ],
)
def test_addresses_are_seen(line: str):
    assert LOCAL.search(line)


@pytest.mark.parametrize("line", ["a simple / short line", "https://example.org/simplex", "the route/home path"])
def test_other_lines_pass(line: str):
    assert not LOCAL.search(line)


def test_no_lock_file_is_kept():
    """Lock files record where each package was downloaded from."""
    locks = {"uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "package-lock.json"}
    assert [path for path in tracked() if path.name in locks] == []
