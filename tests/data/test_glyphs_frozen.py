"""The frozen file: its bytes, its scripts, no near-duplicates, and that the builder's rendering
gives its bitmaps.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from mdtheory.data import glyph_build
from mdtheory.data.glyphs import FILE, FILE_SHA256, SPLIT_NAMES, prototypes, read_prototypes

KNOWN = prototypes()
N_CLASSES = len(KNOWN.codepoints)
OWNER = np.repeat(np.arange(N_CLASSES), np.diff(KNOWN.first))


def scripts_in_two_splits(scripts, splits) -> set[str]:
    """The scripts that occur in more than one split."""
    where = defaultdict(set)
    for script, split in zip(scripts, splits, strict=True):
        where[script].add(split)
    return {script for script, places in where.items() if len(places) > 1}


def closest(probes: np.ndarray, bank: np.ndarray, same_class: np.ndarray) -> np.ndarray:
    """The largest correlation of each probe with the bank's other classes, under rotations of the
    probe.
    """
    likeness = glyph_build.likeness(
        glyph_build.describe(probes), glyph_build.describe(bank, angles=(0.0,))
    )
    return np.where(same_class, -1.0, likeness).max(1)


def test_the_file_has_the_hash_that_results_name():
    data = FILE.read_bytes()
    assert hashlib.sha256(data).hexdigest() == FILE_SHA256
    assert len(data) < 1_600_000


def test_the_file_needs_no_pickle():
    with np.load(FILE, allow_pickle=False) as arrays:
        kinds = {name: arrays[name].dtype.kind for name in arrays.files}
    assert set(kinds.values()) <= {"u", "i", "U"}
    assert "packed" in kinds


@pytest.mark.parametrize("harm", ["flipped byte", "truncated", "missing"])
def test_a_damaged_file_is_refused(harm, tmp_path):
    path, data = tmp_path / "glyphset.npz", bytearray(FILE.read_bytes())
    if harm == "flipped byte":
        data[len(data) // 2] ^= 1
    if harm != "missing":
        path.write_bytes(data[:1000] if harm == "truncated" else data)
    with pytest.raises(
        ValueError, match=r"glyphset.npz must have sha256 .*, got .*; reinstall mdtheory"
    ):
        read_prototypes(path, sha256=FILE_SHA256)


def test_there_are_about_a_thousand_classes_of_a_dozen_scripts():
    assert (N_CLASSES, len(KNOWN.bitmaps), len(set(KNOWN.scripts))) == (1008, 6572, 12)
    assert Counter(KNOWN.splits) == {"train": 713, "validation": 74, "test": 221}
    assert len(set(KNOWN.codepoints)) == N_CLASSES
    assert KNOWN.bitmaps.shape == (KNOWN.first[-1], 48, 48)
    assert KNOWN.bitmaps.max() == 15


def test_every_class_has_at_least_four_different_faces():
    for first, last in zip(KNOWN.first[:-1], KNOWN.first[1:], strict=True):
        own = KNOWN.faces[first:last]
        assert len(set(own)) == len(own) >= 4


def test_no_alphabet_is_in_two_splits():
    assert scripts_in_two_splits(KNOWN.scripts, KNOWN.splits) == set()
    for codepoint, script, split in zip(KNOWN.codepoints, KNOWN.scripts, KNOWN.splits, strict=True):
        assert unicodedata.name(chr(codepoint)).lower().startswith(script + " ")
        assert script in glyph_build.SPLITS[split]
    planted = ("test", *KNOWN.splits[1:])  # moves one Latin letter
    assert scripts_in_two_splits(KNOWN.scripts, planted) == {"latin"}


def test_scripts_are_told_by_the_whole_word():
    assert glyph_build.script_of(ord("a")) == "latin"
    assert glyph_build.script_of(0x1401) == "canadian syllabics"
    assert glyph_build.script_of(0x214E) is None  # TURNED SMALL F
    assert glyph_build.script_of(0x0B85) is None  # Tamil
    assert set(glyph_build.SPLITS) == set(SPLIT_NAMES)


def test_only_letters_without_decomposition_are_candidates():
    assert glyph_build.is_candidate(ord("ß"))
    for codepoint in (ord("é"), ord("5"), ord("+"), 0x1D00 + 0x2C, 0x1D400, 0xFB01):
        assert not glyph_build.is_candidate(codepoint)
    assert all(glyph_build.is_candidate(codepoint) for codepoint in KNOWN.codepoints)


def test_no_placeholder_and_no_symbol_font_is_used():
    assert KNOWN.face_names == glyph_build.FACES
    assert len(set(glyph_build.FACES)) == 16
    for face in glyph_build.FACES:
        assert glyph_build.font_file(face).is_file()
        assert not any(word in face for word in ("LastResort", "NonUni", "Siz", "Display", "cm"))
    # A placeholder would draw the same picture for many letters.
    pictures = {bitmap.numpy().tobytes() for bitmap in KNOWN.bitmaps}
    assert len(pictures) > 0.97 * len(KNOWN.bitmaps)
    owners = defaultdict(set)
    for owner, bitmap in zip(OWNER, KNOWN.bitmaps, strict=True):
        owners[bitmap.numpy().tobytes()].add(int(owner))
    assert max(len(classes) for classes in owners.values()) == 1


def test_every_letter_is_in_its_face():
    covered = glyph_build.coverage()
    for index, codepoint in enumerate(KNOWN.codepoints):
        assert set(KNOWN.faces[KNOWN.first[index] : KNOWN.first[index + 1]]) <= set(
            covered[codepoint]
        )


def test_no_near_duplicates_within_or_across_splits():
    """200 bitmaps of validation and test and 100 of train, each in five rotations, against every
    bitmap of all classes.
    """
    rng = np.random.default_rng(0)
    splits = np.array(KNOWN.splits)[OWNER]
    held_out, train = np.flatnonzero(splits != "train"), np.flatnonzero(splits == "train")
    rows = np.concatenate(
        [rng.choice(held_out, 200, replace=False), rng.choice(train, 100, replace=False)]
    )
    bank = KNOWN.bitmaps.numpy()
    found = closest(bank[rows], bank, OWNER[rows][:, None] == OWNER)
    assert found.max() < glyph_build.MAX_CORRELATION
    assert found.max() > 0.85  # the check looks at something: some letters are nearly too close


def test_a_planted_duplicate_is_found_even_turned():
    """A test letter copied into train, turned by 12 degrees and thinner by one grey level."""
    test_row, bank = KNOWN.first[-2], KNOWN.bitmaps.numpy().copy()
    turned = ndimage.rotate(bank[test_row].astype(np.float64), 12, reshape=False, order=1)
    bank[0] = np.clip(turned - 1, 0, 15).astype(np.uint8)
    rows = np.array([test_row])
    assert (
        closest(bank[rows], bank, OWNER[rows][:, None] == OWNER).max()
        >= glyph_build.MAX_CORRELATION
    )


def test_no_bare_stroke_and_no_block_is_left():
    assert not any(glyph_build.is_bare(bitmap) for bitmap in KNOWN.bitmaps.numpy()[::25])


@pytest.mark.parametrize(
    ("letter", "bare"),
    [("l", True), ("I", True), ("ǁ", True), ("ⵑ", True), ("E", False), ("x", False)],
)
def test_bare_strokes_are_told_from_letters(letter, bare):
    assert glyph_build.is_bare(glyph_build.render(ord(letter), 0)) is bare


def test_a_block_is_bare_and_a_ring_is_not():
    block = np.zeros((48, 48), dtype=np.uint8)
    block[10:38, 6:42] = 15
    ring = block.copy()
    ring[16:32, 12:36] = 0
    assert glyph_build.is_bare(block)
    assert not glyph_build.is_bare(ring)


def test_rendering_gives_the_frozen_bitmaps():
    """Exactly, with the libraries that built the file; else up to the grey levels that another
    rasteriser may shift.
    """
    same = tuple(glyph_build.built_with()[:3]) == KNOWN.built_with[:3]
    for row in range(3, len(KNOWN.bitmaps), 97):
        codepoint, face, frozen = (
            KNOWN.codepoints[OWNER[row]],
            KNOWN.faces[row],
            KNOWN.bitmaps[row].numpy(),
        )
        difference = np.abs(glyph_build.render(codepoint, face).astype(int) - frozen)
        assert difference.max() == 0 if same else difference.mean() < 0.5
    other = glyph_build.render(KNOWN.codepoints[OWNER[0]], 2).astype(int)  # the same letter, bold
    assert np.abs(other - KNOWN.bitmaps[0].numpy()).mean() > 0.5


def test_a_blank_glyph_is_refused():
    with pytest.raises(ValueError, match=r"U\+0020 must have ink in DejaVuSans, got a blank glyph"):
        glyph_build.render(0x20, 0)


def test_likeness_is_a_loop_over_rotations():
    bitmaps = KNOWN.bitmaps.numpy()[[0, 700, 3000]]
    first, second = glyph_build.describe(bitmaps[:2]), glyph_build.describe(bitmaps)
    found = glyph_build.likeness(first, second)
    for i in range(2):
        for j in range(3):
            turned = [
                float(np.corrcoef(first[a][i], second[0.0][j])[0, 1]) for a in glyph_build.ANGLES
            ]
            turned += [
                float(np.corrcoef(first[0.0][i], second[a][j])[0, 1]) for a in glyph_build.ANGLES
            ]
            assert found[i, j] == pytest.approx(max(turned), abs=1e-5)
    assert np.allclose(np.diag(found), 1.0, atol=1e-5)


def test_selection_drops_bitmaps_then_classes_those_with_few_faces_first():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((5 + 7 + 6 + 4, 784)).astype(np.float32)
    classes = [np.arange(0, 5), np.arange(5, 12), np.arange(12, 18), np.arange(18, 22)]
    values[5:7] = values[
        0:2
    ]  # two of seven faces of class 1 look like class 0, which is smaller: five are left
    values[12:15] = values[
        18:21
    ]  # three of six faces of class 2 look like class 3: too few are left
    values -= values.mean(1, keepdims=True)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    kept = glyph_build.select(classes, {0.0: values})
    assert [rows.tolist() for rows in kept] == [
        [0, 1, 2, 3, 4],
        [7, 8, 9, 10, 11],
        [],
        [18, 19, 20, 21],
    ]


def test_building_twice_gives_the_same_bytes(tmp_path, monkeypatch):
    """On thirty letters; the whole takes a minute. They come out as the frozen file has them,
    near-duplicates aside.
    """
    few = dict(list(glyph_build.coverage().items())[::50])
    monkeypatch.setattr(glyph_build, "coverage", lambda: few)
    first, second = (glyph_build.build(tmp_path / name) for name in ("a.npz", "b.npz"))
    assert first == second == hashlib.sha256((tmp_path / "b.npz").read_bytes()).hexdigest()
    built = read_prototypes(tmp_path / "a.npz", sha256=first)
    assert set(built.codepoints) <= set(few)
    assert len(built.codepoints) > 20
    assert built.bitmaps.shape[0] == built.first[-1] == len(built.faces)
    split_of = dict(zip(KNOWN.scripts, KNOWN.splits, strict=True))
    assert all(
        split_of[script] == split for script, split in zip(built.scripts, built.splits, strict=True)
    )
    expected = [
        glyph_build.render(built.codepoints[0], face) for face in built.faces[: built.first[1]]
    ]
    assert np.array_equal(built.bitmaps[: built.first[1]].numpy(), np.stack(expected))


def test_the_command_says_whether_it_built_the_frozen_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(glyph_build, "build", lambda path: FILE_SHA256)
    glyph_build.main(out=tmp_path / "same.npz")
    assert "(the frozen one)" in capsys.readouterr().out
    monkeypatch.setattr(glyph_build, "build", lambda path: "0" * 64)
    glyph_build.main(out=tmp_path / "other.npz")
    assert "set FILE_SHA256" in capsys.readouterr().out


def test_the_sheet_is_a_picture(tmp_path, capsys):
    glyph_build.main(sheet=tmp_path / "sheet.png")
    assert "drew" in capsys.readouterr().out
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.width > 1000
        assert len(set(np.asarray(picture.convert("L")).ravel().tolist())) > 50


def test_the_notices_of_the_fonts_are_shipped():
    folder = FILE.parents[2] / "LICENSES"
    for name, words in (("DejaVu.txt", "Bitstream Vera Fonts Copyright"), ("STIX.txt", "STIX")):
        assert words in (folder / name).read_text(encoding="utf-8")


def test_prototypes_are_read_once():
    assert prototypes() is prototypes()
    assert isinstance(KNOWN.bitmaps, torch.Tensor)
