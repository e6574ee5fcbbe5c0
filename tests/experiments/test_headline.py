"""The first page: the headline, what was done at a glance, and the page of the task steps, against
the files they are made from.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from experiments import (
    answers,
    cause_figure,
    front,
    glance,
    headline,
    recorded_starts,
    slopes,
    start_or_geometry,
    step_curves,
)
from experiments.cells import Cell, cells, rows
from experiments.generated import ROOT
from experiments.records import FOLDER, Record
from experiments.result_tables import read
from experiments.statistics import Difference, compare
from mdtheory.core.estimate import Estimate, estimate, holm


@pytest.fixture(scope="module")
def results():
    return read()


def paths(name):
    return json.loads((FOLDER / name / "paths.json").read_text())


@pytest.mark.parametrize("kind", ["common", "own"])
def test_recorded_contrasts_are_those_of_the_paths(results, kind):
    mine, maml = paths("cpu-metamida-published-1shot-seed0"), paths("cpu-maml-1shot-seed0")
    gaps = [
        (a[5] - b[5]) / mine["queries"]
        for a, b in zip(mine[kind]["correct"], maml["own"]["correct"], strict=True)
    ]
    head = {"common": "geometry at the common start", "own": "both"}[kind]
    found = recorded_starts.contrasts([results["cpu", 1]])[head]
    one, wanted = found["cpu", 1, "metamida-published"].estimate, estimate(np.asarray(gaps))
    assert (one.mean, one.half_width) == pytest.approx((wanted.mean, wanted.half_width))


def test_recorded_contrasts_pair_each_seed_with_the_same_seed(results):
    gaps = []
    for seed in range(3):
        row, maml = (paths(f"cpu-{one}-5shot-seed{seed}") for one in ("metamida-published", "maml"))
        both = zip(row["own"]["correct"], maml["own"]["correct"], strict=True)
        gaps.append([(a[5] - b[5]) / row["queries"] for a, b in both])
    found = recorded_starts.contrasts([results["cpu", 5]])["both"]
    one, wanted = found["cpu", 5, "metamida-published"], compare({"": np.asarray(gaps)})[""]
    assert (one.seeds, one.p) == (3, pytest.approx(wanted.p))
    assert one.estimate.mean == pytest.approx(wanted.estimate.mean)
    assert one.estimate.half_width == pytest.approx(wanted.estimate.half_width)


def test_a_row_with_layers_of_its_own_has_no_common_start(results):
    for row in ("warpgrad", "mtnet"):
        assert recorded_starts.gap(results["cpu", 1], row, common=True) is None
    text = "\n".join(recorded_starts.lines([results["cpu", 1]]))
    assert "`metakfo`" in text and "`warpgrad`" not in text


def test_rows_beside_a_tier_are_counted_in_their_own_tier_only(results):
    assert results["own", 1].own_rows == ["metacurvature-symmetric"]
    found = recorded_starts.contrasts([results["own", 1]])["both"]
    assert {row for _, _, row in found} == {"metacurvature-symmetric"}


def test_the_headline_names_the_poster_s_own_method_and_counts_the_seeds(results):
    text = headline.headline(results)
    (line,) = [one for one in text.splitlines() if "`cpu`, 5-shot, `metamida-published`" in one]
    assert line.endswith("| 100 | 3 |")
    assert "`smoke`" not in text and "due to improved loss geometry model" in text
    # MT-net of tier omniglot keeps its weights, and cannot be taken apart
    assert "kept weights, and with a start in common with MAML, is taken apart" in text


def test_the_columns_of_the_headline_are_what_their_heads_say(results):
    """Tuned, and with no rate tuned: of the recorded paths, only the latter."""
    lines = headline.table(headline.subjects(), results)
    (own,) = [one.split(" | ") for one in lines if "`own`, 1-shot" in one]
    (paths_only,) = [one.split(" | ") for one in lines if "`cpu`, 5-shot, `metamida-pub" in one]
    (case,) = [one for one in start_or_geometry.known() if (one.tier, one.shot) == ("own", 1)]
    wanted = [case.gap("geometry at the common start", "tuned"), case.gap("start alone", "tuned")]
    wanted += [case.gap("both", rate) for rate in ("tuned", "as trained")]
    for cell, gap in zip(own[1:5], wanted, strict=True):
        assert cell.strip("*").startswith(f"{100 * gap.mean():+.2f} ±")
    means = []
    for kind in ("common", "own"):
        gaps = []
        for seed in range(3):
            row, maml = (
                np.asarray(paths(f"cpu-{one}-5shot-seed{seed}")[where]["correct"])[:, 5]
                for one, where in (("metamida-published", kind), ("maml", "own"))
            )
            gaps.append((row - maml).mean() / 75)
        means.append(f"{100 * np.mean(gaps):+.2f} ±")
    cells = [paths_only[1].strip("*"), paths_only[4].strip("*")]
    assert [cell.startswith(mean) for cell, mean in zip(cells, means, strict=True)] == [True] * 2
    assert paths_only[2:4] == ["–", "–"]


def test_the_figure_of_causes_draws_the_contrasts():
    """With their half-widths, in points; filled where the rates are tuned."""
    (one,) = [one for one in start_or_geometry.known() if (one.tier, one.shot) == ("own", 1)]
    (axis,) = cause_figure.start_and_geometry([one]).axes
    found, drawn = start_or_geometry.contrasts([one]), []
    for bar in axis.containers:
        (line,) = bar.lines[2]
        (low, _), (high, _) = line.get_segments()[0]
        centre, colour = bar.lines[0].get_xdata()[0], bar.lines[0].get_markerfacecolor()
        drawn.append((centre, (high - low) / 2, colour != "white"))
    for head in start_or_geometry.HEADS:
        for rate in start_or_geometry.RATES:
            its = found[one.name, head, rate].estimate
            wanted = (100 * its.mean, 100 * its.half_width, rate == "tuned")
            assert any(wanted == pytest.approx(point) for point in drawn)
    assert len(drawn) == len(start_or_geometry.HEADS) * len(start_or_geometry.RATES)


def test_the_range_of_a_family_is_that_of_its_rows(results):
    found = {}
    for name in headline.ORDER:
        tables = headline.of_tier(name, results)
        found |= recorded_starts.contrasts(tables)["geometry at the common start"]
    for family, members in headline.FAMILIES.items():
        means = [100 * one.estimate.mean for key, one in found.items() if key[2] in members]
        near = [mean for mean in means if mean >= -10]
        half = max(
            100 * one.estimate.half_width
            for key, one in found.items()
            if key[2] in members and one.estimate.mean >= -0.1
        )
        wanted = f"{min(near):+.2f} to {max(near):+.2f} points for {family} ({len(near)} cases"
        wanted += f", intervals up to ± {half:.2f}"
        text = headline.family_sentences(results)
        assert wanted in text and all(f"{mean:+.2f}" in text for mean in means if mean < -10)


def test_the_glance_counts_cells_and_seeds(results):
    cpu = glance.tier_line("cpu", results)
    kept = [path.parent for path in FOLDER.glob("cpu-*/result.json")]
    assert cpu[-2] == str(len(kept)) and cpu[4] == f"{len(cells('cpu'))} of {len(cells('cpu'))}"
    fewer = {key: table for key, table in results.items() if key != ("cpu", 5)}
    assert glance.tier_line("cpu", fewer)[4] == "11 of 22"
    (begun,) = [line for line in glance.verdict(fewer) if "**Begun**" in line]
    assert "`cpu`" in begun
    assert "**Missing**: every cell of `smoke`, `glyphs`" in "\n".join(glance.verdict({}))


def test_the_page_of_the_steps_holds_the_paths(results):
    section = step_curves.section(results["own", 5])
    own = [paths(f"own-metacurvature-symmetric-5shot-seed{seed}") for seed in (0, 1, 2)]
    accuracy = np.mean([one["own"]["correct"] for one in own], axis=(0, 1)) / own[0]["queries"]
    loss = np.median(np.concatenate([one["common"]["support_loss"] for one in own]), axis=0)
    rows = re.findall(r"\| `metacurvature-symmetric` \(3 seeds\) \| (.*) \|", section)
    assert rows[0] == " | ".join(f"{100 * value:.1f}" for value in accuracy)
    assert rows[4] == " | ".join(f"{value:.3g}" for value in loss)


@pytest.mark.parametrize("kind, start", [("own", "its own start"), ("common", "MAML's start")])
def test_the_step_that_reaches_maml_is_that_of_the_paths(results, kind, start):
    """(e): what MAML has after its three steps; (l): its largest over all steps."""

    def means(row, kind):
        of_seeds = [paths(f"glyphs-{row}-1shot-seed{seed}")[kind]["correct"] for seed in range(3)]
        return np.mean(of_seeds, axis=(0, 1))

    maml, told = means("maml", "own"), set()
    for question, goal in ((answers.fewer_steps, maml[3]), (answers.curves, maml.max())):
        lines = "\n".join(question([results["glyphs", 1]])).split(f"from {start} |")[1].splitlines()
        for row in ("metacurvature", "certified", "metasgd", "prior", "metaproxnet"):
            reached = np.flatnonzero(means(row, kind) >= goal)
            wanted = f"k = {reached[0]}" if len(reached) else "not by k = 10"
            line = next(one for one in lines if one.startswith(f"| `{row}` |"))
            assert f"| {wanted} |" in line
            told.add((question, wanted))
    assert len(told) > 4


def test_loss_and_gradient_along_the_steps_are_medians_of_the_paths(results):
    """(l): the task loss before any step, the gradient norm after five of ten over the first."""
    own = paths("cpu-metamida-published-1shot-seed0")["own"]
    loss, gradient = (np.median(own[kind], axis=0) for kind in ("support_loss", "grad_norm"))
    curve = results["cpu", 1].curve("metamida-published")
    assert np.allclose(curve.loss, loss) and np.allclose(curve.gradient, gradient)
    line = next(one for one in answers.curves([results["cpu", 1]]) if "`metamida-pub" in one)
    assert line.endswith(f"| {loss[0]:.3f} | {gradient[5] / gradient[0]:.2f} | 1 |")


def test_a_map_is_called_not_monotone_by_its_smallest_curvature(results):
    """(f): the map of the poster's method in tier omniglot, and no other there."""
    told = answers.monotone([results["omniglot", 1]])
    found = {}
    for line in told:
        row, seed = re.findall(r"`(.+?)`, seed (\d)", line)[0]
        kept = json.loads((FOLDER / f"omniglot-{row}-1shot-seed{seed}/result.json").read_text())
        found[row] = kept["map"]["symmetric_smallest"] < 0 < kept["map"]["path_smallest"]
        assert line.endswith("**not monotone**") == found[row]
        assert line.endswith(": no violation found") != found[row]
    assert [row for row in found if found[row]] == ["metamida-published"]


