"""The commands besides train: help, evaluate, adapt, geometries, data, doctor."""

from __future__ import annotations

import functools
import json
import resource
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from mdtheory.data.glyphs import GlyphSet
from mdtheory.figures.contact_sheet import pixels_of
from tests.commands.runs import call, process, refused, train

COMMANDS = [
    ["demo"],
    ["train"],
    ["evaluate"],
    ["compare"],
    ["plot"],
    ["adapt"],
    ["geometries"],
    ["data", "check"],
    ["data", "sheet"],
    ["checkpoint", "digest"],
    ["checkpoint", "show"],
    ["checkpoint", "export"],
    ["doctor"],
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two finished tiny runs."""
    folder = tmp_path_factory.mktemp("runs")
    train(folder / "maml")
    train(folder / "metasgd", geometry__name="metasgd")
    return folder


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_help_teaches_by_example(command):
    result = call(*command, "--help")
    assert result.exit_code == 0
    assert "Example" in result.stdout
    assert "mdtheory " + " ".join(command) in " ".join(result.stdout.split())


def test_help_is_quick():
    """Under half a second of processor time, whatever else the machine does (importing torch alone
    takes longer).
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    one = process("--help")
    out, _ = one.communicate(timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert one.returncode == 0
    assert all(command[0] in out for command in COMMANDS)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_version_and_unknown_commands():
    assert call("--version").stdout.count(".") == 2
    assert call("trian").exit_code == 2
    assert call("train").exit_code == 2


# -- evaluate
# --------------------------------------------------------------------------------------------------


def test_evaluate_compares_on_the_same_tasks_and_keeps_every_score(runs, tmp_path):
    result = call(
        "evaluate",
        runs / "maml",
        runs / "metasgd",
        "--tasks",
        6,
        "--scores",
        tmp_path / "s.json",
        "--json",
    )
    report = json.loads(result.stdout)
    kept = json.loads((tmp_path / "s.json").read_text())
    first, second = kept["results"]
    assert [one["geometry"] for one in report["results"]] == ["maml", "metasgd"]
    assert [row["n_query"] for row in report["results"][0]["protocols"]] == [1, 2]
    for index, n_query in enumerate(("1", "2")):
        gaps = np.subtract(second["scores"][n_query], first["scores"][n_query])
        found = report["results"][1]["protocols"][index]["difference_to_first"]
        assert found["mean"] == pytest.approx(gaps.mean())
        assert found["half_width"] == pytest.approx(1.96 * gaps.std(ddof=1) / 6**0.5)
        assert report["results"][0]["protocols"][index]["accuracy"]["mean"] == pytest.approx(
            np.mean(first["scores"][n_query])
        )
    assert "scores" not in report["results"][0]


def test_the_products_are_of_the_runs_precision(runs, monkeypatch):
    """Not of torch's own, which is TF32."""
    from mdtheory.kernels.precision import tf32
    from mdtheory.meta import evaluate as module

    seen, measure = [], module.evaluate

    def watched(*given, **options):
        seen.append(tf32())
        return measure(*given, **options)

    monkeypatch.setattr(module, "evaluate", watched)
    assert call("evaluate", runs / "maml", "--tasks", 2).exit_code == 0
    assert seen == [False] and tf32()


def test_the_table_names_protocol_and_norm_policy(runs):
    result = call("evaluate", runs / "maml", runs / "metasgd", "--tasks", 3)
    assert result.exit_code == 0
    for words in (
        "3-way 1-shot, test split, 3 tasks",
        "norm transductive",
        "1 per class",
        "2 per class",
        "difference",
    ):
        assert words in result.stdout


def test_more_than_600_tasks_show_their_first_600(runs, monkeypatch):
    from mdtheory.commands import evaluate as command
    from mdtheory.meta.evaluate import Scores, estimate

    values = torch.rand(601, dtype=torch.float64)
    monkeypatch.setattr(
        "mdtheory.meta.evaluate.evaluate",
        lambda *a, **k: [Scores(1, values, values), Scores(2, values, values)],
    )
    report = command.run([runs / "maml" / "best.pt"], 601, "test", None, "cpu")
    protocol = report["results"][0]["protocols"][0]
    assert protocol["accuracy_first_600"]["mean"] == estimate(values[:600]).mean
    assert protocol["accuracy"]["n"] == 601


def test_evaluation_tasks_do_not_depend_on_the_seed_of_the_run(runs, tmp_path):
    train(tmp_path / "other", seed=5)
    result = call("evaluate", runs / "maml", tmp_path / "other", "--tasks", 2, "--json")
    assert result.exit_code == 0
    assert [one["seed"] for one in json.loads(result.stdout)["results"]] == [0, 5]


def test_different_problems_are_not_compared(runs, tmp_path):
    train(tmp_path / "r", task__n_way=2)
    assert "task.n_way = 2" in refused(
        call("evaluate", runs / "maml", tmp_path / "r", "--tasks", 2)
    )


def test_evaluate_refuses_what_is_no_run(runs, tmp_path):
    assert "best.pt or last.pt" in refused(call("evaluate", tmp_path))
    assert "no file there" in refused(call("evaluate", tmp_path / "none.pt"))
    assert "split must be" in refused(
        call("evaluate", runs / "maml", "--split", "tset", "--tasks", 2)
    ).replace("a split", "split")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A run on three classes of four pictures each, and the pictures, of whose test classes one is
    too small for its tests.
    """
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name in "abc":
            place = folder / "images" / split / f"{split}-{name}"
            place.mkdir(parents=True)
            for index in range(4 if name < "c" or split != "test" else 3):
                noise = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(noise).save(place / f"{index}.png")
    own = {"data.source": "folder", "data.path": folder / "images", "data.image_size": 16}
    more = [part for key, value in own.items() for part in ("--set", f"{key}={value}")]
    train(folder / "run", *more, task__eval_n_query="[1, 3]", meta__iterations=1)
    return folder


def test_images_that_have_changed_since_the_training_are_said(photographs, tmp_path):
    """Another class in the folder, and classes of the training may be among those of the test."""
    images = tmp_path / "images"
    shutil.copytree(photographs / "images", images)
    shutil.copytree(images / "train" / "train-a", images / "train" / "more")
    line = ("evaluate", photographs / "run", "--tasks", 2, "--split", "validation")
    assert "caution" not in call(*line).stderr
    said = call(*line, "--data", images)
    assert said.exit_code == 0
    assert f"caution: {photographs / 'run' / 'best.pt'} was trained on other images" in said.stderr


def test_classes_that_change_their_splits_are_said_and_end_the_training(photographs, tmp_path):
    """One that was trained on would be tested, and one that is tested trained on, though no image
    changed.
    """
    images, run = tmp_path / "images", tmp_path / "run"
    shutil.copytree(photographs / "images", images)
    shutil.copytree(photographs / "run", run)
    (images / "train" / "train-a").rename(images / "test" / "train-a")
    (images / "test" / "test-a").rename(images / "train" / "test-a")
    said = call("evaluate", run, "--tasks", 2, "--split", "validation", "--data", images)
    assert said.exit_code == 0, said.output
    assert "another division of the classes than is tested here" in said.stderr
    line = ("train", "--config", run / "config.toml", "--set", f"data.path={images}", "--out", run)
    assert "must hold the classes that they held" in refused(call(*line, "--resume"))


def test_a_place_that_a_component_does_not_need_is_refused():
    for slug, words in (("maml", "a geometry"), ("conv4", "a model"), ("glyphs", "the source")):
        said = refused(call("check", slug, "--path", "x"))
        assert f"--path must be left out for {words}" in said


def test_more_tasks_than_a_life_has_are_refused(runs, tmp_path):
    result = call("plot", runs / "maml", "--tasks", 10**12, "--out", tmp_path / "figures")
    assert result.exit_code == 2 and not (tmp_path / "figures").exists()


def test_no_advice_is_impossible_to_follow(photographs, tmp_path):
    """The sizes of an evaluation's tasks are the run's: nothing there can be lowered."""
    run, images = photographs / "run", photographs / "images"
    for command in (["evaluate", run], ["compare", run, run]):
        said = refused(call(*command, "--tasks", 2))
        assert "n_shot + n_query = 4 images, got 3 in class 'test-c' of split 'test'; give" in said
        assert "lower" not in said and "unequal" not in said
    assert call("evaluate", run, "--tasks", 2, "--split", "validation").exit_code == 0
    sheet = ("data", "sheet", tmp_path / "x.png", images, "--n-way")
    assert "; lower --per-class, or give it more" in refused(call(*sheet, 3, "--per-class", 10))
    assert "; lower --n-way, or divide the classes" in refused(call(*sheet, 5))
    assert call(*sheet, 3).exit_code == 0  # as many as all have


def test_scores_that_cannot_be_written_cost_no_numbers(runs, tmp_path, monkeypatch):
    from mdtheory.core import atomic

    def full(path, data):
        raise ValueError(f"{path} must be written, but the system says: no space left")

    monkeypatch.setattr(atomic, "write_atomically", full)
    scores = tmp_path / "scores.json"
    result = call("evaluate", runs / "maml", "--tasks", 2, "--scores", scores, "--json")
    assert result.exit_code == 2 and "no space left" in result.stderr
    assert json.loads(result.stdout)["results"][0]["protocols"]
    (tmp_path / "file").write_text("")
    for place in ("file/x.json", "file/y/x.json"):
        asked = ("evaluate", runs / "maml", "--tasks", 2, "--scores", tmp_path / place)
        assert "must be in a folder" in refused(call(*asked))


def test_no_sentence_moves_the_cursor(tmp_path):
    said = refused(call("evaluate", tmp_path / "\x1b[2J\u202e"))
    assert "\\x1b[2J\\u202e" in said


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """Three classes of letters as pictures: two examples of each, and four to be told apart."""
    folder, glyphs = tmp_path_factory.mktemp("letters"), GlyphSet(strength=0.5)
    for index, name in enumerate(("alpha", "beta", "gamma")):
        images = glyphs.load("test", index, range(6), seed=1).numpy()
        for number, image in enumerate(images):
            place = folder / ("support" if number < 2 else "query") / name
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels_of(image)).save(place / f"{number}.png")
    return folder


# -- geometries, data, doctor
# ------------------------------------------------------------------------------------------


def test_geometries_count_the_published_numbers():
    listed = {one["name"]: one for one in json.loads(call("geometries", "--time", "--json").stdout)}
    plain = {"name", "summary", "source"}
    assert all(set(one) == plain | {"parameters", "step_seconds"} for one in listed.values())
    untimed = json.loads(call("geometries", "--json").stdout)  # read off the files, not registered
    assert untimed == [{key: one[key] for key in untimed[0]} for one in listed.values()]
    assert set(untimed[0]) == plain and all(all(one.values()) for one in untimed)
    assert listed["maml"]["parameters"] == 0
    assert listed["metasgd"]["parameters"] == 121_093
    assert listed["metamida"]["parameters"] == 3_447_535
    assert all(0 < one["step_seconds"] < 10 and one["source"] for one in listed.values())


def test_data_check_of_glyphs_and_of_folders(letters, tmp_path, monkeypatch):
    monkeypatch.setenv("MDTHEORY_CACHE", str(tmp_path / "cache"))
    glyphs = json.loads(call("data", "check", "--json").stdout)
    assert glyphs["image_shape"] == [1, 28, 28] and glyphs["splits"]["test"]["classes"] > 50
    folders = json.loads(
        call("data", "check", letters / "support", "--image-size", 28, "--json").stdout
    )
    assert sum(split["images"] for split in folders["splits"].values()) == 6
    assert "classes" in call("data", "check").stdout
    assert "existing folder" in refused(call("data", "check", tmp_path / "none"))
    monkeypatch.delenv("MDTHEORY_MINI_IMAGENET", raising=False)
    assert "MDTHEORY_MINI_IMAGENET" in refused(call("data", "check", "--source", "mini-imagenet"))


def test_data_check_reads_every_pixel_and_names_what_is_left_out(letters, tmp_path, monkeypatch):
    monkeypatch.setenv("MDTHEORY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("mdtheory.data.cache.SMALL", 0)  # as for a large cache
    root = tmp_path / "\x1b[31mred"
    shutil.copytree(letters / "support", root)
    (root / "alpha" / "\x1b[2J.psd").write_bytes(b"x")
    shutil.copy(root / "alpha" / "0.png", root / "gamma" / "copy.png")
    first = call("data", "check", root, "--image-size", 28)
    assert first.exit_code == 0, first.output
    assert "\x1b" not in first.stdout
    assert "left out: 1 files without the ending of an image" in first.stdout
    assert "1 image is there twice" in first.stdout
    (pixels,) = (tmp_path / "cache").glob("*/images.npy")
    data = bytearray(pixels.read_bytes())
    data[-1] ^= 1
    pixels.write_bytes(data)
    second = call("data", "check", root, "--image-size", 28)
    assert second.exit_code == 0
    assert "got one that holds other pixels" in second.stderr
    assert second.stdout == first.stdout
    assert call("data", "check", root, "--image-size", 28).stderr.count("other pixels") == 0


def test_data_sheet_draws_a_task_once(tmp_path):
    result = call("data", "sheet", tmp_path / "s.png", "--n-way", 3, "--per-class", 4)
    assert result.exit_code == 0, result.output
    again = call("data", "sheet", tmp_path / "t.png", "--n-way", 3, "--per-class", 4)
    assert again.exit_code == 0
    assert (tmp_path / "s.png").read_bytes() == (tmp_path / "t.png").read_bytes()
    assert "new file" in refused(call("data", "sheet", tmp_path / "s.png"))


@pytest.mark.parametrize(("mean", "said"), [(0.26, True), (0.31, False), (0.15, True)])
def test_evaluate_says_what_is_not_better_than_guessing(capsys, mean, said):
    from mdtheory.commands import evaluate as command

    found = {"mean": mean, "half_width": 0.1, "n": 9}
    row = {"geometry": "maml", "norm": "support", "steps": 5}
    row["protocols"] = [{"n_query": 15, "accuracy": found}]
    task = {"n_way": 5, "n_shot": 1, "split": "test", "tasks": 9}
    command._show({**task, "results": [row]})
    shown = " ".join(capsys.readouterr().out.split())
    assert ("Not shown to be better than guessing (20.0%): maml" in shown) == said


def test_doctor_is_content_and_checks_the_mathematics(monkeypatch):
    monkeypatch.delenv("MDTHEORY_MINI_IMAGENET", raising=False)
    findings = json.loads(call("doctor", "--json").stdout)
    assert all(finding["ok"] for finding in findings)
    assert sum(finding["check"].startswith("meta-gradient") for finding in findings) == 3


@pytest.mark.parametrize(("loops", "said"), [("block-1", "block-1, compiled"), ("plain", "g++")])
def test_doctor_says_which_kernels_run(monkeypatch, loops, said):
    monkeypatch.setattr("mdtheory.kernels.compile.identity", lambda: loops)
    found = {one["check"]: one["found"] for one in json.loads(call("doctor", "--json").stdout)}
    assert said in found["CPU kernels"]


def test_doctor_on_a_card(monkeypatch):
    """A CPU for the card, and a small network: what it finds, a wrong gradient, a dead driver."""
    from mdtheory.commands import doctor as command
    from mdtheory.kernels.precision import tf32
    from mdtheory.models import conv4

    small, cpu = functools.partial(conv4.Conv4, channels=2), torch.device("cpu")
    monkeypatch.setattr(command, "_card", lambda: cpu)
    monkeypatch.setattr(conv4, "Conv4", small)
    kernels, *precisions = command._precisions()
    assert kernels["check"] == "GPU kernels" and all(one["ok"] for one in precisions)
    assert [one["check"] for one in precisions] == ["precision float32", "precision tf32"]
    assert all("off float64" in one["found"] for one in precisions)

    def gradient(device, dtype):
        return torch.ones(2, dtype=dtype) * (0 if tf32() and dtype == torch.float32 else 1)

    monkeypatch.setattr(command, "_gradient", gradient)
    assert [one["ok"] for one in command._precisions()] == [True, True, False]

    def dead(device, dtype):
        raise RuntimeError("no kernel image\nfor this card")

    monkeypatch.setattr(command, "_gradient", dead)
    assert command._precisions()[1:] == [
        command._finding("GPU", "no kernel image for this card", ok=False)
    ]


def test_doctor_finds_a_wrong_gradient_and_lost_data(monkeypatch, tmp_path):
    """Negative control: a first-order gradient in place of the exact one, and a variable that
    points nowhere.
    """
    from mdtheory.inner.estimators.unrolled import FirstOrder, Unrolled

    truncated = FirstOrder().task_gradient
    monkeypatch.setattr(Unrolled, "task_gradient", lambda self, *args: truncated(*args))
    monkeypatch.setenv("MDTHEORY_MINI_IMAGENET", str(tmp_path / "none"))
    result = call("doctor")
    assert result.exit_code == 1
    assert result.stdout.count("FAIL") == 4
