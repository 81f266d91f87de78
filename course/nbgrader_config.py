"""nbgrader and formgrader, when started in this folder; autograder uses the same folders and gradebook."""

import os
import sys
from pathlib import Path

c = get_config()  # noqa: F821 (nbgrader defines it when it reads this file)

c.CourseDirectory.root = str(Path(__file__).resolve().parent)
c.CourseDirectory.course_id = "normalizing_flows"

# nbgrader starts the program alembic by name: the one beside this Python, also where .venv is not activated.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])

# Masters live elsewhere. A Python file beside a notebook is never part of a release: it may hold solutions.
c.CourseDirectory.ignore = [".ipynb_checkpoints", "__pycache__", "*.pyc", "*.py"]

# `nbgrader autograde` and formgrader's button run submissions as `autograder grade` does: in the sandbox.
c.Autograde.autograde_preprocessors = [
    "autograder.nbgrader_steps.Grade",
    "nbgrader.preprocessors.SaveAutoGrades",
    "nbgrader.preprocessors.AssignLatePenalties",
    "nbgrader.preprocessors.CheckCellMetadata",
]

# Cells that only show (figures, interactives) earn no points: grading skips them, as autograder does.
c.ExecutePreprocessor.skip_cells_with_tag = "show"
c.ExecutePreprocessor.timeout = 120
