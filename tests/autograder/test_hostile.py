"""No submission of the hostile corpus has any effect at any tier; with its defence off, each has its own."""

import json
import os
from collections import Counter
from dataclasses import replace

import pytest
from classes import LESSON, built_course, grades_of, hand_in
from courses import copy_of_fixture
from rooms import require
from typer.testing import CliRunner

from autograder import attacks, hostile, selfcheck
from autograder.attacks import ATTACKS, EFFECTS, FAMILIES
from autograder.cli import app
from autograder.doctor import Report
from autograder.engine import EngineFailure
from autograder.grade import grade
from autograder.isolated import IsolatedEngine

CONTROLS = {
    "split": {"tier": 0, "split": False},
    "sandbox": {"tier": 0},
    "limits": {"tier": 0, "limits": False},
}
A_FEW = {
    "numpy.allclose is always true",
    "the reference is found in the frames",
    "the gradebook is read",
    "TCP",
    "a file is written",
    "a process is killed",
    "processes",
    "a file in shared memory",
    "a daemon",
    "patched libraries",
    "an outcome of check's is raised",
}


def let_loose(chosen, **defences):
    """The outcomes of attacks on an engine with these defences."""
    with hostile.Ground() as ground:
        engine = hostile.engine_for(source=ground.source, **defences)
        try:
            return list(hostile.run(ground, engine, chosen))
        finally:
            engine.close()


def test_the_corpus_is_large_and_of_all_families():
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 60
    assert min(Counter(attack.family for attack in ATTACKS).values()) >= 8
    assert len(FAMILIES) == 6
    assert {attack.effect for attack in ATTACKS} <= set(EFFECTS)
    assert {attack.off for attack in ATTACKS} == {"", *CONTROLS}
    assert sum(bool(attack.off) for attack in ATTACKS) > 60


def test_a_few_have_no_effect():
    require(3)
    outcomes = let_loose([attack for attack in ATTACKS if attack.name in A_FEW], tier=3)
    assert len(outcomes) == len(A_FEW)
    assert [outcome.line() for outcome in outcomes if outcome.effects] == []


@pytest.mark.parametrize("off", ["split", "sandbox"])
def test_the_few_are_attacks(off):
    few = [attack for attack in ATTACKS if attack.name in A_FEW and attack.off == off]
    outcomes = let_loose(few, **CONTROLS[off])
    assert [outcome.line() for outcome in outcomes if outcome.attack.effect not in outcome.effects] == []
    assert outcomes


@pytest.mark.heavy
@pytest.mark.parametrize("tier", [3, 2])
def test_none_has_an_effect(tier):
    require(tier)
    promised = [attack for attack in ATTACKS if tier in attack.holds]
    outcomes = let_loose(promised, tier=tier)
    assert [outcome.line() for outcome in outcomes if outcome.effects] == []
    assert all(outcome.score == outcome.attack.deserves for outcome in outcomes)


@pytest.mark.heavy
@pytest.mark.parametrize("off", CONTROLS)
def test_each_has_its_effect_when_its_defence_is_off(off):
    outcomes = let_loose([attack for attack in ATTACKS if attack.off == off], **CONTROLS[off])
    assert [outcome.line() for outcome in outcomes if outcome.attack.effect not in outcome.effects] == []


def test_the_ground_sees_an_engine_that_grades_wrongly():
    """One that gives everybody nothing is told by the honest submission; no attack is let loose on it."""

    class Nothing:
        def grade(self, submission):
            return [], submission.notebook

    with hostile.Ground() as ground, pytest.raises(EngineFailure, match="honest submission"):
        list(hostile.run(ground, Nothing(), ATTACKS))


