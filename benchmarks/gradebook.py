"""What grading costs around the engine: gradebook time and memory, from the first submission to the last.

    python benchmarks/gradebook.py [--submissions 10000] [--db postgresql://HOST/NAME]

The lesson is the one that the tools are tested with; its engine looks at the answer and says right. Held to:
below 1 ms of CPU time in the gradebook for each submission, the same at the end as at the beginning, and
memory that grows by less than 2 kB a submission. The result goes to benchmarks/results/gradebook.json.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import typer

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "autograder"))

from classes import built_course, hand_in  # noqa: E402
from engines import JOURNAL, QuickEngine  # noqa: E402

from autograder import gradebook  # noqa: E402
from autograder.course import Course  # noqa: E402
from autograder.grade import grade  # noqa: E402

GOAL_MS, GOAL_KB = 1.0, 2.0
PARTS = 10


class Watch:
    """Times every batch that is applied, by the clock and in CPU time, and looks at the memory."""

    def __init__(self, monkeyed=gradebook.Writer):
        self.batches = []
        real = monkeyed.apply

        def apply(writer, results):
            began, worked = time.perf_counter(), time.thread_time()
            real(writer, results)
            spent = time.perf_counter() - began, time.thread_time() - worked
            self.batches.append((len(results), *spent, _memory()))

        monkeyed.apply = apply

    def parts(self) -> list[dict]:
        """The run in equal parts: medians of milliseconds a submission, and memory at the end, in MB."""
        size = -(-len(self.batches) // PARTS)
        groups = [self.batches[start : start + size] for start in range(0, len(self.batches), size)]
        return [
            {
                "submissions": sum(batch[0] for batch in group),
                "ms": round(1000 * statistics.median(batch[1] / batch[0] for batch in group), 3),
                "cpu_ms": round(1000 * statistics.median(batch[2] / batch[0] for batch in group), 3),
                "mb": round(group[-1][3] / 2**20, 1),
            }
            for group in groups
        ]


def _memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(submissions: int = 10_000, db: str = "") -> None:
    """Measures, prints a table, and writes benchmarks/results/gradebook.json."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        os.environ[JOURNAL] = str(Path(folder, "graded"))
        course = Course(built_course(Path(folder)).folder, db or None)
        for number in range(submissions):
            hand_in(course, f"student{number:06d}", "return 1" if number % 3 else "pass")
        watch, began = Watch(), time.perf_counter()
        graded = grade(course, engine=QuickEngine)
        seconds = time.perf_counter() - began
        began = time.perf_counter()
        again = grade(course, engine=QuickEngine)
        nothing_new = time.perf_counter() - began
    assert len(graded.results) == again.unchanged == submissions
    parts = watch.parts()
    for part in parts:
        times = f"{part['ms']:6.3f} ms each, {part['cpu_ms']:6.3f} of CPU"
        print(f"{part['submissions']:6} submissions   {times}   {part['mb']:7.1f} MB")
    growth = 1024 * (parts[-1]["mb"] - parts[0]["mb"]) / (submissions * (PARTS - 1) / PARTS)
    print(f"{submissions} in {seconds:.0f} s; looked through again in {nothing_new:.1f} s.")
    print(f"Memory grew by {growth:.2f} kB a submission (goal {GOAL_KB:g}).")
    if not db:
        result = {"submissions": submissions, "seconds": round(seconds, 1), "kb_each": round(growth, 2)}
        result |= {"nothing_new_seconds": round(nothing_new, 1), "goal_ms": GOAL_MS, "goal_kb": GOAL_KB}
        result |= {"cores": os.cpu_count(), "load_before": round(load, 1), "parts": parts}
        target = ROOT / "benchmarks" / "results" / "gradebook.json"
        target.write_text(json.dumps(result, indent=2) + "\n")
    slow = max(part["cpu_ms"] for part in parts)
    raise SystemExit(slow > GOAL_MS or growth > GOAL_KB)


if __name__ == "__main__":
    typer.run(main)
