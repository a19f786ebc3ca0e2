"""Forward against central difference, and how small a step (book, 4.3.1)
======================================================================

First picture: the line through x and x + h is tilted against the tangent; the line through x − h and x + h hardly is.
Second picture: the error against the step. From the right it falls, with h for the forward difference and with h² for
the central one; then round-off takes over, and it rises as 1/h. The smallest step is not the best one, and the best one
depends on the precision: in float32, the book's 1e-4 is already too small.
"""

# %%
import math

import numpy as np

from xpnet import plotting
from xpnet.showing import command_line, show_or_save

options = command_line(__doc__)

# %%
# A curve that bends, and a step large enough to see
figure, ax = plotting.subplots(figsize=(6.4, 4.4))
plotting.secants(math.exp, 0.5, 0.75, ax, span=(-0.6, 1.6))
ax.set(title="eˣ at x = 0.5, with h = 0.75", ylim=(-0.5, 5.5))
show_or_save(figure, "ch4_3_differences", options)

# %%
# The same function, the same point, every step from 1 down to 1e-14
steps = np.logspace(0, -14, 141)
figure, ax = plotting.subplots(figsize=(6.4, 4.4))
for dtype, (forward, central) in (("float64", plotting.LINES[:2]), ("float32", plotting.LINES[2:])):
    x = np.asarray(0.5, dtype=dtype)
    lines = [{**style, "marker": ""} for style in (forward, central)]
    plotting.step_errors(np.exp, x, math.exp(0.5), steps, ax, label=dtype, lines=lines)
ax.axvline(1e-4, color=plotting.GREY, linewidth=0.8)
ax.annotate("the book's 1e-4", (1e-4, 3e-12), (5, 0), textcoords="offset points")
ax.set_title("The derivative of eˣ at 0.5")
show_or_save(figure, "ch4_3_step", options)
