"""How fast grading is: the isolated engine and nbgrader's own, one after the other on the same notebooks.

    python benchmarks/grading.py [--rounds 3] [--seconds 8]

Of every lesson, a right notebook and one with mistakes. In each round every notebook is graded by the warm
isolated engine and by nbgrader, and its cells are run in a fork of a process that has the lesson's libraries
loaded, which is as fast as they can be. Then, for two short lessons (start, determinants), a longer one
without training (change_of_variables) and one with (coupling), a pile of right notebooks is graded by one
worker, by two, by one that has one core, and a few of it by nbgrader, in turn. Medians. nbgrader grades one
after the other, however many cores there are.

Held to: at most 1.5 times the cells' own time; where that is under 0.2 s, 30 times as many submissions a
second as nbgrader, on the same cores; two workers at least 1.7 times as many as one. A worker that has two
cores to itself keeps up to 1.3 of them busy, since its processes overlap, and two keep to one each: how many
are busy, and what two gain over one that has one core, is told beside it. The result goes to
benchmarks/results/grading.json.
"""

import contextlib
import io
import json
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
import warnings
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import typer  # noqa: E402

from autograder import check, confine, doctor, submission, workers  # noqa: E402
from autograder.answers import bank  # noqa: E402
from autograder.build import build  # noqa: E402
from autograder.course import Course  # noqa: E402
from autograder.engine import Mended  # noqa: E402
from autograder.lesson import read_lesson  # noqa: E402
from autograder.master import read_master, solved  # noqa: E402
from autograder.stock import NbgraderEngine  # noqa: E402
from autograder.student import warm  # noqa: E402

ROOT = Path(__file__).parents[1]
PILES = ("start", "determinants", "change_of_variables", "coupling")
OVER_CELLS, OVER_STOCK, OVER_ONE = 1.5, 30, 1.7  # the goals
SHORT = 0.2  # seconds
ALL = os.sched_getaffinity(0)  # cores
SEED = "5eed"
TURNS = 6  # of which the first starts the engines and is not counted
REPEATS, REPEATED = 10, 2.0  # so often, or as often as it takes these seconds, in a round
STOCK = 2  # submissions that nbgrader grades in a turn


def copy_of_course(folder: Path) -> Course:
    """The course, built where nobody else builds."""
    shutil.copytree(ROOT / "course" / "masters", folder / "course" / "masters")
    for name in ("syllabus.toml", "glossary.toml", "nbgrader_config.py"):
        shutil.copy(ROOT / "course" / name, folder / "course" / name)
    course = Course(folder / "course")
    build(course, [lesson.topic for lesson in course.lessons])
    return course


def notebooks(course, lesson) -> dict[str, dict]:
    """A right submission, and one in which every second exercise has a wrong answer of the bank."""
    exercises = [e for e in read_master(course, lesson).exercises if e.solution and (e.tests or e.hidden)]
    right = {e.name: solved(e.solution.source) for e in exercises}
    mixed = right | {e.name: bank(lesson.topic).wrong(e.name)[0].source() for e in exercises[::2]}
    return {"right": answered(course, lesson, right), "mixed": answered(course, lesson, mixed)}


def answered(course, lesson, sources) -> dict:
    notebook = json.loads((course.release / lesson.name / f"{lesson.topic}.ipynb").read_text())
    for cell in notebook["cells"]:
        cell["source"] = sources.get(submission.grade_id(cell), "".join(cell["source"]))
    return notebook


class Cells:
    """The time of a lesson's cells and tests by themselves: in forks of a process that is warm for them."""

    def __init__(self, source: Path, topic: str):
        self.pipe, far = multiprocessing.Pipe()
        self.process = multiprocessing.get_context("fork").Process(target=_serve, args=(source, topic, far))
        self.process.start()
        self.pipe.recv()

    def seconds(self, notebook: dict) -> float:
        self.pipe.send(notebook)
        return self.pipe.recv()

    def close(self) -> None:
        self.pipe.send(None)
        self.process.join()


