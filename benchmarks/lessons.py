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

# The peak of a process's own memory, in MB: its parent would see the parent's share in it.
PEAK = """
import resource
try:
    peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
except OSError:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2  # macOS counts bytes
"""

# Runs the lesson, and ends with that.
RUN = f"""
import runpy, sys
runpy.run_path(sys.argv[1], run_name="__main__")
{PEAK}
print(f"\\npeak {{peak:.0f}}", file=sys.__stderr__)
"""


def measure(script: Path) -> dict:
    """Runs the .py twin of a solution notebook: {"seconds", "cpu_seconds", "megabytes"}.

    Raises RuntimeError with the end of its traceback if a cell fails.
    """
    script = script.resolve()
    start, before = time.perf_counter(), os.times()
    command = [sys.executable, "-c", RUN, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=script.parent)
    if done.returncode:
        raise RuntimeError(f"{script.name} failed: {done.stderr.strip()[-2000:]}")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(cpu, 1),
        "megabytes": int(done.stderr.split()[-1]),
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
