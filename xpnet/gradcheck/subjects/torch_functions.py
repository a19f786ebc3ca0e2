"""Functions of PyTorch tensors and modules as subjects: what is checked is PyTorch's own autograd through them.

This module adapts PyTorch, and is imported only where an argument is a tensor or a module of it.
"""

import torch

from ...layer_state import rewound
from .arguments import is_floats, leaves, same
from .calls import Call


class TensorFunction(Call):
    """A function of tensors, such as the ``apply`` of an ``autograd.Function``, or a module with its parameters.

    Differentiated are the inputs that require a gradient, or all of floats if none does, and the parameters of a module
    that require one.
    """

    kind = "autograd"

    def signature(self):
        """Return the function whose parameters name the inputs."""
        return self.f.forward if isinstance(self.f, torch.nn.Module) else self.f

    def _floats(self):
        module = self.f if isinstance(self.f, torch.nn.Module) else None
        self.parameters = dict(module.named_parameters()) if module else {}
        self.buffers = dict(module.named_buffers()) if module else {}
        floats = dict(self.arguments.floats)
        asked = [name for name, value in floats.items() if value.requires_grad]
        self.chosen = set(asked or floats) | {name for name, p in self.parameters.items() if p.requires_grad}
        taken = set(floats) & (set(self.parameters) | set(self.buffers))
        if taken:
            raise ValueError(f"{self.name} has parameters named like its inputs: {', '.join(sorted(taken))}")
        held = {name: value for name, value in {**self.parameters, **self.buffers}.items() if is_floats(value)}
        return {name: _fresh(value) for name, value in {**floats, **held}.items()}

    def evaluated(self, changed):
        """Return the outputs with the tensors of ``changed``, without a graph."""
        return self._joined(self._forward(changed)[0]).detach()

    def _written(self, call):
        given = {name: _fresh(value) for name, value in self.arguments.floats.items()}
        kept = {name: value.clone() for name, value in given.items()}
        self._call(self.arguments.changed(given), self._held({}))
        return next((name for name, value in given.items() if not same(value, kept[name])), None)

    def _forward(self, changed):
        """Return the outputs and {name: tensor} of what they are functions of, in a graph of their own."""
        given = {name: _fresh(changed.get(name, value)) for name, value in {**self.values, **self.inputs}.items()}
        for name in self.chosen:
            given[name].requires_grad_()
        with torch.enable_grad():
            args = self.arguments.changed({name: _Copy.apply(given[name]) for name in self.arguments.floats})
        return self._call(args, self._held(given)), given

    def _held(self, given):
        """Return {name: tensor} of what a module holds; its buffers are copies, which it may write."""
        buffers = {name: value.clone() for name, value in self.buffers.items()}
        return {
            **self.parameters,
            **buffers,
            **{name: given[name] for name in given if name not in self.arguments.floats},
        }

    def _call(self, args, held):
        with rewound(self.generators), torch.enable_grad():
            if isinstance(self.f, torch.nn.Module):
                return torch.func.functional_call(self.f, held, tuple(args))
            return self.f(*args)

    def _claims(self, changed, weights):
        out, given = self._forward(changed)
        douts = dict(leaves(self._split(weights), ""))
        pairs = [(part, douts[name]) for name, part in leaves(out, "") if is_floats(part) and part.requires_grad]
        chosen = [name for name in given if name in self.chosen]
        if not pairs:
            return dict.fromkeys(given) | {name: torch.zeros_like(given[name]) for name in chosen}
        parts, douts = zip(*pairs, strict=True)
        found = torch.autograd.grad(parts, [given[name] for name in chosen], douts, allow_unused=True)
        zeros = (torch.zeros_like(given[name]) for name in chosen)  # None: nothing of the gradient arrives there
        claims = {name: zero if g is None else g for name, g, zero in zip(chosen, found, zeros, strict=True)}
        return dict.fromkeys(given) | claims

    def _plain(self):
        return False

    def _array(self, number):
        raise TypeError(f"{self.name} returned a number; autograd differentiates tensors: do not call .item()")


class _Copy(torch.autograd.Function):
    """A copy in the same layout, which a function may write into as it may into no leaf of a graph."""

    @staticmethod
    def forward(ctx, value):
        return _fresh(value)

    @staticmethod
    def backward(ctx, dout):
        return dout


def _fresh(value):
    """Return a copy of a tensor, outside every graph, as it lies in memory."""
    value = value.detach()
    if value.is_contiguous() or 0 in value.stride():
        return value.clone(memory_format=torch.contiguous_format)
    return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device=value.device).copy_(value)