def test_slopes_tell_a_prox_from_what_is_none():
    one = slopes.measured(np.array([[0.0, 1.0, 0.5, 1, 1], [1, 1, 1.5, 1, 1], [1, -0.5, 1, 1, 1]]))
    assert (one.smallest, one.largest) == (-0.5, 1.5)
    assert (one.prox, one.convex) == pytest.approx((2 / 3, 1 / 3))
    assert (one.moved, one.below, one.above) == pytest.approx((4 / 15, 1 / 15, 1 / 15))


def test_slopes_are_those_of_the_rule(tmp_path):
    """The names and the spacing of kept weights are the geometry's; later steps are not counted."""
    from types import SimpleNamespace

    import torch
    from safetensors.torch import save

    from mdtheory.geometry.metaproxnet import MetaProxNet
    from mdtheory.meta import MetaLearner

    learner = MetaLearner(torch.nn.Linear(2, 3), MetaProxNet(steps=5))
    rule = learner.geometry.rule
    with torch.no_grad():
        for name, value in rule.named_parameters():
            value += 0.1 * int(name.split(".")[1]) * torch.arange(6)
    (tmp_path / "weights.safetensors").write_bytes(save(learner.state_dict()))
    config = SimpleNamespace(task=SimpleNamespace(n_steps=3))
    found = slopes.slopes_of(SimpleNamespace(folder=tmp_path, config=config))
    assert found.shape == (3 * 9, 5)
    assert sorted({round(float(one), 3) for one in found.ravel()}) == [1.0, 1.125, 1.25]


