"""The zoo holds every bijection, and says of each what its class says."""

import pytest
from table import BIJECTIONS

from flowkit.bijection import Bijection
from flowkit.capstone import as_markdown, entry_of, formula, is_flow, sentence, zoo

ENTRIES = {entry.name: entry for entry in zoo()}


def test_every_flow_of_the_table_of_laws_is_in_the_zoo():
    made = [row.make(row.dims[-1]) for row in BIJECTIONS.values()]
    parts = {type(part).__name__ for f in made for part in f.modules() if is_flow(type(part))}
    assert parts <= set(ENTRIES)
    assert len(parts) > 25


def test_what_it_says_is_what_the_class_says():
    assert ENTRIES["Coupling"].topic == "coupling"
    assert ENTRIES["Residual"].forward == "z = x + g(x)"
    assert ENTRIES["Planar"].inverse.endswith("with a the root of a + w.u^ tanh(a) = w.z + b")
    assert ENTRIES["Planar"].constraint.startswith("w.u^ > -1")
    assert ENTRIES["NICE"].cost == "`layers` passes of the network and O(layers * D), in both directions"
    assert ENTRIES["Triangular"].constraint == "none"


def test_no_entry_is_empty():
    for entry in ENTRIES.values():
        assert all(vars(entry).values()), entry
        assert "log abs det" not in entry.forward + entry.inverse, entry


def test_a_docstring_that_says_too_little_is_an_error():
    kind = type("Half", (Bijection,), {"__doc__": "A map.\n\nforward   z = x   log abs det dz/dx = 0\n"})
    with pytest.raises(ValueError, match="inverse, cost"):
        entry_of(kind, "half")


def test_sentences_and_formulas():
    text = "forward   z = x,   log abs det dz/dx = 0\n          twice\nCost: O(D)\n  each. Raises Error."
    assert formula(text, "forward") == "z = x, twice"
    assert sentence(text, "Cost") == "O(D) each"
    assert sentence(text, "Constraint") == ""


def test_the_page_has_a_row_for_each_and_escapes_bars():
    lines = as_markdown(list(ENTRIES.values())).splitlines()
    assert len(lines) == len(ENTRIES) + 2
    bars = {line.replace(r"\|", "").count("|") for line in lines}
    assert bars == {7}
