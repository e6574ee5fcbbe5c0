"""What only a forward pass can show: changed buffers, hidden randomness, missing second
derivatives.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.func import functional_call, grad

from mdtheory.core import tree
from mdtheory.models.norm import BatchStatNorm

REMEDIES = {
    "attention": (
        "run it inside torch.nn.attention.sdpa_kernel(SDPBackend.MATH), or write the softmax out"
    ),
    "saved tensor hooks": (
        "do not checkpoint activations; the estimator `stepwise` saves memory instead"
    ),
    "autograd.Function": "give its autograd.Function a setup_context and a differentiable backward",
    "": "write the operation that torch names with ordinary torch arithmetic",
}
"""What helps, by a fragment of torch's message; the first that fits."""


class BufferGuard:
    """A pair of forward hooks that refuse a pass which changed one of the model's buffers.

    Identity and version counter are compared in every pass; values too, in the first pass of each
    mode, because torch's native batch norm changes its running statistics without counting it. The
    buffers of :class:`BatchStatNorm` are left out: they change only inside
    ``collecting_statistics``.
    """

    def __init__(self) -> None:
        self._before: dict[str, tuple[Tensor, int]] = {}
        self._values: dict[str, Tensor] = {}
        self._modes_seen: set[bool] = set()

    def before(self, model: nn.Module, args: Any) -> None:
        """Remember each buffer and how often it has been written to."""
        buffers = constants(model)
        self._before = {name: (value, value._version) for name, value in buffers.items()}
        self._values = {}
        if model.training not in self._modes_seen:
            self._values = {
                name: value.clone()
                for name, value in buffers.items()
                if not is_functorch_wrapped_tensor(value)
            }

    def after(self, model: nn.Module, args: Any, output: Any) -> None:
        """Compare; ``ValueError`` with the buffer's name."""
        now, before, values = constants(model), self._before, self._values
        self._before, self._values = {}, {}
        for name in before.keys() | now.keys():
            old, new = before.get(name), now.get(name)
            same = old is not None and new is old[0] and new._version == old[1]
            if not same or (name in values and not _equal(values[name], now[name])):
                raise ValueError(
                    f"buffer {name!r} must stay constant, but the forward pass changed it; "
                    "compute it when the model is built, or keep batch statistics in "
                    "mdtheory.models.BatchStatNorm"
                )
        self._modes_seen.add(model.training)


def _equal(one: Tensor, other: Tensor) -> bool:
    """Bit for bit, but NaN equals NaN."""
    return bool(((one == other) | ((one != one) & (other != other))).all())


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
    """Run a prepared model on a batch, forward and to second order, and refuse what would go wrong
    later.

    ``x``: shape (n_items, ...), at least two items, as a support set has. Refused, each by one
    ``ValueError``: an output that is not one floating tensor with n_items rows, a changed input or
    buffer, a draw from the global generator, a layer without second derivatives. Cost: one forward
    pass and one Hessian-vector product.
    """
    x = x.detach().clone()
    version, random_state = x._version, _random_state(x.device)
    with torch.no_grad():
        output = model(x)
    if not torch.equal(random_state, _random_state(x.device)):
        raise ValueError(
            "the model must give the same output twice, but its forward pass draws from the global "
            "random generator; "
            "remove the dropout or noise, or call eval() on the model first"
        )
    if x._version != version:
        raise ValueError(
            "the model must leave its input as it is, but it writes to it; set inplace=False in "
            "its "
            "first layer"
        )
    if (
        not isinstance(output, Tensor)
        or not output.is_floating_point()
        or output.shape[:1] != x.shape[:1]
    ):
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            f"the model must return one float tensor of {len(x)} rows for {len(x)} items, got "
            f"{found}; wrap it"
        )
    _second_order(model, x)


def _second_order(model: nn.Module, x: Tensor) -> None:
    """A Hessian-vector product with respect to the trainable parameters, as a meta-gradient
    needs.
    """
    trainable = {
        name: value.detach() for name, value in model.named_parameters() if value.requires_grad
    }
    try:
        gradient = grad(lambda p: functional_call(model, p, (x,)).square().mean())
        grad(lambda p: tree.dot(gradient(p), trainable))(trainable)
    except RuntimeError as error:
        said = str(error).splitlines()[0].rstrip(".")
        remedy = next(remedy for fragment, remedy in REMEDIES.items() if fragment in said)
        raise ValueError(
            f"the model must be twice differentiable under torch.func; {remedy}. torch says: {said}"
        ) from error


def _random_state(device: torch.device) -> Tensor:
    """The state of the global generator that a forward pass on ``device`` would draw from."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
