"""Every network through the kernels: meta-gradients with them and on ordinary operations are the
same number.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdtheory.core.types import Episode
from mdtheory.kernels import conv_norm_pool, convolution, plain
from mdtheory.meta.learner import MetaLearner
from mdtheory.models.conv4 import Conv4
from mdtheory.models.conv_block import Conv2d, Fused, fuse
from mdtheory.models.norm import BatchStatNorm
from mdtheory.models.resnet12 import Residual


def little(*layers: nn.Module) -> nn.Module:
    """A user's network on 4 x 4 images."""
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(2))


class Tail(nn.Module):
    """Any block with a classifier behind it."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block, self.classifier = block, nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.block(x).mean((2, 3)))


def user() -> nn.Module:
    model = little(
        nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.LeakyReLU(0.2), nn.MaxPool2d(2)
    )
    model(torch.zeros(2, 1, 4, 4))
    return model


NETWORKS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a residual stage": (lambda: Tail(Residual(1, 2)), "maml"),
    "a user's own": (user, "maml"),
    "a user's own, warped": (user, "warpgrad"),
    "a user's own, Kronecker": (user, "metakfo"),
}


def episodes(device: torch.device, size: int = 4) -> list[Episode]:
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(2).repeat(2)
    images = [torch.rand(4, 1, size, size, generator=draw, dtype=torch.float64) for _ in range(4)]
    return [
        Episode(images[i], labels, images[i + 1], labels, seed=i).to(device=device) for i in (0, 2)
    ]


def learner(network: str, device: torch.device) -> MetaLearner:
    make, geometry = NETWORKS[network]
    torch.manual_seed(1)
    return MetaLearner(make().double().to(device), geometry, n_steps=1, task_lr=0.1)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_meta_gradient_is_that_of_ordinary_operations(
    network: str, triton_machine: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = learner(network, triton_machine)
    launches: list[object] = []
    from mdtheory.kernels import triton_convolution

    launch = triton_convolution.launch
    for module in (triton_convolution, conv_norm_pool.machine(triton_machine)):
        monkeypatch.setattr(
            module, "launch", lambda *a, **k: (launches.append(a[0]), launch(*a, **k))[1]
        )
    own.estimator.batched = True
    found = own.meta_gradient(episodes(triton_machine))
    assert len(launches) > 40
    launches.clear()
    own.estimator.batched = False
    with plain():
        expected = own.meta_gradient(episodes(triton_machine))
    assert not launches
    for name, gradient in expected.grads.items():
        scale = gradient.abs().max().clamp(min=1e-3)
        assert float((found.grads[name] - gradient).abs().max() / scale) < 1e-11, name


class TestConvolution:
    """F, X and W of convolution.py against torch's own derivatives."""

    @pytest.mark.parametrize(
        "layer",
        [
            nn.Conv2d(2, 3, 3, padding=1),
            nn.Conv2d(2, 3, 1, bias=False),
            nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2),
            nn.Conv2d(2, 3, (2, 3), dilation=(1, 2)),
        ],
        ids=str,
    )
    def test_three_derivatives(self, layer: nn.Conv2d, triton_machine: torch.device) -> None:
        layer = layer.double().to(triton_machine)
        x = torch.randn(2, 2, 5, 6, dtype=torch.float64, device=triton_machine)

        def derivatives(call: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
            w = layer.weight.detach().clone().requires_grad_()
            own = x.clone().requires_grad_()
            total, found = call(own, w).sin().sum(), []
            for _ in range(3):
                slopes = torch.autograd.grad(total, (own, w), create_graph=True)
                found += [s.detach() for s in slopes]
                total = sum(s.sin().sum() for s in slopes)
            return found

        def ours(own: Tensor, w: Tensor) -> Tensor:
            return torch.func.functional_call(Wrapped(layer), {"layer.weight": w}, (own,))

        def theirs(own: Tensor, w: Tensor) -> Tensor:
            rest = (layer.stride, layer.padding, layer.dilation, layer.groups)
            return F.conv2d(own, w, layer.bias, *rest)

        assert convolution.suits(x, layer)
        for a, b in zip(derivatives(ours), derivatives(theirs), strict=True):
            assert float((a - b).abs().max() / b.abs().max().clamp(min=1)) < 1e-11

    def test_tasks_may_share_the_weights(self, triton_machine: torch.device) -> None:
        layer = nn.Conv2d(2, 3, 3, padding=1).double().to(triton_machine)
        xs = torch.randn(2, 3, 2, 4, 4, dtype=torch.float64, device=triton_machine)

        def slope(x: Tensor) -> Tensor:
            return torch.func.grad(lambda own: convolution.conv2d(own, layer).sin().sum())(x)

        found = torch.func.vmap(slope)(xs)
        assert torch.allclose(found, torch.stack([slope(x) for x in xs]), rtol=1e-12)

    @pytest.mark.parametrize(("channels", "norm"), [(1, 2), (3, 2), (2, 1), (2, 3)])
    def test_channels_that_do_not_fit_are_refused(
        self, channels: int, norm: int, triton_machine: torch.device
    ) -> None:
        """A kernel would read memory of other tensors."""
        model = fuse(nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), BatchStatNorm(norm)))
        x = torch.rand(2, channels, 4, 4, device=triton_machine)
        with pytest.raises((RuntimeError, ValueError), match=r"channels|must have shape"):
            model.to(triton_machine)(x)
        if channels != 2:
            with pytest.raises(RuntimeError, match="channels"):
                model[0](x)

    def test_autocast_chooses_the_types(self, triton_machine: torch.device) -> None:
        layer = nn.Conv2d(2, 3, 3, padding=1)
        model = fuse(nn.Sequential(layer, BatchStatNorm(3), nn.ReLU())).to(triton_machine)
        x = torch.rand(2, 2, 4, 4, device=triton_machine)
        with torch.autocast(triton_machine.type, dtype=torch.bfloat16):
            found = layer(x), model(x)
            with plain():
                expected = layer(x), model(x)
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
        assert found[0].dtype == torch.bfloat16


