# %% [markdown]
# # Recipes: ANIL and prototypical networks
#
# Two methods that one compares with, neither of which is a geometry. ANIL {cite}`raghu2020anil` is
# MAML that moves the head alone: one argument. A prototypical network {cite}`snell2017prototypical`
# takes no steps at all: twenty lines of torch beside ours, on the same tasks. The page trains all
# of them on Omniglot where `MDTHEORY_OMNIGLOT` says the place of it, and on the letters of the
# package elsewhere; the table says which it was.

# %%
import os
import time

import torch
from torch.nn.functional import cross_entropy

from mdtheory import EpisodeStream, GlyphSet, MetaLearner, estimate
from mdtheory.data import open_source
from mdtheory.models import Conv4

place = os.environ.get("MDTHEORY_OMNIGLOT")
images = open_source("omniglot", place) if place else GlyphSet()
sizes = {"n_way": 5, "n_shot": 1, "n_query": 5}
tasks = EpisodeStream(images, split="train", seed=0, **sizes)
unseen = EpisodeStream(images, split="test", seed=0, **sizes)


def network():
    return Conv4(in_channels=1, image_size=28, n_way=5, channels=16, seed=0)


def train(parameters, backward, iterations=60):
    """Adam on what `backward` gives for two tasks at a time."""
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    began = time.process_time()
    for iteration in range(iterations):
        optimizer.zero_grad()
        backward([tasks(2 * iteration + j) for j in range(2)])
        optimizer.step()
    return time.process_time() - began


def accuracies(solve, n_tasks=60):
    """The share of right answers on each of the same unseen tasks."""
    found = []
    for index in range(n_tasks):
        task = unseen(index)
        right = solve(task).argmax(-1) == task.query_y
        found.append(right.double().mean().item())
    return torch.tensor(found)


# %% [markdown]
# ## ANIL: `adapt="classifier.*"`
#
# In training and in tests the task solver moves the classifier alone; the body is meta-learned and
# shared by all tasks. Any geometry can take the place of `"maml"`. A head alone takes a larger rate
# than all layers: 0.1, which suits the latter, costs ANIL ten points here.

# %%
table = {}
for name, adapt, rate in (("MAML", "*", 0.1), ("ANIL", "classifier.*", 0.3)):
    learner = MetaLearner(
        network(), "maml", adapt=adapt, n_steps=3, task_lr=rate
    )
    seconds = train(learner.parameters(), learner.backward)
    scores = accuracies(
        lambda task, learner=learner: learner.adapt(
            task.support_x, task.support_y
        )(task.query_x)
    )
    moved = [key for key in learner.meta() if key.startswith("anchor.")]
    table[name] = (scores, seconds, len(moved))
    print(f"{name}: {len(moved)} tensors move in a task")
assert table["ANIL"][2] == 2 < table["MAML"][2]

# %% [markdown]
# ## A prototypical network
#
# A class is the mean embedding of its examples, $c_k=\frac1{|S_k|}\sum_{x\in S_k}f(x)$, and a query
# belongs to the nearest: $p(y=k\mid x)\propto\exp(-\lVert f(x)-c_k\rVert^2)$. Episodes are ordinary
# tensors, so nothing of ours is in the way.

# %%
embed = network()
embed.classifier = torch.nn.Identity()


def logits(task):
    inputs = torch.cat([task.support_x, task.query_x])
    points = embed(inputs).flatten(1)
    support, query = points.split([len(task.support_x), len(task.query_x)])
    centres = [support[task.support_y == k].mean(0) for k in range(5)]
    return -(torch.cdist(query, torch.stack(centres)) ** 2)


def backward(episodes):
    for task in episodes:
        (cross_entropy(logits(task), task.query_y) / len(episodes)).backward()


seconds = train(embed.parameters(), backward)
with torch.no_grad():
    table["prototypical network"] = (accuracies(logits), seconds, 0)

# %% [markdown]
# ## Beside each other
#
# Each difference is paired: the same unseen tasks, the same budget of training tasks, one seed.
# With so short a training the numbers say how the recipes work, not which method is better; the
# [results](../generated/results/index.md) are for that, and [](encoder.md) has prototypical
# networks beside learned geometries with 400 tasks.

# %%
print("Omniglot" if place else "letters of the package", "5-way 1-shot")
maml = table["MAML"][0]
for name, (scores, seconds, _) in table.items():
    text = f"{name:21s} {estimate(scores)}, trained in {seconds:.0f} s"
    if name != "MAML":
        text += f"; minus MAML {estimate(scores - maml)}"
    print(text)
    assert scores.mean() > 0.25  # guessing gives 0.2
assert table["ANIL"][1] < table["MAML"][1]  # the short way is the cheap one
