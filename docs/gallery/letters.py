# %% [markdown]
# # Letters from one example each
#
# Three letters of scripts that the network has never seen, one drawing of each: which is which?
# The pictures come with the package.

# %% tags=["hide-input"]
import sys

if "google.colab" in sys.modules:  # nowhere else is anything installed
    import subprocess

    install = [sys.executable, "-m", "pip", "install", "-q", "mdtheory"]
    subprocess.run(install, check=True)

# %%
import matplotlib.pyplot as plt
import torch

from mdtheory import EpisodeStream, GlyphSet, MetaLearner, evaluate
from mdtheory.models import Conv4

letters = GlyphSet()
sizes = {"n_way": 3, "n_shot": 1, "n_query": 3}
tasks = EpisodeStream(letters, split="train", seed=0, **sizes)
unseen = EpisodeStream(letters, split="test", seed=0, **sizes)
network = Conv4(in_channels=1, image_size=28, n_way=3, channels=12, seed=0)
learner = MetaLearner(network, "metasgd", n_steps=3, task_lr=0.1)
(before,) = evaluate(learner, unseen, n_tasks=30)

optimizer = torch.optim.Adam(learner.parameters(), lr=2e-3)
for iteration in range(50):
    optimizer.zero_grad()
    found = learner.backward([tasks(2 * iteration + j) for j in range(2)])
    optimizer.step()
    if iteration % 10 == 0:
        print(f"{iteration:2d}: query loss {found.value:.2f}")
(after,) = evaluate(learner, unseen, n_tasks=30)
print("untrained:", before.estimate())
print("after 50 meta-iterations:", after.estimate())
assert after.accuracy.mean() > before.accuracy.mean() > 1 / 3

# %% [markdown]
# One task with its answers. Wrong ones are red. Longer training helps: `mdtheory demo` takes 100
# iterations and 32 channels.

# %%
task = unseen(3)
adapted = learner.adapt(task.support_x, task.support_y)
answers = adapted(task.query_x).argmax(-1)
figure, axes = plt.subplots(4, 3, figsize=(4.2, 5.6))
for c in range(3):
    axes[0, c].imshow(1 - task.support_x[c, 0], cmap="gray")
    axes[0, c].set_title(f"shown: {c}", fontsize=9)
    for row, k in enumerate(range(3 * c, 3 * c + 3), start=1):
        right = answers[k] == task.query_y[k]
        axes[row, c].imshow(1 - task.query_x[k, 0], cmap="gray")
        axes[row, c].set_title(
            f"answer: {answers[k]}",
            fontsize=9,
            color="black" if right else "#D55E00",
        )
for axis in axes.flat:
    axis.axis("off")
figure.tight_layout()
plt.show()
assert answers.shape == (9,)
