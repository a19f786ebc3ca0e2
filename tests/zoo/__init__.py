"""A zoo of layers, losses and networks, each right and in wrong versions: what a gradient check must tell apart."""

from .cases import KINDS, SETS, TELLS, Case, cases, effect, gradients

__all__ = ["KINDS", "SETS", "TELLS", "Case", "cases", "effect", "gradients"]
