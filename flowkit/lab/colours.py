"""The course's colours: told apart by colour-blind readers, and legible on white and on black.

The line colours follow Okabe and Ito (2008), darkened where they fell below a contrast of 3 to 1 on white.
The colour maps are anchors of matplotlib's viridis and of PuOr, between which we interpolate, so that
an interactive need not load matplotlib.
"""

import numpy as np

BLUE = "#0072B2"
ORANGE = "#CC8000"
GREEN = "#009E73"
RED = "#D55E00"
PURPLE = "#CC79A7"
SKY = "#3A99D0"
GREY = "#7F7F7F"
BLACK = "#1A1A1A"  # a canvas draws it in the text colour of its theme
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, RED, SKY)

_ANCHORS = {
    "viridis": "44015448186a472d7b4240863b528b33638d2c728e26828e21918c1fa08828ae80"
    "3fbc735ec96284d44baddc30d8e219fde725",
    "diverging": "7f3b08a04d07be630adb7d12ef9e3cfdbd6efed7a2fbe9cff6f6f7e3e4efcecde4"
    "b6b0d4988dbe7967a65d379044176f2d004b",
    "grey": "000000ffffff",
}
MAPS = tuple(_ANCHORS)


def rgba(values: np.ndarray, colours: str = "viridis", low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Colours of numbers: (...) -> (..., 4) in uint8.

    Numbers outside low..high get the colour of the nearer end; NaN is transparent.
    """
    if colours not in _ANCHORS:
        raise ValueError(f"there is no colour map {colours!r}; there are {', '.join(MAPS)}")
    anchors = np.frombuffer(bytes.fromhex(_ANCHORS[colours]), np.uint8).reshape(-1, 3)
    places = np.linspace(0, 1, len(anchors))
    levels = np.linspace(0, 1, 256)
    table = np.stack([np.interp(levels, places, channel) for channel in anchors.T], -1).round()
    table = np.concatenate([table, np.full((256, 1), 255)], -1).astype(np.uint8)
    span = high - low or 1.0
    with np.errstate(invalid="ignore"):
        index = np.clip((values - low) / span * 255, 0, 255)
    pixels = table[np.nan_to_num(index).round().astype(np.uint8)]
    pixels[np.isnan(values)] = 0
    return pixels
