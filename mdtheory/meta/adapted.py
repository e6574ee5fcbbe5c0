"""What adapting returns: the network with a task's own weights, to call on new inputs."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from mdtheory.core.inputs import Inputs, call, leaves, map_inputs, n_items
from mdtheory.core.types import Episode, Params
from mdtheory.inner.task import joint_outputs
from mdtheory.meta.door import Fitting, floating_type
from mdtheory.models.user.attributes import unwatched


class AdaptedModel(nn.Module):
    """A network with a task's own weights, to call on new inputs. A copy of ``support`` is kept, as
    buffers, where its statistics normalise them.

    shapes: those of the network, (n_items, ...) -> (n_items, ...).

    >>> import torch, mdtheory
    >>> learner = mdtheory.MetaLearner(torch.nn.Linear(2, 3), n_steps=1)
    >>> adapted = learner.adapt(torch.eye(2), torch.tensor([0, 2]))
    >>> adapted(torch.eye(2)).shape
    torch.Size([2, 3])
    """

    def __init__(self, network: nn.Module, weights: Params, *, support: Inputs = None):
        super().__init__()
        self.network = unwatched(copy.deepcopy(network))
        own = dict(self.network.named_parameters())
        with torch.no_grad():
            for name, value in weights.items():
                own[name].copy_(value)
        self.network.requires_grad_(False)
        parts = [] if support is None else [part.detach().clone() for part in leaves(support)]
        alone = isinstance(support, Tensor)
        self.support: Tensor | None
        self.register_buffer("support", None)
        names = ["support"] if alone else [f"support_{i}" for i in range(len(parts))]
        for name, part in zip(names, parts, strict=True):
            self.register_buffer(name, part)
        rest = iter(names)
        self._form = None if support is None else map_inputs(lambda _: next(rest), support)

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """The outputs for inputs of shape (n_items, ...), given as the network takes them, by
        position and by name, or as one tuple or dictionary. shape: (n_items, ...)
        """
        own = next(self.network.parameters())
        fit = Fitting(own.device, floating_type(self.network)).inputs
        args, kwargs = tuple(map(fit, inputs)), {name: fit(x) for name, x in named.items()}
        try:
            if args and kwargs and self._form is None:
                return cast(Tensor, self.network(*args, **kwargs))
            return self._outputs(self._together(args, kwargs))
        except RuntimeError as error:
            if any(value.dtype == torch.uint8 for value in leaves([args, kwargs])):
                raise ValueError(
                    "the inputs must be of the type that the support set had, got uint8; give "
                    "floating inputs, for instance x.float() / 255 for images"
                ) from error
            raise

    def _together(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Inputs:
        """All inputs as one, in the form that the support set has if there is one."""
        if kwargs and (args or isinstance(self._form, str | tuple | list)):
            bound = inspect.signature(self.network.forward).bind(*args, **kwargs)
            if isinstance(self._form, Mapping):
                return bound.arguments
            args, kwargs = bound.args, bound.kwargs
        return kwargs or (args[0] if len(args) == 1 else args)

    def _outputs(self, x: Inputs) -> Tensor:
        if self._form is None:
            return call(self.network, x)
        own = next(self.network.parameters())
        nothing = torch.zeros(n_items(x), dtype=torch.int64, device=own.device)
        support = map_inputs(lambda name: getattr(self, name), self._form)
        episode = Episode(support, nothing, x, nothing)
        return joint_outputs(lambda joint: call(self.network, joint), episode)
