# %% [markdown]
# # Normalizing flows
#
# A normalizing flow is a map that you can run both ways: forwards it turns complicated data into plain noise, and
# backwards it turns noise into new data. Because you know by how much it stretches space at each point, it tells you
# exactly how probable each datum is. In this course you build such maps yourself, from a change of variables on paper to
# models that you train.
#
# Each lesson asks one question, and you answer it with your own code.
#
# | Lesson | The question | Minutes | Points | First |
# | :-- | :-- | --: | --: | :-- |
# | [00 Start here](00_start/start.ipynb) | How does this course work, and is your machine ready for it? | 60 | 20 | nothing |
# | [02 Change of variables](02_change_of_variables/change_of_variables.ipynb) | You push every point of a density through a function. What is the density of the result? | 100 | 20 | Start here |
# | [04 Determinants](04_determinants/determinants.ipynb) | A flow needs a determinant at every point of every batch. What does that cost, and how do we avoid it? | 110 | 20 | Change of variables |
# | [08 Coupling flows](08_coupling/coupling.ipynb) | How can a neural network take part in a map that must be invertible, with a determinant that costs nothing? | 120 | 20 | Change of variables, Determinants |

# %% [markdown]
# ## How to work
#
# 1. Open a lesson from the table, and run its cells from the top with **Shift+Enter**.
# 2. Where a lesson asks you to predict, commit to a guess before you run the next cell. A wrong guess teaches more than no guess.
# 3. In an exercise, replace `# YOUR CODE HERE` and the line below it, then run the check under your cell. It tells you
#    one of four things: *not attempted*, *error in your code*, *not right yet*, or *right*, and in the middle two why.
# 4. Stuck? Open the hints below the check, one by one. The last is a template with blanks.
# 5. Once your function is right, the pictures below run *your* code. Play with them.
#
# Exercises state their difficulty and importance from 1 to 5, the minutes that they take, and their points. Some have hidden
# tests besides the public check: the same question with other inputs and shapes. Code that is right in general passes both.
#
# Your work is the notebook itself: save it, and hand in that file. Before you update the course, copy the notebooks that you
# have worked in.

# %% [markdown]
# ## Is this machine ready?
#
# Run this cell. Lesson 00 goes on from here.

# %%
import sys
from importlib.metadata import PackageNotFoundError, version


def installed(package):
    """The version of a package, or None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


print("Python", sys.version.split()[0])
packages = ["normalizing-flows-course", "numpy", "torch", "matplotlib", "ipywidgets", "anywidget"]
for package in packages:
    print(package, installed(package) or "is missing")
if all(installed(package) for package in packages):
    print("Ready. Open the first lesson.")
else:
    print("Not ready: install the course as README.md says, then restart the kernel and run this cell again.")
