"""How long from a slider to its picture, in JupyterLab. The goal is a median of 60 ms.

    python benchmarks/sliders.py [--moves 60] [--notebook NOTEBOOK ...]

By default three samples, and the interactives of lesson 02 with its solutions typed in: a function that has
passed is in the loop.

Each move sets a slider and fires its input event; the time ends when the browser has finished the frame in
which the canvas was painted. The result goes to benchmarks/results/sliders.json.
"""

import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import typer

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "browser"))

from jupyterlab_pages import chromium, jupyterlab  # noqa: E402

GOAL = 60
LESSON = ROOT / "solutions" / "02_change_of_variables" / "change_of_variables.ipynb"
DENSITY = """
import numpy as np
from flowkit.lab.widgets import play, slider
x = np.linspace(-4, 4, 400)
def p_X(x, slope, shift):
    return [abs(slope) / np.sqrt(2 * np.pi) * np.exp(-((slope * xi + shift) ** 2) / 2) for xi in x]
def draw(scene, slope, shift):
    p = p_X(x, slope, shift)
    scene.axes(x=(-4, 4), y=(0, 1.25), xlabel="x", ylabel="density")
    scene.area(x, p)
    scene.curve(x, p, label="p_X")
    return f"Slope {slope:.2f}: the density peaks at {max(p):.2f}."
play(draw, slope=slider(-3, 3, 1.0), shift=slider(-2, 2, 0.0))
"""
GRID = """
import numpy as np
from flowkit.lab.widgets import play, slider
X, Y = np.meshgrid(*2 * [np.linspace(-3, 3, 41)])
def draw(scene, bend):
    P = np.stack([X + bend * np.sin(Y), Y + bend * np.cos(X) / 2], -1)
    scene.axes(x=(-5, 5), y=(-5, 5), xlabel="z_1", ylabel="z_2", equal=True)
    scene.lines(np.concatenate([P, P.swapaxes(0, 1)]))
    return f"The grid is bent by {bend:.2f}."
play(draw, bend=slider(-2, 2, 0.0))
"""
IMAGE = """
import numpy as np
from flowkit.lab.widgets import play, slider
X, Y = np.meshgrid(*2 * [np.linspace(-3, 3, 200)])
def draw(scene, bend):
    scene.axes(xlabel="x_1", ylabel="x_2", equal=True)
    scene.image(np.exp(-((X - bend * np.sin(Y)) ** 2) - Y**2 / 2), extent=(-3, 3, -3, 3))
    return f"The density is bent by {bend:.2f}."
play(draw, bend=slider(-2, 2, 0.0))
"""
SAMPLES = {"density, 400 calls in Python": DENSITY, "grid 41 x 41": GRID, "image 200 x 200": IMAGE}

MEASURE = """
async ([widget, moves]) => {
  const range = widget.querySelector("input[type=range]");
  const canvas = widget.querySelector("canvas");
  const clear = CanvasRenderingContext2D.prototype.clearRect;
  let painted;
  CanvasRenderingContext2D.prototype.clearRect = function (...box) {
    clear.apply(this, box);
    if (this.canvas !== canvas || !painted) return;
    const channel = new MessageChannel(); // a task of its own, after the frame
    channel.port1.onmessage = painted;
    channel.port2.postMessage(null);
  };
  const [low, high] = [Number(range.min), Number(range.max)];
  const times = [];
  let before = canvas.toDataURL();
  for (let k = 0; k < moves; k++) {
    const arrived = new Promise((resolve, reject) => {
      painted = () => resolve(performance.now());
      setTimeout(() => reject(new Error("no picture within 10 s")), 10000);
    });
    const start = performance.now();
    range.value = low + (high - low) * ((k * 0.618034 + 0.31) % 1);
    range.dispatchEvent(new Event("input", { bubbles: true }));
    times.push((await arrived) - start);
    painted = null;
    const after = canvas.toDataURL();
    if (after === before) times.pop();
    before = after;
    await new Promise((resolve) => setTimeout(resolve, 60));
  }
  CanvasRenderingContext2D.prototype.clearRect = clear;
  return times;
}
"""


def measure(page, moves: int) -> list[list[float]]:
    """The times of each interactive with a slider, in milliseconds, after five moves to warm up."""
    page.wait_for_selector(".flowkit-widget canvas")
    page.wait_for_function("() => !document.querySelector('.jp-InputPrompt')?.textContent.includes('*')")
    page.wait_for_timeout(2000)
    widgets = [w for w in page.query_selector_all(".flowkit-widget") if w.query_selector("input[type=range]")]
    times = []
    for widget in widgets:
        widget.scroll_into_view_if_needed()
        times.append(page.evaluate(MEASURE, [widget, moves + 5])[5:])
    return times


def main(moves: int = 60, notebook: list[Path] = (LESSON,)) -> None:
    """Measures, prints a table, and writes benchmarks/results/sliders.json."""
    results, load = {}, os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as home, chromium() as browser, jupyterlab(browser, Path(home)) as lab:
        lab.write("samples.ipynb", *SAMPLES.values())
        named = [("samples.ipynb", list(SAMPLES))]
        for path in notebook:
            (lab.folder / path.name).write_bytes(path.read_bytes())
            named.append((path.name, []))
        for name, titles in named:
            page = lab.page(name, device_scale_factor=1)
            for k, times in enumerate(measure(page, moves)):
                title = titles[k] if titles else f"{name}, interactive {k + 1}"
                p95 = statistics.quantiles(times, n=20)[-1]
                median = statistics.median(times)
                results[title] = {"median_ms": round(median, 1), "p95_ms": round(p95, 1), "moves": len(times)}
                print(f"{title:40} median {median:6.1f} ms   p95 {p95:6.1f} ms   {len(times)} moves")
            page.close()
    slow = [title for title, result in results.items() if result["median_ms"] > GOAL]
    print(f"Above the goal of {GOAL} ms: {', '.join(slow)}" if slow else f"All medians are within {GOAL} ms.")
    target = ROOT / "benchmarks" / "results" / "sliders.json"
    target.parent.mkdir(exist_ok=True)
    machine = {"cores": os.cpu_count(), "load_before": round(load, 1)}
    target.write_text(json.dumps({"goal_ms": GOAL, **machine, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
