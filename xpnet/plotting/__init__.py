"""Pictures of what the library computes, with matplotlib, which comes with ``xpnet[plot]`` or by itself.

``from xpnet import plotting``: the library itself never imports this module. Each function draws into ``ax``, or into a
new figure if there is none, and returns the axes. Nothing is shown and no setting is changed. Arrays may be of any
backend. Colours are those of M. Okabe and K. Ito and the maps cividis and viridis, which stay apart for colour-blind
eyes and in greyscale; lines also differ in style and marker.
"""

from .axes import BLACK, BLUE, GREEN, GREY, LINES, VERMILION, subplots
from .functions import descent_path, gradient_field, secants, step_errors, surface, tangent
from .learning import gradient_map, images, learning_curves, weights

__all__ = [
    "BLACK",
    "BLUE",
    "GREEN",
    "GREY",
    "LINES",
    "VERMILION",
    "descent_path",
    "gradient_field",
    "gradient_map",
    "images",
    "learning_curves",
    "secants",
    "step_errors",
    "subplots",
    "surface",
    "tangent",
    "weights",
]
