# %% [markdown]
# # Sinusoids: learning to learn a curve
#
# Every task is one sine wave, of its own amplitude and phase; five points of it are shown. A
# network that was trained on all waves at once answers with their mean. A meta-learned *start* is
# near all of them, and a meta-learned *geometry* gets nearer to each in the same few steps.

# %% tags=["hide-input"]
import sys

if "google.colab" in sys.modules:  # nowhere else is anything installed
    import subprocess

    install = [sys.executable, "-m", "pip", "install", "-q", "mdtheory"]
    subprocess.run(install, check=True)

# %%
import matplotlib.pyplot as plt
import torch
from torch.nn.functional import mse_loss

from mdtheory import MetaLearner, estimate
from mdtheory.data import SinusoidStream
from mdtheory.models import MLP

torch.manual_seed(0)
waves = SinusoidStream(seed=0, n_shot=5, n_query=20)
how = {"n_steps": 3, "task_lr": 0.02, "loss": mse_loss}


def trained(geometry):
    network = MLP(in_features=1, n_way=1, hidden=(40, 40), seed=0)
    learner = MetaLearner(network, geometry, **how)
    optimizer = torch.optim.Adam(learner.parameters(), lr=3e-3)
    for iteration in range(200):
        optimizer.zero_grad()
        learner.backward([waves(4 * iteration + j) for j in range(4)])
        optimizer.step()
    return learner


learners = {name: trained(name) for name in ("maml", "metasgd")}

# %% [markdown]
# A new wave, its five points, and what each learner makes of them after 0, 1 and 3 steps:

# %%
new = SinusoidStream(seed=1, n_shot=5, n_query=20)
wave = new(4)
grid = torch.linspace(-5, 5, 200)[:, None]
figure, axes = plt.subplots(1, 2, figsize=(9.4, 3.4), sharey=True)
for axis, (name, learner) in zip(axes, learners.items(), strict=True):
    axis.plot(wave.query_x, wave.query_y, ".", color="#999999", label="wave")
    axis.plot(wave.support_x, wave.support_y, "ko", label="shown")
    for steps, style in ((0, ":"), (1, "--"), (3, "-")):
        adapted = learner.adapt(wave.support_x, wave.support_y, n_steps=steps)
        axis.plot(grid, adapted(grid), style, label=f"{steps} steps")
    axis.set(title=name, xlabel="x")
axes[0].legend(ncols=2, fontsize=8)
figure.tight_layout()
plt.show()

# %% [markdown]
# Which is better? Both meet the same 60 new waves, so the *difference* has a narrow interval of
# its own:


# %%
def error(learner, task):
    return learner.trace(task).query_loss[-1]


errors = {
    name: torch.stack([error(learner, new(k)) for k in range(60)])
    for name, learner in learners.items()
}
gap = estimate(errors["metasgd"] - errors["maml"])
for name, values in errors.items():
    found = estimate(values)
    print(f"{name}: error {found.mean:.2f} ± {found.half_width:.2f}")
print(f"metasgd minus maml: {gap.mean:.2f} ± {gap.half_width:.2f}")
assert gap.mean + gap.half_width < 0  # learned rates learn waves faster
assert errors["metasgd"].mean() < 3  # the waves themselves vary by 4.3
