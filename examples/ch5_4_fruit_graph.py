"""Apples and oranges: a graph, forward and backward (book, 5.1 to 5.4)
====================================================================

Values go forward through a computational graph, gradients backward.

Every number in the picture comes from four layers. Above a line, what goes forward; below it, what comes back: the
derivative of the price. buy_fruit.py prints the same numbers, for other prices too.
"""

# %%
import math

from xpnet import AddLayer, MulLayer, plotting
from xpnet.showing import command_line, show_or_save

options = command_line(__doc__)

# %%
# Forward: what does it cost?
apple, apples, orange, oranges, tax = 100, 2, 150, 3, 1.1
apple_layer, orange_layer, sum_layer, tax_layer = MulLayer(), MulLayer(), AddLayer(), MulLayer()
apple_cost = apple_layer.forward(apple, apples)
orange_cost = orange_layer.forward(orange, oranges)
cost = sum_layer.forward(apple_cost, orange_cost)
price = tax_layer.forward(cost, tax)

# %%
# Backward: how much does the price rise with each of these numbers?
dprice = 1
dcost, dtax = tax_layer.backward(dprice)
dapple_cost, dorange_cost = sum_layer.backward(dcost)
dorange, doranges = orange_layer.backward(dorange_cost)
dapple, dapples = apple_layer.backward(dapple_cost)

# %%
places = {
    "price of\nan apple": (0, 5.2),
    "number of\napples": (0, 3.2),
    "number of\noranges": (0, 1.8),
    "price of\nan orange": (0, -0.2),
    "apples": (2.6, 4.2),
    "oranges": (2.6, 0.8),
    "sum": (5, 2.5),
    "tax": (5.4, 0.4),
    "total": (7.4, 2.5),
    "price": (9.6, 2.5),
}
operations = {"apples": "×", "oranges": "×", "sum": "+", "total": "×"}
lines = (
    ("price of\nan apple", "apples", apple, dapple),
    ("number of\napples", "apples", apples, dapples),
    ("number of\noranges", "oranges", oranges, doranges),
    ("price of\nan orange", "oranges", orange, dorange),
    ("apples", "sum", apple_cost, dapple_cost),
    ("oranges", "sum", orange_cost, dorange_cost),
    ("sum", "total", cost, dcost),
    ("tax", "total", tax, dtax),
    ("total", "price", price, dprice),
)

figure, ax = plotting.subplots(figsize=(9, 5.2))
for start, end, value, gradient in lines:
    (x0, y0), (x1, y1) = places[start], places[end]
    length = math.dist((x0, y0), (x1, y1))
    across = -(y1 - y0) / length, (x1 - x0) / length  # a step of length 1 to the upper side of the line
    shrink = {"shrinkA": 16 if start in operations else 32 if start != "tax" else 14, "shrinkB": 16}
    ax.annotate("", (x1, y1), (x0, y0), arrowprops={"arrowstyle": "->", **shrink})
    for text, side, style in (
        (f"{value:g}", 0.27, {"color": plotting.BLUE}),
        (f"{gradient:g}", -0.27, {"color": plotting.VERMILION, "weight": "bold"}),
    ):
        x, y = 0.54 * x0 + 0.46 * x1 + side * across[0], 0.54 * y0 + 0.46 * y1 + side * across[1]
        ax.text(x, y, text, ha="center", va="center", **style)
for name, (x, y) in places.items():
    if name in operations:
        circle = {"boxstyle": "circle,pad=0.3", "facecolor": "white", "edgecolor": plotting.BLACK}
        ax.text(x, y, operations[name], ha="center", va="center", fontsize=14, bbox=circle)
    else:
        ax.text(x, y, name, ha="center", va="center")
ax.set(xlim=(-0.8, 10.1), ylim=(-0.6, 5.6), aspect="equal")
ax.set_axis_off()
ax.set_title("above a line: the value, forward     below, bold: the derivative of the price, backward", fontsize=10)
show_or_save(figure, "ch5_4_fruit_graph", options)
