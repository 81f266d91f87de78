"""Time and memory of every lesson: its solution notebook run from top to bottom, in a process of its own.

    python benchmarks/lessons.py [TOPIC...]    prints a table, and keeps it in benchmarks/results/lessons.json

A lesson may take 90 s and 1.2 GB on two cores. tests/lessons holds the lessons to that.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "lessons.json"
SECONDS, MEGABYTES = 90, 1200


def measure(script: Path) -> dict:
    """Runs the .py twin of a solution notebook: {"seconds", "cpu_seconds", "megabytes"}.

    Raises RuntimeError with the end of its traceback if a cell fails.
    """
    script = script.resolve()
    start = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=script.parent,
    )
    errors = child.stderr.read()
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{script.name} failed: {errors.strip()[-2000:]}")
    unit = 1024 if sys.platform != "darwin" else 1024**2  # ru_maxrss is in KB, on macOS in bytes
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "megabytes": round(used.ru_maxrss / unit),
    }


def main(topics: list[str]) -> None:
    from autograder.course import Course

    course = Course(ROOT / "course")
    lessons = course.choose(topics) if topics else course.lessons
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    print(f"{'lesson':28}{'seconds':>9}{'cpu':>9}{'MB':>7}")
    for lesson in lessons:
        cost = measure(course.solutions / lesson.name / f"{lesson.topic}.py")
        kept[lesson.topic] = cost
        print(
            f"{lesson.name:28}{cost['seconds']:9.1f}{cost['cpu_seconds']:9.1f}{cost['megabytes']:7d}",
            flush=True,
        )
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
