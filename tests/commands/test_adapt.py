"""adapt: calibrated answers, nothing lost to one bad file, nothing foreign believed."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mdtheory.cli import app
from mdtheory.data import left_out
from mdtheory.data.glyphs import GlyphSet
from mdtheory.figures.contact_sheet import pixels_of
from mdtheory.meta.calibrate import temperature
from mdtheory.run.answer import Alone, answer
from mdtheory.run.build import load_learner
from tests.commands.runs import call, refused, train
from tests.faults.process import forked

NAMES = ("alpha", "beta", "gamma")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One finished tiny run."""
    folder = tmp_path_factory.mktemp("runs") / "maml"
    train(folder)
    return folder


def draw(folder, counts):
    """Three classes of letters: ``counts`` examples of each, then four to be told apart."""
    glyphs = GlyphSet(strength=0.5)
    for index, name in enumerate(NAMES):
        images = glyphs.load("test", index, range(counts + 4), seed=1).numpy()
        for number, image in enumerate(images):
            place = folder / ("support" if number < counts else "query") / name
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels_of(image)).save(place / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("letters"), 2)


@pytest.fixture
def letters(drawn, tmp_path):
    """A copy to be spoilt."""
    return Path(shutil.copytree(drawn, tmp_path / "letters"))


def ask(run, letters, out, *more):
    folders = ("--support", letters / "support", "--query", letters / "query")
    return call("adapt", run, *folders, "--out", out, *more)


