"""The layers of docs/architecture.md hold: lower never imports upper, and no modules import each other in a circle."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOME = ROOT / "src" / "selfsup"


def layers() -> dict[str, int]:
    """Return the floor of each module or package, counted from the bottom, as docs/architecture.md has them."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    match = re.search(r"```layers\n(.*?)```", text, re.DOTALL)
    assert match, "docs/architecture.md has the table of layers"
    lines = [line.split("#")[0].split() for line in match[1].splitlines() if line.strip()]
    return {name: floor for floor, names in enumerate(lines) for name in names}


def module_of(path: Path) -> str:
    parts = path.relative_to(HOME).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in HOME.rglob("*.py") if path != HOME / "__init__.py"}


def imports(path: Path) -> Iterator[str]:
    """Yield the modules of ours that a file imports: at its top, inside functions and for type checkers alike."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.startswith("selfsup."):
                inner = name.removeprefix("selfsup.")
                yield inner if inner in MODULES else inner.rpartition(".")[0]


GRAPH = {name: {found for found in imports(path) if found} for name, path in MODULES.items()}


def test_every_module_has_a_layer() -> None:
    assert {name.split(".")[0] for name in MODULES} - {"__main__"} == layers().keys()


@pytest.mark.parametrize("name", sorted(MODULES.keys() - {"__main__"}))
def test_lower_never_imports_upper(name: str) -> None:
    floor = layers()
    own = name.split(".")[0]
    for found in GRAPH[name]:
        other = found.split(".")[0]
        assert other == own or floor[other] < floor[own], f"{name} imports {found}, which stands above it or beside it"


def test_no_modules_import_each_other_in_a_circle() -> None:
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a circle: {' -> '.join((*path[path.index(name) :], name))}"
        if name not in done:
            for found in sorted(GRAPH.get(name, ())):
                # a package's __init__ gathers what is in it: its modules import each other, not the package
                visit(found, (*path, name))
            done.add(name)

    for name in sorted(GRAPH):
        visit(name, ())


def test_only_control_knows_environments_and_agents() -> None:
    foreign = r"^\s*(import|from) (gymnasium|stable_baselines3|mujoco|ale_py|pybullet)\b"
    for name, path in MODULES.items():
        if not name.startswith("control"):
            assert not re.search(foreign, path.read_text(), re.M), name


@pytest.mark.parametrize("kind", ["image", "text"])
def test_a_kind_of_data_brings_at_most_forty_lines_to_each_table(kind: str) -> None:
    """Its standard views, its baseline and its exporter: small modules, named in one table each."""
    from selfsup.evaluation.baselines import BASELINES
    from selfsup.exporters import EXPORTERS
    from selfsup.views import VIEWS

    for table, most in ((VIEWS, 40), (BASELINES, 55), (EXPORTERS, 60)):
        path = MODULES[table[kind].removeprefix("selfsup.")]
        lines = [line for line in path.read_text().splitlines() if line.strip()]
        assert len(lines) <= most, path