def _serve(source, topic, pipe):
    lesson = read_lesson(source, topic)
    warm([*lesson.modules, f"autograder.answers.{topic}"])
    confine.require_one_thread()
    pipe.send("ready")
    while (notebook := pipe.recv()) is not None:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(write, str(_run(notebook, lesson)).encode())
            os._exit(0)
        os.close(write)
        pipe.send(float(os.read(read, 100)))
        os.close(read)
        os.waitpid(child, 0)


def _run(notebook, lesson):
    """Runs all cells that run at grading in one namespace, as a notebook would, and gives the seconds."""
    os.environ[check.SEED] = SEED
    namespace = {"__name__": "__main__"}
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for cell in notebook["cells"]:
            if cell["cell_type"] != "code" or submission.is_shown(cell):
                continue
            test = lesson.tests.get(submission.grade_id(cell))
            os.environ[check.HIDDEN] = "1" if test and test.hidden else ""
            with contextlib.suppress(Exception):
                exec(test.code if test else cell["source"], namespace)
    return time.perf_counter() - began


def timed(engine, lesson, notebook) -> tuple[float, list[float | None]]:
    began = time.perf_counter()
    checks, _ = engine.grade(Mended("ann", lesson.name, lesson.topic, notebook, SEED))
    return time.perf_counter() - began, [check.score for check in checks]


