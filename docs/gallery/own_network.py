# %% [markdown]
# # Your own network, with batch normalisation
#
# A network as one writes it, with `BatchNorm2d` in it. *Whose* statistics normalise a batch of new
# pictures is a choice, and in few-shot learning it changes answers: the pictures to classify
# (`"transductive"`, as in the published codes), the support set (`"support"`), or running averages
# (`"running"`).

# %% tags=["hide-input"]
import sys

if "google.colab" in sys.modules:  # nowhere else is anything installed
    import subprocess

    install = [sys.executable, "-m", "pip", "install", "-q", "mdtheory"]
    subprocess.run(install, check=True)

# %%
import matplotlib.pyplot as plt
import torch
from torch import nn

from mdtheory import EpisodeStream, GlyphSet, MetaLearner, estimate


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 12, 3, stride=2, padding=1),
            nn.BatchNorm2d(12),
            nn.ReLU(inplace=True),
            nn.Conv2d(12, 12, 3, stride=2, padding=1),
            nn.BatchNorm2d(12),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Linear(12 * 7 * 7, 3)

    def forward(self, x):
        return self.head(self.body(x).flatten(1))


sizes = {"n_way": 3, "n_shot": 2, "n_query": 5}
letters = GlyphSet()
tasks = EpisodeStream(letters, split="train", seed=0, **sizes)
unseen = EpisodeStream(letters, split="test", seed=0, **sizes)


def trained(norm):
    torch.manual_seed(0)
    learner = MetaLearner(Net(), "metasgd", n_steps=3, task_lr=0.1, norm=norm)
    optimizer = torch.optim.Adam(learner.parameters(), lr=3e-3)
    for iteration in range(30):
        optimizer.zero_grad()
        learner.backward([tasks(4 * iteration + j) for j in range(4)])
        optimizer.step()
    return learner.eval()


learners = {n: trained(n) for n in ("transductive", "support", "running")}

# %% [markdown]
# Every learner answers twice: all fifteen pictures together, and one by one. Under `"transductive"`
# a picture alone is normalised by itself, and the answer changes. Deploy with `"support"`, or
# always ask in batches like those of training.


# %%
def answers(learner, task):
    adapted = learner.adapt(task.support_x, task.support_y)
    with torch.no_grad():
        together = adapted(task.query_x).argmax(-1)
        alone = torch.cat([adapted(x[None]).argmax(-1) for x in task.query_x])
    return together == task.query_y, alone == task.query_y


figure, axis = plt.subplots(figsize=(6.4, 3.2))
changed = {}
for row, (norm, learner) in enumerate(learners.items()):
    pairs = [answers(learner, unseen(k)) for k in range(25)]
    kinds = ("together", "o", 0.1), ("one by one", "s", -0.1)
    for which, (label, mark, shift) in enumerate(kinds):
        found = estimate(torch.stack([p[which].float().mean() for p in pairs]))
        axis.errorbar(
            100 * found.mean,
            row + shift,
            xerr=100 * found.half_width,
            fmt=mark,
            color=("#0072B2", "#D55E00")[which],
            capsize=3,
            label=label if row == 0 else None,
        )
    changed[norm] = sum(int((a != b).sum()) for a, b in pairs)
axis.set_yticks(range(3), list(learners))
axis.set(ylim=(2.5, -0.5), xlabel="accuracy (%), 3-way 2-shot")
axis.legend()
figure.tight_layout()
plt.show()
print("answers that the company changed, of 375:", changed)
assert changed["support"] == changed["running"] == 0
assert changed["transductive"] > 10
