"""Reparametrised weights, recurrent layers, attention and blocks of language models."""

from __future__ import annotations

import functools
import math
import warnings

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from tests.models.user.zoo_base import (
    Last,
    Net,
    W,
    _Function,
    add,
    sequence,
    tokens,
    vector,
)

# reparametrised weights
vector("weight_norm", lambda: parametrizations.weight_norm(nn.Linear(W, W)))
vector(
    "spectral_norm in evaluation", lambda: parametrizations.spectral_norm(nn.Linear(W, W)).eval()
)
vector("spectral_norm in training", lambda: parametrizations.spectral_norm(nn.Linear(W, W)))
vector("orthogonal", lambda: parametrizations.orthogonal(nn.Linear(W, W), orthogonal_map="cayley"))
vector("torch._weight_norm by hand", lambda: _HandWeightNorm())
vector("own parametrization", lambda: _symmetric())
vector("old weight_norm", lambda: _old(nn.utils.weight_norm))
vector("old spectral_norm", lambda: _old(nn.utils.spectral_norm))
vector("low-rank update", lambda: _LowRank())
vector("low-rank update folded by train(False)", lambda: _Folding())


class _HandWeightNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.v, self.g = nn.Parameter(torch.randn(W, W)), nn.Parameter(torch.ones(W, 1))

    def forward(self, x):
        return x @ torch._weight_norm(self.v, self.g, 0).T


class _Symmetric(nn.Module):
    def forward(self, weight):
        return weight.triu() + weight.triu(1).mT


def _symmetric():
    layer = nn.Linear(W, W)
    parametrize.register_parametrization(layer, "weight", _Symmetric())
    return layer


def _old(wrap):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return wrap(nn.Linear(W, W))


class _LowRank(nn.Linear):
    def __init__(self):
        super().__init__(W, W)
        self.up, self.down = nn.Parameter(torch.zeros(W, 2)), nn.Parameter(torch.randn(2, W))

    def forward(self, x):
        return F.linear(x, self.weight + self.up @ self.down, self.bias)


class _Folding(_LowRank):
    folded = False

    def train(self, mode=True):
        super().train(mode)
        if mode and self.folded:
            self.weight.data -= (self.up @ self.down).data
        if not mode and not self.folded:
            self.weight.data += (self.up @ self.down).data
        self.folded = not mode
        return self

    def forward(self, x):
        weight = self.weight if self.folded else self.weight + self.up @ self.down
        return F.linear(x, weight, self.bias)


# sequences
for kind in (nn.RNN, nn.LSTM, nn.GRU):
    sequence(kind.__name__, functools.partial(kind, W, W, batch_first=True))
sequence("LSTM, two layers, both ways", lambda: nn.LSTM(
    W, 2, num_layers=2, bidirectional=True, batch_first=True))  # fmt: skip
sequence("LSTM projected", lambda: nn.LSTM(W, 6, proj_size=W, batch_first=True))
sequence("LSTM with dropout", lambda: nn.LSTM(W, W, num_layers=2, dropout=0.2, batch_first=True))
sequence("LSTMCell", lambda: _Cell())
sequence("MultiheadAttention", lambda: _Attention())
sequence("MultiheadAttention without weights", lambda: _Attention(need_weights=False))
sequence("fused attention", lambda: _Function(_attend))
sequence("fused causal attention", lambda: _Function(functools.partial(_attend, causal=True)))
sequence("TransformerEncoderLayer", lambda: nn.TransformerEncoderLayer(
    W, 2, 8, dropout=0.0, batch_first=True))  # fmt: skip
sequence("TransformerEncoderLayer, norm first", lambda: nn.TransformerEncoderLayer(
    W, 2, 8, dropout=0.0, batch_first=True, norm_first=True))  # fmt: skip
sequence("TransformerEncoderLayer with dropout", lambda: nn.TransformerEncoderLayer(
    W, 2, 8, batch_first=True))  # fmt: skip
sequence("packed sequence", lambda: _Packed())
add("Embedding", lambda: Last(nn.Embedding(7, W)), tokens)
add("Embedding with padding", lambda: Last(nn.Embedding(7, W, padding_idx=0)), tokens)
add("Embedding with max_norm", lambda: Last(nn.Embedding(7, W, max_norm=1.0)), tokens)
add("Embedding, sparse", lambda: Last(nn.Embedding(7, W, sparse=True)), tokens)
add("EmbeddingBag", lambda: Net(nn.EmbeddingBag(7, W)), tokens)
add("EmbeddingBag, sum", lambda: Net(nn.EmbeddingBag(7, W, mode="sum")), tokens)
add("GPT-like block", lambda: _GPT(), tokens)
add("BERT-like block", lambda: _BERT(), tokens)


class _Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(W, W)

    def forward(self, x):
        h = c = x.new_zeros(len(x), W)
        rows = []
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t], (h, c))
            rows.append(h)
        return torch.stack(rows, 1)


class _Attention(nn.Module):
    def __init__(self, need_weights=True):
        super().__init__()
        self.attention, self.need_weights = (
            nn.MultiheadAttention(W, 2, batch_first=True),
            need_weights,
        )

    def forward(self, x):
        return self.attention(x, x, x, need_weights=self.need_weights)[0]


def _attend(x, causal=False):
    return F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None], is_causal=causal)[
        :, 0
    ]


class _Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRU(W, W, batch_first=True)

    def forward(self, x):
        lengths = torch.full((len(x),), x.shape[1])
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        return nn.utils.rnn.pad_packed_sequence(self.cell(packed)[0], batch_first=True)[0]


class _GPT(nn.Module):
    """Token and position embeddings, a causal block, a head tied to the embedding; the mask is
    built at the first call and kept.
    """

    def __init__(self):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(7, W), nn.Embedding(5, W)
        self.norm1, self.norm2 = nn.LayerNorm(W), nn.LayerNorm(W)
        self.qkv, self.out = nn.Linear(W, 3 * W), nn.Linear(W, W)
        self.mlp = nn.Sequential(nn.Linear(W, 8), nn.GELU("tanh"), nn.Linear(8, W))
        self.head = nn.Linear(W, 7, bias=False)
        self.head.weight = self.wte.weight
        self.mask = None

    def forward(self, ids):
        t = ids.shape[1]
        if self.mask is None:
            self.mask = torch.ones(t, t).tril().bool()
        x = self.wte(ids) + self.wpe(torch.arange(t))
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask))
        x = x + self.mlp(self.norm2(x))
        return self.head(x).mean(1)


class _BERT(nn.Module):
    """Embeddings, an encoder layer, a pooled first token; attention weights are kept."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, W, padding_idx=0)
        self.register_buffer("position", torch.randn(1, 5, W))
        self.query, self.key, self.value = (nn.Linear(W, W) for _ in range(3))
        self.norm, self.pooler, self.head = nn.LayerNorm(W), nn.Linear(W, W), nn.Linear(W, 3)

    def forward(self, ids):
        x = self.embedding(ids) + self.position
        scores = self.query(x) @ self.key(x).mT / math.sqrt(W)
        self.attention = scores.softmax(-1)
        x = self.norm(x + self.attention @ self.value(x))
        return self.head(torch.tanh(self.pooler(x[:, 0])))