def test_probabilities_a_sheet_and_a_page(run, letters, tmp_path):
    out = tmp_path / "answers"
    report = json.loads(ask(run, letters, out, "--json").stdout)
    with (out / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 == len(report["predictions"])
    assert list(rows[0]) == ["file", "predicted", "set", "p(alpha)", "p(beta)", "p(gamma)"]
    for row in rows:
        probabilities = {name: float(row[f"p({name})"]) for name in NAMES}
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert row["predicted"] == max(probabilities, key=probabilities.__getitem__)
        assert row["predicted"] in row["set"].split(" | ")
    right = [Path(row["file"]).parent.name == row["predicted"] for row in rows]
    assert report["accuracy"] == pytest.approx(np.mean(right))
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.width > 400 and sheet.height > 300
    assert "must be a new file" in refused(ask(run, letters, out))
    assert ask(run, letters, out, "--force").exit_code == 0


def test_it_says_what_the_learner_says(run, letters, tmp_path):
    """The library's own numbers on ink images, though they went through PNG files, over the
    temperature.
    """
    report = json.loads(ask(run, letters, tmp_path / "a", "--json").stdout)
    glyphs = GlyphSet(strength=0.5)
    images = torch.stack([glyphs.load("test", index, range(6), seed=1) for index in range(3)])
    rounded = 1 - ((1 - images) * 255).round() / 255
    x, y = rounded[:, :2].flatten(0, 1), torch.tensor([0, 0, 1, 1, 2, 2])
    queries = rounded[:, 2:].flatten(0, 1)
    learner, _ = load_learner(run / "best.pt")
    with torch.no_grad():
        logits = learner.adapt(x, y)(queries)
        held = []  # each example by an adaptation to the others, beside the queries
        for part in (0, 1):
            adapted = learner.adapt(x[1 - part :: 2], y[1 - part :: 2])
            held.append(adapted(torch.cat([x[part::2], queries]))[:3])
    heat = temperature(torch.cat(held), torch.tensor([0, 1, 2] * 2))
    assert report["temperature"] == pytest.approx(heat, rel=1e-3)
    found = torch.tensor([list(row["probabilities"].values()) for row in report["predictions"]])
    torch.testing.assert_close(found, (logits / heat).softmax(-1), atol=1e-4, rtol=0)


def test_too_few_examples_are_said(run, tmp_path):
    report = json.loads(ask(run, draw(tmp_path / "l", 1), tmp_path / "a", "--json").stdout)
    assert report["temperature"] is None and report["coverage"] is None
    assert all(row["set"] is None for row in report["predictions"])
    assert any("the probabilities are not calibrated" in one for one in report["cautions"])
    two = ask(run, draw(tmp_path / "m", 2), tmp_path / "b", "--json")
    report = json.loads(two.stdout)
    assert any("need 9 held-out examples, got 3" in one for one in report["cautions"])
    assert all(row["set"] == list(NAMES) for row in report["predictions"])
    assert "caution: sets with a coverage of 90 %" in two.stderr
    six = json.loads(ask(run, draw(tmp_path / "n", 6), tmp_path / "c", "--json").stdout)
    assert not any("held-out examples, got" in one for one in six["cautions"])
    assert six["held_out"]["n"] == 18
    assert 0 < six["held_out"]["low"] < six["held_out"]["high"] <= 1
    assert "coverage must lie between" in refused(
        ask(run, draw(tmp_path / "o", 1), tmp_path / "d", "--coverage", 1.5)
    )


def damaged(folder):
    good = (folder / "alpha" / "2.png").read_bytes()
    (folder / "alpha" / "bad.png").write_bytes(good[:150])
    (folder / "text.jpg").write_bytes(b"<html>")
    (folder / "empty.png").write_bytes(b"")
    (folder / "phone.heic").write_bytes(b"x")
    os.mkfifo(folder / "pipe.png")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    (folder / "round.png").symlink_to("round.png")


def test_bad_files_cost_only_themselves(run, letters, tmp_path, monkeypatch):
    monkeypatch.setattr(left_out, "formats", lambda: ("JPEG", "PNG"))
    left_out.image_suffixes.cache_clear()
    damaged(letters / "query")
    (letters / "support" / "beta" / "bad.png").write_bytes(b"x")
    deep = np.arange(28 * 28, dtype=np.uint16).reshape(28, 28) * 80
    Image.fromarray(deep).save(letters / "query" / "sixteen.png")
    result = ask(run, letters, tmp_path / "a", "--json")
    left_out.image_suffixes.cache_clear()
    assert result.exit_code == 1, result.output
    report = json.loads(result.stdout)
    names = {Path(one["file"]).name for one in report["unread"]}
    assert names == {
        "bad.png", "text.jpg", "empty.png", "phone.heic", "pipe.png", "device.png", "gone.png",
        "round.png",
    }  # fmt: skip
    assert len(report["unread"]) == 9  # one bad.png is an example
    assert len(report["predictions"]) == 13
    for one in report["unread"]:
        assert one["why"] in (tmp_path / "a" / "report.html").read_text().replace("&#x27;", "'")
        assert "not read: " + one["why"] in result.stderr
    assert "pip install pillow-heif" in result.stderr


def test_everything_left_out_is_said(run, letters, tmp_path):
    query = letters / "query"
    picture = (query / "alpha" / "2.png").read_bytes()
    for name in ("top.png", "sub/one.png", "sub/deep/two.png", "noext", "sub/.DS_Store"):
        (query / name).parent.mkdir(parents=True, exist_ok=True)
        (query / name).write_bytes(picture)
    (letters / "support" / "alpha" / "sub").mkdir()
    (letters / "support" / "alpha" / "sub" / "0.png").write_bytes(picture)
    (letters / "support" / "__MACOSX").mkdir()
    (letters / "support" / "__MACOSX" / "x.png").write_bytes(picture)
    (letters / "support" / "loose.png").write_bytes(picture)
    for folder in ("support", "support/alpha", "query"):
        (letters / folder / "round").symlink_to("round")
    result = ask(run, letters, tmp_path / "a", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert len(report["predictions"]) == 15
    said = " ".join(report["left_out"])
    for words in (
        f"1 {left_out.DEEPER} such as 'alpha/sub/0.png'",
        "1 images beside the class folders such as 'loose.png'",
        f"1 {left_out.OTHER} such as 'noext'",
        f"1 {left_out.SYSTEM} such as '__MACOSX'",
        "2 links to nothing such as 'alpha/round'",
        f"1 {left_out.SYSTEM} such as 'sub/.DS_Store'",
    ):
        assert words in said
    assert all(f"left out: {one}" in result.stderr for one in report["left_out"])


def test_an_unreadable_class_and_one_level_too_deep_are_refused(run, letters, tmp_path):
    out = tmp_path / "out"
    for file in (letters / "support" / "beta").iterdir():
        file.write_bytes(b"x")
    sentence = refused(ask(run, letters, out))
    assert "images that can be read, got none in" in sentence and "must be an image" in sentence
    shutil.rmtree(letters / "support" / "beta")
    (letters / "support" / "beta" / "b").mkdir(parents=True)
    shutil.copy(letters / "query/beta/2.png", letters / "support/beta/b/2.png")
    assert "one level too deep, in 'b': move them up" in refused(ask(run, letters, out))
    shutil.rmtree(letters / "support" / "beta")
    (letters / "support" / "beta").mkdir()
    assert "got none in" in refused(ask(run, letters, out))
    shutil.rmtree(letters / "support" / "beta")
    assert "must have 3 subfolders" in refused(ask(run, letters, out))
    shutil.rmtree(letters / "query")
    assert "--query must be a folder" in refused(ask(run, letters, out))
    (letters / "query").mkdir()
    (letters / "query" / "notes.txt").write_text("x")
    shutil.copytree(letters / "support" / "alpha", letters / "support" / "beta")
    assert "--query must hold images, got none but 1 texts" in refused(ask(run, letters, out))
    (letters / "query" / "a.png").write_bytes(b"x")
    assert "--query must hold images that can be read" in refused(ask(run, letters, out))
    assert not out.exists()


HOSTILE = ("=cmd|'!A0", "a\nb", "\x1b[31mred\x1b[0m")


def test_hostile_names_are_neutralised_everywhere(run, letters, tmp_path):
    hostile = "<script>alert(1)</script>".replace("/", "\u2044")
    for old, new in zip(NAMES, (HOSTILE[0], HOSTILE[1], HOSTILE[2] + hostile), strict=True):
        (letters / "support" / old).rename(letters / "support" / new)
    (letters / "query" / "alpha" / "2.png").rename(letters / "query" / "alpha" / "+1\x07.png")
    odd = Path(os.fsdecode(os.fsencode(letters / "query") + b"/\xff.png"))
    shutil.copy(letters / "query" / "beta" / "2.png", odd)
    result = ask(run, letters, tmp_path / "a")
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.stdout + result.stderr and "\x07" not in result.stdout
    table = (tmp_path / "a" / "predictions.csv").read_text()
    assert "\x1b" not in table and "\udcff" not in table and "\\udcff.png" in table
    for row in csv.reader(table.splitlines()):
        assert not any(re.match(r"\s*[=+\-@]", cell) for cell in row)
    page = (tmp_path / "a" / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page


def test_names_that_read_alike_are_refused(run, letters, tmp_path):
    """Their probabilities would stand in one column."""
    (letters / "support" / "alpha").rename(letters / "support" / "a\x1b")
    (letters / "support" / "beta").rename(letters / "support" / "a\\x1b")
    assert "names differ in print, got two" in refused(ask(run, letters, tmp_path / "a"))
    assert not (tmp_path / "a").exists()


def test_an_odd_name_is_not_called_wrong(run, letters, tmp_path):
    """Every class is called so, hence every right answer is in a folder of its own name."""
    for part in ("support", "query"):
        for name in NAMES:
            (letters / part / name).rename(letters / part / f"{name}\x07")
    report = json.loads(ask(run, letters, tmp_path / "a", "--json").stdout)
    page = (tmp_path / "a" / "report.html").read_text(encoding="utf-8")
    wrong = round((1 - report["accuracy"]) * len(report["predictions"]))
    assert page.count('<figure class="wrong">') == wrong


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.links = set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "srcset", "action")]


def test_the_page_opens_offline(run, letters, tmp_path):
    ask(run, letters, tmp_path / "a")
    page, links = (tmp_path / "a" / "report.html").read_text(), Links()
    links.feed(page)
    assert links.links and all(link.startswith("data:image/") for link in links.links)
    assert not links.tags & {"script", "link", "iframe", "object", "form"}
    assert "default-src 'none'" in page
    assert "http:" not in page and "https:" not in page
    assert page.count("<img ") == 12 + 6
    assert "on examples held out from the adaptation" in page


def test_without_out_a_new_folder_is_taken(run, letters, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = ("--support", letters / "support", "--query", letters / "query")
    for name in ("predictions", "predictions-2", "predictions-3"):
        assert call("adapt", run, *folders).exit_code == 0
        assert (tmp_path / name / "predictions.csv").is_file()
    (tmp_path / "predictions-4").symlink_to(tmp_path / "nowhere")
    assert call("adapt", run, *folders).exit_code == 0
    assert (tmp_path / "predictions-5").is_dir()


def test_a_link_to_nowhere_is_not_written_through(run, letters, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "sheet.png").symlink_to(tmp_path / "elsewhere.png")
    assert "must be a new file" in refused(ask(run, letters, tmp_path / "a"))
    assert not (tmp_path / "elsewhere.png").exists()


def test_one_by_one_no_prediction_depends_on_the_others(run, letters, tmp_path):
    def answers(out, *more):
        report = json.loads(ask(run, letters, tmp_path / out, "--json", *more).stdout)
        # the temperature is learned beside the queries, so undo it
        return {
            row["file"]: torch.tensor(list(row["probabilities"].values())).log()
            * report["temperature"]
            for row in report["predictions"]
        }

    def gap(first, second):
        return max(
            float((a - a.mean() - (second[file] - second[file].mean())).abs().max())
            for file, a in first.items()
            if file in second
        )

    alone, together = answers("a", "--one-by-one"), answers("b")
    for name in ("beta", "gamma"):
        shutil.rmtree(letters / "query" / name)
    assert gap(answers("c", "--one-by-one"), alone) < 1e-4
    assert gap(answers("d"), together) > 1e-3  # the control: transductive answers do


def test_alone_is_the_loop_over_single_items():
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).train()
    support, items = torch.randn(4, 3), torch.randn(5, 3)
    with torch.no_grad():
        found = Alone(network, support)(items)
        expected = [network(torch.cat([support, items[k : k + 1]]))[4] for k in range(5)]
    torch.testing.assert_close(found, torch.stack(expected))


def test_classes_that_may_be_one_are_said(run, letters, tmp_path):
    (letters / "support" / "beta").rename(letters / "support" / "Alpha")
    report = json.loads(ask(run, letters, tmp_path / "a", "--json").stdout)
    assert "the classes 'Alpha' and 'alpha' may be one" in " ".join(report["cautions"])


def test_folders_of_queries_that_are_nearly_a_class_are_said(run, letters, tmp_path):
    """Their images are not in the accuracy."""
    (letters / "query" / "beta").rename(letters / "query" / "Beta")
    report = json.loads(ask(run, letters, tmp_path / "a", "--json").stdout)
    assert "the classes 'beta' and 'Beta' may be one" in " ".join(report["cautions"])


def test_copies_among_the_examples_are_said(run, letters, tmp_path):
    """An example that is held out while its copy is adapted to says nothing of new images."""
    report = json.loads(ask(run, letters, tmp_path / "a", "--json").stdout)
    assert not any("copies" in one for one in report["cautions"])
    for name in ("alpha", "gamma"):
        shutil.copy(letters / "support/alpha/0.png", letters / "support" / name / "copy.png")
    report = json.loads(ask(run, letters, tmp_path / "b", "--json").stdout)
    (said,) = (one for one in report["cautions"] if "copies" in one)
    assert said.startswith("2 of the examples are copies of others, such as")
    assert "alpha/0.png' and '" in said and "alpha/copy.png'" in said


@pytest.mark.parametrize("part", ["support", "query"])
def test_answers_among_the_images_are_refused(run, letters, tmp_path, part):
    """The sheet of one run was classified by the next."""
    (tmp_path / "link").symlink_to(letters / part)
    for out in (letters / part / "answers", letters / part, tmp_path / "link" / "answers"):
        said = refused(ask(run, letters, out))
        assert f"--out must lie outside of --{part}" in said
    assert not list((letters / part).rglob("sheet.png"))


def test_copies_of_examples_are_said(run, letters, tmp_path):
    shutil.copy(letters / "support" / "alpha" / "0.png", letters / "query" / "alpha" / "9.png")
    report = json.loads(ask(run, letters, tmp_path / "a", "--json").stdout)
    assert any(
        "1 of the images to classify are copies of examples" in c for c in report["cautions"]
    )


LOADED = """
import json, sys
sys.modules["mdtheory"] = None  # any import of it fails
import torch
file = {"classes.json": ""}
model = torch.export.load(sys.argv[1], extra_files=file).module()
images = torch.load(sys.argv[2], weights_only=True)
print(json.dumps([json.loads(file["classes.json"]), model(images).tolist()]))
"""


@pytest.mark.parametrize("more", [(), ("--one-by-one",)], ids=["batch", "one by one"])
def test_an_export_gives_the_same_answers_without_the_library(run, letters, tmp_path, more):
    result = ask(run, letters, tmp_path / "a", "--export", "pt2", "--json", *more)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    (path,) = report["export"]
    assert report["export"][path] <= 1e-4
    from mdtheory.data.pictures import read_queries

    images = read_queries(letters / "query", size=28).tensor(channels=1)
    torch.save(images[:1] if more else images, tmp_path / "images.pt")
    command = [sys.executable, "-c", LOADED, path, str(tmp_path / "images.pt")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    classes, probabilities = json.loads(done.stdout)
    assert classes == list(NAMES)
    expected = [list(row["probabilities"].values()) for row in report["predictions"]]
    np.testing.assert_allclose(probabilities, expected[: len(probabilities)], atol=1e-4)


@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_an_export_to_onnx_gives_the_same_answers(run, letters, tmp_path):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed (extra onnx)")
    result = ask(run, letters, tmp_path / "a", "--export", "onnx", "--json")
    assert result.exit_code == 0, result.output
    import onnxruntime

    from mdtheory.data.pictures import read_queries

    report = json.loads(result.stdout)
    (path,) = report["export"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == list(NAMES)
    images = read_queries(letters / "query", size=28).tensor(channels=1).numpy()
    (found,) = session.run(None, {session.get_inputs()[0].name: images})
    expected = [list(row["probabilities"].values()) for row in report["predictions"]]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_an_export_that_answers_otherwise_is_not_kept(run, letters, tmp_path, monkeypatch):
    from mdtheory.run import export

    monkeypatch.setattr(
        export, "_write_pt2", lambda made, classes: (b"", lambda x: torch.zeros(len(x), 3))
    )
    result = ask(run, letters, tmp_path / "a", "--export", "pt2")
    assert result.exit_code == 1
    assert "not exported: what is read back from adapted.pt2 must give the same" in result.stderr
    assert not (tmp_path / "a" / "adapted.pt2").exists()
    assert "report.html" in result.stdout  # the answers are there and said all the same


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of file sizes")
def test_an_export_that_finds_no_room_is_said(run, letters, tmp_path):
    """Torch's own writer ended the process, without a word of ours, where the disk was full."""
    import resource

    answers = tmp_path / "a"
    assert ask(run, letters, answers).exit_code == 0
    room = max(file.stat().st_size for file in answers.iterdir())

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        line = ["adapt", run, "--support", letters / "support", "--query", letters / "query"]
        app([str(part) for part in [*line, "--out", answers, "--force", "--export", "pt2"]])

    outcome = forked(work)
    assert outcome.code == 1, outcome.err
    assert f"not exported: {answers / 'adapted.pt2'} must be written" in outcome.err
    assert not list(answers.glob("*adapted*")) and not list(answers.glob(".*"))


def test_a_missing_package_is_said_before_the_work(run, letters, tmp_path, monkeypatch):
    from mdtheory.run import export

    monkeypatch.setattr(export, "ONNX_PACKAGES", ("torch", "nosuchonnx"))
    sentence = refused(ask(run, letters, tmp_path / "a", "--export", "onnx"))
    assert "got none called nosuchonnx; pip install 'mdtheory[onnx]'" in sentence
    assert not (tmp_path / "a").exists()


def test_sets_cover_what_they_promise(run):
    """Over many tasks of the built-in glyphs: at least 80 % where 80 % is promised (binomial
    bound, false alarm below 1e-3).
    """
    from scipy.stats import binom

    learner, _ = load_learner(run / "best.pt")
    glyphs, hits, total, size = GlyphSet(strength=1.0), 0, 0, 0.0
    for task in range(60):
        classes = [(7 * task + k) % len(glyphs.classes("test")) for k in range(3)]
        images = torch.stack([glyphs.load("test", k, range(6), seed=task) for k in classes])
        x, y = images[:, :4].flatten(0, 1), torch.arange(3).repeat_interleave(4)
        queries, truth = images[:, 4:5].flatten(0, 1), torch.arange(3)
        sets = answer(learner, x, y, queries, coverage=0.8).sets
        hits += int(sets[torch.arange(3), truth].sum())
        total += 3
        size += float(sets.sum()) / 3
    assert hits >= binom.ppf(1e-3, total, 0.8)
    assert size / 60 < 3  # the control: not every set holds everything
