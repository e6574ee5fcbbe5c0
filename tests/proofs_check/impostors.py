"""Faults planted in the library, each of which a test or a claim has to notice: ``python
impostors.py NAME TEST...`` plants one and runs the tests, in a process of its own.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from mdtheory.core import estimate
from mdtheory.data import splits
from mdtheory.data.episodes import EpisodeStream
from mdtheory.geometry.metakfo import KroneckerStep
from mdtheory.geometry.mtnet import MaskedStep
from mdtheory.geometry.warpgrad import WarpGrad
from mdtheory.models.norm import BatchStatNorm
from mdtheory.run import build


def interval_with_n():
    """sd with n in the denominator."""
    plain = estimate.standard_error
    estimate.standard_error = lambda values: (
        plain(values) * ((len(values) - 1) / len(values)) ** 0.5
    )


def batch_for_running():
    """Norms of policy "running" normalise by the batch in evaluation, too."""
    BatchStatNorm._uses_stored = lambda self: False


def running_for_batch():
    """Norms of every policy use their running averages in evaluation."""
    BatchStatNorm._uses_stored = lambda self: not self.training


def order_of_classes():
    """An episode's classes come in the order of their names, so that labels tell classes apart."""
    plain = EpisodeStream.chosen
    EpisodeStream.chosen = lambda self, index: sorted(plain(self, index))


def support_among_queries():
    """The first queries of every class are its support."""
    plain = EpisodeStream.__call__

    def call(self, index):
        found = plain(self, index)
        query = found.query_x.clone()
        query[:: self.n_query] = found.support_x[:: self.n_shot]
        return replace(found, query_x=query)

    EpisodeStream.__call__ = call


def a_train_class_in_test():
    """One class of the training split is tested as well."""
    names = splits.MINI_IMAGENET
    names["test"] = (names["train"][0], *names["test"][1:])


def transforms_not_adapted():
    """MetaKFO's transform stays as it was at the start."""
    plain = KroneckerStep.step
    KroneckerStep.step = lambda self, *a, k, **other: plain(self, *a, k=0, **other)


def a_mask_for_each_step():
    """MT-net's masks change from step to step."""
    plain = MaskedStep.step

    def step(self, meta, state, grad, *, k, **other):
        turned = {
            name: value.roll(k) if name.startswith("mask.") else value
            for name, value in state.items()
        }
        return plain(self, meta, turned, grad, k=k, **other)

    MaskedStep.step = step


def warps_adapted():
    """WarpGrad's warps are adapted in the task like any other layer."""
    WarpGrad.adapts = lambda self, name: True


def chosen_on_test():
    """The checkpoint is chosen on test tasks."""
    plain = build.build_stream
    build.build_stream = lambda *a, split, **other: plain(
        *a, split="test" if split == "validation" else split, **other
    )


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *sys.argv[2:]]))
