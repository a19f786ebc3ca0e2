"""What a wrong answer costs: −log x and the cross entropy (book, 4.2.2)
=====================================================================

What a network pays for the probability it gave to the true class.

Left, the curve −log x: 0 at x = 1, without bound towards x = 0. Right, what the library answers for ten classes where
the other nine share the rest: the same curve, because only the probability of the true class enters. The squared error
beside it never exceeds 1: it hardly minds whether a wrong answer was almost sure or quite sure.
"""

# %%
import numpy as np

from xpnet import cross_entropy_error, plotting, sum_squared_error
from xpnet.showing import command_line, show_or_save

options = command_line(__doc__)

# %%
# The probability of the true class, class 2 of 10, from nearly 0 to 1
t = np.zeros(10)
t[2] = 1.0


def answer(p):
    y = np.full(10, (1 - p) / 9)
    y[2] = p
    return y


p = np.linspace(0.001, 1.0, 500)
cross_entropy = [float(cross_entropy_error(answer(each), t)) for each in p]
squares = [float(sum_squared_error(answer(each), t)) for each in p]

# %%
# As in the book: class 2 gets 0.6, or only 0.1
book = [float(cross_entropy_error(answer(each), t)) for each in (0.6, 0.1)]
print("loss at 0.6 and 0.1:", *book)

# %%
figure, (left, right) = plotting.subplots(1, 2, figsize=(9, 3.6), sharey=True)
left.plot(p, -np.log(p), color=plotting.BLUE)
left.set(xlabel="x", ylabel="−log x", title="−log x (natural logarithm)", ylim=(0, 7))
right.plot(p, cross_entropy, color=plotting.BLUE, label="cross_entropy_error")
right.plot(p, squares, color=plotting.VERMILION, linestyle="--", label="sum_squared_error")
for probability, loss in zip((0.6, 0.1), book, strict=True):
    right.plot([probability], [loss], color=plotting.BLUE, marker="o")
    right.annotate(f"{probability}: loss {loss:.2f}", (probability, loss), (8, 6), textcoords="offset points")
right.set(xlabel="probability given to the true class", ylabel="loss", title="The loss of one answer")
right.legend()
for ax in (left, right):
    ax.grid(alpha=0.3)
show_or_save(figure, "ch4_2_cross_entropy", options)
