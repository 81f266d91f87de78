# %% [markdown]
# # Triangles
#
# How large is a triangle whose corners you know? Two sides of it span a parallelogram, and the triangle is half of that.

# %%
import numpy as np


def square(half):
    """The corners of a square around the origin, counterclockwise: (4, 2)."""
    return half * np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])


# %% tags=["show"]
print("A square of side 2 has the area 4:", square(1.0).tolist())

# %% [markdown]
# ## Half a parallelogram
#
# With sides $u$ and $v$ from one corner, the **signed area** is $\tfrac12 (u_1 v_2 - u_2 v_1)$.

# %% [markdown] exercise="triangle_area" title="Half a parallelogram" difficulty=2 importance=5 minutes=5
# Write `triangle_area(a, b, c)`: the signed areas of triangles with corners `a`, `b` and `c`, each of shape (..., 2).


# %% solution="triangle_area"
def triangle_area(a, b, c):
    """Signed areas of triangles, positive when a, b, c run counterclockwise.

    a, b, c: (..., 2) -> (...). `triangle_area(np.zeros(2), np.array([1., 0.]), np.array([0., 1.]))` is 0.5.
    """
    ### BEGIN SOLUTION
    u, v = b - a, c - a
    parallelogram = u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]
    return parallelogram / 2
    ### END SOLUTION


# %% test="triangle_area" points=2
import numpy as np
from autograder import check


def by_determinant(a, b, c):
    return np.linalg.det(np.stack([b - a, c - a], axis=-2)) / 2


corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
check.values("triangles.triangle_area", [tuple(corners), tuple(corners[::-1])], reference=by_determinant)

# %% hidden="triangle_area" points=3
import numpy as np
from autograder import check


def hidden_determinant(a, b, c):
    return np.linalg.det(np.stack([b - a, c - a], axis=-2)) / 2


rng = check.rng("triangles.triangle_area")
hidden_cases = [tuple(rng.normal(size=(3, *shape, 2))) for shape in [(), (5,), (2, 3)]]
check.values("triangles.triangle_area", hidden_cases, reference=hidden_determinant)

# %% [markdown]
# <details><summary>"My areas are twice too large"</summary>
#
# What does the determinant of two sides measure: the triangle, or the parallelogram?
#
# </details>
# <details><summary>"I need a template"</summary>
#
# ```python
# u, v = b - a, ...
# return (u[..., 0] * v[..., 1] - ...) / 2
# ```
#
# </details>

# %% [markdown]
# ## From triangles to polygons

# %% [markdown] exercise="polygon_area" title="A fan of triangles" difficulty=3 importance=4 minutes=8
# Write `polygon_area(corners)`: the signed area of a polygon, as a fan of triangles around its first corner.


# %% solution="polygon_area"
def polygon_area(corners):
    """The signed area of a polygon. corners: (n, 2) -> ()."""
    ### BEGIN SOLUTION
    first, rest = corners[0], corners[1:]
    fan = triangle_area(first, rest[:-1], rest[1:])
    return fan.sum()
    ### END SOLUTION


# %% test="polygon_area" points=1
import numpy as np
from autograder import check


def shoelace(corners):
    x, y = corners.T
    return (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2


square_corners = np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
check.values("triangles.polygon_area", [(square_corners,)], reference=shoelace)

# %% hidden="polygon_area" points=2
import numpy as np
from autograder import check


def hidden_shoelace(corners):
    x, y = corners.T
    return (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2


rng = check.rng("triangles.polygon_area")
check.values(
    "triangles.polygon_area", [(rng.normal(size=(n, 2)),) for n in (3, 4, 7)], reference=hidden_shoelace
)

# %% [markdown]
# <details><summary>"My area is negative"</summary>
#
# In which direction do your corners run? The sign is part of the answer.
#
# </details>
# <details><summary>"I need a template"</summary>
#
# ```python
# fan = triangle_area(corners[0], corners[1:-1], ...)
# return ...
# ```
#
# </details>

# %% [markdown] exercise="why_signed" title="What the sign is for" difficulty=2 importance=3 minutes=2
# Why does the fan of triangles still give the right area when the polygon is not convex? Two sentences.

# %% [markdown] written="why_signed" points=2
# Where the fan leaves the polygon, two of its triangles overlap with opposite signs, and the surplus cancels.
#
# === BEGIN MARK SCHEME ===
# One point for opposite orientations, one point for the cancellation.
# === END MARK SCHEME ===

# %% [markdown]
# ## What you have seen
#
# A determinant measures a parallelogram with its sign, and signs make overlaps cancel.
#
# <!-- words -->
