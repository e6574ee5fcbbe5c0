"""What only a forward pass can show: changed buffers, hidden randomness, missing second derivatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad

from mdtheory import tree
from mdtheory.models.norm import BatchStatNorm


class BufferGuard:
    """A pair of forward hooks that refuse a pass which changed one of the model's buffers.

    The buffers of :class:`BatchStatNorm` are left out: they change only inside ``collecting_statistics``.
    """

    def __init__(self) -> None:
        self._before: dict[str, tuple[Tensor, int]] = {}

    def before(self, model: nn.Module, args: Any) -> None:
        """Remember each buffer and how often it has been written to."""
        self._before = {name: (value, value._version) for name, value in constants(model).items()}

    def after(self, model: nn.Module, args: Any, output: Any) -> None:
        """Compare; ``ValueError`` with the buffer's name."""
        now, before = constants(model), self._before
        self._before = {}
        for name in before.keys() | now.keys():
            old, new = before.get(name), now.get(name)
            if old is None or new is not old[0] or new._version != old[1]:
                raise ValueError(
                    f"buffer {name!r} must stay constant, but the forward pass changed it; "
                    "compute it when the model is built, or keep batch statistics in mdtheory.models.BatchStatNorm"
                )


def constants(model: nn.Module) -> dict[str, Tensor]:
    """The buffers that no forward pass may change, by name."""
    return {
        f"{prefix}.{name}" if prefix else name: value
        for prefix, module in model.named_modules()
        if not isinstance(module, BatchStatNorm)
        for name, value in module.named_buffers(recurse=False)
    }


def guard_buffers(model: nn.Module) -> None:
    """Watch the buffers of ``model`` in every forward pass, if it has any."""
    if constants(model):
        guard = BufferGuard()
        model.register_forward_pre_hook(guard.before)
        model.register_forward_hook(guard.after)


def probe(model: nn.Module, x: Tensor) -> None:
    """Run a prepared model on a batch, forward and to second order, and refuse what would go wrong later.

    ``x``: shape (n_items, ...), at least two items, as a support set has. Refused, each by one ``ValueError``: an output
    that is not one floating tensor with n_items rows, a changed input or buffer, a draw from the global generator,
    a layer without second derivatives. Cost: one forward pass and one Hessian-vector product.
    """
    x = x.detach().clone()
    version, random_state = x._version, _random_state(x.device)
    with torch.no_grad():
        output = model(x)
    if not torch.equal(random_state, _random_state(x.device)):
        raise ValueError(
            "the model must give the same output twice, but its forward pass draws from the global random generator; "
            "remove the dropout or noise, or call eval() on the model first"
        )
    if x._version != version:
        raise ValueError("the model must leave its input as it is, but it writes to it; set inplace=False in its first layer")
    if not isinstance(output, Tensor) or not output.is_floating_point() or output.shape[:1] != x.shape[:1]:
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"the model must return one float tensor of {len(x)} rows for {len(x)} items, got {found}; wrap it")
    _second_order(model, x)


def _second_order(model: nn.Module, x: Tensor) -> None:
    """A Hessian-vector product with respect to the trainable parameters, as a meta-gradient needs."""
    trainable = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    try:
        gradient = grad(lambda p: functional_call(model, p, (x,)).square().mean())
        grad(lambda p: tree.dot(gradient(p), trainable))(trainable)
    except RuntimeError as error:
        raise ValueError(
            f"the model must be twice differentiable under torch.func, but torch says: {str(error).splitlines()[0]}; "
            "for attention use sdpa_kernel(SDPBackend.MATH) of torch.nn.attention, and do not checkpoint activations"
        ) from error


def _random_state(device: torch.device) -> Tensor:
    """The state of the global generator that a forward pass on ``device`` would draw from."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
