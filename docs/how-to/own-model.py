# %% [markdown]
# # Your own model
#
# Nearly any `torch.nn.Module` can be meta-trained, and what cannot is refused with the reason
# ({doc}`../which-modules`): nothing has to be inherited, wrapped or rewritten. This page does it
# for a regression network; it is executed whenever the site is built.

# %%
import torch
from torch import nn
from torch.nn.functional import mse_loss

from mdtheory import MetaLearner
from mdtheory.data import SinusoidStream

torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(1, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh()
        )
        self.head = nn.Linear(40, 1)

    def forward(self, x):
        return self.head(self.body(x))


# %% [markdown]
# ## Train
#
# A task is an `Episode`: inputs and targets to learn from (support) and to be judged on (query).
# `SinusoidStream(seed)(i)` makes one; your own function from an index to an `Episode` does as well.
# `learner.backward(episodes)` adds the meta-gradient to every parameter's `.grad`; after that it is
# an ordinary training loop.

# %%
tasks = SinusoidStream(seed=0, n_shot=10, n_query=20)
how = {"loss": mse_loss, "n_steps": 2, "task_lr": 0.02}
learner = MetaLearner(Net(), "metasgd", **how)
optimizer = torch.optim.Adam(learner.parameters(), lr=3e-3)

values = []
for iteration in range(150):
    optimizer.zero_grad()
    batch = [tasks(4 * iteration + j) for j in range(4)]
    values.append(learner.backward(batch).value.item())
    optimizer.step()

first, last = sum(values[:20]) / 20, sum(values[-20:]) / 20
print(f"query loss: {first:.2f} at the beginning, {last:.2f} now")
assert last < first

# %% [markdown]
# ## Adapt
#
# `adapt` takes the support set of a new task and returns an ordinary module.

# %%
new = SinusoidStream(seed=1, n_shot=10, n_query=20)(0)
adapted = learner.adapt(new.support_x, new.support_y)
before = learner.adapt(new.support_x, new.support_y, n_steps=0)
errors = [
    mse_loss(m(new.query_x), new.query_y).item() for m in (before, adapted)
]
print("error on the new task: {:.2f} before, {:.2f} after".format(*errors))
assert errors[1] < errors[0]

# %% [markdown]
# The learner is itself an `nn.Module`: `state_dict`, `to(device)`, `double()` do what they always
# do. Your own module was copied and is not changed.
#
# ## Choices
#
# - `adapt="head.*"`: the task solver moves only the parameters whose names fit; the others are
#   meta-learned and shared. A list of patterns works too.
# - parameters with `requires_grad=False` stay constant;
# - `n_steps` at training and `eval_steps` afterwards may differ;
# - `estimator="stepwise"`: the same gradient as `"unrolled"`, but only the states are stored, for
#   many steps or large networks; `"first_order"`: cheaper and not exact;
# - `norm`: where batch normalisation takes its statistics from. `"transductive"`: the batch at hand
#   (as in the published codes); `"support"`: the support set, also for the queries; `"running"`:
#   running averages, which `backward` moves in training mode;
# - `dropout="off"` switches all dropout off, where the default refuses a model that draws it;
# - `probe="off"` leaves out the passes on copies by which a model is judged at the first call and
#   whenever it has changed. {doc}`What they cost <own-loop>`: 1.6 forward-backward passes over a
#   support set of five images, 3.0 where the network holds an uncommon operation.
#
# A task may also be a tuple of four tensors or arrays; the inputs may be a dictionary or tuple, for
# a network with several of them. Hooks, scalers, accumulation, parameter groups, threads, autocast
# and what the accuracy counts: {doc}`own-loop`.

# %%
head_only = MetaLearner(Net(), "maml", adapt="head.*", **how)
moved = [name for name in head_only.meta() if name.startswith("anchor.")]
assert moved == ["anchor.head.weight", "anchor.head.bias"]

exact = MetaLearner(Net(), "metasgd", estimator="stepwise", **how)
exact.load_state_dict(learner.state_dict())
one = learner.meta_gradient([new]).grads
two = exact.meta_gradient([new]).grads
assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)

# %% [markdown]
# ## Your own loss
#
# `loss` is any function of the model's outputs and the targets that gives one number, twice
# differentiable (once for `"first_order"`) and the same on every call. The steps descend it on the
# support set, and the meta-gradient is that of the same function on the query set. Take a mean over
# the items, so that `task_lr` means the same for any number of examples. (Two different losses, or
# no network at all: a task is two functions, as in the gallery's {doc}`../gallery/hyperparameter`.)