class Wrapped(nn.Module):
    """A layer that goes our way."""

    def __init__(self, layer: nn.Conv2d):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return convolution.conv2d(x, self.layer)


class Shifted(nn.Conv2d):
    """A convolution of one's own behind torch's ``forward``."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight - weight.mean(), bias)


class TestFuse:
    def test_on_a_cpu_nothing_moves_a_bit(self) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), BatchStatNorm(8), nn.ReLU(), nn.MaxPool2d(2)
        )
        x = torch.rand(40, 3, 32, 32)
        before, names = model(x), list(model.state_dict())
        fused = fuse(model)
        assert fused is model and type(model) is Fused and type(model[0]) is Conv2d
        assert torch.equal(model(x), before) and list(model.state_dict()) == names

    @pytest.mark.parametrize("which", [0, 1, 2, 3])
    def test_a_hook_is_not_passed_over(self, which: int, triton_machine: torch.device) -> None:
        layers = [nn.Conv2d(1, 2, 3, padding=1), BatchStatNorm(2), nn.ReLU(), nn.MaxPool2d(2)]
        model = fuse(nn.Sequential(*layers).to(triton_machine))
        x = torch.rand(2, 1, 4, 4, device=triton_machine)
        before = model(x)
        model[which].register_forward_hook(lambda module, args, output: 2 * output + 1)
        assert not torch.allclose(model(x), before)

    @pytest.mark.parametrize(
        "spoilt",
        [
            nn.Conv2d(1, 2, 3),
            nn.Conv2d(1, 2, 3, padding=1, stride=2),
            nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"),
            nn.Conv2d(1, 2, 3, padding="same"),
            Shifted(1, 2, 3, padding=1),
        ],
        ids=str,
    )
    def test_another_convolution_keeps_its_meaning(
        self, spoilt: nn.Conv2d, triton_machine: torch.device
    ) -> None:
        model = nn.Sequential(spoilt, BatchStatNorm(2), nn.ReLU(), nn.MaxPool2d(2))
        model, x = model.to(triton_machine), torch.rand(2, 1, 6, 6, device=triton_machine)
        before = model(x)
        assert torch.allclose(fuse(model)(x), before, atol=1e-6)

    @pytest.mark.parametrize("pool", [nn.MaxPool2d(3, 2), nn.MaxPool2d(2, 1), nn.AvgPool2d(2)])
    def test_another_pool_keeps_its_meaning(
        self, pool: nn.Module, triton_machine: torch.device
    ) -> None:
        layers = nn.Conv2d(1, 2, 3, padding=1), BatchStatNorm(2), nn.ReLU(), pool
        model, x = nn.Sequential(*layers).to(triton_machine), torch.rand(2, 1, 5, 5)
        x = x.to(triton_machine)
        before = model(x)
        assert torch.allclose(fuse(model)(x), before, atol=1e-6)


def test_conv4_and_its_warps_reach_the_kernels(
    triton_machine: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but launches: no convolution of torch's is left, in either derivative."""
    from mdtheory.kernels import triton, triton_convolution

    for module in (triton, triton_convolution):
        monkeypatch.setattr(module, "launch", lambda *a, **k: None)
    own = MetaLearner(
        Conv4(in_channels=1, image_size=16, n_way=2, channels=2).double().to(triton_machine),
        "warpgrad",
        n_steps=1,
        probe="off",  # without its launches the network computes nothing
    )
    with Operations() as seen:
        own.estimator.batched = True
        own.meta_gradient(episodes(triton_machine, 16))
    assert not [name for name in seen.names if "convolution" in name]


class Operations(torch.utils._python_dispatch.TorchDispatchMode):
    """The names of all operations inside."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, func: object, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))
