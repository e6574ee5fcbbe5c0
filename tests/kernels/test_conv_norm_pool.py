"""The compiled block against ordinary torch operations: values, first and second derivatives, and
what it refuses.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, hessian, jacrev, vmap

from mdtheory.kernels import compile, conv_norm_pool, cpp, plain, suits
from mdtheory.kernels.conv_norm_pool import conv_norm_pool as fused
from mdtheory.models.conv4 import ConvBlock
from mdtheory.models.norm import set_policy, statistics_over_first

EPS = 1e-5
Block = Callable[..., Tensor]


@pytest.fixture(autouse=True)
def at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv_norm_pool, "WORTHWHILE", 0)


needs_compiler = pytest.mark.skipif(
    compile.library() is None, reason="no C++ compiler on this machine: there is nothing to test"
)


def ordinary(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    eps: float,
    counted: int,
) -> Tensor:
    """The same block as autograd knows it."""
    u = F.conv2d(x, weight, bias, padding=1)
    mean = u[:counted].mean((0, 2, 3), keepdim=True)
    var = (u[:counted] - mean).square().mean((0, 2, 3), keepdim=True)
    normed = (u - mean) * torch.rsqrt(var + eps) * gamma[:, None, None] + beta[:, None, None]
    return F.relu(F.max_pool2d(normed, 2))


def inputs(
    n: int, b: int, c: int, h: int, w: int, *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, ...]:
    draw = torch.Generator().manual_seed(seed)
    shapes = [(n, b, h, w), (c, b, 3, 3), (c,), (c,), (c,)]
    return tuple(
        torch.randn(shape, generator=draw, dtype=dtype).requires_grad_() for shape in shapes
    )


def derivatives(call: Block, args: tuple[Tensor, ...], counted: int) -> list[Tensor]:
    """Value, all first derivatives along a cotangent, and all derivatives of those along further
    cotangents.
    """
    draw = torch.Generator().manual_seed(1)
    y = call(*args, eps=EPS, counted=counted)
    gy = torch.randn(y.shape, generator=draw, dtype=y.dtype).requires_grad_()
    first = torch.autograd.grad(y, args, gy, create_graph=True)
    own = [
        i for i in range(len(args)) if i != 2
    ]  # the gradient of the bias is an exact 0 here, and a rounded one there
    along = [torch.randn(first[i].shape, generator=draw, dtype=y.dtype) for i in own]
    second = torch.autograd.grad(
        [first[i] for i in own], (gy, *args), along, materialize_grads=True
    )
    return [t.detach() for t in (y, *first, *second)]


def worst(call: Block, args: tuple[Tensor, ...], counted: int) -> float:
    """The largest difference to the ordinary block, relative to the largest entry of what is
    compared.
    """
    pairs = zip(derivatives(call, args, counted), derivatives(ordinary, args, counted), strict=True)
    return max(
        float((one - other).abs().max() / other.abs().max().clamp(min=1)) for one, other in pairs
    )


SIZES = [
    (4, 3, 5, 7, 6, 4),
    (5, 2, 16, 6, 9, 3),
    (1, 1, 1, 2, 2, 1),
    (3, 4, 19, 5, 5, 3),
    (6, 3, 8, 4, 12, 1),
]


@needs_compiler
class TestDerivatives:
    @pytest.mark.parametrize(("n", "b", "c", "h", "w", "counted"), SIZES)
    @pytest.mark.parametrize("seed", [0, 1])
    def test_equal_the_ordinary_ones(
        self, n: int, b: int, c: int, h: int, w: int, counted: int, seed: int
    ) -> None:
        assert worst(fused, inputs(n, b, c, h, w, seed=seed), counted) < 1e-11

    def test_in_chunks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cpp, "CHUNK", 150)
        assert worst(fused, inputs(7, 2, 3, 6, 6), 5) < 1e-11

    @pytest.mark.parametrize("level", [1.0, 0.0], ids=["beside zero", "at zero"])
    def test_where_gamma_is_zero(self, level: float) -> None:
        """With a beta of 0 too, every z is 0, where a rectifier's slope is 0."""
        x, weight, bias, gamma, beta = inputs(4, 2, 3, 6, 6)
        with torch.no_grad():
            gamma *= torch.tensor([1.0, 0.0, -1.0], dtype=gamma.dtype)
            beta *= torch.tensor([1.0, level, 1.0], dtype=beta.dtype)
        assert worst(fused, (x, weight, bias, gamma, beta), 4) < 1e-11

    @pytest.mark.parametrize(
        ("name", "row"),
        [
            ("moments", 1),
            ("reduce", 0),
            ("reduce", 1),
            ("reduce_v", 0),
            ("reduce_v", 1),
            ("reduce_v", 2),
        ],
    )
    def test_see_every_sum_left_out(
        self, monkeypatch: pytest.MonkeyPatch, name: str, row: int
    ) -> None:
        whole = getattr(cpp, name)

        def without(*args: object, **options: object) -> Tensor:
            total = whole(*args, **options)
            total[:, row] *= 0.5
            return total

        monkeypatch.setattr(cpp, name, without)
        assert worst(fused, inputs(4, 3, 5, 7, 6), 4) > 1e-4

    @pytest.mark.parametrize("key", ["level", "slope", "by_v", "by_g", "scale"])
    def test_see_every_coefficient_of_the_second_one(
        self, monkeypatch: pytest.MonkeyPatch, key: str
    ) -> None:
        def spoil(loop: Callable[..., Tensor]) -> Callable[..., Tensor]:
            return lambda *args, **options: loop(
                *args, **(options | {k: 0.5 * v for k, v in options.items() if k == key})
            )

        monkeypatch.setattr(cpp, "scatter_v", spoil(cpp.scatter_v))
        monkeypatch.setattr(cpp, "sparse", spoil(cpp.sparse))
        assert worst(fused, inputs(4, 3, 5, 7, 6), 4) > 1e-4

    def test_the_input_may_be_a_constant(self) -> None:
        x, *rest = inputs(4, 3, 5, 7, 6)

        def meta(call: Block) -> Tensor:
            y = call(x.detach(), *rest, eps=EPS, counted=4)
            slopes = torch.autograd.grad(y.square().sum(), rest, create_graph=True)
            return torch.autograd.grad(sum(s.square().sum() for s in slopes), rest[0])[0]

        assert torch.allclose(meta(fused), meta(ordinary), rtol=1e-10)

    def test_float32_is_as_good_as_the_ordinary_one(self) -> None:
        args = inputs(8, 3, 16, 12, 12)
        low = tuple(a.detach().float().requires_grad_() for a in args)
        exact = derivatives(
            ordinary, tuple(a.detach().float().double().requires_grad_() for a in args), 8
        )

        def error(call: Block) -> float:
            return max(
                float((a - b).norm() / b.norm().clamp(min=1))
                for a, b in zip(derivatives(call, low, 8), exact, strict=True)
            )

        assert error(fused) < max(3 * error(ordinary), 1e-5)

    def test_a_third_one_is_refused(self) -> None:
        args = inputs(3, 2, 2, 4, 4)
        y = fused(*args, eps=EPS, counted=3)
        first = torch.autograd.grad(y.square().sum(), args[1], create_graph=True)[0]
        second = torch.autograd.grad(first.square().sum(), args[1], create_graph=True)[0]
        with pytest.raises(RuntimeError, match="plain"):
            torch.autograd.grad(second.square().sum(), args[1])


