"""The zoo: every bijection of flowkit in one table, with its formulas, costs and constraint.

The table is read off the docstrings of the classes, which all have one form: so what it says is what the code
says.
"""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Sequence
from dataclasses import dataclass

import flowkit
from flowkit.bijection import Bijection

NOT_FLOWS = {"Bijection", "Compose", "Inverse"}  # the contract, and the two ways to build with it


@dataclass(frozen=True)
class Entry:
    """One bijection: its class, the module that has it, and what its docstring says, each as one line."""

    name: str
    topic: str
    summary: str
    forward: str
    inverse: str
    cost: str
    constraint: str


def zoo() -> list[Entry]:
    """All bijections of flowkit, by topic and in the order of their modules. Imports every module.

    >>> next(entry for entry in zoo() if entry.name == "Planar").forward
    'z = x + u^ tanh(a), a = w.x + b'
    """
    modules = [found.name for found in pkgutil.iter_modules(flowkit.__path__) if not found.ispkg]
    entries = []
    for topic in modules:
        module = importlib.import_module(f"flowkit.{topic}")
        for kind in vars(module).values():
            if is_flow(kind) and kind.__module__ == module.__name__:
                entries.append(entry_of(kind, topic))
    return entries


def is_flow(kind: object) -> bool:
    """Whether this is a bijection's class, and not the contract itself."""
    return inspect.isclass(kind) and issubclass(kind, Bijection) and kind.__name__ not in NOT_FLOWS


def entry_of(kind: type[Bijection], topic: str) -> Entry:
    """What a docstring says of its bijection. Raises ValueError where it lacks forward, inverse or cost.

    >>> entry_of(type("Bare", (Bijection,), {"__doc__": "A map."}), "bare")
    Traceback (most recent call last):
    ...
    ValueError: the docstring of Bare says nothing of forward, inverse, cost
    """
    text = inspect.cleandoc(kind.__doc__ or "").partition("\n>>>")[0]
    found = {
        "forward": formula(text, "forward"),
        "inverse": formula(text, "inverse"),
        "cost": sentence(text, "Cost"),
    }
    missing = [name for name, words in found.items() if not words]
    if missing:
        raise ValueError(f"the docstring of {kind.__name__} says nothing of {', '.join(missing)}")
    constraint = sentence(text, "Constraint") or "none"
    return Entry(kind.__name__, topic, text.partition("\n")[0], constraint=constraint, **found)


def formula(text: str, way: str) -> str:
    """The map that stands behind `forward` or `inverse`, without its log-det; "" where there is none."""
    found = re.search(rf"^{way}\s+(.+)\n?(.*)", text, re.MULTILINE)
    if not found:
        return ""
    first, second = (re.split(r"\s*log abs det|\s{4,}", line.strip())[0] for line in found.groups())
    return f"{first} {second}" if first.endswith((" of", ",")) else first.rstrip(";.")


LABELS = r"\s(?:Cost|Constraint|Parameters?|Buffers?|Raises)\b|\n\n|\n\w+: |\Z"


def sentence(text: str, label: str) -> str:
    """What follows a label such as "Cost:", up to the next one or the end of the paragraph, as one line."""
    found = re.search(rf"{label}: (.+?)(?={LABELS})", text, re.DOTALL)
    return " ".join(found[1].split()).rstrip(".") if found else ""


def as_markdown(entries: Sequence[Entry]) -> str:
    """The table, for a page: a row for each flow. Cells hold no pipes, which would end them."""
    rows = [
        "| flow | module | forward | inverse | cost | constraint |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for entry in entries:
        cells = (entry.name, entry.topic, entry.forward, entry.inverse, entry.cost, entry.constraint)
        rows.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"