@pytest.mark.heavy
def test_neighbours_in_a_class_get_what_they_get_without_the_hostile(tmp_path):
    """The same class twice, the second time with attackers between; grades come out of the gradebook."""
    require(3)
    course = built_course(tmp_path)
    right = "u, v = b - a, c - a\n    return (u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]) / 2"
    answers = {"ann": right, "bob": "return 1", "zoe": right}
    for student, answer in answers.items():
        hand_in(course, student, answer)
    grade(course, count=1, engine=IsolatedEngine, timeout=2)
    before = grades_of(course)
    assert before["ann"] == before["zoe"] > before["bob"] == 0
    tricks = {
        "mad": "import numpy; numpy.allclose = lambda *a, **k: True; return 1",
        "max": "import os; os._exit(0)",
        "mia": f"return open('{course.source}/{LESSON}/triangles.ipynb').read()",
        "mob": "import os\n    for n in range(3, 99):\n        os.write(n, b'10')",
    }
    for student, answer in (tricks | answers).items():
        hand_in(course, student, answer, time="2026-09-30 11:00:00 UTC")
    graded = grade(course, count=1, engine=IsolatedEngine, timeout=2)
    assert len(graded.results) == len(tricks | answers)
    assert grades_of(course) == before | dict.fromkeys(tricks, 0.0)


def test_every_attack_is_plain_python():
    for attack in ATTACKS:
        for source in (attack.cell, attack.double, attack.norm, attack.after):
            compile(source, attack.name, "exec")
    assert attacks.PREAMBLE.count("def managed") == 1


# What the instructor runs.


def test_a_machine_without_a_sandbox_is_not_called_safe(monkeypatch, tmp_path):
    monkeypatch.setattr(hostile.doctor, "examine", lambda: Report(0, [], []))
    safety = hostile.examine()
    assert not safety.ok
    assert "NOT safe" in safety.lines()[0]
    assert "no sandbox (tier 0)" in safety.lines()[1]
    said = selfcheck_of_nothing(monkeypatch, tmp_path)
    assert said.exit_code == 1
    assert "NOT safe to grade on" in said.output


def test_an_attack_with_an_effect_makes_the_machine_unsafe(monkeypatch, tmp_path):
    """With tier 0 in the place of a sandbox, a share of the attacks is told line by line."""
    few = [attack for attack in ATTACKS if attack.name in ("TCP", "a file is written", "random states")]
    monkeypatch.setattr(hostile, "ATTACKS", [replace(attack, holds=(0,)) for attack in few])
    monkeypatch.setattr(hostile, "_unseen", lambda ground: [])
    read, write = os.pipe()
    kept = os.dup(1)
    os.dup2(write, 1)
    try:
        hostile.write_share(0, 0, 1)
    finally:
        os.dup2(kept, 1)
        os.close(write)
        os.close(kept)
    with open(read) as lines:
        shown = [json.loads(line) for line in lines]
    assert shown == [
        ["TCP", "escaping, TCP: a server heard from it"],
        ["a file is written", "escaping, a file is written: a file outside was changed or made"],
        ["random states", ""],
        [hostile.DONE, ""],
    ]


def test_a_safe_machine_is_called_safe(monkeypatch, tmp_path):
    monkeypatch.setattr(hostile, "examine", lambda say: hostile.Safety(3, 120, []))
    said = selfcheck_of_nothing(monkeypatch, tmp_path)
    assert said.exit_code == 0
    assert "120 hostile submissions in tier 3: none had any effect." in said.output
    assert "Tier 2 does not promise to stop: many files." in hostile.Safety(2, 118, []).lines()[0]


def test_attacks_that_end_early_are_told(monkeypatch):
    monkeypatch.setattr(hostile.sys, "executable", "false")
    problems, count = hostile._in_a_process(3, 0, 1, lambda line: None)
    assert count == 0
    assert "ended early, with exit code 1" in problems[0]


@pytest.mark.heavy
def test_selfcheck_holds_on_this_machine():
    require(3)
    safety = hostile.examine()
    assert safety.problems == []
    assert safety.attacks > 100


def selfcheck_of_nothing(monkeypatch, tmp_path):
    """The command, on a course whose answers are as they must be."""
    monkeypatch.setattr(selfcheck, "selfcheck", lambda *args, **options: [])
    course = copy_of_fixture(tmp_path)
    return CliRunner().invoke(app, ["selfcheck", "--course", str(course.folder)])
