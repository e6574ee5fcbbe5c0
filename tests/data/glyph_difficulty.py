"""How hard GlyphSet is for a nearest neighbour on raw pixels: ``python -m
tests.data.glyph_difficulty`` prints a table.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mdtheory.core import seeding
from mdtheory.core.estimate import Estimate
from mdtheory.data.glyphs import IMAGES_PER_CLASS, GlyphSet


def episode_accuracy(
    source: GlyphSet, split: str, *, index: int, n_way: int, n_shot: int, n_query: int, across: bool
) -> Tensor:
    """The share of queries whose class mean is nearest; ``across``: queries only in faces that the
    support lacks.
    """
    rng = np.random.default_rng(seeding.seed("difficulty", split, index))
    chosen = rng.choice(len(source.classes(split)), n_way, replace=False).tolist()
    picks = []
    for c in chosen:
        own = rng.permutation(IMAGES_PER_CLASS)
        n_faces = len(source.bitmaps(split, c))
        support = own[:n_shot]
        free = ~np.isin(own % n_faces, support % n_faces)
        query = own[n_shot:][free[n_shot:]] if across and free.any() else own[n_shot:]
        picks.append([*support.tolist(), *query[:n_query].tolist()])
    images = source.load_many(split, chosen, picks, seeding.seed("difficulty", index)).flatten(2)
    centres, queries = images[:, :n_shot].mean(1), images[:, n_shot:].reshape(n_way * n_query, -1)
    found = torch.cdist(queries, centres).argmin(1)
    return (found == torch.arange(n_way).repeat_interleave(n_query)).float().mean()


def pixel_accuracy(
    *,
    strength: float,
    split: str = "test",
    n_episodes: int,
    n_way: int = 5,
    n_shot: int = 1,
    n_query: int = 15,
    across: bool = True,
) -> Estimate:
    """The mean over episodes with its 95% interval."""
    source = GlyphSet(strength=strength)
    sizes = {"n_way": n_way, "n_shot": n_shot, "n_query": n_query}
    scores = torch.stack(
        [
            episode_accuracy(source, split, index=i, across=across, **sizes)
            for i in range(n_episodes)
        ]
    )
    return Estimate(float(scores.mean()), float(1.96 * scores.std() / n_episodes**0.5), n_episodes)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for strength in (0.0, 0.6, 1.0, 1.6):
        for n_way, n_shot, across in ((5, 1, True), (5, 5, True), (20, 1, True), (5, 1, False)):
            score = pixel_accuracy(
                strength=strength, n_episodes=600, n_way=n_way, n_shot=n_shot, across=across
            )
            faces = "other faces" if across else "any face"
            print(
                f"strength {strength}: {n_way}-way {n_shot}-shot, queries in {faces}: {score}",
                flush=True,
            )
