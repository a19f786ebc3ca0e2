"""Buy apples and oranges: values forward and derivatives backward through a graph of four layers (book, 5.4).

    apple, apples      ── × ── apple cost  ─┐
                                            + ── cost ── × ── price
    orange, oranges    ── × ── orange cost ─┘            │
                                                       tax

Each derivative says by how much the final price rises when that one number rises by one.
"""

import argparse

from xpnet import AddLayer, MulLayer


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--apple", type=float, default=100, metavar="PRICE", help="price of one (%(default)s)")
    parser.add_argument("--apples", type=float, default=2, metavar="N", help="how many (%(default)s)")
    parser.add_argument("--orange", type=float, default=150, metavar="PRICE", help="price of one (%(default)s)")
    parser.add_argument("--oranges", type=float, default=3, metavar="N", help="how many (%(default)s)")
    parser.add_argument("--tax", type=float, default=1.1, metavar="FACTOR", help="1.1 is 10 %% (%(default)s)")
    buy = parser.parse_args()

    apple_layer, orange_layer, sum_layer, tax_layer = MulLayer(), MulLayer(), AddLayer(), MulLayer()

    apple_cost = apple_layer.forward(buy.apple, buy.apples)
    orange_cost = orange_layer.forward(buy.orange, buy.oranges)
    cost = sum_layer.forward(apple_cost, orange_cost)
    price = tax_layer.forward(cost, buy.tax)

    dprice = 1
    dcost, dtax = tax_layer.backward(dprice)
    dapple_cost, dorange_cost = sum_layer.backward(dcost)
    dorange, doranges = orange_layer.backward(dorange_cost)
    dapple, dapples = apple_layer.backward(dapple_cost)

    print(f"{'':18}  {'value':>18}  {'d price / d value':>18}")
    for name, value, derivative in (
        ("price", price, dprice),
        ("cost before tax", cost, dcost),
        ("apple cost", apple_cost, dapple_cost),
        ("orange cost", orange_cost, dorange_cost),
        ("price of an apple", buy.apple, dapple),
        ("number of apples", buy.apples, dapples),
        ("price of an orange", buy.orange, dorange),
        ("number of oranges", buy.oranges, doranges),
        ("tax", buy.tax, dtax),
    ):
        print(f"{name:18}  {value!r:>18}  {derivative!r:>18}")


if __name__ == "__main__":
    main()
