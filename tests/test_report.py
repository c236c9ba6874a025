from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from browser import needs_chromium, opened, with_script
from eval_samples import KNOWN, Run, sample_run
from rich.console import Console
from rich.table import Table

from memedit.evaluation.figures import EvalReport, Figure
from memedit.evaluation.matching import Match
from memedit.evaluation.report import coverage, headline, per_kind, render_page, routing
from memedit.evaluation.report.arrangement import Column, FigureTable, Row, headline_tables, measure_tables
from memedit.evaluation.report.charts import Axis, Look, Point, Series, line_chart, strip
from memedit.evaluation.report.coverage import coverage_of, skipped_of
from memedit.evaluation.report.numbers import amount, before_text, described, figure_text
from memedit.evaluation.report.records import records_of
from memedit.evaluation.report.tables import FILE_WIDTH
from memedit.evaluation.results import CaseResult, Cell

EMPTY = EvalReport(config={}, provenance={}, methods={}, figures=(), cells=())
VOID = {"meta", "link", "br", "img", "input", "hr"}
OPTIONAL_END = {"tr", "td", "th", "thead", "tbody", "dt", "dd", "li", "p"}


class Page(HTMLParser):
    """What a browser would see of a page: its elements, its text, and tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.unmatched: list[str] = []
        self.open: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.feed(html)
        self.close()

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"td", "th"}:
            self.tables[-1][-1].append("")
        if tag not in VOID | OPTIONAL_END:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in OPTIONAL_END:
            return
        if not self.open or self.open.pop() != tag:
            self.unmatched.append(tag)

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open[-1:]):
            self.texts.append(data)
            if "table" in self.open and any(self.tables[-1]):
                self.tables[-1][-1][-1] += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def run() -> Run:
    return sample_run(
        datasets=("counterfact:dev", "knowedit:dev"),
        edits=(1, 100),
        protocols=("free", "teacher-forced", "probability"),
        sequential=True,
    )


@pytest.fixture(scope="module")
def html(run: Run) -> str:
    return render_page(run.report, run.results, run.cases)


def written(tables: list[Table], width: int = FILE_WIDTH) -> str:
    console = Console(width=width, color_system=None, highlight=False)
    with console.capture() as capture:
        for table in tables:
            console.print(table, crop=False)
    return capture.get()


# how numbers are written


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.825, "share", "82.5"),
        (1.0, "share", "100.0"),
        (-0.021, "share", "-2.1"),
        (0.0, "seconds", "0 s"),
        (0.0000042, "seconds", "4.20 µs"),
        (0.0123, "seconds", "12.3 ms"),
        (0.009998, "seconds", "10.0 ms"),
        (3.4, "seconds", "3.40 s"),
        (5400, "seconds", "90.0 min"),
        (999, "bytes", "999 B"),
        (1540, "bytes", "1.54 kB"),
        (2.5e12, "bytes", "2500 GB"),
        (1.36, "ratio", "1.36"),
        (0.012345, "nats", "0.012"),
        (0, "nats", "0.000"),
        (1234567, "count", "1,234,567"),
        (23.51, "perplexity", "23.5"),
        (3e7, "perplexity", "3.0e+07"),
    ],
)
def test_numbers_read_well(value: float, unit: Any, text: str) -> None:
    assert amount(value, unit) == text


def figure(**given: Any) -> Figure:
    known: dict[str, Any] = {
        "dataset": "d",
        "method": "ike",
        "protocol": "free",
        "comparability": "free",
        "edits": 10,
        "sequential": False,
        "measure": "reliability",
        "value": 0.825,
        "unit": "share",
        "reading": "anywhere",
    }
    return Figure(**known | given)


def test_a_figure_tells_its_interval_and_what_was_before() -> None:
    whole = figure(low=0.761, high=0.88, before=0.031, cases=1200, count=2400)
    assert figure_text(whole) == "82.5 [76.1–88.0]"
    assert before_text(whole) == "was 3.1"
    assert described(whole) == "82.5% [76.1–88.0], was 3.1, 2,400 probes of 1,200 cases"
    assert figure_text(figure()) == "82.5"
    assert before_text(figure(measure="locality", reading="identical", before=1.0)) == ""
    assert figure_text(figure(measure="routing", kind="AUROC", reading=None, value=0.97)) == "0.970"


# which figures stand beside each other


def test_a_table_cannot_mix_what_must_not_be_compared() -> None:
    rows = (Row("ice-oracle", 10, False, (figure(comparability="free · told the edit"),)),)
    with pytest.raises(ValueError, match="must not be compared"):
        FigureTable(dataset="d", comparability="free", subject="headline", columns=(Column("x"),), rows=rows)


def test_no_table_of_a_report_mixes_groups(run: Run) -> None:
    tables = headline_tables(run.report)
    groups = {(figure.dataset, figure.comparability) for figure in run.report.figures}
    assert len(groups) == 2 * 6  # datasets, and three protocols each with and without methods that are told the edit
    assert sorted((table.dataset, table.comparability) for table in tables) == sorted(groups)
    measured = measure_tables(run.report, "knowedit:dev", ["reliability", "locality", "routing", "efficiency"])
    for table in [*tables, *measured]:
        found = [figure for row in table.rows for figure in row.figures if figure is not None]
        assert found
        assert {(one.dataset, one.comparability) for one in found} == {(table.dataset, table.comparability)}
        assert all(len({one.reading for one in column if one}) <= 1 for column in zip(*figures_of(table), strict=True))


def figures_of(table: FigureTable) -> list[tuple[Figure | None, ...]]:
    return [row.figures for row in table.rows]


def test_groups_come_in_order_of_use_and_legacy_ones_last(run: Run) -> None:
    tables = [table for table in headline_tables(run.report) if table.dataset == "counterfact:dev"]
    legacy = "teacher-forced (legacy, not comparable)"
    told = " · told the edit"
    assert [table.comparability for table in tables] == [
        "free",
        f"free{told}",
        "probability",
        f"probability{told}",
        legacy,
        f"{legacy}{told}",
    ]
    assert [table.legacy for table in tables] == [False, False, False, False, True, True]


def test_headline_figures_are_those_of_the_report(run: Run) -> None:
    table = headline_tables(run.report)[0]
    row = next(row for row in table.rows if (row.method, row.edits, row.sequential) == ("scr", 100, True))
    wanted = {"dataset": "counterfact:dev", "method": "scr", "edits": 100, "sequential": True, "kind": None}
    for measure, reading, found in zip(
        ("reliability", "generalization", "portability", "robustness", "locality"),
        ("anywhere", "anywhere", "anywhere", "anywhere", "identical"),
        row.figures,
        strict=False,
    ):
        assert [found] == run.report.find(**wanted, protocol="free", measure=measure, reading=reading)
    assert [column.title for column in table.columns[5:]] == ["Time an edit", "Time to answer"]
    assert all(found is not None for found in row.figures[5:])


def test_the_unedited_model_has_one_row_only_where_it_is_the_same_everywhere(run: Run) -> None:
    def rows_of_base(report: EvalReport) -> list[str]:
        return [row.edits_text for row in headline_tables(report)[0].rows if row.method == "base"]

    assert rows_of_base(run.report) == ["any"]
    slower = [replace(one, value=one.value * 1.02) if one.unit == "ratio" else one for one in run.report.figures[::-1]]
    assert rows_of_base(replace(run.report, figures=tuple(slower))) == ["any"]
    odd = tuple(
        replace(one, value=0.5) if (one.method, one.edits, one.measure) == ("base", 1, "reliability") else one
        for one in run.report.figures
    )
    assert len(rows_of_base(replace(run.report, figures=odd))) == 3  # 1, 100, and 100 one by one


def test_a_column_without_a_figure_is_left_out(run: Run) -> None:
    some = tuple(one for one in run.report.figures if one.measure not in {"portability", "robustness"})
    (table, *_) = headline_tables(replace(run.report, figures=some))
    titles = ["Reliability", "Generalization", "Locality", "Time an edit", "Time to answer"]
    assert [column.title for column in table.columns] == titles
    assert all(len(row.figures) == len(titles) for row in table.rows)


# the terminal


def test_terminal_tables_hold_the_figures_and_no_colour_codes(run: Run) -> None:
    text = written(headline(run.report))
    assert "\x1b" not in text
    assert "counterfact:dev · teacher-forced (legacy, not comparable) · told the edit" in text
    one = run.report.find(dataset="knowedit:dev", method="ft-m", edits=100, measure="generalization", kind=None)[0]
    row = next(row for row in text.split("knowedit:dev")[1].splitlines() if row.split()[:2] == ["ft-m", "100"])
    assert figure_text(one) in row
    assert "was 5.0" in text


def test_terminal_tables_lose_nothing_where_it_is_narrow(run: Run) -> None:
    narrow = written(headline(run.report)[:1] + per_kind(run.report)[:1], width=80)
    assert "…" not in narrow
    assert max(map(len, narrow.splitlines())) <= 80


def test_terminal_shows_kinds_routing_and_coverage(run: Run) -> None:
    kinds = written(per_kind(run.report))
    assert "counterfact:dev · free · portability" in kinds
    assert "Multi hop" in kinds
    assert "at the start" not in kinds  # one reading each
    fires = written(routing(run.report))
    assert "Recall@1" in fires
    assert "told the edit" not in fires
    left_out = written(coverage(run.report))
    assert "condition not met" in left_out
    short = sample_run(methods=("ft-m",), edits=(1000,))
    assert "needs 57 minutes" in " ".join(written(coverage(short.report)).split())


def test_terminal_control_characters_are_shown_as_such() -> None:
    cell = Cell(dataset="d\x1b[2J", method="[red]x", protocol="free", edits=1)
    run = sample_run(methods=("ike",), edits=(1,))
    report = replace(run.report, cells=tuple(replace(one, cell=cell, skipped="no\x07pe") for one in run.report.cells))
    text = written(coverage(report))
    assert "\x1b" not in text
    assert "[red]x" in text
    assert "no\N{REPLACEMENT CHARACTER}pe" in text


def test_coverage_adds_up_seeds_and_says_what_was_not_run() -> None:
    cells = sample_run(methods=("ike", "ft-m"), edits=(1, 1000)).report.cells
    seeds = tuple(replace(one, cell=replace(one.cell, seed=seed)) for one in cells for seed in (0, 1, 2))
    report = replace(EMPTY, cells=seeds)
    row = next(row for row in coverage_of(report) if (row.method, row.edits) == ("ike", 1000))
    summary = next(one for one in cells if (one.cell.method, one.cell.edits) == ("ike", 1000))
    assert (row.seeds, row.cases, row.not_testable) == (3, 600, 27)
    assert row.failed == 3 * summary.failed
    assert row.counted == 573 - row.failed
    assert row.left_out == {"condition not met": 93, "asks for another edit": 12}
    (skipped,) = skipped_of(report)
    assert (skipped.method, skipped.edits) == ("ft-m", ("1,000",))
    assert coverage_of(report, "another dataset") == []


# records


def test_worst_records_are_those_with_most_missed_and_come_from_every_method(run: Run) -> None:
    found = records_of(run.report, "counterfact:dev", run.results, run.cases)
    assert found.protocol == "free"
    assert {record.method for record in found.worst} == set(KNOWN) - {"base"}
    for method in KNOWN:
        shares = [record.missed / record.asked for record in found.worst if record.method == method]
        assert shares == sorted(shares, reverse=True)
    worst = found.worst[0]
    missed = [
        probe
        for cell, results in run.results.items()
        if (cell.dataset, cell.method, cell.protocol) == ("counterfact:dev", worst.method, "free")
        and f"{cell.edits} edit" in worst.edits
        and cell.sequential == ("one by one" in worst.edits)
        for result in results
        if result.case == worst.case
        for probe in result.probes
        if probe.in_scope and probe.match and not probe.match.anywhere
    ]
    assert worst.missed == len(missed)
    assert [probe.answer for probe in worst.probes] == [probe.answer for probe in missed]
    assert worst.probes[0].wanted


def test_false_fires_leave_out_what_fired_rightly(run: Run) -> None:
    found = records_of(run.report, "counterfact:dev", run.results, run.cases)
    assert found.all_false_fires >= len(found.false_fires) > 0
    quiet: dict[Cell, list[CaseResult]] = {}
    for cell, results in run.results.items():
        quiet[cell] = [
            replace(
                result,
                probes=tuple(
                    replace(probe, routed=replace(probe.routed, right=True)) if probe.routed else probe
                    for probe in result.probes
                ),
            )
            for result in results
        ]
    assert records_of(run.report, "counterfact:dev", quiet, run.cases).false_fires == ()


def test_a_missed_wording_does_not_count_where_another_passed_its_test(run: Run) -> None:
    cell, results = next((cell, one) for cell, one in run.results.items() if cell.method == "ike")
    first, second = results[0].probes[:2]
    grouped = [
        replace(first, kind="multi_hop", match=Match(anywhere=True), group="g", group_rule="any"),
        replace(second, kind="multi_hop", match=Match(), group="g", group_rule="any"),
    ]
    either = {cell: [replace(results[0], probes=tuple(grouped))]}
    assert records_of(run.report, cell.dataset, either, {}).worst == ()
    grouped = [replace(one, group_rule="all") for one in grouped]
    both = {cell: [replace(results[0], probes=tuple(grouped))]}
    (record,) = records_of(run.report, cell.dataset, both, {}).worst
    assert (record.missed, record.asked, record.facts, record.probes[0].typed) == (1, 2, (), None)


# charts


def test_a_line_chart_draws_what_it_is_given_and_escapes_it() -> None:
    points = (Point(1, 0.5, 0.4, 0.6, "<b>one</b>"), Point(100, 1.5, None, None, "two"))
    axis = Axis("", ((0.0, "0%"), (1.0, "100%")))
    svg = line_chart(
        [Series("a<b", Look(3), points)],
        title='"x" & y',
        x=Axis("edits", ((1.0, "1"), (100.0, "100")), logarithmic=True),
        y=axis,
    )
    page = Page(svg)
    assert page.unmatched == []
    assert "<b>one</b>" in page.text
    assert "a<b" in page.text
    assert page.named("svg")[0]["aria-label"] == '"x" & y'
    assert {use["href"] for use in page.named("use")} == {"#circle"}
    first, second = (float(use["y"] or "") for use in page.named("use"))
    assert second == 10.0  # beyond the axis: at its edge
    assert first == pytest.approx((10 + 198) / 2)


def test_methods_beyond_the_colours_have_other_marks() -> None:
    looks = {(Look(place).colour, Look(place).mark) for place in range(28)}
    assert len(looks) == 28
    assert Look(-1).colour == "cb"


def test_a_strip_stays_inside_its_cell() -> None:
    numbers = [float(number) for number in re.findall(r'cx="([\d.-]+)"', strip(1.2, -0.2, 1.3, 2.0))]
    assert numbers == [100.0]
    assert "M0 4.5H100" in strip(0.5, -0.2, 1.3, None)


# the page


def test_the_page_parses_and_its_ids_are_unique(html: str) -> None:
    page = Page(html)
    assert page.unmatched == []
    assert page.open == []
    ids = [str(attributes["id"]) for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    inner = {str(one["href"])[1:] for one in page.named("a") + page.named("use")}
    assert inner <= set(ids)
    widths = {len(row) for table in page.tables for row in table}
    assert all(len({len(row) for row in table}) == 1 for table in page.tables)
    assert max(widths) > 5


def test_the_page_needs_nothing_but_itself(html: str) -> None:
    page = Page(html)
    for _, attributes in page.elements:
        for name in ("src", "href", "srcset", "action", "data", "xlink:href"):
            assert str(attributes.get(name, "#")).startswith(("#", "data:,"))
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
    assert not re.search(r"@import|url\(", html)
    assert "http:" not in html
    assert "https:" not in html


def test_the_page_shows_every_figure(run: Run, html: str) -> None:
    cells = " ".join(" ".join(text.split()) for table in Page(html).tables for row in table for text in row)
    assert any(one.measure == "fluency" for one in run.report.figures)
    for one in run.report.figures:
        assert f" {figure_text(one)} " in cells
        assert before_text(one) in cells


def test_the_page_never_mixes_groups_in_a_table(run: Run, html: str) -> None:
    oracle, rival = "ice-oracle", "ft-m"
    for table in Page(html).tables:
        methods = {row[0].strip() for row in table[1:]}
        if {oracle, rival} <= methods:  # only where no figures are compared
            assert table[0][1].strip() in {"Protocol", "Edits", "What it is"}
            assert not any("Reliability" in title or "%" in title for title in table[0])
    assert "teacher-forced (legacy, not comparable)" in html


@pytest.mark.parametrize(
    "hostile",
    ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</style></svg><b>", "{{ 7 * 7 }}", "]]>"],
)
def test_hostile_texts_stay_texts(hostile: str) -> None:
    run = sample_run(methods=("ike", hostile), edits=(1, 10), records=3)
    results = {
        cell: [
            replace(
                result,
                case=hostile,
                probes=tuple(
                    replace(
                        probe,
                        answer=hostile,
                        before=hostile,
                        match=probe.match and replace(probe.match, anywhere=False),
                        routed=probe.routed and replace(probe.routed, edit=hostile, fired=True, right=False),
                    )
                    for probe in result.probes
                ),
            )
            for result in found
        ]
        for cell, found in run.results.items()
    }
    cells = tuple(replace(one, left_out={hostile: 3}, skipped=None) for one in run.report.cells)
    figures = tuple(replace(one, kind=hostile if one.kind else None) for one in run.report.figures)
    report = replace(
        run.report,
        provenance={hostile: [hostile, {"deep": hostile}], "command": hostile},
        config={"model": hostile},
        cells=cells,
        figures=figures,
    )
    page = Page(render_page(report, results, {}))
    assert page.unmatched == []
    assert len(page.named("script")) == 1
    assert page.named("img") == []
    assert " ".join(hostile.split()) in page.text
    assert "49" not in " ".join(page.texts[:40])


def test_the_policy_admits_the_page_s_own_script_and_style_only(html: str) -> None:
    import base64
    import hashlib

    policy = next(one for one in Page(html).named("meta") if one.get("http-equiv"))["content"] or ""
    for tag in ("style", "script"):
        body = re.search(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert body
        digest = base64.b64encode(hashlib.sha256(body[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_the_same_run_gives_the_same_page(run: Run, html: str) -> None:
    assert render_page(run.report, run.results, run.cases) == html


def test_an_empty_report_has_a_page() -> None:
    page = Page(render_page(EMPTY, {}, {}))
    assert page.unmatched == []
    assert "This run has no results." in page.text
    assert headline(EMPTY) == per_kind(EMPTY) == routing(EMPTY) == coverage(EMPTY) == []


@pytest.mark.parametrize(
    "given",
    [
        {"methods": ("ike",), "edits": (1,)},
        {"methods": ("base",), "edits": (1,)},
        {"methods": ("ice-oracle",), "edits": (10,), "protocols": ("oracle-router",)},
        {"methods": ("ft-m",), "edits": (1000,)},
        {"methods": ("ike", "ft-m"), "edits": (1,), "protocols": ("probability",)},
    ],
)
def test_small_runs_have_a_page(given: Mapping[str, Any]) -> None:
    run = sample_run(**given)
    for results, cases in ((run.results, run.cases), (run.results, {}), ({}, {})):
        page = Page(render_page(run.report, results, cases))
        assert page.unmatched == []
        assert given["methods"][0] in page.text
        assert "nan" not in page.text.lower().split()


def test_what_it_takes_to_run_it_again_is_there(run: Run, html: str) -> None:
    text = Page(html).text
    assert "memedit eval --model smollm2-135m-instruct --data counterfact:dev knowedit:dev --out 'runs/it s'" in text
    for word in ("9f86d081884c7d65", "8fb3bb2", "2.13.0", "x86_64", "1834.2"):
        assert word in text
    assert json.dumps(run.report.config["edits"], indent=2)[2] in text
    assert all(info["summary"] in text for info in run.report.methods.values())


def test_many_methods_have_a_key_and_a_page_of_reasonable_size() -> None:
    methods = (*KNOWN, *(f"method-{place}" for place in range(14)))
    datasets = ("counterfact:dev", "knowedit:dev", "mquake:dev", "hallueditbench:dev")
    run = sample_run(methods=methods, datasets=datasets, edits=(100,), records=20)
    html = render_page(run.report, run.results, run.cases)
    assert len(html.encode()) < 1_500_000
    assert [one for one in Page(html).named("ul") if one.get("class") == "key"]


# in a browser


@needs_chromium
@pytest.mark.slow
def test_the_page_works_in_a_browser(html: str, tmp_path: Path) -> None:
    document, said = opened(html, tmp_path)
    assert said == []
    page = Page(document)
    tabs = [one for one in page.named("a") if one.get("role") == "tab"]
    assert [tab["aria-selected"] for tab in tabs] == ["true", "false"]
    hidden = [one for one in page.named("section") if one.get("class") == "dataset" and "hidden" in one]
    assert [one["id"] for one in hidden] == ["d2"]
    assert len(page.named("button")) > 20
    # the console is listened to at all
    assert opened(with_script(html, "no_such_name()"), tmp_path)[1]


@needs_chromium
@pytest.mark.slow
def test_the_page_sorts_its_tables_and_fits_a_phone(html: str, tmp_path: Path) -> None:
    script = """
      const table = document.querySelector("table.headline");
      table.tHead.rows[0].cells[2].querySelector("button").click();
      const sorted = [...table.tBodies[0].rows].map((row) => Number.parseFloat(row.cells[2].textContent));
      const frame = document.createElement("iframe");
      frame.width = 400;
      frame.srcdoc = document.documentElement.outerHTML.replaceAll(new RegExp("<([/]?)script", "g"), "<$1template");
      frame.addEventListener("load", () => {
        const inside = frame.contentDocument;
        for (const one of inside.querySelectorAll("details")) one.open = true;
        document.title = JSON.stringify({ sorted, wide: inside.documentElement.scrollWidth });
      });
      document.body.append(frame);
    """
    document, said = opened(with_script(html, script), tmp_path)
    assert said == []
    title = re.search(r"<title>(\{.*?\})</title>", document)
    assert title
    found = json.loads(title[1])
    assert found["sorted"] == sorted(found["sorted"], reverse=True)
    assert len(set(found["sorted"])) > 5
    assert found["wide"] <= 400


@needs_chromium
@pytest.mark.slow
def test_the_page_reads_without_javascript(html: str, tmp_path: Path) -> None:
    page = Page(opened(re.sub(r'script-src [^"]+', "script-src &#39;none&#39;", html), tmp_path)[0])
    assert page.named("button") == []
    assert not [one for one in page.named("section") if "hidden" in one]
    assert page.text.count("Reliability") > 2
