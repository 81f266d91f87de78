"""environment.yml, constraints.txt and pyproject.toml say the same; Binder would build what they say."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
CONDA_NAMES = {"torch": "pytorch-cpu", "matplotlib": "matplotlib-base"}


@pytest.fixture(scope="module")
def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def conda() -> list[str]:
    return yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


@pytest.fixture(scope="module")
def pinned() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().split()
    return {
        canonicalize_name(name): Version(version) for name, version in (line.split("==") for line in lines)
    }


def disagreements(dependencies: list[str], conda: list[str]) -> set[str]:
    """What one of the two lists holds and the other lacks, as conda writes it."""
    wanted = set()
    for requirement in map(Requirement, dependencies):
        order = sorted(requirement.specifier, key=lambda clause: clause.operator, reverse=True)
        wanted.add(CONDA_NAMES.get(requirement.name, requirement.name) + ",".join(map(str, order)))
    return wanted ^ {line for line in conda if not re.match(r"(python|pip)\b", line)}


def test_conda_and_pyproject_agree(pyproject, conda):
    assert disagreements(pyproject["project"]["dependencies"], conda) == set()


def test_a_disagreement_is_seen():
    assert disagreements(["numpy>=2.0,<3"], ["python=3.12", "numpy>=1.0,<3"])
    assert disagreements(["numpy>=2.0,<3", "rich"], ["numpy>=2.0,<3"]) == {"rich"}


def test_conda_python_is_as_repo2docker_reads_it(conda):
    assert "python=3.12" in conda


def test_environment_has_no_local_path():
    text = (ROOT / "environment.yml").read_text()
    assert not re.search(r"-e |file:|^\s*-\s*\.", text, re.M)


def test_constraints_satisfy_every_requirement(pyproject, pinned):
    groups = pyproject["dependency-groups"]
    everything = [*pyproject["project"]["dependencies"], *groups["test"], *groups["peers"], *groups["habits"]]
    for requirement in map(Requirement, everything):
        if requirement.name not in ("nflows", "normflows"):  # pinned where they are required
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


def test_every_pin_runs_on_the_oldest_python(pinned):
    """Also on 3.11.0: some systems stay at an early patch release."""
    needs = {canonicalize_name(d.name): d.metadata.get("Requires-Python") or "" for d in distributions()}
    too_new = {name for name in pinned if not SpecifierSet(needs.get(name, "")).contains("3.11.0")}
    assert too_new == set()


def test_torch_is_pinned(pinned):
    assert pinned["torch"] == Version("2.13.0")


def test_binder_has_no_folder_that_hides_the_environment():
    assert not (ROOT / "binder").exists()
    assert not (ROOT / ".binder").exists()
    assert os.access(ROOT / "postBuild", os.X_OK)
    assert os.access(ROOT / "start", os.X_OK)


@pytest.mark.parametrize(("limit", "threads"), [("2.0", "2"), ("1", "1"), ("0.5", "1"), (None, "1")])
def test_start_sets_the_threads(limit, threads):
    environment = {"PATH": os.environ["PATH"], **({"CPU_LIMIT": limit} if limit else {})}
    command = [str(ROOT / "start"), sys.executable, "-c", "import os; print(os.environ['OMP_NUM_THREADS'])"]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == threads


@pytest.mark.slow
def test_repo2docker_reads_the_environment(tmp_path):
    program = shutil.which("jupyter-repo2docker", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("jupyter-repo2docker is not installed")
    copy = tmp_path / "course"
    copy.mkdir()
    for name in ("environment.yml", "postBuild", "start"):
        shutil.copy(ROOT / name, copy)
    command = [program, "--no-build", "--debug", str(copy)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert shown.returncode == 0, shown.stderr
    assert "Building conda environment for python=3.12" in shown.stdout + shown.stderr
