"""The images: addresses, bits, devices, difficulty, and what is refused."""

from __future__ import annotations

import hashlib
import itertools
import time

import numpy as np
import pytest
import torch

from mdtheory.data.episodes import EpisodeStream
from mdtheory.data.glyphs import (
    FILE_SHA256,
    IMAGES_PER_CLASS,
    WARP_VERSION,
    GlyphSet,
    draw,
    prototypes,
    warp,
)
from tests.data import glyph_references
from tests.data.glyph_difficulty import pixel_accuracy


@pytest.fixture(scope="module")
def glyphs() -> GlyphSet:
    return GlyphSet()


def test_it_is_a_source(glyphs):
    assert glyphs.image_shape == (1, 28, 28)
    assert {split: len(glyphs.classes(split)) for split in ("train", "validation", "test")} == {
        "train": 713,
        "validation": 74,
        "test": 221,
    }
    assert glyphs.count("test", 220) == IMAGES_PER_CLASS
    images = glyphs.load("train", 5, [0, 7, 599], seed=3)
    assert (images.shape, images.dtype) == ((3, 1, 28, 28), torch.float32)
    assert images.min() >= 0
    assert 0.5 < images.max() <= 1


def test_names_are_unique_and_sorted_by_code_point(glyphs):
    names = [name for split in ("train", "validation", "test") for name in glyphs.classes(split)]
    assert len(set(names)) == len(names)
    points = [int(name.split("U+")[1], 16) for name in glyphs.classes("train")]
    assert points == sorted(points)
    assert glyphs.classes("validation")[0].startswith("greek U+03")


def test_the_digest_names_the_file_the_strength_and_the_size_but_no_device(glyphs):
    digests = [
        GlyphSet(strength=s, image_size=n).digest for s, n in ((1.6, 28), (1.0, 28), (1.6, 32))
    ]
    assert len(set(digests)) == 3
    assert digests[0] == glyphs.digest == GlyphSet(device=torch.device("cpu")).digest
    text = f"glyphset {FILE_SHA256} warp {WARP_VERSION} strength 1.6 size 28"
    assert glyphs.digest == hashlib.sha256(text.encode()).hexdigest()


def test_the_same_address_gives_the_same_bits(glyphs):
    again = GlyphSet()
    for seed in (0, 2**62):
        assert torch.equal(
            glyphs.load("test", 9, range(20), seed), again.load("test", 9, range(20), seed)
        )
    assert not torch.equal(glyphs.load("test", 9, [4], 0), glyphs.load("test", 9, [4], 1))
    assert not torch.equal(glyphs.load("test", 9, [4], 0), glyphs.load("test", 9, [8], 0))


@pytest.mark.parametrize("strength", [0.0, 1.6, 4.0])
def test_an_image_has_the_same_bits_alone_in_a_batch_and_in_another_order(strength):
    glyphs = GlyphSet(strength=strength)
    picks = list(range(17))
    together = glyphs.load("train", 300, picks, 5)
    backwards = glyphs.load("train", 300, picks[::-1], 5)
    many = glyphs.load_many("train", [2, 300, 700], [picks] * 3, 5)
    assert torch.equal(together, backwards.flip(0))
    assert torch.equal(together, many[1])
    for j in picks:
        assert torch.equal(glyphs.load("train", 300, [j], 5)[0], together[j])


def test_the_number_of_threads_changes_nothing(glyphs):
    one = glyphs.load("train", 100, range(80), 4)
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    two = glyphs.load("train", 100, range(80), 4)
    torch.set_num_threads(before)
    assert torch.equal(one, two)


@pytest.mark.usefixtures("float64")
def test_the_default_dtype_changes_nothing(glyphs):
    inside = glyphs.load("train", 0, range(8), 1)
    torch.set_default_dtype(torch.float32)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, glyphs.load("train", 0, range(8), 1))


