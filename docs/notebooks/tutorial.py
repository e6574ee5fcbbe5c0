# %% [markdown]
# # Tutorial: a first learner, from data to an answer
#
# In half an hour: you look at few-shot tasks, meta-train a network on them, measure it on classes
# that it has never seen, compare two loss geometries fairly, and adapt the better one to a task of
# your own. All you need is the package; the pictures come with it. The page is executed whenever
# this site is built, so that every number on it was printed by the code above it.
#
# ## Tasks
#
# A *few-shot task* is small: a handful of labelled examples, the **support** set, to learn from,
# and a **query** set to be judged on. `GlyphSet` holds letters of many scripts, in many faces; its
# classes are split, so that no letter of the test split occurs in training.

# %%
import io

import matplotlib.pyplot as plt
import numpy as np
import torch

import mdtheory
from mdtheory import EpisodeStream, GlyphSet, MetaLearner, geometry, models

glyphs = GlyphSet()
sizes = {"n_way": 5, "n_shot": 1, "n_query": 5}
tasks = EpisodeStream(glyphs, split="train", seed=0, **sizes)
episode = tasks(0)
print(len(glyphs.classes("train")), "letters to train on,", end=" ")
print(len(glyphs.classes("test")), "others to test on")
print("support", tuple(episode.support_x.shape), end=", ")
print("query", tuple(episode.query_x.shape))

# %% [markdown]
# `tasks(i)` is task number $i$, always the same one: a stream is a function from numbers to tasks.
# Here is the first, a row for each class; the first column is all that the network may learn from.

# %%
figure, axes = plt.subplots(5, 6, figsize=(5, 4.4))
for c, row in enumerate(axes):
    support = episode.support_x[episode.support_y == c]
    query = episode.query_x[episode.query_y == c]
    for axis, image in zip(row, [*support, *query], strict=True):
        axis.imshow(image[0].numpy(), cmap="gray_r")
        axis.set(xticks=[], yticks=[])
    row[0].spines[:].set(color="tab:blue", linewidth=2.5)
    row[0].set_ylabel(f"class {c}")
axes[0, 0].set_title("support", color="tab:blue")
axes[0, 3].set_title("query")
plt.show()

# %% [markdown]
# ## A learner
#
# A `MetaLearner` joins three things:
#
# - a **network**, any `torch.nn.Module`;
# - a **geometry**: how a gradient moves the weights while a task is learned. `MAML` takes plain
#   gradient steps from a learned start; `MetaCurvature` also learns matrices that every gradient
#   is multiplied by;
# - a **budget**: the number of steps for a task, and their size.
#
# Start and geometry are both its parameters, and its `backward` computes their exact gradient.


# %%
def learner_with(loss_geometry):
    network = models.Conv4(
        in_channels=1, image_size=28, n_way=5, channels=16, seed=0
    )
    return MetaLearner(network, loss_geometry, n_steps=3, task_lr=0.1)


maml = learner_with(geometry.MAML())
curvature = learner_with(geometry.MetaCurvature())
for name, learner in {"MAML": maml, "MetaCurvature": curvature}.items():
    count = sum(p.numel() for p in learner.parameters())
    print(f"{name}: {count:,} meta-parameters")

# %% [markdown]
# ## Meta-training
#
# An ordinary training loop; a batch is a list of tasks. Both learners see the same tasks, start
# from the same weights and use the same optimizer.


# %%
def meta_train(learner, iterations=120):
    optimizer = torch.optim.Adam(learner.parameters(), lr=3e-3)
    history = []
    for iteration in range(iterations):
        optimizer.zero_grad()
        batch = [tasks(4 * iteration + j) for j in range(4)]
        result = learner.backward(batch)
        optimizer.step()
        history.append(result.value.item())
    return np.array(history)


losses = {"MAML": meta_train(maml), "MetaCurvature": meta_train(curvature)}

figure, axis = plt.subplots(figsize=(6, 3))
for name, values in losses.items():
    means = values.reshape(-1, 10).mean(1)
    axis.plot(range(10, len(values) + 1, 10), means, "o-", label=name)