def measure(course, lesson, isolated, rounds) -> dict:
    """Medians of seconds for each notebook of a lesson."""
    source = course.source / lesson.name / f"{lesson.topic}.ipynb"
    works = notebooks(course, lesson)
    cells, ours, stock = Cells(source, lesson.topic), isolated(course.source), NbgraderEngine(course.source)
    timed(ours, lesson, works["right"])  # the processes start
    repeats = max(1, min(REPEATS, int(REPEATED / timed(ours, lesson, works["right"])[0])))
    seconds = {name: {"isolated": [], "nbgrader": [], "cells": []} for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            runs = [timed(ours, lesson, work) for _ in range(repeats)]
            took, scores = timed(stock, lesson, work)
            assert all(found == scores for _, found in runs), f"{lesson.topic}, {name}: other scores"
            seconds[name]["isolated"] += [run[0] for run in runs]
            seconds[name]["nbgrader"].append(took)
            seconds[name]["cells"] += [cells.seconds(work) for _ in range(repeats)]
    cells.close()
    ours.close()
    return {name: _row(found) for name, found in seconds.items()}


def _row(found):
    medians = {side: statistics.median(times) for side, times in found.items()}
    row = {f"{side}_seconds": round(value, 4) for side, value in medians.items()}
    row["times_the_cells"] = round(medians["isolated"] / medians["cells"], 2)
    return row | {"holds": row["times_the_cells"] <= OVER_CELLS}


def pile(course, lesson, isolated, jobs, folder) -> dict:
    """Submissions a second by one warm worker, two, one on one core, and nbgrader, in turn; medians."""
    work = notebooks(course, lesson)["right"]
    path = folder / "pile.ipynb"
    path.write_text(json.dumps(work))
    release = course.release / lesson.name / f"{lesson.topic}.ipynb"
    todo = [
        workers.Job(f"student{n}", lesson.name, lesson.topic, str(path), str(release), str(n), SEED, "")
        for n in range(jobs)
    ]
    stock = NbgraderEngine(course.source)
    ways = {"one_worker": (1, ALL), "two_workers": (2, ALL), "one_core": (1, {min(ALL)})}
    rates, cores = {way: [] for way in [*ways, "nbgrader"]}, {way: [] for way in ways}
    idle = {way: [] for way in ways}
    for _ in range(TURNS):
        for way, (count, allowed) in ways.items():
            os.sched_setaffinity(0, allowed)  # the workers that are started take after this process
            began, busy = time.perf_counter(), _busy()
            done = list(workers.run(todo, isolated, (str(course.source),), count, idle[way]))
            took, busy = time.perf_counter() - began, _busy() - busy
            assert all(result is not None for _, result, _, _ in done)
            rates[way].append(jobs / took)
            cores[way].append(busy / took)
        os.sched_setaffinity(0, ALL)
        rates["nbgrader"] += [1 / timed(stock, lesson, work)[0] for _ in range(STOCK)]
    for resting in idle.values():
        for worker in resting:
            worker.dismiss()
    row = {way: round(_warm(found), 2) for way, found in rates.items()}
    one, two, core, theirs = row.values()
    return {
        "submissions": jobs,
        **row,
        "gain_by_the_second": round(two / one, 2),
        "gain_by_the_second_core": round(two / core, 2),
        "cores_busy": [round(_warm(found), 2) for found in cores.values()],
        "times_as_many_as_nbgrader": round(two / theirs, 1),
    }


def _warm(found):
    """The median without the first turn, which starts the engines."""
    return statistics.median(found[len(found) // TURNS :])


def _busy():
    """The seconds that all cores together have been at work."""
    user, nice, system, _, _, *interrupts = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def holds(row, rows) -> bool:
    """Whether a pile's row keeps the goals: the one over nbgrader is for short lessons."""
    short = all(row["cells_seconds"] < SHORT for row in rows)
    return row["gain_by_the_second"] >= OVER_ONE and not (
        short and row["times_as_many_as_nbgrader"] < OVER_STOCK
    )


def main(rounds: int = 3, seconds: float = 8.0) -> None:
    """Measures, prints a table, and writes benchmarks/results/grading.json."""
    load = os.getloadavg()[0]
    warnings.filterwarnings("ignore", module="nbgrader")  # about its own use of SQLAlchemy
    isolated = doctor.engine_of(doctor.examine().tier)
    result = {"tier": isolated.tier, "cores": os.cpu_count(), "load_before": round(load, 1)}
    result |= {"rounds": rounds, "lessons": {}, "a_second": {}}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        course = copy_of_course(folder)
        for lesson in course.lessons:
            rows = result["lessons"][lesson.topic] = measure(course, lesson, isolated, rounds)
            for name, row in rows.items():
                print(
                    f"{lesson.topic:20} {name:6} {row['isolated_seconds']:7.3f} s, nbgrader"
                    f" {row['nbgrader_seconds']:6.2f} s, cells {row['cells_seconds']:6.3f} s"
                    f" ({row['times_the_cells']:g} of them){'' if row['holds'] else '   not held'}",
                    flush=True,
                )
        for topic in PILES:
            rows = result["lessons"][topic]
            each = max(4, round(seconds / rows["right"]["isolated_seconds"] / 2))  # of two workers
            row = result["a_second"][topic] = pile(course, course.lesson(topic), isolated, 2 * each, folder)
            row["holds"] = holds(row, rows.values())
            print(
                f"{topic:20} a second: {row['one_worker']:g} by one worker, {row['two_workers']:g} by two"
                f" ({row['gain_by_the_second']:g}; cores busy: {row['cores_busy']}), {row['one_core']:g} by"
                f" one on one core ({row['gain_by_the_second_core']:g}), {row['nbgrader']:g} by nbgrader"
                f" ({row['times_as_many_as_nbgrader']:g}){'' if row['holds'] else '   not held'}",
                flush=True,
            )
    result["load_after"] = round(os.getloadavg()[0], 1)
    target = ROOT / "benchmarks" / "results" / "grading.json"
    target.write_text(json.dumps(result, indent=2) + "\n")
    rows = [row for lesson in result["lessons"].values() for row in lesson.values()]
    raise SystemExit(not all(row["holds"] for row in [*rows, *result["a_second"].values()]))


if __name__ == "__main__":
    typer.run(main)
