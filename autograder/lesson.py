"""A lesson's test cells, from the instructor's notebook, compiled; and what it imports."""

import ast
import builtins
import dis
import json
import re
import types
from dataclasses import dataclass, replace
from pathlib import Path

from autograder import syntax
from autograder.build import HIDDEN as MARKERS

_EXERCISE = re.compile(r"(?:\w+\.)?([A-Za-z_]\w*)")


@dataclass(frozen=True)
class Test:
    """A test cell. names: what it may want of the student's; imports: its import statements.

    closes: whether it ends in a check of values, and asks the student's process for nothing after that.
    same_for_all: whether its inputs alone decide what its reference gives: they are public, the code looks up
    nothing of the student's, and its one check ends it.
    """

    name: str
    code: types.CodeType
    hidden: bool
    names: list[str]
    imports: list[str]
    checks: bool  # whether it calls autograder.check, so that every mistake of a student's is an Outcome
    closes: bool
    same_for_all: bool


@dataclass(frozen=True)
class Lesson:
    """tests by grade_id; imports: those statements of given cells that tests rely on.

    modules: all that is imported; needed: what tests import, and those statements. answers: names of
    solution cells.
    """

    topic: str
    tests: dict[str, Test]
    imports: list[str]
    modules: list[str]
    needed: list[str]
    answers: frozenset[str]
    sources: dict[str, str]  # of graded cells that students do not write, by grade_id


def read_lesson(source: str | Path, topic: str) -> Lesson:
    """The lesson in an instructor's notebook. Raises SyntaxError for a test cell that is no Python."""
    tests, imports, modules, needed, answers, sources = {}, [], [], [], set(), {}
    for cell in json.loads(Path(source).read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] != "code":
            continue
        text = "".join(cell["source"])
        settings = cell["metadata"].get("nbgrader", {})
        shown = "show" in cell["metadata"].get("tags", [])
        if settings.get("grade") and not settings.get("solution"):
            test = read_test(settings["grade_id"], text)
            tests[test.name], sources[test.name] = test, text
            needed += _modules(test.imports)
        elif not shown:
            statements = import_statements(text)
            imports += [] if settings.get("solution") else statements
            answers |= {settings["grade_id"]} if settings.get("solution") else set()
            modules += _modules(statements)
    wanted = {"*"} | {name for test in tests.values() for name in test.names}
    imports = [statement for statement in imports if _bound(statement) & wanted]
    needed += _modules(imports)
    ours = [*imports, *(statement for test in tests.values() for statement in test.imports)]
    imported = {name for statement in ours for name in _bound(statement)} - answers
    for name, test in tests.items():  # what we import is never taken from a student, who could have spoilt it
        names = [wanted for wanted in test.names if wanted not in imported]
        tests[name] = replace(test, names=names, same_for_all=_same_for_all(test, sources[name], imported))
    answers = frozenset(answers)
    return Lesson(topic, tests, imports, _once(modules + needed), _once(needed), answers, sources)


def read_test(name: str, source: str) -> Test:
    code = compile(source, f"<test {name}>", "exec", dont_inherit=True)
    imports = import_statements(source)
    checks = any(re.search(r"\bautograder\b.*\bcheck\b", statement) for statement in imports)
    return Test(name, code, MARKERS[0] in source, _names(code), imports, checks, _closes(source), False)


def _same_for_all(test, source, imported):
    apart = not syntax.free_names(source) - imported
    checks = [name for name, _ in syntax.calls_of(source, "check")]
    alone = len(checks) - checks.count("without") == 1  # which asks for no value
    return not test.hidden and test.closes and apart and alone


def _closes(source):
    last = ast.parse(source).body[-1:]
    call = getattr(last[0], "value", None) if last else None
    if not isinstance(call, ast.Call) or any(keyword.arg == "use" for keyword in call.keywords):
        return False
    return ast.unparse(call.func) == "check.values"


def import_statements(source: str) -> list[str]:
    """The import statements at the top level of a cell; none where it is not plain Python."""
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return []
    return [
        ast.unparse(statement) for statement in body if isinstance(statement, (ast.Import, ast.ImportFrom))
    ]


def _once(names):
    return list(dict.fromkeys(names))


def _bound(statement):
    """The names that an import statement makes; "*" where nobody knows."""
    (node,) = ast.parse(statement).body
    return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}


def _modules(statements):
    """All that these statements may load; names that are no modules among them are found out by trying."""
    for statement in statements:
        (node,) = ast.parse(statement).body
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _names(code):
    """Names that a test looks up and does not make itself, and the exercises that it names in texts."""
    looked_up, made, texts = set(), set(), set()
    _collect(code, looked_up, made, texts)
    exercises = {match[1] for text in texts if (match := _EXERCISE.fullmatch(text))}
    ours = {step.argval for step in dis.get_instructions(code) if step.opname == "STORE_NAME"}
    names = (looked_up | exercises) - ours - made
    return sorted(name for name in names if not hasattr(builtins, name) and not name.startswith("__"))


def _collect(code, looked_up, made, texts):
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_NAME", "LOAD_GLOBAL"):
            looked_up.add(step.argval)
        elif step.opname == "STORE_GLOBAL":
            made.add(step.argval)
    for constant in code.co_consts:
        if isinstance(constant, str):
            texts.add(constant)
        elif isinstance(constant, types.CodeType):
            _collect(constant, looked_up, made, texts)
