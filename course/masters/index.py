# %% [markdown]
# # Normalizing flows
#
# A *normalizing flow* is a map that runs both ways. Forwards it turns complicated data into plain noise; backwards it
# turns fresh noise into new data. Because we know by how much it stretches space at each point, it also tells exactly
# how probable each datum is. The picture shows the way back: noise, and three simple steps that bend it. Each step can be
# undone, and so can all of them together.

# %% tags=["show", "hide-input"]
import numpy as np

from flowkit.lab import plots

STEPS = [
    ("lift by a wave", lambda x: np.stack([x[..., 0], x[..., 1] + 1.2 * np.sin(1.6 * x[..., 0])], axis=-1)),
    ("push sideways", lambda x: np.stack([x[..., 0] - 0.9 * np.tanh(x[..., 1]), x[..., 1]], axis=-1)),
    ("squeeze", lambda x: x * np.array([1.1, 0.6])),
]


def after(k, x):
    for _, step in STEPS[:k]:
        x = step(x)
    return x


noise = np.random.default_rng(0).normal(size=(700, 2))
fig, axes = plots.figure(columns=4, width=9, height=2.6, sharey=True)
for k, ax in enumerate(axes):
    plots.grid(ax, lambda x, k=k: after(k, x), extent=(-3, 3, -3, 3), n=13, color=plots.GREY)
    ax.plot(*after(k, noise).T, "o", markersize=1.5, color=plots.BLUE)
    title = f"{k}. {STEPS[k - 1][0]}" if k else "noise"
    ax.set(xlim=(-4.2, 4.2), ylim=(-4.2, 4.2), xlabel="first coordinate", title=title)
axes[0].set_ylabel("second coordinate")
plots.show(
    fig,
    alt="Four panels of 700 points on a square grid. The noise is a round cloud on a straight grid; a wave lifts and lowers it, a sideways push bends the wave over, and a squeeze flattens it. The grid bends with the points and nowhere tears.",
)

# %% [markdown]
# In this course you build such maps yourself, from a change of variables on paper to models that you train: elementwise
# and linear flows, coupling layers, splines, autoregressive and residual flows, and flows in continuous time. Each lesson
# asks one question, and you answer it with your own code.
#
# <!-- lessons -->
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
