"""The doctor: which tier holds is found out by trying, and what is missing is said."""

import subprocess
import sys

import pytest
from rooms import trial
from typer.testing import CliRunner

from autograder import cli, doctor, isolated


def test_without_a_sandbox_a_submission_manages_all_that_is_tried():
    found = doctor.attempt(0)
    assert not found.holds
    for act in ("opens a socket", "starts a process", "reads /", "writes to /", "signals another process"):
        assert act in found.why


@pytest.mark.parametrize("tier", [3, 2])
def test_a_tier_that_holds_lets_nothing_through(tier):
    if not trial(tier).holds:
        assert trial(tier).why
        pytest.skip(f"tier {tier} does not hold here: {trial(tier).why}")
    assert trial(tier).why == ""


def test_a_tier_that_lets_something_through_does_not_hold(monkeypatch):
    monkeypatch.setattr(doctor, "_ATTEMPTS", "print('reads the gradebook')")
    report = doctor.examine()
    assert report.tier == 0
    assert "A submission reads the gradebook." in "\n".join(report.lines())
    assert "--trust-submissions" in "\n".join(report.lines())


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    monkeypatch.setattr(doctor.landlock, "version", lambda: 0)
    text = "\n".join(doctor.examine().lines())
    assert "bubblewrap is not installed" in text
    assert "apt install bubblewrap" in text
    assert "no Landlock" in text


@pytest.mark.skipif(not trial(2).holds, reason="tier 2 does not hold here")
def test_where_no_namespaces_can_be_made_it_is_tier_2():
    """As in a container with the usual settings: in a namespace that may have none below it."""
    script = f"echo 0 > /proc/sys/user/max_user_namespaces && exec {sys.executable} -m autograder doctor"
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if "unshare failed" in done.stderr or "max_user_namespaces" in done.stderr:
        pytest.skip(f"no namespace to try it in: {done.stderr}")
    assert done.returncode == 0
    assert "Tier 2: Landlock" in done.stdout
    assert "can fill the disk" in done.stdout
    assert "Tier 3 does not hold here" in done.stdout


def test_other_systems_are_told_where_to_grade(monkeypatch):
    monkeypatch.setattr(doctor.sys, "platform", "darwin")
    report = doctor.examine()
    assert report.tier == 0
    assert "Linux virtual machine" in "\n".join(report.lines())
    assert not doctor.can_isolate()


@pytest.mark.parametrize("tier", [3, 2, 0])
def test_each_tier_has_its_engines(tier):
    apart, together = doctor.engine_of(tier), doctor.engine_of(tier, in_process=True)
    assert (apart.tier, together.tier) == (tier, tier)
    assert (apart.name, together.name) == ("isolated", "in-process")
    assert issubclass(together, isolated.IsolatedEngine)


@pytest.mark.parametrize(("tier", "status"), [(3, 0), (2, 0), (0, 1)])
def test_the_command_says_it_and_its_status_tells(monkeypatch, tier, status):
    monkeypatch.setattr(doctor, "examine", lambda: doctor.Report(tier, [], ["Do this."]))
    done = CliRunner().invoke(cli.app, ["doctor"])
    assert done.exit_code == status
    assert f"Tier {tier}: {doctor.TIERS[tier]}." in done.output
    assert "Do this." in done.output
