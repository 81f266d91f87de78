# %% [markdown]
# # Normalizing flows
#
# A *normalizing flow* is a map that runs both ways. Forwards it turns complicated data into plain noise; backwards it
# turns fresh noise into new data. Because we know by how much it stretches space at each point, it also tells exactly
# how probable each datum is. The picture shows the way back: noise, and three simple steps that bend it to a spiral. Each
# step can be undone, and so can all of them together.

# %% tags=["show", "hide-input"]
import numpy as np

from flowkit.lab import plots


def stretch(x):
    return x * np.array([1.7, 0.45])


def swirl(x):
    """Turns each point around the origin, by an angle that falls with its distance."""
    angle = 1.6 * np.exp(-np.square(x).sum(axis=-1) / 6)
    across, up = x[..., 0], x[..., 1]
    turned = [np.cos(angle) * across - np.sin(angle) * up, np.sin(angle) * across + np.cos(angle) * up]
    return np.stack(turned, axis=-1)


steps = {"noise": lambda x: x, "1. stretch": stretch, "2. swirl": swirl, "3. swirl again": swirl}
noise = np.random.default_rng(0).normal(size=(700, 2))
square = np.linspace(-3, 3, 13), np.linspace(-3, 3, 121)
lines = np.stack(np.meshgrid(*square, indexing="ij"), axis=-1)  # (13, 121, 2): lines that go up
points, grid = noise, np.concatenate([lines, lines[..., ::-1]])

fig, axes = plots.figure(columns=4, width=9, height=2.4, sharey=True)
for ax, (title, step) in zip(axes, steps.items(), strict=True):
    points, grid = step(points), step(grid)
    ax.plot(*grid.T, color=plots.GREY, linestyle="-", linewidth=0.5)
    ax.plot(*points.T, "o", markersize=1.5, color=plots.BLUE)
    ax.set(xlim=(-4.5, 4.5), ylim=(-3.5, 3.5), aspect="equal", xlabel="first coordinate", title=title)
axes[0].set_ylabel("second coordinate")
plots.show(
    fig,
    alt="Four panels of 700 points on a square grid. The noise is a round cloud on a straight grid; it is stretched to a bar, and two swirls wind the bar up to a spiral with two arms. The grid winds with the points and nowhere tears.",
)

# %% [markdown]
# In this course you build such maps yourself, from a change of variables on paper to models that you train. Each lesson
# asks one question, and you answer it with your own code. The lessons that are ready stand in the table. Still to come are
# lessons on elementwise and linear flows, splines, autoregressive and residual flows, and flows in continuous time; the
# numbers leave room for them.
#
# | Lesson | The question | Minutes | Points | First |
# | :-- | :-- | --: | --: | :-- |
# | [00 Start here](00_start/start.ipynb) | How does this course work, and is your machine ready for it? | 60 | 20 | nothing |
# | [02 Change of variables](02_change_of_variables/change_of_variables.ipynb) | You push every point of a density through a function. What is the density of the result? | 120 | 20 | Start here |
# | [04 Determinants](04_determinants/determinants.ipynb) | A flow needs a determinant at every point of every batch. What does that cost, and how do we avoid it? | 120 | 20 | Change of variables |
# | [07 Planar, radial and Sylvester flows](07_planar/planar.ipynb) | You know a density only up to a constant, and have no data. How do you bend a Gaussian into it? | 145 | 20 | Change of variables, Determinants |
# | [08 Coupling flows](08_coupling/coupling.ipynb) | How can a neural network take part in a map that must be invertible, with a determinant that costs nothing? | 120 | 20 | Change of variables, Determinants |
# | [11 Autoregressive flows](11_autoregressive/autoregressive.ipynb) | Take one variable at a time, each given those before it. What do you gain, what do you pay, and does the order matter? | 120 | 20 | Change of variables, Coupling flows |
# | [17 Continuous flows](17_continuous/continuous.ipynb) | Let points drift along a field instead of passing through layers. What becomes of the determinant, and of the demand that the map can be inverted? | 135 | 20 | Change of variables, Determinants, Coupling flows |
#
# **For whom.** You have written some Python, and know derivatives, matrices and what a probability density is. NumPy and
# PyTorch you can learn on the way. A laptop is enough: two cores, 2 GB of memory, no graphics card and, once the course is
# installed, no network. If the picture above is missing, run its cell with **Shift+Enter**; if that ends in
# `ModuleNotFoundError`, this notebook runs outside the course's environment: install it as `README.md` says, and start it
# from there.
#
# ## How to work
#
# 1. Begin with *Start here*. It checks your machine and shows how everything works.
# 2. Run the cells of a lesson from the top, with **Shift+Enter**.
# 3. Where a lesson asks you to predict, commit to a guess before you run the next cell. A wrong guess teaches more than none.
# 4. In an exercise, replace `# YOUR CODE HERE` and the line below it, then run the check under your cell. It says one of
#    four things: *not attempted*, *error in your code*, *not right yet*, or *right*; in the middle two it also says why.
# 5. Stuck? Open the hints at the end of the statement, one by one. The last is a template with blanks.
# 6. Once your function is right, the interactives run *your* code. Play with them.
#
# An exercise states its difficulty and importance from 1 to 5, its minutes and its points. Most have hidden tests besides
# the public check: the same question with other inputs and shapes. Code that is right in general passes both.
#
# Your work is the notebook itself: save it, and hand in that file under its own name. Before you update the course, copy
# the notebooks that you have worked in to a folder of your own. If you study alone, the folder `solutions` has every
# lesson worked out; look there after an honest try.
