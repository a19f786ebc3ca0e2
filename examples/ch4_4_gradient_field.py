"""A bowl and its gradient field (book, 4.4)
=========================================

x₀² + x₁²: at every point, which way is down and how steep.

One call of ``numerical_gradient`` finds the gradients at all points. The arrows show −gradient. They point to the
lowest place, and are longer where the bowl is steeper.
"""

# %%
import numpy as np

from xpnet import numerical_gradient, plotting
from xpnet.showing import command_line, show_or_save

options = command_line(__doc__)


# %%
# The function of the book, its three gradients, and those on a whole grid of points
def bowl(x):
    return np.sum(x**2)


three = np.asarray([[3.0, 4.0], [0.0, 2.0], [3.0, 0.0]])
for point, gradient in zip(three, numerical_gradient(bowl, three, points=True), strict=True):
    print(f"gradient at {point}: {gradient}")

side = np.arange(-2.0, 2.5, 0.25)
points = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
gradients = numerical_gradient(bowl, points, points=True)

# %%
figure, ax = plotting.subplots(figsize=(5, 4.3), subplot_kw={"projection": "3d"})
plotting.surface(bowl, np.linspace(-3, 3, 31), np.linspace(-3, 3, 31), ax)
ax.set_title("f(x) = x₀² + x₁²")
show_or_save(figure, "ch4_4_surface", options)

# %%
figure, ax = plotting.subplots(figsize=(5, 4.8))
plotting.gradient_field(points, gradients, ax)
ax.set_title("−gradient of x₀² + x₁²")
show_or_save(figure, "ch4_4_gradient_field", options)