def test_a_few_slopes_below_zero_are_not_rounded_away():
    shares = (0.0, 1e-6, 0.12345, 1 - 1e-6, 1.0)
    told = [slopes.percent(share) for share in shares]
    assert told == ["0.00", "< 0.01", "12.35", "> 99.99", "100.00"]


def test_the_start_of_the_poster_s_method_is_compared_before_any_step(results):
    mine, maml = (paths(f"cpu-{row}-1shot-seed0") for row in ("metamida-published", "maml"))
    first = [np.median([task[0] for task in one["own"]["support_loss"]]) for one in (mine, maml)]
    wanted = f"{first[0]:.3f} against {first[1]:.3f} (1-shot, 1 seed)"
    assert wanted in headline.start_sentence(results) and first[0] > first[1]


def test_a_form_of_our_own_is_compared_with_one_that_learns_as_fast(results):
    mine = Record(FOLDER / "own-metacurvature-symmetric-1shot-seed0").accuracies(15)
    fast = Record(FOLDER / "controls-metacurvature-doubled-1shot-seed0").accuracies(15)
    text = headline.controls({("controls", 1): results["controls", 1]})
    (form,) = [said for said, row, _ in headline.CONTROLS if row == answers.OWN]
    assert f"| {form} | {100 * (mine - fast).mean():+.2f} ±" in text
    every = results["controls", 1].by_row
    alone = replace(
        results["controls", 1], by_row={row: every[row] for row in every if row != headline.DOUBLED}
    )
    assert form not in headline.controls({("controls", 1): alone})
    assert headline.controls({}) == ""


