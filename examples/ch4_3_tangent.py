"""The derivative is the slope of the tangent (book, 4.3.2)
========================================================

f(x) = 0.01x² + 0.1x, with its tangents at 5 and at 10.
"""

# %%
from xpnet import numerical_diff, plotting, tangent_line
from xpnet.showing import command_line, show_or_save

options = command_line(__doc__)


# %%
# The function of the book, its derivative at two places, and the tangent there
def f(x):
    return 0.01 * x**2 + 0.1 * x


for x in (5.0, 10.0):
    line = tangent_line(f, x)
    print(f"at {x:g}: slope {numerical_diff(f, x)}, the tangent at 0 is {line(0):.4f}")

# %%
figure, axes = plotting.subplots(1, 2, figsize=(9, 3.6), sharey=True)
for ax, x in zip(axes, (5.0, 10.0), strict=True):
    plotting.tangent(f, x, ax, span=(0.0, 20.0))
    ax.set_title(f"at x = {x:g}")
axes[0].set_title("0.01x² + 0.1x at x = 5")
axes[1].set_title("the same at x = 10")
show_or_save(figure, "ch4_3_tangent", options)
