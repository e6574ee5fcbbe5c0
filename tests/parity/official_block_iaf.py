"""The official BlockIAF once more, slow and obvious: one tensor at a time in numpy, every number
carried with its derivative.

Written from the description of the public code (which layers exist, their shapes, the order of
``parameters()``) and from nothing in the library. A ``Dual`` is a value with its tangent, so that
f(x + eps v) = f(x) + eps J v comes out exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Dual:
    value: np.ndarray
    tangent: np.ndarray

    def reshape(self, *shape):
        return Dual(self.value.reshape(*shape), self.tangent.reshape(*shape))

    def __add__(self, other):
        return Dual(self.value + other.value, self.tangent + other.tangent)

    def __mul__(self, other):
        return Dual(
            self.value * other.value, self.tangent * other.value + self.value * other.tangent
        )


def relu(x):
    return Dual(np.where(x.value > 0, x.value, 0.0), np.where(x.value > 0, x.tangent, 0.0))


def exp(x):
    return Dual(np.exp(x.value), np.exp(x.value) * x.tangent)


def join(duals):
    return Dual(
        np.concatenate([d.value.ravel() for d in duals]),
        np.concatenate([d.tangent.ravel() for d in duals]),
    )


def bilinear(subscripts, a, b):
    return Dual(
        np.einsum(subscripts, a.value, b.value),
        np.einsum(subscripts, a.tangent, b.value) + np.einsum(subscripts, a.value, b.tangent),
    )


MODE_PRODUCTS = {
    1: ["oi,i->o"],
    2: ["oi,ib->ob", "oi,ai->ao"],
    3: ["oi,ibc->obc", "oi,aic->aoc", "oi,abi->abo"],
}


def as_modes(shape):
    return shape if len(shape) < 3 else (shape[0], shape[1], int(np.prod(shape[2:])))


def half(shape):
    return tuple(n // 2 if n >= 2 else 1 for n in shape)


def kron_shapes(small, large):
    """bias first, then one matrix a mode; maps ``small`` to ``large``."""
    return [large] + [(o, i) for o, i in zip(large, small, strict=True)]


def official_shapes(shapes, blocks):
    """The shapes of the official map's tensors in the order of its ``parameters()``."""
    listed = []
    first, *later = blocks
    for name in [n for block in blocks[:-1] for n in block]:
        full = as_modes(shapes[name])
        for _ in range(3):
            listed += kron_shapes(full, half(full))
            full = half(full)
    for name in [n for block in later for n in block]:
        full = as_modes(shapes[name])
        listed += kron_shapes(half(half(half(full))), half(half(full)))
        listed += kron_shapes(half(half(full)), half(full))
        listed += kron_shapes(half(full), full) * 2
    size = sum(int(np.prod(shapes[name])) for name in first)
    listed += [(size,), (size,)]
    for i in range(1, len(blocks)):
        n_in = sum(seed_size(shapes[n]) for block in blocks[:i] for n in block)
        n_out = sum(seed_size(shapes[n]) for n in blocks[i])
        listed += [(n_out, n_in), (n_out,)]
    return listed


def seed_size(shape):
    return int(np.prod(half(half(half(as_modes(shape))))))


def take_kron(tensors, n_modes):
    return [next(tensors) for _ in range(1 + n_modes)]


def apply_kron(layer, x):
    bias, *matrices = layer
    for subscripts, matrix in zip(MODE_PRODUCTS[len(matrices)], matrices, strict=True):
        x = bilinear(subscripts, matrix, x)
    return x + bias


def official_map(tensors, z, blocks):
    """phi = g(z). ``tensors``: Duals in official order; ``z``: Duals by name."""
    tensors = iter(tensors)
    shapes = {name: d.value.shape for name, d in z.items()}
    n_modes = {name: len(as_modes(shape)) for name, shape in shapes.items()}
    encoders = {
        n: [take_kron(tensors, n_modes[n]) for _ in range(3)]
        for block in blocks[:-1]
        for n in block
    }
    decoders = {
        n: [take_kron(tensors, n_modes[n]) for _ in range(4)] for block in blocks[1:] for n in block
    }
    log_weight, offset = next(tensors), next(tensors)
    linears = [(next(tensors), next(tensors)) for _ in blocks[1:]]
    phi = {}
    whole = join([z[name] for name in blocks[0]]) * exp(log_weight) + offset
    at = 0
    for name in blocks[0]:
        size = z[name].value.size
        phi[name] = Dual(whole.value[at : at + size], whole.tangent[at : at + size]).reshape(
            shapes[name]
        )
        at += size
    codes = []
    for i in range(1, len(blocks)):
        for name in blocks[i - 1]:
            x = z[name].reshape(as_modes(shapes[name]))
            for layer in encoders[name]:
                x = relu(apply_kron(layer, x))
            codes.append(x)
        weight, bias = linears[i - 1]
        seeds = bilinear("oi,i->o", weight, join(codes)) + bias
        at = 0
        for name in blocks[i]:
            size, full = seed_size(shapes[name]), as_modes(shapes[name])
            x = Dual(seeds.value[at : at + size], seeds.tangent[at : at + size]).reshape(
                half(half(half(full)))
            )
            at += size
            layer_1, layer_2, head_scale, head_shift = decoders[name]
            x = relu(apply_kron(layer_2, relu(apply_kron(layer_1, relu(x)))))
            scale, shift = exp(apply_kron(head_scale, x)), apply_kron(head_shift, x)
            phi[name] = z[name] * scale.reshape(shapes[name]) + shift.reshape(shapes[name])
    if next(tensors, None) is not None:
        raise AssertionError("tensors left over")
    return phi