@pytest.mark.parametrize("shot", [1, 5])
def test_the_poster_s_rows_are_held_against_maml_that_learns_twice_as_fast(results, shot):
    """By the seeds in common: seed 0."""
    twice = Record(FOLDER / f"controls-maml-twice-{shot}shot-seed0").accuracies(15)
    text = headline.controls({("controls", shot): results["controls", shot]})
    for said, row, reference in headline.CONTROLS:
        if reference == headline.TWICE:
            gap = Record(FOLDER / f"cpu-{row}-{shot}shot-seed0").accuracies(15) - twice
            (line,) = [one for one in text.splitlines() if one.startswith(f"| {said} |")]
            assert f"{100 * gap.mean():+.2f} ± " in line and "(1 seed)" in line


def test_a_control_is_no_case():
    """A redundant shift can only gain by its start, and is told apart from the methods."""
    shift = [one for one in start_or_geometry.known() if one.row == "maml-shift"]
    assert shift
    methods = [one for one in start_or_geometry.known() if one.tier != "controls"]
    assert headline.tally([*methods, *shift]).startswith(f"{len(methods)} cases")
    for one in shift:
        assert abs(one.gap("geometry at the common start", "tuned").mean()) < 1e-3


def test_a_question_s_comparisons_in_a_tier_are_one_family(results):
    """QUESTIONS.md: Holm's correction over the comparisons of a question, so over both kinds of
    rate, and over both contrasts of the recorded paths.
    """
    own = [one for one in start_or_geometry.known() if one.tier == "own"]
    found = list(start_or_geometry.contrasts(own).values())
    assert len(found) == len(own) * len(start_or_geometry.CONTRASTS) * 2
    assert [one.corrected for one in found] == holm([one.p for one in found])
    recorded = recorded_starts.contrasts([results["own", 1], results["own", 5]])
    every = [one for by_row in recorded.values() for one in by_row.values()]
    assert len(every) == 4
    assert [one.corrected for one in every] == pytest.approx(holm([one.p for one in every]))


