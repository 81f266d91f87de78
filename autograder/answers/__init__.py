"""The answer bank: for each exercise, other right answers, and named wrong ones, each with its own messages.

`autograder/answers/TOPIC.py` declares them with `right` and `wrong`; `bank(TOPIC)` reads them. A check runs
the wrong answers beside the student's, to find which slip was made; `autograder selfcheck` types every answer
into its exercise. This module imports nothing heavy: a topic's answers are loaded when first asked for.
"""

import ast
import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Answer:
    """One answer to one exercise, as a student would write it: a function or a class.

    messages   what a student who gives this wrong answer is told, the first time, the second, and so on
    when       a predicate when(returned, *args) that recognises the answer by what came back, or None
    """

    exercise: str
    answer: Callable
    messages: tuple[str, ...] = ()
    when: Callable[..., bool] | None = None

    @property
    def name(self) -> str:
        return self.answer.__name__

    def source(self) -> str:
        """The solution cell with this answer: the imports that it uses, and its undecorated definition.

        It bears the exercise's name, in recursive calls too. Comments and layout are the author's.
        """
        text = inspect.getsource(self.answer)
        definition = ast.parse(text).body[0]
        definition.decorator_list.clear()
        text = _renamed(text, definition, self.name, self.exercise)
        text = "".join(text.splitlines(keepends=True)[definition.lineno - 1 :])
        imports = _imports_used(inspect.getmodule(self.answer), definition)
        return "\n".join([*imports, "", "", text] if imports else [text])


@dataclass
class Bank:
    """The answers of one topic, in the order in which they are declared."""

    topic: str
    _right: dict[tuple[str, str], Answer] = field(default_factory=dict)
    _wrong: dict[tuple[str, str], Answer] = field(default_factory=dict)

    def right(self, exercise: str) -> list[Answer]:
        """The right answers to an exercise, besides the solution of its master."""
        return [answer for answer in self._right.values() if answer.exercise == exercise]

    def wrong(self, exercise: str) -> list[Answer]:
        """The named wrong answers to an exercise."""
        return [answer for answer in self._wrong.values() if answer.exercise == exercise]

    @property
    def exercises(self) -> list[str]:
        """The exercises that have an answer here."""
        return list(dict.fromkeys(a.exercise for a in [*self._right.values(), *self._wrong.values()]))


_banks: dict[str, Bank] = {}


def bank(topic: str) -> Bank:
    """The answer bank of a topic. A topic without a module of answers has an empty bank."""
    module = f"{__name__}.{topic}"
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
    return _banks.get(topic, Bank(topic))


def right(exercise: str) -> Callable:
    """Declares a right answer, written differently from the master's solution."""

    def register(answer):
        _bank_of(answer)._right[exercise, answer.__name__] = Answer(exercise, answer)
        return answer

    return register


def wrong(exercise: str, *messages: str, when: Callable[..., bool] | None = None) -> Callable:
    """Declares a named wrong answer. messages: what the student is told the first time, then the second, ...

    when(returned, *args) recognises the answer by what came back, where running it again would be slow.
    Raises ValueError when there is no message, an empty one, or one that another wrong answer has too.
    """

    def register(answer):
        topic = _bank_of(answer)
        _check_messages(topic, exercise, answer.__name__, messages)
        topic._wrong[exercise, answer.__name__] = Answer(exercise, answer, messages, when)
        return answer

    return register


def _bank_of(answer: Callable) -> Bank:
    topic = answer.__module__.rpartition(".")[2]
    return _banks.setdefault(topic, Bank(topic))


def _check_messages(topic: Bank, exercise: str, name: str, messages: tuple[str, ...]) -> None:
    where = f"The wrong answer {name} to {topic.topic}.{exercise}"
    if not messages or not all(isinstance(message, str) and message.strip() for message in messages):
        raise ValueError(f"{where} needs messages for the student, none of them empty.")
    others = [m for other in topic.wrong(exercise) if other.name != name for m in other.messages]
    for message in messages:
        if (*messages, *others).count(message) > 1:
            raise ValueError(
                f"{where} says what is said elsewhere: {message!r}. Say what is particular to it."
            )


def _renamed(text: str, definition: ast.AST, old: str, new: str) -> str:
    """The text with the definition's name, and every use of it, replaced where they stand."""
    if old == new:
        return text
    lines = [line.encode() for line in text.splitlines(keepends=True)]
    keyword = re.match(rb"\s*(def|class)\s+", lines[definition.lineno - 1])
    places = [(definition.lineno, keyword.end())]
    for node in ast.walk(definition):
        if isinstance(node, ast.arg) and node.arg == old:
            raise ValueError(
                f"The answer {old} has an argument of its own name: call the answer something else."
            )
        if isinstance(node, ast.Name) and node.id == old:
            places.append((node.lineno, node.col_offset))
    for line, column in sorted(places, reverse=True):
        before, after = lines[line - 1][:column], lines[line - 1][column + len(old.encode()) :]
        lines[line - 1] = before + new.encode() + after
    return b"".join(lines).decode()


def _imports_used(module, definition: ast.AST) -> list[str]:
    """The import lines at the top of the module, of those names that the definition uses."""
    used = {node.id for node in ast.walk(definition) if isinstance(node, ast.Name)}
    imports = []
    for statement in ast.parse(inspect.getsource(module)).body:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            names = [a for a in statement.names if (a.asname or a.name.partition(".")[0]) in used]
            if names:
                imports.append(ast.unparse(_with_names(statement, names)))
    return imports


def _with_names(statement: ast.Import | ast.ImportFrom, names: list[ast.alias]) -> ast.stmt:
    if isinstance(statement, ast.Import):
        return ast.Import(names)
    return ast.ImportFrom(statement.module, names, statement.level)
