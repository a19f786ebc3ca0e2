"""A zoo of layers, losses and networks, each right and in wrong versions: what a gradient check must tell apart."""

from .cases import KINDS, SETS, Case, cases, effect, tells

__all__ = ["KINDS", "SETS", "Case", "cases", "effect", "tells"]
