"""An engine without kernels, for the tests of what stands around an engine."""

import os
import time
from pathlib import Path

from autograder.engine import BY_HAND, RIGHT, UNTOUCHED, Check, EngineFailure

JOURNAL = "AUTOGRADER_TEST_JOURNAL"  # a file that gets a line for each submission that is graded
PAUSE = "AUTOGRADER_TEST_PAUSE"  # seconds that each submission takes


class QuickEngine:
    """Gives full marks where an answer holds "return"; fails where it says so, dies where it says so."""

    name = "quick"
    tier = 3

    def __init__(self, source, timeout):
        self.source = source

    def grade(self, submission):
        with open(os.environ[JOURNAL], "a") as journal:
            journal.write(f"{submission.student}\n")
        time.sleep(float(os.environ.get(PAUSE, 0)))
        text = "\n".join(cell["source"] for cell in submission.notebook["cells"])
        if "the engine fails" in text:
            raise EngineFailure("the engine failed")
        if "the worker dies" in text:
            os._exit(1)
        checks, wrote, exercise = [], False, ""
        for cell in submission.notebook["cells"]:
            settings = cell["metadata"].get("nbgrader", {})
            if settings.get("solution"):
                exercise = settings["grade_id"]
                wrote = "return" in cell["source"]
            if settings.get("grade"):
                checks.append(_check(settings, exercise, wrote))
        return checks, submission.notebook


class OpenEngine(QuickEngine):
    """The same without a sandbox."""

    tier = 0


def _check(settings, exercise, wrote):
    points = float(settings["points"])
    if settings.get("solution"):
        return Check(settings["grade_id"], exercise, points, None, BY_HAND)
    return Check(
        settings["grade_id"], exercise, points, points if wrote else 0.0, RIGHT if wrote else UNTOUCHED
    )


def graded_so_far(journal: Path) -> list[str]:
    return journal.read_text().split() if journal.exists() else []