# %%
def log_cosh(outputs, targets):  # a square near 0, straight for outliers
    return torch.log(torch.cosh(outputs - targets)).mean()


robust = MetaLearner(Net(), "metasgd", **{**how, "loss": log_cosh})
result = robust.backward([new])
outputs = robust.adapt(new.support_x, new.support_y)(new.query_x)
assert torch.allclose(result.value, log_cosh(outputs, new.query_y))

# %% [markdown]
# ## A part of a large network
#
# The task solver may move the head alone, the norms alone, or low-rank updates of chosen weights
# (the weights themselves are frozen then); here in a small vision transformer with native
# `LayerNorm`. Every geometry works on every part.

# %%
from mdtheory import EpisodeStream, GlyphSet
from mdtheory.models import LOW_RANK, VisionTransformer, with_low_rank

vit = VisionTransformer(
    in_channels=1, image_size=28, n_way=5, patch=7, width=16, depth=1, heads=2
)
low_rank = with_low_rank(vit, ["*.qkv.weight", "*.projection.weight"], rank=2)
parts = {
    "head": (vit, "classifier.*"),
    "norms": (vit, "*norm*"),
    "low rank": (low_rank, LOW_RANK),
}
stream = EpisodeStream(
    GlyphSet(), split="train", seed=0, n_way=5, n_shot=2, n_query=2
)
task = stream(0)

for part, (network, pattern) in parts.items():
    part_learner = MetaLearner(
        network, "potential", adapt=pattern, n_steps=3, task_lr=0.5
    )
    result = part_learner.backward([stream(1)])
    losses = part_learner.trace(task).support_loss
    n_moved = sum(
        value.numel()
        for key, value in part_learner.meta().items()
        if key.startswith("anchor.")
    )
    first, last = losses[0], losses[-1]
    print(f"{part}: {n_moved} numbers move, loss {first:.3f} -> {last:.3f}")
    assert losses[-1] < losses[0]
    assert all(torch.isfinite(g).all() for g in result.grads.values())

# %% [markdown]
# ## Is the gradient right?
#
# Second derivatives of some layers are wrong or missing in PyTorch itself. The library replaces
# what it can (batch normalisation, weight normalisation, fused attention) and *refuses* the rest,
# with the reason and the remedy. `estimator="first_order"` and `adapt` need no second derivatives
# and accept more. `python -m tests.models.user.sweep` runs some 190 layers and patterns through
# every estimator and prints what is right and what is refused:

# %%
noisy = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 1))
try:
    MetaLearner(noisy, "maml", loss=mse_loss)
except ValueError as refusal:
    print(refusal)
else:
    raise AssertionError("dropout draws new noise at every step")

# %% [markdown]
# And you can always look yourself, with finite differences in double precision:

# %%
check = MetaLearner(Net().double(), "metasgd", **how)
episode = new.to(dtype=torch.float64)
meta = {name: value.detach().clone() for name, value in check.meta().items()}
name, eps = "anchor.body.0.weight", 1e-5
direction = torch.ones_like(meta[name])


def value(shift):
    moved = {**meta, name: meta[name] + shift * direction}
    return check.estimator(check.problem(), moved, [check.task(episode)]).value


slope = (value(eps) - value(-eps)) / (2 * eps)
exact = (check.meta_gradient([episode]).grads[name] * direction).sum()
print(f"finite differences {slope:.9f}, library {exact:.9f}")
assert abs(slope - exact) < 1e-7 * abs(exact)

# %% [markdown]
# ## On the command line
#
# A file that registers the model makes it available by name in every command that takes `--plugin`:
#
# ```python
# # my_net.py
# from mdtheory.models import models
#
# @models.register("my-net")
# def my_net(*, in_features, n_way, width=64):
#     return nn.Sequential(nn.Flatten(), nn.Linear(in_features, width), nn.Tanh(),
#                          nn.Linear(width, n_way))
# ```
#
# ```console
# $ mdtheory train --config experiments/configs/glyphs.toml --plugin my_net.py \
#     --set model.name=my-net --set "model.options={width=32}" --out runs/my-net
# ```
#
# The factory is given what it asks for by name among `in_channels`, `image_size`, `in_features`,
# `n_way`, `norm` and `seed`; everything else comes from `model.options`.
