"""How flowkit is divided: modules are short, keep their private names, and are all listed."""

import ast
from pathlib import Path

import pytest

import flowkit

FLOWKIT = Path(__file__).parents[1] / "flowkit"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def borrowed(source: str) -> list[str]:
    """The private names of flowkit's modules that this source imports, or reaches as attributes."""
    found, theirs = [], set()
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.level or _is_flowkit(node.module)):
            found += [alias.name for alias in node.names if is_private(alias.name)]
            theirs |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            theirs |= {alias.asname or alias.name for alias in node.names if _is_flowkit(alias.name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and ast.unparse(node.value) in theirs:
            found.append(ast.unparse(node))
    return found


def _is_flowkit(module: str | None) -> bool:
    return module is not None and module.partition(".")[0] == "flowkit"


def too_long(folder: Path) -> dict[str, int]:
    """The modules with more lines than they may have: 400 in lab, 300 elsewhere."""
    lines = {
        path.relative_to(folder): len(path.read_text(encoding="utf-8").splitlines())
        for path in folder.rglob("*.py")
    }
    return {str(path): n for path, n in lines.items() if n > (400 if path.parts[0] == "lab" else 300)}


def modules(folder: Path) -> set[str]:
    """The modules and packages that stand in a package's folder."""
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    return files | {path.parent.name for path in folder.glob("*/__init__.py")}


@pytest.mark.parametrize(
    "path", sorted(FLOWKIT.rglob("*.py")), ids=lambda path: str(path.relative_to(FLOWKIT))
)
def test_modules_leave_private_names_alone(path):
    assert borrowed(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "from flowkit.maps import EXP, _logit",
        "from .maps import _logit",
        "def late():\n    from flowkit.maps import _logit as logit",
        "from flowkit import maps\nmaps._logit(0.5)",
        "from flowkit.laws import slips as words\nwords._show(x)",
        "import flowkit.maps\nflowkit.maps._logit(0.5)",
        "import flowkit.maps as m\nf = m._logit",
    ],
)
def test_a_borrowed_private_name_is_found(source):
    assert len(borrowed(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "from flowkit.maps import EXP",
        "from flowkit import maps\nprint(maps.__name__, maps.EXP)",
        "from os import _exit",
        "class A:\n    def f(self):\n        return self._x",
    ],
)
def test_what_is_ones_own_is_let_be(source):
    assert borrowed(source) == []


def test_modules_are_short():
    assert too_long(FLOWKIT) == {}


def test_a_long_module_is_found(tmp_path):
    (tmp_path / "lab").mkdir()
    (tmp_path / "laws").mkdir()
    for name, lines in {
        "a.py": 300, "b.py": 301, "laws/c.py": 301, "lab/d.py": 400, "lab/e.py": 401,
    }.items():  # fmt: skip
        (tmp_path / name).write_text("x = 1\n" * lines)
    assert too_long(tmp_path) == {"b.py": 301, str(Path("laws/c.py")): 301, str(Path("lab/e.py")): 401}


def test_every_module_is_listed():
    assert modules(FLOWKIT) == flowkit._MODULES


def test_modules_that_are_not_listed_are_found(tmp_path):
    (tmp_path / "package").mkdir()
    for name in ("__init__.py", "module.py", "package/__init__.py", "package/part.py"):
        (tmp_path / name).touch()
    assert modules(tmp_path) == {"module", "package"}
