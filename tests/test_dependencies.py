"""What the package imports is what installing it brings."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {"kspace", "simulate", "bench", "cli"}
SOURCES = [ROOT / "cli.py", *sorted((ROOT / "kspace").rglob("*.py")), *sorted((ROOT / "simulate").rglob("*.py"))]


def imports(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """Yield every top-level name that is imported, and whether that happens when the module is."""
    deferred: set[ast.AST] = set()
    for node in ast.walk(tree):
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if typing_only or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            deferred.update(ast.walk(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node not in deferred) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0], node not in deferred


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w.-]", text, maxsplit=1)[0].lower().replace("_", "-") for text in requirements}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_module_imports_is_installed_with_the_package(source: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    always = names(project["dependencies"])
    extras = always | {name for extra in project["optional-dependencies"].values() for name in names(extra)}
    known = packages_distributions()
    for name, at_import in imports(ast.parse(source.read_text())):
        if name in OURS or name in sys.stdlib_module_names:
            continue
        needed = {distribution.lower().replace("_", "-") for distribution in known.get(name, [name])}
        where = "dependencies" if at_import else "dependencies or extras"
        assert needed & (always if at_import else extras), f"{source.name} imports {name}, which is not in {where}"