axis.set(xlabel="meta-iteration", ylabel="query loss, means of 10")
axis.legend()
plt.show()
assert all(v[-30:].mean() < v[:30].mean() for v in losses.values())

# %% [markdown]
# Longer runs, with checkpoints, validation and a progress bar, are the business of `MetaTrainer`,
# or of `mdtheory train` on the command line ({doc}`../how-to/resume`).
#
# ## Evaluation
#
# `evaluate` adapts the learner to each of many test tasks and scores it on their queries.
# `estimate` is the mean accuracy over the tasks with its 95 % interval.

# %%
unseen = EpisodeStream(glyphs, split="test", seed=0, **sizes)
scores = {}
for name, learner in {"MAML": maml, "MetaCurvature": curvature}.items():
    (scores[name],) = mdtheory.evaluate(learner, unseen, n_tasks=150)
    print(f"{name}: {scores[name].estimate()}")
assert all(s.estimate().mean > 0.25 for s in scores.values())  # chance: 0.2

# %% [markdown]
# ## Which of the two is better?
#
# Two intervals that overlap decide nothing: most of their width is the difficulty of the tasks,
# which is the same for both. On the same tasks the *difference* can be taken task by task, and its
# interval is much narrower.

# %%
difference = mdtheory.paired(scores["MAML"], scores["MetaCurvature"])
print("MetaCurvature minus MAML:", difference)
if difference.half_width < abs(difference.mean):
    word = "higher" if difference.mean > 0 else "lower"
    print(f"on these tasks, the accuracy of these weights is {word}")
else:
    print("these tasks do not tell which is better")
own = [s.estimate().half_width for s in scores.values()]
assert difference.half_width < sum(own)

# %% [markdown]
# What that interval covers is the choice of the *test tasks*. It says nothing about another random
# start or another order of training tasks: for a statement about the two *methods* train each from
# several seeds, and longer. [The tables](../generated/results/index.md) do that, and say how many
# seeds stand behind each answer.
#
# ## Along one adaptation
#
# `trace` follows one task step by step. The support loss should fall; the query loss is what
# counts.

# %%
new = unseen(0)
figure, axes = plt.subplots(1, 2, figsize=(7, 3), sharey=True)
for name, learner in {"MAML": maml, "MetaCurvature": curvature}.items():
    path = learner.trace(new)
    axes[0].plot(path.support_loss.detach().numpy(), "o-", label=name)
    axes[1].plot(path.query_loss.detach().numpy(), "o-", label=name)
axes[0].set(title="support set", xlabel="task step", ylabel="loss")
axes[1].set(title="queries", xlabel="task step")
axes[0].set_xticks(range(4))
axes[1].set_xticks(range(4))
axes[0].legend()
plt.show()
assert path.support_loss[-1] < path.support_loss[0]

# %% [markdown]
# ## Save, load, adapt
#
# A learner is an `nn.Module`, and is saved as every other. `adapt` takes the support set of a task
# and gives an ordinary module back: the network with the adapted weights.

# %%
file = io.BytesIO()  # or a path
torch.save(curvature.state_dict(), file)
file.seek(0)
again = learner_with(geometry.MetaCurvature())
again.load_state_dict(torch.load(file, weights_only=True))

adapted = again.adapt(new.support_x, new.support_y)
answers = adapted(new.query_x).argmax(-1)
right = (answers == new.query_y).float().mean()
print(f"{right:.0%} of {len(answers)} queries of the new task are right")
before = curvature.adapt(new.support_x, new.support_y)(new.query_x)
assert torch.equal(before.argmax(-1), answers)

# %% [markdown]
# (A run of `mdtheory train` is loaded by `mdtheory.load("runs/name")`, with its network and its
# geometry.)
#
# ## Where to go next
#
# - your own network, other parts to adapt, other losses: {doc}`../how-to/own-model`;
# - your own pictures: {doc}`../how-to/own-images`;
# - a geometry of your own in one file: {doc}`../how-to/own-geometry`;
# - why geometry might matter at all: {doc}`01_regression` and the pages after it;
# - what is true of the theory: {doc}`../generated/ledger`.
