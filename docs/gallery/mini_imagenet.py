# %% [markdown]
# # Photos: miniImageNet, if it is there
#
# Where the variable `MDTHEORY_MINI_IMAGENET` says the place of the images, this page trains on
# them, for half a minute's worth of learning. Where it does not, gratings of many colours and
# angles stand in, so that the page runs everywhere; the picture says which it was.

# %% tags=["hide-input"]
import sys

if "google.colab" in sys.modules:  # nowhere else is anything installed
    import subprocess

    install = [sys.executable, "-m", "pip", "install", "-q", "mdtheory"]
    subprocess.run(install, check=True)

# %% tags=["remove-stderr"]
import os

import matplotlib.pyplot as plt
import numpy as np
import torch

from mdtheory import (
    EpisodeStream,
    MetaLearner,
    TaskSet,
    evaluate,
    open_mini_imagenet,
)
from mdtheory.models import Conv4


def gratings():
    """Forty classes: a colour and an angle each; 12 pictures of each."""
    rng = np.random.default_rng(0)
    yy, xx = np.mgrid[:42, :42] / 42
    pictures, labels = [], []
    for label in range(40):
        colour, angle = rng.uniform(0.3, 1, 3), rng.uniform(0, np.pi)
        for _ in range(12):
            turn, phase = angle + rng.normal(0, 0.1), rng.uniform(0, 6)
            along = np.cos(turn) * xx + np.sin(turn) * yy
            wave = 0.5 + 0.5 * np.sin(25 * along + phase)
            noise = rng.normal(0, 0.15, (3, 42, 42))
            picture = colour[:, None, None] * wave + noise
            pictures.append(np.clip(255 * picture, 0, 255).astype(np.uint8))
            labels.append(label)
    return TaskSet(np.stack(pictures), labels, fractions=(0.5, 0.2, 0.3))


place = os.environ.get("MDTHEORY_MINI_IMAGENET")
name = "miniImageNet" if place else "gratings"
photos = open_mini_imagenet(place, image_size=42) if place else gratings()

# %%
sizes = {"n_way": 5, "n_shot": 5, "n_query": 5}
tasks = EpisodeStream(photos, split="train", seed=0, **sizes)
unseen = EpisodeStream(photos, split="test", seed=0, **sizes)
network = Conv4(image_size=42, n_way=5, channels=8, seed=0)
learner = MetaLearner(network, "metasgd", n_steps=3, task_lr=0.05)
optimizer = torch.optim.Adam(learner.parameters(), lr=3e-3)
for iteration in range(20):
    optimizer.zero_grad()
    found = learner.backward([tasks(2 * iteration + j) for j in range(2)])
    optimizer.step()
    if iteration % 5 == 0:
        print(f"{iteration:2d}: query loss {found.value:.2f}")
(scores,) = evaluate(learner, unseen, n_tasks=20)
print(f"{name}, 20 meta-iterations: {scores.estimate()} (guessing: 20%)")
assert scores.estimate().mean > 0.22

# %% [markdown]
# The most and the least certain answers of one task, with the class that was said and the one that
# is true. For answers that are calibrated, and for sets that hold the truth nine times in ten, see
# [`mdtheory adapt`](../how-to/own-images.md); for a learner that was trained longer,
# [](../how-to/ready-made.md).

# %%
task = unseen(0)
adapted = learner.adapt(task.support_x, task.support_y)
shares = adapted(task.query_x).softmax(-1)
sure, said = shares.max(-1)
order = sure.argsort(descending=True)
shown = torch.cat([order[:4], order[-4:]])
figure, axes = plt.subplots(2, 4, figsize=(7.2, 4.6))
for axis, k in zip(axes.flat, shown, strict=True):
    axis.imshow(task.query_x[k].permute(1, 2, 0).clip(0, 1))
    text = f"said {said[k]} ({100 * sure[k]:.0f}%), is {task.query_y[k]}"
    axis.set_title(text, fontsize=9)
    axis.axis("off")
figure.suptitle(f"{name}: the surest four, and the least sure")
figure.tight_layout()
plt.show()
assert sure[shown[0]] >= sure[shown[-1]]
