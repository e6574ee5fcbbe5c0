# %% [markdown]
# # A transformer, moved by low-rank factors
#
# A transformer has many weights and a new task has few examples. So let a task move *low-rank
# factors* of some weights, as LoRA does (hu2022lora), or the head alone, or everything, and learn
# the start and the geometry of just that part over many tasks. Here torch's own
# `nn.TransformerEncoder` reads short series: which of three unseen kinds of wave is it?

# %% tags=["hide-input"]
import sys

if "google.colab" in sys.modules:  # nowhere else is anything installed
    import subprocess

    install = [sys.executable, "-m", "pip", "install", "-q", "mdtheory"]
    subprocess.run(install, check=True)

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from mdtheory import MetaLearner, TaskSet, evaluate
from mdtheory.models import LOW_RANK, with_low_rank


class Reader(nn.Module):
    def __init__(self, width=24):
        super().__init__()
        self.embed = nn.Linear(4, width)
        self.place = nn.Parameter(0.1 * torch.randn(8, width))
        layer = nn.TransformerEncoderLayer(
            width, 2, 2 * width, dropout=0.0, batch_first=True
        )
        self.encoder = nn.TransformerEncoder(
            layer, 1, enable_nested_tensor=False
        )
        self.head = nn.Linear(width, 3)

    def forward(self, x):  # (n, 32): eight words of four numbers
        words = self.embed(x.unflatten(1, (8, 4))) + self.place
        return self.head(self.encoder(words).mean(1))


rng = np.random.default_rng(0)
kind = np.arange(30).repeat(20)
speed, bend = rng.uniform(1, 5, 30)[kind], rng.uniform(-2, 2, 30)[kind]
at = np.linspace(0, 2 * np.pi, 32) + rng.uniform(0, 6.3, (600, 1))
wave = np.sin(speed[:, None] * at) + bend[:, None] * np.cos(2 * at)
series = TaskSet(
    wave + rng.normal(0, 0.3, wave.shape), kind, fractions=(0.5, 0.1, 0.4)
)
sizes = {"n_way": 3, "n_shot": 3, "n_query": 5}
tasks = series.stream("train", seed=0, **sizes)
unseen = series.stream("test", seed=0, **sizes)

# %% [markdown]
# Three learners from the same weights. `with_low_rank` gives a weight $W$ the form
# $W+\text{up}\,\text{down}$ with $W$ frozen; `adapt=` says what a task may move.

# %%
torch.manual_seed(0)
reader = Reader()
factored = with_low_rank(
    reader, ["*.linear1.weight", "*.linear2.weight"], rank=2
)
parts = {
    "the head": (reader, ["head.*"]),
    "factors and head": (factored, [LOW_RANK, "head.*"]),
    "everything": (reader, ["*"]),
}
found = {}
for name, (network, adapt) in parts.items():
    learner = MetaLearner(
        network, "metasgd", n_steps=3, task_lr=0.1, adapt=adapt
    )
    optimizer = torch.optim.Adam(learner.parameters(), lr=3e-3)
    for iteration in range(40):
        optimizer.zero_grad()
        learner.backward([tasks(3 * iteration + j) for j in range(3)])
        optimizer.step()
    moved = sum(
        v.numel() for k, v in learner.meta().items() if k.startswith("anchor.")
    )
    (scores,) = evaluate(learner, unseen, n_tasks=50)
    found[name] = moved, scores.estimate()
    print(f"{name}: {moved} numbers move, {scores.estimate()}")

# %%
figure, axes = plt.subplots(1, 2, figsize=(9.4, 3.2))
for label in range(3):
    axes[0].plot(unseen(0).support_x[3 * label], label=f"kind {label}")
axes[0].set(title="one example of each kind", xlabel="time")
axes[0].legend(fontsize=8)
for row, (moved, one) in enumerate(found.values()):
    axes[1].errorbar(
        100 * one.mean, row, xerr=100 * one.half_width, fmt="o", capsize=3
    )
    axes[1].annotate(
        f"{moved} numbers",
        (100 * one.mean, row),
        (0, 8),
        textcoords="offset points",
        ha="center",
        fontsize=9,
    )
axes[1].set_yticks(range(3), list(found))
axes[1].set(ylim=(2.5, -0.5), xlabel="accuracy (%), 3-way 3-shot")
figure.tight_layout()
plt.show()
numbers = [moved for moved, _ in found.values()]
assert numbers[0] < numbers[1] < numbers[2]
assert min(one.mean for _, one in found.values()) > 0.45  # guessing: 1/3