@needs_compiler
class TestLoops:
    def test_do_not_depend_on_the_number_of_threads(self) -> None:
        x, weight, *vectors = inputs(6, 3, 16, 9, 8, dtype=torch.float32)
        bias, gamma, beta = (v.unsqueeze(0) for v in vectors)
        before, results = torch.get_num_threads(), []
        u = F.conv2d(x, weight, padding=1).detach().contiguous(memory_format=torch.channels_last)
        try:
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                y, code = cpp.pool(u, sign=gamma.sign(), scale=gamma, mean=beta, beta=bias)
                results.append([cpp.moments(u, beta, counted=6), y, cpp.reduce(y, u, code, beta)])
        finally:
            torch.set_num_threads(before)
        assert all(
            torch.equal(a, b)
            for other in results[1:]
            for a, b in zip(results[0], other, strict=True)
        )

    def test_a_nan_is_not_swallowed(self) -> None:
        x, *rest = inputs(4, 2, 3, 6, 6)
        spoilt = x.detach().clone()
        spoilt[0, 0, 0, 0] = float("nan")
        assert fused(spoilt, *rest, eps=EPS, counted=4).isnan().any()


@needs_compiler
class TestTransforms:
    def test_vmap_is_the_loop(self) -> None:
        xs = torch.stack([inputs(3, 2, 4, 6, 6, seed=s)[0].detach() for s in range(3)])
        _, *rest = (a.detach() for a in inputs(3, 2, 4, 6, 6))

        def slope(x: Tensor) -> Tensor:
            return grad(lambda w: fused(x, w, *rest[1:], eps=EPS, counted=3).square().sum())(
                rest[0]
            )

        assert torch.equal(vmap(slope)(xs), torch.stack([slope(x) for x in xs]))
        assert torch.equal(vmap(slope, 2)(xs.movedim(0, 2)), vmap(slope)(xs))

    @pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
    def test_whole_jacobians_and_hessians_are_right(self) -> None:
        net = ConvBlock(1, 2).double()
        x = torch.randn(2, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

        def value(w: Tensor) -> Tensor:
            return torch.func.functional_call(net, {"conv.weight": w}, (x,)).square().sum()

        w = net.conv.weight.detach()
        fast = jacrev(grad(value))(w), hessian(value)(w), jacrev(jacrev(jacrev(value)))(w)
        with plain():
            slow = jacrev(grad(value))(w), hessian(value)(w), jacrev(jacrev(jacrev(value)))(w)
        assert all(
            torch.allclose(a, b, rtol=1e-9, atol=1e-9) for a, b in zip(fast, slow, strict=True)
        )


class TestConvBlock:
    def test_takes_the_compiled_path_where_it_can(self, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[int] = []
        monkeypatch.setattr(
            conv_norm_pool, "conv_norm_pool", lambda x, *_, **__: calls.append(1) or x
        )
        ConvBlock(3, 4)(torch.rand(2, 3, 8, 8))
        assert len(calls) == (compile.library() is not None)

    @pytest.mark.parametrize("policy", ["transductive", "support", "running"])
    @pytest.mark.parametrize("training", [True, False])
    def test_equals_the_plain_path_under_every_policy(self, policy: str, training: bool) -> None:
        net = set_policy(ConvBlock(3, 4).double().train(training), policy)
        x = torch.randn(6, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        with statistics_over_first(4):
            fast = net(x)
            with plain():
                slow = net(x)
        assert torch.allclose(fast, slow, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("where", ["conv", "norm"])
    def test_a_hook_is_not_passed_over(self, where: str) -> None:
        net, x = ConvBlock(3, 4), torch.rand(2, 3, 8, 8)
        before = net(x)
        net.get_submodule(where).register_forward_hook(
            lambda module, args, output: output + torch.arange(2.0)[:, None, None, None]
        )
        assert not torch.allclose(net(x), before)

    @pytest.mark.filterwarnings(
        "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::torch.jit.TracerWarning"
    )
    def test_can_be_exported_and_traced(self) -> None:
        net, x = ConvBlock(3, 4).requires_grad_(False), torch.rand(2, 3, 8, 8)
        assert torch.allclose(torch.export.export(net, (x,)).module()(x), net(x), atol=1e-5)
        assert torch.allclose(torch.jit.trace(net, (x,))(x), net(x), atol=1e-5)

    def test_small_batches_are_left_to_ordinary_operations(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(conv_norm_pool, "WORTHWHILE", 2**16)
        weight = torch.rand(64, 3, 3, 3)
        assert not suits(torch.rand(1, 3, 31, 32), weight)
        assert suits(torch.rand(1, 3, 32, 32), weight) == (compile.library() is not None)

    def test_half_precision_and_empty_batches_go_the_plain_way(self) -> None:
        weight = torch.rand(4, 3, 3, 3)
        assert not suits(torch.rand(0, 3, 8, 8), weight)
        assert not suits(torch.rand(2, 3, 8, 8).half(), weight.half())
        assert not suits(torch.rand(2, 3, 8, 8).double(), weight)
        assert not suits(torch.rand(2, 3, 8, 1), weight)

    def test_shapes_that_do_not_belong_together_go_the_plain_way_which_refuses_them(self) -> None:
        """The loops read past the end of a vector that is too short."""
        x, weight, four = torch.rand(2, 3, 8, 8), torch.rand(4, 3, 3, 3), torch.rand(4)
        assert suits(x, weight, four, four) == (compile.library() is not None)
        assert not suits(x[:, :2], weight, four, four)
        assert not suits(x, weight, four[:3], four)
        assert not suits(x, weight, four, torch.rand(8))

    def test_autocast_chooses_the_types(self) -> None:
        net, x = ConvBlock(3, 4), torch.rand(2, 3, 8, 8)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = net(x)
            with plain():
                expected = net(x)
        assert torch.equal(found, expected) and not torch.equal(found, net(x))


class TestBuild:
    def test_without_a_compiler_the_network_still_runs(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(compile, "COMPILERS", ())
        monkeypatch.delenv("CXX", raising=False)
        fresh = compile.library.__wrapped__
        assert fresh() is None
        assert "install g++" in caplog.text
        monkeypatch.setattr(conv_norm_pool, "library", fresh)
        assert ConvBlock(3, 4)(torch.rand(2, 3, 8, 8)).shape == (2, 4, 4, 4)

    def test_a_broken_compiler_is_said_and_survived(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: object
    ) -> None:
        monkeypatch.setenv("CXX", "false")
        monkeypatch.setenv("MDTHEORY_CACHE", str(tmp_path))
        assert compile.library.__wrapped__() is None
        assert "cannot be built" in caplog.text

    @needs_compiler
    def test_what_was_built_is_found_again(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: object
    ) -> None:
        monkeypatch.setenv("MDTHEORY_CACHE", str(tmp_path))
        assert compile.library.__wrapped__() is not None
        assert "once on this machine" in caplog.text
        caplog.clear()
        assert compile.library.__wrapped__() is not None
        assert caplog.text == ""