def test_no_draw_touches_the_global_generator(glyphs):
    before = torch.get_rng_state()
    glyphs.load("train", 0, range(8), 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_picks_go_round_the_faces():
    still = GlyphSet(strength=0)
    n_faces = len(still.bitmaps("test", 0))
    images = still.load("test", 0, range(2 * n_faces), 0)
    assert torch.equal(images[:n_faces], images[n_faces:])
    assert len({image.numpy().tobytes() for image in images}) == n_faces


def test_the_draws_are_frozen():
    found = draw(7, 0x3B1, [0, 1, 599])
    digest = hashlib.sha256(found.numpy().tobytes()).hexdigest()
    assert found.shape == (3, 39)
    assert (float(found.min()) >= -1, float(found.max()) < 1) == (True, True)
    assert digest == "e444a5f45e11581fd56118fc0d6cc3be9f1d5143606321a717f03868ad7d3d04", (
        "draw() gives other numbers: raise WARP_VERSION"
    )


def test_the_warp_is_the_slow_one_in_float64():
    known = prototypes()
    rows = [0, 1500, 4000, 6500]
    draws = draw(1, 65, rows)
    for strength, size in ((1.6, 28), (1.0, 20), (3.0, 28)):
        found = (
            warp(known.bitmaps[rows], draws, strength=strength, size=size)[:, 0].double().numpy()
        )
        for image, row, numbers in zip(found, rows, draws.double().tolist(), strict=True):
            exact = glyph_references.warp(
                known.bitmaps[row].numpy(), numbers, strength=strength, size=size
            )
            assert np.abs(image - exact).max() < 1e-5
    mutant = glyph_references.warp(
        known.bitmaps[rows[-1]].numpy(), draws[-1].tolist(), strength=3.0, size=28, turn=-1.0
    )
    assert np.abs(found[-1] - mutant).max() > 0.1


def test_every_device_gives_the_same_image(glyphs, device):
    if device.type == "cpu":
        pytest.skip("compares the CPU with another device: run pytest with --device cuda")
    there = GlyphSet(device=device)
    for index in range(0, 221, 20):
        here = glyphs.load("test", index, range(40), 11)
        assert there.load("test", index, range(40), 11).device.type == device.type
        assert (there.load("test", index, range(40), 11).cpu() - here).abs().max() < 1e-5


def test_strength_zero_is_the_frozen_bitmap():
    still = GlyphSet(strength=0, image_size=48)
    frozen = still.bitmaps("train", 12)
    assert frozen.dtype == torch.uint8
    assert (still.load("train", 12, range(len(frozen)), 0)[:, 0] - frozen / 15).abs().max() < 1e-5


def test_more_strength_is_harder_for_pixels():
    scores = [pixel_accuracy(strength=strength, n_episodes=60) for strength in (0.0, 0.6, 1.0, 1.6)]
    means = [score.mean for score in scores]
    assert means == sorted(means, reverse=True)
    for milder, harder in itertools.pairwise(scores):
        assert milder.mean - milder.half_width > harder.mean + harder.half_width
    assert 0.35 < means[-1] < 0.47  # 41.3 +- 0.7 % over 600 episodes


def test_an_episode_is_quick(glyphs):
    """5 classes of 16 images: under 2 ms of one core's time; the bound is 10 ms for slower
    machines.
    """
    times = []
    for seed in range(30):
        begin = time.process_time()
        glyphs.load_many("train", range(5), [range(16)] * 5, seed)
        times.append(time.process_time() - begin)
    assert min(times) < 0.010


def test_episodes_of_it_are_paired_over_query_sizes(glyphs):
    few = EpisodeStream(glyphs, split="test", seed=0, n_way=5, n_shot=1, n_query=5)(3)
    many = EpisodeStream(glyphs, split="test", seed=0, n_way=5, n_shot=1, n_query=15)(3)
    assert torch.equal(few.support_x, many.support_x)
    assert torch.equal(
        few.query_x.reshape(5, 5, 1, 28, 28), many.query_x.reshape(5, 15, 1, 28, 28)[:, :5]
    )


def test_other_sizes_show_the_same_letter():
    small, large = (GlyphSet(image_size=size).load("test", 30, range(6), 2) for size in (28, 84))
    reduced = torch.nn.functional.avg_pool2d(large, 3)
    assert large.shape == (6, 1, 84, 84)
    assert (reduced - small).abs().mean() < 0.03
    assert (reduced - small.flip(0)).abs().mean() > 0.06


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GlyphSet(strength=-0.1), "strength must be a finite number >= 0, got -0.1"),
        (lambda: GlyphSet(strength=float("nan")), "strength must be a finite number"),
        (lambda: GlyphSet(strength=float("inf")), "strength must be a finite number"),
        (lambda: GlyphSet(strength="1.6"), "strength must be a finite number"),
        (lambda: GlyphSet(image_size=7), "image_size must be a whole number of pixels from 8"),
        (lambda: GlyphSet(image_size=28.0), "image_size must be a whole number"),
        (
            lambda: GlyphSet().classes("val"),
            "split must be one of train, validation, test, got 'val'",
        ),
        (
            lambda: GlyphSet().load("test", 221, [0], 0),
            "class_index must be in 0..220 for split 'test', got 221",
        ),
        (lambda: GlyphSet().count("validation", -1), "class_index must be in 0..73"),
        (lambda: GlyphSet().load("test", 0, [600], 0), "picks must be in 0..599, got 600"),
        (lambda: GlyphSet().load("test", 0, [-1], 0), "picks must be in 0..599, got -1"),
    ],
)
def test_what_is_wrong_is_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
