"""flowkit's annotations hold: mypy, as pyproject.toml sets it up, finds nothing to say."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MISTAKES = {
    "no annotations": "def twice(x):\n    return 2 * x\n",
    "a wrong type": "def twice(x: float) -> str:\n    return 2 * x\n",
    "a layer that forgets its log-det": (
        "from torch import Tensor\n\n"
        "from flowkit.bijection import Bijection\n\n\n"
        "class Halve(Bijection):\n"
        "    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:\n"
        "        return x / 2\n"
    ),
}


def mypy(*paths: Path) -> subprocess.CompletedProcess:
    """Checks these files, or else the packages of pyproject.toml."""
    return subprocess.run([sys.executable, "-m", "mypy", *paths], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_flowkit_is_typed():
    done = mypy()
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found(mistake, tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text(MISTAKES[mistake])
    done = mypy(wrong)
    assert done.returncode == 1
    assert "wrong.py" in done.stdout


@pytest.mark.slow
def test_a_right_file_passes(tmp_path):
    right = tmp_path / "right.py"
    right.write_text("def twice(x: float) -> float:\n    return 2 * x\n")
    done = mypy(right)
    assert done.returncode == 0, done.stdout + done.stderr


def test_flowkit_says_that_it_is_typed():
    """PEP 561: the marker stands beside the code, which is how it is found when others import flowkit."""
    assert (ROOT / "flowkit" / "py.typed").is_file()
    assert '"py.typed"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