def few(one, tasks):
    """A case on its first tasks alone."""
    by_seed = {seed: its.model_copy(update={"tasks": tasks}) for seed, its in one.by_seed.items()}
    return replace(one, by_seed=by_seed)


def test_a_half_that_may_gain_is_not_said_to_gain_nothing():
    """Of a pair that gains, the start alone may have an interval above zero and be undecided after
    the correction: then it is not shown to gain, which is not that it does not. So it was with the
    first 400 tasks.
    """
    every = [few(one, 400) for one in start_or_geometry.known() if one.tier == "cpu"]
    (one,) = [one for one in every if (one.row, one.shot) == ("potential", 1)]
    start = start_or_geometry.contrasts(every)[one.name, "start alone", "tuned"]
    assert start.estimate.mean > start.estimate.half_width and not start.significant
    assert "`potential` 1-shot in tier `cpu`" in headline.pair_sentence(every)
    text = headline.tally(every) + headline.pair_sentence(every)
    assert "neither half is shown to" in text and "neither half does" not in text
    assert "alone" not in headline.pair_sentence(every)


def test_a_control_is_bold_where_the_question_s_answer_is(results, monkeypatch):
    """A third comparison of question (i) counts in the correction of the first two."""
    table = results["controls", 1]
    by_row = table.by_row | {"metacurvature-doubled": table.by_row["maml-shift"]}
    more = replace(table, by_row={row: {0: by_seed[0]} for row, by_seed in by_row.items()})
    noise = np.random.default_rng(0).normal(size=1000)
    noise = (noise - noise.mean()) / noise.std()

    def gaps(self, row, reference, n_query):
        return (noise + (0.075 if row == "maml-twice" else 0.01))[None]  # p = .018, of three .053

    monkeypatch.setattr(type(table), "gaps", gaps)
    (answer,) = [
        one
        for name, one in answers.differences(
            [more], answers.PAIRS[answers.CONTROL], many=True
        ).items()
        if "`maml-twice`" in name
    ]
    assert 0.05 / 3 < answer.p < 0.025
    text = headline.controls({("controls", 1): more})
    assert f"meta-rate, minus MAML | {start_or_geometry.shown(answer)} (1 seed) |" in text
    assert f"*{100 * answer.estimate.mean:+.2f}" not in text


def test_the_tally_counts_losses_too_and_names_what_is_settled():
    every = [one for one in start_or_geometry.known() if one.tier != "controls"]
    text, found = headline.tally(every), {}
    for tier in {one.tier for one in every}:
        own = [one for one in every if one.tier == tier]
        found |= {(tier, *k): gap for k, gap in start_or_geometry.contrasts(own).items()}
    sure = {key: gap for key, gap in found.items() if key[3] == "tuned" and gap.significant}
    for head, words in headline.HALVES.items():
        gaps = [gap for key, gap in sure.items() if key[2] == head]
        up = sum(gap.estimate.mean > 0 for gap in gaps)
        (line,) = [one for one in text.splitlines() if one.startswith(f"| {words} |")]
        down, rest = len(gaps) - up, len(every) - len(gaps)
        assert line.startswith(f"| {words} | {up} | {down} | {rest} | ")
        settled = [start_or_geometry.shown(gap) for gap in gaps if not gap.suggestive]
        assert line.count("**") == 2 * len(settled) and all(one in line for one in settled)
        assert line.endswith("| none |") == (not settled)
    assert any(gap.estimate.mean < 0 for gap in sure.values())
    up = {key[:3] for key, gap in sure.items() if gap.estimate.mean > 0}
    halves = ("geometry at the common start", "start alone")
    pairs = [
        f"`{one.row}` {one.shot}-shot in tier `{one.tier}`"
        for one in every
        if (one.tier, one.name, "both") in up
        and not any((one.tier, one.name, head) in up for head in halves)
    ]
    assert text.endswith(f"in {len(pairs)}.")
    assert all(one in headline.pair_sentence(every) for one in pairs)
    assert headline.pair_sentence([]) == ""


