"""Numbers on a command line: made of what was typed, or refused in words."""

import argparse
import math


def count(text, lowest=1):
    """Return ``text`` as a whole number of at least ``lowest``; raises what argparse prints."""
    return _number(text, int, lambda number: number >= lowest, f"a whole number of at least {lowest}")


def seed(text):
    """Return ``text`` as a seed, a whole number of at least 0; raises what argparse prints."""
    return count(text, lowest=0)


def rate(text):
    """Return ``text`` as a positive number, such as a learning rate; raises what argparse prints."""
    return _number(text, float, lambda number: 0 < number < math.inf, "a positive number")


def _number(text, kind, allowed, what):
    try:
        number = kind(text)
    except ValueError:
        number = math.nan
    if not allowed(number):
        raise argparse.ArgumentTypeError(f"got {text}, but it must be {what}")
    return number
