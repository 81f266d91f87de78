"""The habits that pre-commit keeps, kept here too: lint, format, spelling, no outputs in notebooks."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAMS = Path(sys.executable).parent
HABITS = {
    "ruff check": ["ruff", "check", "--no-cache"],
    "ruff format": ["ruff", "format", "--check", "--no-cache"],
    "codespell": ["codespell"],
}


def run(habit: str, folder: Path) -> subprocess.CompletedProcess:
    program, *options = HABITS[habit]
    return subprocess.run([PROGRAMS / program, *options, "."], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("habit", HABITS)
def test_the_project_keeps_its_habits(habit):
    done = run(habit, ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("habit", HABITS)
def test_a_slip_is_found(habit, tmp_path):
    (tmp_path / "slip.py").write_text("import  os  # teh\n")  # codespell:ignore teh
    assert run(habit, tmp_path).returncode != 0


def test_notebooks_have_no_outputs():
    for path in [*(ROOT / "lessons").rglob("*.ipynb"), *(ROOT / "solutions").rglob("*.ipynb")]:
        if ".ipynb_checkpoints" not in path.parts:
            text = path.read_text(encoding="utf-8")
            assert '"output_type"' not in text, f"{path} holds outputs: autograder build writes it without"