def test_the_sentence_of_the_first_lines_says_what_the_table_does():
    every = start_or_geometry.known()
    table, text = headline.tally(every), headline.verdict(every)
    for words in headline.HALVES.values():
        (up, down) = re.findall(
            rf"^\| {re.escape(words)} \| (\d+) \| (\d+) \|", table, re.MULTILINE
        )[0]
        assert f"{words} gains in {up} and loses in {down}" in text
    assert "(none at the poster's size)" in text
    full = [replace(one, tier="paper") for one in every if one.tier == "own"]
    assert "(2 at the poster's size)" in headline.verdict(full)


@pytest.mark.parametrize("end", start_or_geometry.ENDS)
def test_a_rate_at_an_end_of_what_may_be_tried_is_said_to_be_there(end):
    every = [one for one in start_or_geometry.known() if one.tier == "glyphs"]
    assert start_or_geometry.at_the_edge(every) == ""
    assert "smallest" not in headline.tally(every) + start_or_geometry.table(every)[-1]
    first, *others = every
    (last, its), name = list(first.by_seed.items())[-1], "common start, learned"
    low = its.cells[name].model_copy(update={"best": end})
    low.correct[f"{end:g}"] = low.correct["1"]
    changed = its.model_copy(update={"cells": {**its.cells, name: low}})
    planted = replace(first, by_seed={**first.by_seed, last: changed})
    told = start_or_geometry.at_the_edge([planted, *others])
    assert told.endswith(f"MAML's start with `{first.row}` 1-shot in tier `glyphs`.")
    assert f"{told} The pair gains" in headline.tally([planted, *others])
    assert start_or_geometry.table([planted, *others])[-1] == told


def test_only_cells_with_a_published_accuracy_are_held_against_one():
    names = [(cell.row, str(cell.shot)) for cell in cells("paper")]
    wanted = sum(shot in rows()[row].poster or shot in rows()[row].published for row, shot in names)
    assert 0 < wanted < len(names)
    assert f"0 of {wanted} cells" in glance.published_line("paper", "the poster's", {})


def test_a_tier_is_done_with_every_seed_only(results):
    """MAML of tier omniglot is asked for with three seeds."""
    maml = Cell("omniglot", "maml", 1)
    assert glance.runs(maml, results) == [
        (FOLDER / maml.record(seed)).is_dir() for seed in (0, 1, 2)
    ]


def test_rows_of_few_seeds_are_counted_and_not_listed(results, monkeypatch):
    table = results["omniglot", 1]

    def found(*seeds):
        rows = ("metasgd", "metacurvature", "metamida-published")
        each = dict(zip(rows, seeds, strict=True))
        gaps = {
            row: Difference(Estimate(0.05, 0.001, 400), 0.001, 0.01, 0.01, number)
            for row, number in each.items()
        }
        monkeypatch.setattr(type(table), "differences", lambda *_: gaps)
        return front.handwriting(results)

    few = found(1, 1, 1)
    assert "`metamida-published` *+5.00 ± 0.10* (1 seed); 2 other rows" in few
    assert "metasgd" not in few and "other rows" not in found(3, 3, 3)
    assert "`metacurvature` **+5.00 ± 0.10** (3 seeds), `metamida" in found(1, 3, 1)


def test_a_path_that_diverges_is_called_so():
    assert step_curves.number("{:.1f}", 1.25) == "1.2"
    found = {step_curves.number("{:.1f}", bad) for bad in (math.inf, -math.inf, math.nan)}
    assert found == {"diverged"}
    text = "".join(path.read_text() for path in (ROOT / "experiments/results").glob("*.md"))
    assert "| diverged |" in text and "| inf |" not in text and "| nan |" not in text
