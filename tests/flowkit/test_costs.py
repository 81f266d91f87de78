"""The running comparison of flows: every row can be measured, and what is shown reads without a browser."""

import numpy as np
import pytest

from flowkit.lab import costs


@pytest.mark.parametrize("row", costs.ROWS, ids=lambda row: row.flow)
def test_a_row_measures_a_flow_and_its_inverse(row):
    forward, inverse, log_det = row.make(np.random.default_rng(0))
    for result in (forward(), inverse()):
        points = result[0] if isinstance(result, tuple) else result
        assert tuple(points.shape) == (costs.BATCH, costs.DIM)
    assert np.isfinite(np.asarray(log_det())).all()


def test_triangular_inverse_solves_its_system():
    forward, inverse, _ = costs._triangular(np.random.default_rng(0))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(costs.BATCH, costs.DIM))
    lower = np.tril(rng.normal(size=(costs.DIM, costs.DIM))) / costs.DIM + np.eye(costs.DIM)
    np.testing.assert_allclose(inverse() @ lower.T, x, atol=1e-10)
    np.testing.assert_allclose(forward(), x @ lower.T)


def test_a_lesson_sees_the_rows_up_to_its_own():
    assert [row.topic for row, _ in costs.measure("determinants", seed=0)] == [
        "change_of_variables",
        "determinants",
        "determinants",
    ]


def test_an_unknown_topic_is_named():
    with pytest.raises(ValueError, match=r"no flow is measured for .coupli.; there are rows for .*coupling"):
        costs.measure("coupli", seed=0)


def test_seconds_grow_with_the_work():
    few, many = (costs.seconds(lambda n=n: sum(range(n))) for n in (1_000, 100_000))
    assert many > 5 * few


def test_the_table_is_there_as_text_and_as_html(monkeypatch):
    shown = []
    monkeypatch.setattr(costs, "display", lambda data, raw: shown.append(data))
    costs.show("change_of_variables", seed=0)
    assert "affine, elementwise  O(D), " in shown[0]["text/plain"]
    assert shown[0]["text/html"].startswith("<table><caption>Cost for one point")
