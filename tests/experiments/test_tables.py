"""Tables and figures are what the records make, digit by digit."""

from __future__ import annotations

import json
import re
import statistics

import matplotlib
import numpy as np
import pytest
from scipy.stats import t as student_s

from experiments import figures, front, intervals, tables, which
from experiments.answers import PAIRS, TIERS, TIERS_OF, answers, protocol, verdicts, versus
from experiments.cells import tier
from experiments.generated import settle
from experiments.records import FOLDER, Record, everything
from experiments.result_tables import read
from experiments.statistics import Difference, compare, crossed, p_text
from mdtheory.core.estimate import Estimate, holm
from mdtheory.figures import plots

NAMES = [record.folder.name for record in everything()]


def test_every_page_in_git_is_what_the_records_make():
    assert settle(tables.made(), write=False, owned=tables.OUT.glob("*.md")) == []


def pinned_matplotlib() -> str:
    text = (tables.ROOT / "constraints.txt").read_text()
    return re.search(r"^matplotlib==(\S+)", text, flags=re.MULTILINE)[1]


def test_every_figure_in_git_is_what_the_records_make():
    if matplotlib.__version__ != pinned_matplotlib():
        pytest.skip(
            f"the figures were drawn with matplotlib {pinned_matplotlib()}, this is "
            f"{matplotlib.__version__}"
        )
    assert settle(figures.made(), write=False, owned=tables.OUT.glob("*.svg")) == []


