"""A saddle: the gradient is 0, and yet it is no minimum (book, 4.4)
=================================================================

x₀² − x₁²: the gradient in the middle is 0.

Descent that starts exactly on the ridge walks to the saddle and stays. The slightest push off the ridge is enough: it
slows down near the saddle, where the gradient is small, then falls off the side.
"""

# %%
import numpy as np

from xpnet import gradient_descent, numerical_gradient, plotting
from xpnet.showing import command_line, show_or_save

options = command_line(__doc__)


# %%
def saddle(x):
    return x[0] ** 2 - x[1] ** 2


print("gradient at (0, 0):", numerical_gradient(saddle, np.asarray([0.0, 0.0])))
on_ridge, path_on_ridge = gradient_descent(saddle, np.asarray([-2.5, 0.0]), lr=0.1, step_num=30, return_path=True)
beside, path_beside = gradient_descent(saddle, np.asarray([-2.5, 0.01]), lr=0.1, step_num=30, return_path=True)
print(f"from (-2.5, 0) to ({on_ridge[0]:.3g}, {on_ridge[1]:.3g})")
print(f"from (-2.5, 0.01) to ({beside[0]:.3g}, {beside[1]:.3g})")

# %%
figure, left = plotting.subplots(figsize=(5, 4.3), subplot_kw={"projection": "3d"})
plotting.surface(saddle, np.linspace(-3, 3, 31), np.linspace(-3, 3, 31), left)
left.set_title("f(x) = x₀² − x₁²")
show_or_save(figure, "ch4_4_saddle", options)

# %%
figure, axes = plotting.subplots(1, 2, figsize=(9, 4.4))
walks = ((path_on_ridge, "from (−2.5, 0): stays on the saddle"), (path_beside, "from (−2.5, 0.01): falls off"))
for ax, (path, title) in zip(axes, walks, strict=True):
    plotting.descent_path(path, saddle, ax, span=(-3, 3), label="30 steps")
    ax.set_title(title)
show_or_save(figure, "ch4_4_saddle_descent", options)
