"""Tasks from one's own arrays: classes, groups, numbers, tables, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from mdtheory.data.episodes import EpisodeStream
from mdtheory.data.images import ClassImages
from mdtheory.data.open import open_class_folders
from mdtheory.data.splits import SPLITS, Division
from mdtheory.data.task_set import TaskSet
from tests.data import forms

N = 60
X = np.arange(N * 4, dtype=np.float64).reshape(N, 4)
Y = np.array([f"c{k % 6}" for k in range(N)])
PATIENT = [k // 4 for k in range(N)]
EVEN = (0.5, 0.25, 0.25)


def rows_of(tensor):
    """Which items of X these are."""
    return (tensor[:, 0] / 4).long().tolist()


@pytest.mark.parametrize("form", [np.asarray, torch.tensor, lambda x: np.asarray(x).tolist()])
def test_any_form_of_numbers_gives_the_same_tasks(form):
    tasks = TaskSet(form(X), list(Y), fractions=(0.5, 0, 0.5))
    reference = TaskSet(X, Y, fractions=(0.5, 0, 0.5))
    assert tasks.digest == reference.digest
    episode = tasks.stream("train", seed=0, n_way=3, n_shot=2, n_query=3)(5)
    for row, label in zip(rows_of(episode.support_x), episode.support_y.tolist(), strict=True):
        other = rows_of(episode.query_x[episode.query_y == label])
        assert {Y[row]} == {Y[k] for k in other}
        assert row not in other
    assert episode.support_x.dtype == torch.float32


def test_classes_are_divided_by_default_and_groups_where_there_are_some():
    by_class = TaskSet(X, Y, fractions=EVEN)
    names = [set(by_class.classes(split)) for split in SPLITS]
    assert set.union(*names) == set(Y) and sum(map(len, names)) == 6
    by_group = TaskSet(X, Y, groups=PATIENT, fractions=EVEN)
    seen = {
        split: {
            PATIENT[row]
            for k in range(len(by_group.classes(split)))
            for row in rows_of(by_group.load(split, k, range(by_group.count(split, k))))
        }
        for split in SPLITS
    }
    assert not seen["train"] & seen["test"] and not seen["train"] & seen["validation"]
    assert set.union(*seen.values()) == set(PATIENT)
    assert set(by_group.classes("train")) == set(Y)
    # the control: by class, patients do lie in several splits
    leaky = TaskSet(X, Y, groups=PATIENT, by="class", fractions=EVEN)
    patients = []
    for split in ("train", "test"):
        loads = [leaky.load(split, k, range(9)) for k in range(len(leaky.classes(split)))]
        patients.append({PATIENT[row] for load in loads for row in rows_of(load)})
    assert patients[0] & patients[1]


def test_a_split_by_hand():
    tasks = TaskSet(X, [k % 12 for k in range(N)], splits={"train": range(9), "test": [9, 10, 11]})
    parts = {"train": np.arange(9), "test": np.arange(9, 12)}
    for classes in (np.arange(N) % 12, [str(k % 12) for k in range(N)]):
        again = TaskSet(X, classes, splits=parts)
        assert {*map(int, again.classes("test"))} == {9, 10, 11}
    signed = TaskSet(X, [k % 4 - 2 for k in range(N)], splits={"train": [-2, -1], "test": [0, 1]})
    assert signed.classes("test") == ("0", "1")
    assert tasks.classes("test") == ("09", "10", "11")
    with pytest.raises(ValueError, match=r"place each of the 6 classes or groups once .*'c5'"):
        TaskSet(X, Y, splits={"train": ["c0", "c1", "c2", "c3", "c4"]})


def test_regression_tasks_are_groups():
    """y = slope * x, a slope a group: every task is one line."""
    x, group = np.linspace(0.1, 6, N)[:, None], [k % 6 for k in range(N)]
    y = x[:, 0] * np.array([1 + g for g in group])
    tasks = TaskSet(x, y, groups=group, fractions=(0.5, 0, 0.5))
    train, test = (tasks.stream(s, seed=0, n_shot=3, n_query=4) for s in ("train", "test"))
    slopes = {}
    for name, stream in (("train", train), ("test", test)):
        slopes[name] = set()
        for index in range(20):
            e = stream(index)
            ratio = torch.cat([e.support_y / e.support_x, e.query_y / e.query_x])
            assert ratio.shape == (7, 1) and (ratio - ratio.mean()).abs().max() < 1e-4
            slopes[name].add(round(float(ratio.mean())))
            assert not set(e.support_x.flatten().tolist()) & set(e.query_x.flatten().tolist())
    assert len(slopes["train"]) == len(slopes["test"]) == 3
    assert not slopes["train"] & slopes["test"]
    assert torch.equal(train(3).support_x, train(3).support_x)
    with pytest.raises(ValueError, match="groups must be given where a task of regression"):
        TaskSet(x, y)
    with pytest.raises(ValueError, match="n_way must be left out"):
        tasks.stream("train", seed=0, n_way=2, n_shot=1, n_query=1)


def test_series_train_a_learner():
    from mdtheory import MetaLearner

    series = np.stack([np.sin(np.arange(30) * (1 + k % 6)) for k in range(N)])[:, None]
    tasks = TaskSet(series, Y, fractions=(1, 0, 0))
    network = torch.nn.Sequential(
        torch.nn.Conv1d(1, 4, 5), torch.nn.Flatten(), torch.nn.Linear(104, 3)
    )
    learner = MetaLearner(network, n_steps=1, task_lr=0.1)
    stream = tasks.stream("train", seed=0, n_way=3, n_shot=2, n_query=2)
    assert torch.isfinite(learner.backward([stream(0), stream(1)]).value)


def test_bytes_are_scaled_and_whole_numbers_kept():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 4), dtype=np.uint8)
    scaled = TaskSet(pixels, list("aabbcc"), fractions=(1, 0, 0)).load("train", 0, [0])
    torch.testing.assert_close(scaled[0], torch.from_numpy(pixels[0]).float() / 255)
    words = TaskSet(pixels.astype(np.int64), list("aabbcc"), fractions=(1, 0, 0))
    assert words.load("train", 1, [1]).dtype == torch.int64


def test_a_view_that_torch_negates_later_is_taken():
    x = torch.tensor(X)
    plain, view = (TaskSet(one, Y, fractions=(1, 0, 0)) for one in (x, torch._neg_view(x)))
    assert torch.equal(view.load("train", 0, [0, 1]), -plain.load("train", 0, [0, 1]))


def test_what_was_given_may_change_afterwards():
    x = X.copy()
    tasks = TaskSet(x, Y, fractions=(1, 0, 0))
    x[:] = -1
    assert tasks.load("train", 0, [0]).min() >= 0


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda: TaskSet(X, Y[:-1]), "y must have one entry for each of the 60 items"),
        (lambda: TaskSet(X, Y, groups=[1]), "groups must have one entry for each"),
        (lambda: TaskSet([[1.0], [1.0, 2.0]], "ab"), "y must hold one entry per item|of one shape"),
        (lambda: TaskSet([[1.0], [1.0, 2.0]], ["a", "b"]), "items of one shape, got several; pad"),
        (lambda: TaskSet([["a"], ["b"]], ["a", "b"]), "x must hold numbers, got"),
        (lambda: TaskSet([[1.0], [np.nan]], ["a", "b"]), "x must hold finite .* the first at 1"),
        (lambda: TaskSet(X * 1e300, Y), "x must hold finite numbers of float32"),
        (lambda: TaskSet(X, X[:, 1] * 1e300, groups=PATIENT), "y must hold finite numbers of flo"),
        (lambda: TaskSet(X.astype(np.uint64) + 2**63, Y), r"x must hold numbers below 2\^63"),
        (lambda: TaskSet(np.ma.masked_less(X, 9), Y), "x must be a plain array, got a masked one"),
        (lambda: TaskSet(torch.eye(N).to_sparse(), Y), "x must be a dense tensor"),
        (lambda: TaskSet(X, Y, fractions=(np.nan, 0.5, 0.5)), "fractions must be three numbers"),
        (lambda: TaskSet(X, Y, fractions="abc"), "fractions must be three numbers"),
        (lambda: TaskSet(X, Y, fractions=None), "fractions must be three numbers"),
        (
            lambda: TaskSet(X, Y, splits=3),
            "splits must map train, validation and t",
        ),
        (lambda: TaskSet(X, Y, splits={"train": None}), "splits must map train, validation and t"),
        (lambda: TaskSet(X, ["a"] * 9 + [np.nan] * (N - 9)), "y must name every item"),
        (lambda: TaskSet(X, [None] * N), "y must name every item, got an empty name"),
        (lambda: TaskSet(X, [np.inf] * N, groups=PATIENT), "y must hold finite numbers"),
        (lambda: TaskSet(X, Y, by="group"), "groups must be given where groups are divided"),
        (lambda: TaskSet(X, Y, by="patient"), "by must be 'class' or 'group'"),
        (lambda: TaskSet([], []), "x must hold at least one item"),
        (lambda: TaskSet(X, Y, splits={"val": Y}), "got 'val'; did you mean"),
        (lambda: TaskSet(X, Y).classes("val"), "split must be one of"),
        (lambda: TaskSet(X, Y).load("train", 0, [99]), "picks must lie between 0 and 9, got 99"),
        (lambda: TaskSet(X, Y).stream("train", seed=0, n_shot=1, n_query=1), "n_way must be given"),
    ],
)
def test_what_makes_no_tasks_is_refused(attempt, words):
    with pytest.raises(ValueError, match=words) as caught:
        attempt()
    assert "; " in str(caught.value)


def album(root, lines, header="file,label,group"):
    for k in range(8):
        path = root / "images" / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        forms.picture(str(k), 0).save(path)
    (root / "labels.csv").write_text("\n".join([header, *lines]) + "\n")
    return root / "labels.csv"


def test_a_table_of_images_labels_and_patients(tmp_path):
    lines = [f"{k}.png,{'ab'[k % 2]},p{k // 2}" for k in range(8)]
    tasks = TaskSet.from_csv(album(tmp_path, lines), image_size=12, fractions=(0.5, 0, 0.5))
    assert tasks.by == "group" and tasks.image_shape == (3, 12, 12)
    assert tasks.classes("train") == tasks.classes("test") == ("a", "b")
    episode = tasks.stream("train", seed=0, n_way=2, n_shot=1, n_query=1)(0)
    assert episode.support_x.shape == (2, 3, 12, 12) and episode.support_x.max() <= 1
    plain = TaskSet.from_csv(album(tmp_path, ["1.png,a", "2.png,b"], "FILE_NAME,CATEGORY"))
    assert plain.by == "class"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["9.png,a,p"], "line 2, '9.png'|must be readable, got No such file"),
        (["../x.png,a,p"], "file below its folder"),
        (["1.png,a,"], "got .* in line 2"),
        (["1.png,a"], "must have 3 cells"),
        ([], "must name at least one image"),
    ],
)
def test_broken_tables_are_refused(tmp_path, lines, words):
    with pytest.raises(ValueError, match=words):
        TaskSet.from_csv(album(tmp_path, lines))
    with pytest.raises(ValueError, match="must be a csv table, got No such file"):
        TaskSet.from_csv(tmp_path / "absent.csv")


@pytest.mark.parametrize("size", [0, -4, 8.5, 10**6])
def test_a_size_that_no_image_has_is_refused(tmp_path, size):
    """A million pixels square took all memory of the machine."""
    table = album(tmp_path, ["1.png,a", "2.png,b"], "file,label")
    with pytest.raises(ValueError, match="image_size must be a whole number of pixels from 4"):
        TaskSet.from_csv(table, image_size=size)


def small_classes(sizes):
    names = [(name, f"{k:03d}") for name, n in sizes.items() for k in range(n)]
    pixels = np.arange(len(names), dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    return ClassImages(
        pixels.copy(),
        class_ids=[c for c, _ in names],
        files=[f for _, f in names],
        division=Division({"train": tuple(sizes)}, "hand"),
    )


def test_numbers_of_sixteen_bits_that_numpy_does_not_know():
    x = torch.arange(8.0)[:, None]
    found = TaskSet(x.bfloat16(), torch.arange(8) % 2, fractions=(1, 0, 0))
    assert torch.equal(found.load("train", 0, range(4)), x[::2])


def test_unequal_numbers_per_class():
    sizes = {"a": 2, "b": 5, "c": 30}
    options = {"split": "train", "seed": 0, "n_way": 3, "n_shot": 3, "n_query": 4}
    with pytest.raises(ValueError, match=r"got 2 in class 'a' .* pass unequal=True, .* remove"):
        EpisodeStream(small_classes(sizes), **options)
    stream = EpisodeStream(small_classes(sizes), **options, unequal=True)
    episode, chosen = stream(0), stream.chosen(0)
    for label, (k, picks) in enumerate(chosen):
        n = list(sizes.values())[k]
        support, query = (y == label for y in (episode.support_y, episode.query_y))
        assert int(support.sum()) == min(3, n - 1)
        assert int(query.sum()) == min(4, n - min(3, n - 1))
        first = sum(list(sizes.values())[:k])
        seen = torch.cat([episode.support_x[support], episode.query_x[query]])[:, 0, 0, 0] * 255
        assert seen.round().long().tolist() == [first + pick for pick in picks]
    with pytest.raises(ValueError, match="at least 2 images, got 1 in class 'a'"):
        EpisodeStream(small_classes({"a": 1, "b": 3, "c": 3}), **options, unequal=True)


def test_where_all_are_large_enough_unequal_changes_nothing():
    options = {"split": "train", "seed": 0, "n_way": 2, "n_shot": 2, "n_query": 3}
    source = small_classes({"a": 6, "b": 5, "c": 7})
    one, two = (EpisodeStream(source, **options, unequal=flag)(4) for flag in (False, True))
    assert all(torch.equal(getattr(one, n), getattr(two, n)) for n in vars(one) if n != "seed")
    assert one.seed == two.seed


def test_the_way_out_of_too_few_classes_is_named():
    """n_way = 5: 'at most 1'; n_way = 1: 'must be >= 2' was a dead end."""
    images = small_classes(dict.fromkeys("abcdefgh", 4))
    images.division = Division(
        {"train": tuple("abcde"), "validation": ("f",), "test": ("g", "h")}, "fractions"
    )
    for n_way in (5, 2):
        with pytest.raises(ValueError) as caught:
            EpisodeStream(images, split="validation", seed=0, n_way=n_way, n_shot=1, n_query=1)
        assert "lower it" not in str(caught.value)
        assert "(now train 5, validation 1, test 2)" in str(caught.value)
        assert "class folders below train, val and test" in str(caught.value)
        assert "or use split 'train'" in str(caught.value)
    with pytest.raises(ValueError, match="got 3; lower n_way, or divide the classes yourself"):
        EpisodeStream(images, split="test", seed=0, n_way=3, n_shot=1, n_query=1)


def written(folder, header, rows, separator=","):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [separator.join(row) for row in (header, *rows)]
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder / "labels.csv"


@pytest.fixture
def pictures(tmp_path):
    """Rows (file, class, patient) of twelve pictures in ``images``."""
    (tmp_path / "images").mkdir()
    for k in range(12):
        Image.new("RGB", (9, 7), (20 * k, 0, 0)).save(tmp_path / "images" / f"{k}.png")
    return [(f"{k}.png", f"c{k % 4}", f"p{k % 3}") for k in range(12)]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_of_a_spreadsheet_is_read_with_its_own_separator(tmp_path, pictures, separator):
    table = written(tmp_path, ("filepath", "Label", "Patient_ID"), pictures, separator)
    made = TaskSet.from_csv(table, image_size=8)
    plain = written(tmp_path, ("file", "label", "group"), pictures)
    assert made.by == "group" and made.digest == TaskSet.from_csv(plain, image_size=8).digest


def test_files_may_be_named_from_the_table_s_folder(tmp_path, pictures):
    inside = TaskSet.from_csv(written(tmp_path, ("file", "label", "group"), pictures), image_size=8)
    rows = [(f"images/{a}", b, c) for a, b, c in pictures]
    table = written(tmp_path, ("file", "label", "group"), rows)
    assert TaskSet.from_csv(table, image_size=8).digest == inside.digest
    assert open_class_folders(tmp_path, image_size=8, in_memory=True).class_ids[0] == "c0"


def test_a_column_of_splits_is_obeyed_and_must_not_tear_a_class(tmp_path, pictures):
    of = {"c0": "train", "c1": "train", "c2": "Val", "c3": "test"}
    rows = [(a, b, of[b]) for a, b, _ in pictures]
    made = TaskSet.from_csv(written(tmp_path, ("file", "label", "split"), rows), image_size=8)
    assert made.classes("train") == ("c0", "c1") and made.classes("validation") == ("c2",)
    rows[0] = (rows[0][0], "c0", "test")
    with pytest.raises(ValueError, match="the same for all items of a class or group, got 'train'"):
        TaskSet.from_csv(written(tmp_path, ("file", "label", "split"), rows), image_size=8)


@pytest.mark.parametrize(
    ("y", "words"),
    [
        ([0.0, 1.0, 2.0], r"whole numbers if they are classes: y\.astype\(int\)"),
        ([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], r"if y is one-hot: y\.argmax\(1\)"),
        ([0.5, 1.0, 2.0], "name one for every item$"),
    ],
)
def test_floats_that_look_like_classes_get_a_hint(y, words):
    with pytest.raises(ValueError, match=words):
        TaskSet([[1.0], [2.0], [3.0]], y)


def test_a_split_by_another_name_is_one_sentence_with_a_hint():
    made = TaskSet([[float(k)] for k in range(8)], [k % 4 for k in range(8)])
    for call in (
        lambda: made.classes("val"),
        lambda: TaskSet([[1.0]], [0], splits={"val": [0]}),
    ):
        with pytest.raises(ValueError, match="got 'val'; did you mean 'validation'"):
            call()