@pytest.mark.parametrize("page", ["index.md", "smoke.md", "answers.md"])
def test_any_altered_digit_of_a_table_is_found(page, tmp_path):
    made = tables.made(out=tmp_path, readme=None, guide=None)
    settle(made, write=True)
    assert settle(made, write=False) == []
    text = (tmp_path / page).read_text()
    places = [match.start() for match in re.finditer(r"\d", text)]
    for place in places[:: max(1, len(places) // 5)]:
        altered = text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]
        (tmp_path / page).write_text(altered)
        assert settle(made, write=False) == [tmp_path / page]


def test_the_readme_s_block_is_replaced_and_nothing_else(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results:begin -->\nold 12.34\n<!-- results:end -->\nafter\n")
    text = tables.made(readme=readme, guide=None)[readme].decode()
    assert text.startswith("before\n<!-- results:begin -->\n") and text.endswith(
        "<!-- results:end -->\nafter\n"
    )
    assert "12.34" not in text and "cells are finished" in text
    readme.write_text(text)
    assert tables.made(readme=readme, guide=None)[readme].decode() == text
    readme.write_text("no markers\n")
    assert tables.made(readme=readme, guide=None)[readme] == b"no markers\n"


def counts(name: str, n_query: int) -> list[float]:
    scores = json.loads((FOLDER / name / "scores.json").read_text())["transductive"][str(n_query)]
    return [count / (5 * n_query) for count in scores]


def test_the_accuracies_of_a_page_are_those_of_the_raw_counts():
    page = (tables.OUT / "smoke.md").read_text()
    for name in (name for name in NAMES if name.startswith("smoke-")):
        row = name.removeprefix("smoke-").removesuffix("-1shot-seed0")
        line = next(line for line in page.splitlines() if line.startswith(f"| `{row}` |"))
        for column, n_query in ((2, 1), (3, 15)):
            mean = sum(counts(name, n_query)) / len(counts(name, n_query))
            assert line.split("|")[column].strip().startswith(f"{100 * mean:.2f} ±")
        assert name in line


def test_the_paired_differences_are_those_of_the_raw_counts():
    text = (tables.OUT / "smoke.md").read_text().split("### Paired differences to MAML")[1]
    maml = counts("smoke-maml-1shot-seed0", 15)
    mine = counts("smoke-metasgd-1shot-seed0", 15)
    gap = sum(a - b for a, b in zip(mine, maml, strict=True)) / len(maml)
    line = next(line for line in text.splitlines() if line.startswith("| `metasgd` |"))
    assert f"{100 * gap:+.2f} ±" in line.split("|")[6]


def test_a_difference_pairs_each_seed_with_the_same_seed():
    """The mean of three forgets the pairing, their spread does not; nor does a row of one seed."""

    def gap(row, seed):
        mine, maml = (counts(f"cpu-{one}-1shot-seed{seed}", 15) for one in (row, "maml"))
        return statistics.fmean(mine) - statistics.fmean(maml)

    found = read()["cpu", 1].differences("maml", 15)
    gaps = [gap("metakfo", seed) for seed in range(3)]
    half_width = student_s.ppf(0.975, 2) * statistics.stdev(gaps) / 3**0.5  # the mixed model's less
    estimate = found["metakfo"].estimate
    assert (estimate.mean, estimate.half_width) == pytest.approx((np.mean(gaps), half_width))
    assert found["metasgd"].seeds == 1
    assert found["metasgd"].estimate.mean == pytest.approx(gap("metasgd", 0))


def test_the_readme_and_the_guide_hold_the_differences_of_many_queries():
    results = read()

    def mean(name):
        return [100 * np.mean(counts(f"{name}-1shot-seed{seed}", 15)) for seed in range(3)]

    mine, maml = mean("cpu-metakfo"), mean("cpu-maml")
    gap = f"{np.mean(np.subtract(mine, maml)):+.2f} ±"
    _, accuracy, difference, seeds = front.of_row(results["own", 1], "metakfo")
    assert accuracy.startswith(f"{np.mean(mine):.2f} ±") and seeds == "3"
    assert difference.strip("*").startswith(gap)
    lines = which.table(which.settings(results))
    (line,) = [one for one in lines if one.startswith("| `metakfo` |")]
    assert line.split("|")[2].strip(" *").startswith(gap)
    hand = np.subtract(mean("omniglot-metaproxnet"), mean("omniglot-maml")).mean() * 5 / 20
    assert f"`metaproxnet` {hand:+.2f} ±" in front.handwriting(results).replace("*", "")


@pytest.mark.parametrize("name", ["cpu", "glyphs"])
def test_runs_that_were_still_learning_are_counted(name):
    """Where most are best at their last validation, the page says what it ranks."""
    found = [
        json.loads(path.read_text()) for path in FOLDER.glob(f"{name}-*-1shot-seed*/result.json")
    ]
    last = sum(one["tested_iteration"] == one["target"] for one in found)
    text = tables.last_best(read()[name, 1])
    assert text.startswith(f"{last} of {len(found)} runs are best at their last validation")
    assert ("still learning" in text) == (last > len(found) / 2)


def test_the_columns_of_the_paired_table_are_what_their_heads_say():
    """p by itself, after Holm's correction over the rows, and the detectable difference."""
    lines = [line.split(" | ") for line in tables.paired_table(read()["cpu", 1]).splitlines()]
    heads, found = lines[0], read()["cpu", 1].differences("maml", 15)
    at = heads.index("minus maml, 15 queries a class")
    assert heads[at + 1 : at + 4] == ["p", "p (Holm)", "detectable"]
    every = holm([one.p for one in found.values()])
    for cells, one, corrected in zip(lines[2:], found.values(), every, strict=True):
        wanted = [p_text(one.p), p_text(corrected), f"{100 * one.detectable:.2f}"]
        assert cells[at + 1 : at + 4] == wanted
    gaps = read()["cpu", 1].by_seed("metakfo", "maml", 15)
    ratio = statistics.fmean(gaps) / (statistics.stdev(gaps) / 3**0.5)
    assert found["metakfo"].p == pytest.approx(2 * student_s.sf(ratio, 2))


def test_every_interval_of_a_difference_is_what_its_column_says():
    """miniImageNet's test images suffice for 150 of the 1000 tasks without reuse."""
    table = read()["cpu", 1]
    gaps = np.array(
        [
            np.subtract(*(counts(f"cpu-{row}-1shot-seed{seed}", 15) for row in ("metakfo", "maml")))
            for seed in range(3)
        ]
    )
    over_tasks = 1.96 * gaps.mean(axis=0).std(ddof=1) / 1000**0.5
    over_seeds = student_s.ppf(0.975, 2) * statistics.stdev(gaps.mean(axis=1)) / 3**0.5
    wanted = {
        "over tasks": over_tasks,
        "without reuse": over_tasks * (1000 / 150) ** 0.5,
        "over seeds": over_seeds,
        "seeds and tasks": max(over_seeds, crossed(gaps).spread.half_width),
    }
    found = intervals.around(table, "metakfo")
    assert {kind: one.half_width for kind, one in found.items()} == pytest.approx(wanted)
    assert [one.mean for one in found.values()] == pytest.approx([gaps.mean()] * 4)
    one = intervals.around(table, "metasgd")
    assert [kind for kind in intervals.KINDS if one[kind]] == ["over tasks", "without reuse"]


def test_the_rows_of_a_column_are_one_family_and_the_words_say_so():
    """Both numbers of shots together would be a larger one."""
    results = read()
    for shot in (1, 5):
        found = list(results["own", shot].differences("maml", 15).values())
        assert [one.corrected for one in found] == holm([one.p for one in found])
    for text in (tables.READING, which.READING, front.block(results, "")):
        assert re.search(r"Holm's correction over (the|all) rows of a column", text)


def test_every_record_is_linked_from_its_page():
    pages = {path.stem: path.read_text() for path in tables.OUT.glob("*.md")}
    for name in NAMES:
        assert f"(../records/{name})" in pages[Record(FOLDER / name).result.tier]


def test_no_answer_is_bold_from_fewer_than_three_seeds():
    for path in (tables.OUT / "answers.md", tables.README):
        text = path.read_text()
        bold = re.findall(r"\*\*(?:yes|no)\*\* \((\d+) seeds?\)", text)
        assert all(int(seeds) >= 3 for seeds in bold)
        assert len(bold) == len(re.findall(r"\*\*(?:yes|no)\*\*", text))


def test_links_and_pictures_lead_somewhere():
    for path in tables.OUT.glob("*.md"):
        for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} -> {target}"


def test_the_poster_s_numbers_are_the_poster_s():
    assert tables.poster_text("maml", 1) == "48.70 ± 1.84"
    assert tables.poster_text("mtnet", 5) == "–"
    assert tables.poster_text("metakfo", 5) == "64.90"
    assert tables.poster_text("metamida-published", 5) == "69.59 ± 0.71"


@pytest.mark.parametrize("name", tables.LED)
@pytest.mark.parametrize("by", ["validation", "test"])
def test_the_rows_with_more_seeds_are_the_leading_three(name, by):
    """By seed 0, on validation and on test tasks, as QUESTIONS.md says; seed 0 is one of their
    seeds, so the page gives the others' mean apart.
    """
    for shot in tier(name).shots:
        first = {row: its[0] for row, its in read()[name, shot].by_row.items()}
        score = {
            row: one.result.best_validation if by == "validation" else one.accuracies(15).mean()
            for row, one in first.items()
        }
        leading = sorted(score, key=score.__getitem__, reverse=True)[:3]
        assert set(tier(name).more[str(shot)]) == {"maml", *leading}


def test_the_mean_of_the_later_seeds_stands_apart():
    gaps = [
        np.mean(counts(f"cpu-metakfo-1shot-seed{seed}", 15))
        - np.mean(counts(f"cpu-maml-1shot-seed{seed}", 15))
        for seed in (1, 2)
    ]
    text = tables.seed_note(read()["own", 1])
    assert f"`metakfo` {100 * np.mean(gaps):+.2f}" in text.split("led by seed 0")[1]
    assert "metacurvature-symmetric" not in text  # three seeds by plan
    assert "led by seed 0" not in tables.seed_note(read()["glyphs", 1])


@pytest.mark.parametrize("name", ["cpu", "glyphs", "omniglot"])
def test_the_rows_of_question_c_are_those_it_names(name):
    """A row more in the tier is no comparison more of the question."""
    found = protocol([table for key, table in read().items() if key[0] == name])
    rows = {row for line in found for row in re.findall("`(.+?)`", line)}
    assert rows == {"maml", "metamida", "metamida-published"}


def test_the_answers_of_question_c_are_those_of_the_raw_counts():
    """Few minus many queries, and transductive minus support, seed by seed, as one family."""
    found = protocol([read()["cpu", 1]])
    assert len(found) == 9  # three rows, three comparisons each
    few, norm = found[0], found[1]
    gaps = [
        np.subtract(*(counts(f"cpu-maml-1shot-seed{seed}", n) for n in (1, 15)))
        for seed in range(3)
    ]
    assert "`maml`: 1 minus 15 queries a class: " in few
    one = compare({"": np.asarray(gaps)})[""].estimate
    assert f"class: {100 * one.mean:+.2f} ± {100 * one.half_width:.2f}, p " in few
    kept = [
        json.loads((FOLDER / f"cpu-maml-1shot-seed{seed}/scores.json").read_text())
        for seed in range(3)
    ]
    mean = np.mean([np.subtract(one["transductive"]["15"], one["support"]["15"]) for one in kept])
    assert f"class: transductive minus support statistics at test: {mean / 0.75:+.2f} ±" in norm


def test_what_is_told_is_the_corrected_p_and_what_would_be_seen(monkeypatch):
    """Not the p of one comparison by itself, nor the half-width; K queries stand in brackets."""
    one = Difference(Estimate(0.01, 0.02, 400), p=0.04, corrected=0.25, detectable=0.03, seeds=3)
    table, pair = read()["cpu", 1], versus(("metasgd", "maml"))
    with monkeypatch.context() as patch:
        patch.setattr("experiments.answers.compare", lambda gaps: dict.fromkeys(gaps, one))
        assert all(", p = 0.250 (" in line for line in protocol([table]))
        (line,) = pair([table])
    assert "+1.00 ± 2.00, p = 0.250: undecided (3 seeds); by itself 3.00 would be seen" in line
    mine, maml = (np.mean(counts(f"cpu-{row}-1shot-seed0", 1)) for row in ("metasgd", "maml"))
    (line,) = pair([table])
    assert f"({100 * (mine - maml):+.2f} ± " in line and line.endswith(" with K queries)")


def test_the_answers_about_pairs_are_those_of_the_raw_counts_and_agree_with_their_page():
    found = verdicts(read(), ["glyphs"])
    assert {title for title, *_ in found} == {
        t for t in PAIRS if "glyphs" in TIERS_OF.get(t, TIERS)
    }
    text = answers(read())
    assert "with what was known when each was asked" in text  # (g) to (o) were added later
    assert "that two questions share may be answered in one and undecided in the other" in text
    for title, compared, difference, answer in found:
        first, second = re.findall("`(.+?)`", compared)
        gap = [
            sum(
                a - b
                for a, b in zip(
                    counts(f"glyphs-{first}-1shot-seed{seed}", 15),
                    counts(f"glyphs-{second}-1shot-seed{seed}", 15),
                    strict=True,
                )
            )
            for seed in range(3)
        ]
        mean = 100 * sum(gap) / 3 / len(counts(f"glyphs-{first}-1shot-seed0", 15))
        assert float(difference.split(" ± ")[0]) == pytest.approx(mean, abs=0.006)
        half_width = float(difference.split(" ± ")[1])
        assert (
            answer == "undecided (3 seeds)"
            if abs(mean) < half_width
            else answer
            in {"**yes** (3 seeds)" if mean > 0 else "**no** (3 seeds)", "undecided (3 seeds)"}
        )
        section = text.split(f"## {title}")[1].split("## (")[0].split("Tier `glyphs`")[1]
        line = next(line for line in section.splitlines() if f"{compared}:" in line)
        assert difference in line and answer in line


def test_the_spread_of_seeds_is_that_of_the_raw_counts():
    def gap(row, seed):
        mine, theirs = (counts(f"glyphs-{one}-1shot-seed{seed}", 15) for one in (row, "maml"))
        return statistics.fmean(mine) - statistics.fmean(theirs)

    page = read()["glyphs", 1]
    rows = [row for row in page.rows if row != "maml"]
    variances = [statistics.variance(gap(row, seed) for seed in range(3)) for row in rows]
    spread = (
        statistics.fmean(variances) ** 0.5
    )  # all rows have three seeds, so pooling is the plain mean of the variances
    assert page.seed_spread("maml", 15) == pytest.approx(spread, rel=1e-9)
    assert f"**{100 * spread:.2f} points**" in (tables.OUT / "glyphs.md").read_text()
    assert read()["smoke", 1].seed_spread("maml", 15) is None
    assert (
        "nothing is known of what another seed would give" in (tables.OUT / "smoke.md").read_text()
    )


def test_without_records_every_question_is_open(tmp_path):
    assert answers(read(tmp_path)).count("Not answered yet") == 15


def test_more_rows_than_colours_are_still_told_apart():
    assert len({str(style) for style in figures.STYLES}) == 21
    assert len({(filling, look) for (_, filling), look in figures.STYLES}) == 21  # without a line


@pytest.mark.parametrize("kind", figures.FIGURES)
def test_the_legend_of_the_longest_table_lies_within_its_figure(kind):
    longest = max(read().values(), key=lambda table: len(table.rows))
    with matplotlib.rc_context({**plots.STYLE, "backend": "agg"}):
        figure = figures.FIGURES[kind](longest)
        figure.canvas.draw()
    for legend in figure.legends:
        ends = legend.get_window_extent()
        assert ends.x0 >= 0 and ends.x1 <= figure.bbox.x1 and ends.y0 >= 0
    assert figure.legends or kind == "differences"


def test_the_figure_of_differences_is_of_15_queries():
    table = read()["cpu", 1]
    with matplotlib.rc_context({**plots.STYLE, "backend": "agg"}):
        (axis,) = figures.differences(table).axes
    names = [label.get_text() for label in axis.get_yticklabels()]
    drawn = axis.containers[names.index("metasgd")].lines[0].get_xdata()[0]
    mine, maml = (
        np.array(
            json.loads((FOLDER / f"cpu-{row}-1shot-seed0/scores.json").read_text())["transductive"][
                "15"
            ]
        )
        for row in ("metasgd", "maml")
    )
    assert drawn == pytest.approx(100 * (mine - maml).mean() / 75)
