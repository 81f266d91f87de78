"""Draws docs/moons.png, the picture of the README: noise becomes two moons, coupling by coupling.

python docs/picture.py
"""

from functools import partial
from pathlib import Path

import torch

from flowkit.coupling import coupling_stack
from flowkit.flow import Flow, StandardNormal
from flowkit.lab import plots, targets, training
from flowkit.lab.nets import mlp


def main() -> None:
    torch.manual_seed(0)
    target = targets.two_moons()
    stack = coupling_stack(2, 8, partial(mlp, hidden=(64, 64)))
    flow = Flow(StandardNormal(2), stack)
    training.fit(flow, target, steps=2000, lr=5e-3, clip=1.0, seed=0)
    x = torch.randn(4000, 2, generator=torch.Generator().manual_seed(1))
    side = torch.sign(x[:, 1])
    shown = {0: "noise z", 4: "4 couplings back", 6: "6 couplings back", 8: "x, two moons"}
    fig, axes = plots.figure(columns=4, width=10, height=2.9)
    axes = iter(axes)
    with torch.no_grad():
        for back in range(9):
            if back:
                x = stack.bijections[8 - back].inverse(x)[0]
            if back in shown:
                ax = next(axes)
                for sign, colour in ((1, plots.BLUE), (-1, plots.ORANGE)):
                    points = x[side == sign]
                    ax.plot(points[:, 0], points[:, 1], ".", markersize=1.5, color=colour)
                limits = (-3.2, 3.2)
                ax.set(title=shown[back], xlim=limits, ylim=limits, aspect="equal", xticks=[], yticks=[])
    fig.savefig(Path(__file__).parent / "moons.png", dpi=130, facecolor="white")


if __name__ == "__main__":
    main()
