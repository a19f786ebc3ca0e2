"""A good, a too large and a too small learning rate (book, 4.4.1)
===============================================================

Gradient descent from (−3, 4) into a bowl, at three learning rates.

gradient_descent.py prints the same walks, on any backend.
"""

# %%
import numpy as np

from xpnet import gradient_descent, plotting
from xpnet.showing import command_line, show_or_save

options = command_line(__doc__)


# %%
def bowl(x):
    return np.sum(x**2)


start = np.asarray([-3.0, 4.0])
runs = (
    ("good", 0.1, 20, (-5, 5)),
    ("too large: leaves the bowl", 1.1, 5, (-12, 12)),
    ("too small: hardly moves", 0.001, 20, (-5, 5)),
)

# %%
figure, axes = plotting.subplots(1, 3, figsize=(11, 4.1))
for ax, (verdict, rate, steps, span) in zip(axes, runs, strict=True):
    end, path = gradient_descent(bowl, start, lr=rate, step_num=steps, return_path=True)
    print(f"learning rate {rate:g}: after {steps} steps at ({end[0]:.4g}, {end[1]:.4g}), height {bowl(end):.4g}")
    plotting.descent_path(path, bowl, ax, span=span, label=f"{steps} steps")
    ax.set_title(f"learning rate {rate:g}\n{verdict}")
show_or_save(figure, "ch4_4_learning_rates", options)
