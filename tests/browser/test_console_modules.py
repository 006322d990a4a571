"""The console's own calculations, run in Chromium on the modules that are shipped."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from opened_console import Console, told_page

from gateway.api.openapi import openapi_document
from gateway.model.outcome import Outcome
from gateway.scheduling.policy import Reason, Refusal, Verdict
from gateway.tasks import TASKS

pytestmark = pytest.mark.browser

SIMPLE = {"string", "integer", "number", "boolean"}

TEXT = r"""# HELP punctual_requests_total Requests.
# TYPE punctual_requests_total counter
punctual_requests_total{task="classify",checkpoint="a \"b\" } \\n",outcome="late"} 3.0
punctual_requests_total{task="summarize",outcome="late"} 1e3 1700000000
punctual_requests_totality 5
punctual_up 1
punctual_odd{le="+Inf"} NaN
punctual_bad{le="1"} what
"""


@pytest.fixture(scope="module")
def page(opened_browser: Console) -> Iterator[Console]:
    """The page, with a gateway behind it that answers nothing."""
    with told_page({}) as (url, _):
        opened_browser.open(url)
        yield opened_browser
        opened_browser.leave()


def test_an_exposition_is_read_as_it_is_written(page: Console) -> None:
    """Escapes, exponents and timestamps are parsed, and what is unwanted or unreadable is left out."""
    wanted = ["punctual_requests_total", "punctual_up", "punctual_odd", "punctual_bad"]
    samples = page.of_module(
        "exposition", "[...m.parse(g[0], new Set(g[1]))].map(([n, s]) => [n, s.map(o => [o.labels, String(o.value)])])",
        TEXT, wanted,
    )  # fmt: skip
    assert samples == [
        [
            "punctual_requests_total",
            [
                [{"task": "classify", "checkpoint": 'a "b" } \\n', "outcome": "late"}, "3"],
                [{"task": "summarize", "outcome": "late"}, "1000"],
            ],
        ],
        ["punctual_up", [[{}, "1"]]],
        ["punctual_odd", [[{"le": "+Inf"}, "NaN"]]],
    ]


def increases(page: Console, *scrapes: dict[str, float]) -> list[dict[str, float]]:
    """What each scrape adds to the one before, by series; a series is REPLICA/NAME, a scrape is a second."""
    script = """(() => { const c = new m.Counters(); return g.map((stands, s) => Object.fromEntries(
        c.since(new Map([["n", Object.entries(stands).map(([series, value]) =>
            ({series, value, labels: {replica: series.split("/")[0], series}}))]]), s)
        .get("n").map(({labels, value}) => [labels.series, value]))); })()"""
    told: list[dict[str, float]] = page.of_module("counters", script, *scrapes)
    return told


def test_a_counter_that_begins_again_never_runs_backwards(page: Console) -> None:
    """A counter that restarts under the same name never decreases: what it has counted since is the increase."""
    assert increases(page, {"a/x": 10}, {"a/x": 14}, {"a/x": 3}) == [{"a/x": 0}, {"a/x": 4}, {"a/x": 3}]


def test_the_past_of_a_process_is_no_increase(page: Console) -> None:
    """The past of a process seen for the first time is no increase; a series new in a known process starts at zero."""
    assert increases(page, {"a/x": 10}, {"a/x": 10, "a/y": 2, "b/x": 500}) == [
        {"a/x": 0},
        {"a/x": 0, "a/y": 2, "b/x": 0},
    ]


def test_what_a_silent_process_counted_is_not_lost(page: Console) -> None:
    """A process that misses a scrape adds its whole increase with the next."""
    assert increases(page, {"a/x": 1}, {}, {"a/x": 7}) == [{"a/x": 0}, {}, {"a/x": 6}]


@pytest.mark.parametrize(
    ("q", "counts", "expected"),
    [
        (0.5, {0.01: 0, 0.02: 10, math.inf: 10}, 0.015),
        (0.95, {0.01: 90, 0.02: 100, math.inf: 100}, 0.015),
        (0.5, {0.01: 10, 0.02: 10, math.inf: 10}, 0.005),
        (0.99, {0.01: 10, 60: 10, math.inf: 100}, 60),
        (1.0, {0.01: 4, 0.02: 4, math.inf: 4}, 0.01),
        (0.5, {0.01: 0, math.inf: 0}, None),
        (0.5, {}, None),
    ],
)
def test_a_quantile_is_prometheus_own(
    page: Console, q: float, counts: dict[float, int], expected: float | None
) -> None:
    """Quantiles are Prometheus' own: linear in a bucket, capped at the last finite bound, and none without data."""
    buckets = [["+Inf" if bound == math.inf else bound, count] for bound, count in counts.items()]
    script = "m.quantile(g[0], new Map(g[1].map(([b, c]) => [b === '+Inf' ? Infinity : b, c])))"
    found = page.of_module("quantile", script, q, buckets)
    assert found == (None if expected is None else pytest.approx(expected))


def promised(page: Console, counts: dict[str, float], seconds: float = 10.0) -> dict[str, float | None]:
    """The promises of one frame with these requests by outcome."""
    script = """m.promises([{seconds: g[1], grown: new Map([["punctual_requests_total",
        Object.entries(g[0]).map(([outcome, value]) => ({labels: {outcome, task: "classify"}, value}))]])}])"""
    told: dict[str, float | None] = page.of_module("readings", script, counts, seconds)
    return told


def test_attainment_is_of_what_was_offered(page: Console) -> None:
    """Attainment is a share of the requests offered, which are all outcomes but invalid and too long."""
    told = promised(page, {outcome.value: 1.0 for outcome in Outcome})
    assert told["asked"] == len(Outcome) - 2
    assert told["attainment"] == pytest.approx(1 / (len(Outcome) - 2))
    refused = {Outcome.INFEASIBLE, Outcome.SHED, Outcome.UNAVAILABLE}
    assert told["refused"] == pytest.approx(len(refused) / 10)
    assert promised(page, {"in_time": 30, "late": 10})["goodput"] == pytest.approx(3.0)


def test_an_idle_gateway_keeps_and_breaks_nothing(page: Console) -> None:
    """An idle gateway has no attainment, neither 0 nor 1."""
    assert promised(page, {"invalid": 3})["attainment"] is None
    assert promised(page, {}, seconds=0.0)["offered"] == 0


def test_the_slider_grants_what_it_shows(page: Console) -> None:
    """The slider's scale rises from its least to its most budget, and a budget leads back to its place."""
    script = "Array.from({length: 1001}, (_, i) => [m.msAt(i / 1000), m.placeOf(m.msAt(i / 1000)) - i / 1000])"
    places = page.of_module("scale", script)
    times = [ms for ms, _ in places]
    assert (times[0], times[-1]) == (1, 30_000) and times == sorted(times)
    assert max(abs(off) for _, off in places) < 0.005
    assert page.of_module("scale", "[m.placeOf(0.1), m.placeOf(600000)]") == [0, 1]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("time(0.663)", "0.66 ms"), ("time(5.347)", "5.3 ms"), ("time(50)", "50 ms"), ("time(0)", "0 ms"),
        ("time(240.4)", "240 ms"), ("time(999.6)", "1 s"), ("time(1500)", "1.5 s"), ("time(null)", "–"),
        ("percent(1)", "100 %"), ("percent(0.99996)", "99.9 %"), ("percent(0.057)", "5.7 %"), ("percent(null)", "–"),
        ("percent(0)", "0 %"), ("brief(12345.6)", "12,346"), ("brief(NaN)", "–"), ("brief(200)", "200"),
    ],
)  # fmt: skip
def test_figures_have_as_many_digits_as_tell_something(page: Console, call: str, expected: str) -> None:
    """Times have the unit that suits them, and a share is shown as 100 % only if it is all."""
    assert page.of_module("figures", f"m.{call}") == expected


def test_every_word_of_the_gateway_has_words_of_the_pages(page: Console) -> None:
    """Every reason, verdict and refusal of the gateway is shown in words, never as a code."""
    terms = {"budgetMs": 50, "percentile": 95}
    reasons = [page.of_module("words", "m.reason(g[0], g[1])", one.value, terms) for one in Reason]
    verdicts = [page.of_module("words", "m.verdict({verdict: g[0]}, {})", one.value) for one in Verdict]
    refusals = [page.of_module("words", "m.refusal({refusal: g[0], budget_ms: 50})", one.value) for one in Refusal]
    assert not [text for text in reasons + refusals if "“" in text or text.startswith("Refused:")]
    assert not set(verdicts) & ({one.value for one in Verdict} - {"fits"})
    assert len({*reasons, *verdicts, *refusals}) == len(Reason) + len(Verdict) + len(Refusal)


def test_every_task_is_read_from_the_contract(page: Console) -> None:
    """Each task that a checkpoint has is offered once, with the parameters of its body and a body to begin with."""
    served = [{"task": name} for name in (*TASKS, *TASKS)]
    told = page.of_module("contract", "m.tasksOf(g[0], g[1])", served, openapi_document(TASKS.values()))
    assert [task["name"] for task in told] == list(TASKS)
    assert all(task["examples"] and {one["type"] for one in task["parameters"]} <= SIMPLE for task in told)
    parameters = {one["name"]: one for task in told for one in task["parameters"]}
    assert {"top_k", "max_new_tokens", "domain", "truncation"} <= set(parameters)
    (top_k,) = (one for one in told[0]["parameters"] if one["name"] == "top_k")
    assert (told[0]["name"], top_k["minimum"], top_k["maximum"]) == ("classify", 1, 1000)
    assert parameters["function_to_apply"]["choices"] == ["softmax", "sigmoid", "none"]
    assert parameters["candidate_labels"]["type"] == "string" and parameters["candidate_labels"]["choices"] is None


def test_a_list_fills_the_field_of_a_text_with_commas(page: Console) -> None:
    """A parameter that may be a list or one text is filled from a list, and read as a text that means the same."""
    script = """(() => {
        const host = document.createElement("div");
        host.append(m.field({name: "labels", type: "string", description: "", choices: null}));
        m.fill(host, {labels: g[0]});
        return m.named(host);
    })()"""
    assert page.of_module("parameters", script, ["praise", "a complaint"]) == {"labels": "praise,a complaint"}


def test_a_new_catalog_takes_nothing_from_the_form(page: Console) -> None:
    """What was typed stays when a catalog is offered anew; what is no longer offered is not asked for."""
    script = """(() => {
        const form = new m.Form(document), of = (name) => form.node.querySelector(`[data-parameter=${name}]`);
        const catalog = (domain) => [{name: "a", task: "read", domain}, {name: "b", task: "write"}];
        form.offer(catalog("news"), g[0]);
        form.text.value = "typed"; of("most").value = "2"; of("domain").value = "news"; form.pin.value = "a";
        const terms = [form.terms()];
        for (const one of [catalog("news"), catalog("law"), []])
            { form.offer(one, one.length ? g[0] : g[0].slice(1)); terms.push(form.terms()); }
        return terms.map(({task, inputs, parameters, checkpoint}) => [task, inputs, parameters, checkpoint]);
    })()"""
    fields = [{"name": "most", "type": "integer"}, {"name": "domain", "type": "string"}]
    ready = [{"inputs": "ready to read"}], [{"inputs": ["several", "texts"]}, {"inputs": "ready to write"}]
    tasks = [
        {"name": "read", "parameters": fields, "examples": ready[0]},
        {"name": "write", "parameters": [], "examples": ready[1]},
    ]
    assert page.of_module("form", script, tasks) == [
        ["read", "typed", {"most": 2, "domain": "news"}, "a"],
        ["read", "typed", {"most": 2, "domain": "news"}, "a"],
        ["read", "typed", {"most": 2}, "a"],
        ["write", "typed", {}, None],
    ]


def test_inputs_with_parts_are_written_in_lines(page: Console) -> None:
    """A text field holds inputs with parts, a line for each and what is left for the last; texts stay as they are."""
    script = """(() => {
        const [schema, inputs, text] = g, parts = m.partsOf(schema);
        return [parts.map(({name, many}) => [name, many]), m.inputsIn(m.textOf(inputs, parts), parts),
            m.inputsIn(" a \\n\\n b", parts), m.hint(parts), m.inputsIn(text, m.partsOf({})), m.hint(null)];
    })()"""
    schema = {
        "properties": {
            "one": {"type": "string", "description": "the first"},
            "others": {"type": "array", "description": "what it is compared with"},
        }
    }
    inputs = {"one": "a", "others": ["b", "c"]}
    assert page.of_module("lines", script, schema, inputs, "a\nb") == [
        [["one", False], ["others", True]],
        inputs,
        {"one": "a", "others": ["b"]},
        "First line: the first. Further lines: what it is compared with.",
        "a\nb",
        "",
    ]


def test_an_output_is_shown_by_its_shape(page: Console) -> None:
    """Whatever is scored, a text, a vector, and any other document are each shown, whatever the task is."""
    script = "g.map((one) => { const node = m.shown(one, 'red'); return [node.className, node.textContent]; })"
    labels, text, other = (
        [{"label": "good", "score": 0.9}],
        {"translation_text": "hola"},
        [{"word": "Rome", "place": 1}],
    )
    answers = [{"answer": "Rome", "score": 1.5, "start": 3}, {"answer": "", "score": 0.25, "start": 0}]
    words = [[{"score": 0.5, "token": 7, "token_str": "rome"}]]
    vector = [0.25] * 384
    (first, second, third, fourth) = page.of_module("answer", script, labels, text, other, vector)
    assert fourth[0] == "output" and fourth[1].startswith("384 numbers: 0.2500, 0.2500")
    assert first == ["labels", "good90 %"] and second == ["written", "hola"]
    assert third[0] == "output" and '"word": "Rome"' in third[1]
    assert page.of_module("answer", script, answers, words) == [
        ["labels", "Rome150 %nothing25 %"],
        ["labels", "rome50 %"],
    ]


def test_marks_are_shown_in_the_text_that_was_sent(page: Console) -> None:
    """Places count characters as the gateway does, so that no emoji moves a mark; an empty list is told."""
    script = """(() => { const node = m.marked(g[0], g[1]); return [node.textContent,
        [...node.querySelectorAll("mark")].map((one) => one.firstChild.textContent)]; })()"""
    text = "\U0001f600 Ann in New York"
    marks = [
        {"entity_group": "PER", "score": 0.9, "word": "ann", "start": 2, "end": 5},
        {"entity": "B-LOC", "score": 1.0, "index": 3, "word": "new", "start": 9, "end": 12},
    ]
    told, marked = page.of_module("spans", script, text, marks)
    assert told == "\U0001f600 Ann PER 90 % in New B-LOC 100 % York" and marked == ["Ann", "New"]
    told, _ = page.of_module("spans", script, text, {"entities": marks[:1], "redacted": "\U0001f600 [PER] in New York"})
    assert told.endswith("York\U0001f600 [PER] in New York")
    assert page.of_module("spans", script, text, []) == [f"Nothing was found.{text}", []]
    others: list[object] = [[[{"label": "good", "score": 0.9}]], [[0.5]], [0.5], {"answer": "x", "start": 1, "end": 2}]
    assert page.of_module("spans", "g.map((one) => m.marksIn(one) === null)", *others) == [True] * len(others)


def test_the_time_line_spends_each_millisecond_once(page: Console) -> None:
    """The time line's spans add up to the budget, and the line is cut only for a budget far above them."""
    timings = {"route": 0.6, "queue": 0.8, "infer": 28.0, "total": 30.6}
    for budget_ms, cut in ((50.0, False), (5000.0, True), (20.0, False)):
        routing = {"budget_ms": budget_ms, "forecast_quantile_ms": 28.4}
        told = page.of_module("timeline", "m.spansOf(g[0], g[1])", routing, timings)
        assert sum(span["ms"] for span in told["spans"]) + told["left"] == pytest.approx(budget_ms)
        assert told["cut"] is cut and told["reach"] >= timings["total"]


def test_a_line_is_not_drawn_through_what_was_not_measured(page: Console) -> None:
    """A line is broken where points are far apart or without a value, and no point is lost."""
    points = [{"atS": at, "value": value} for at, value in ((0, 1), (1, 2), (2, None), (3, 4), (30, 5), (31, 6))]
    runs = page.of_module("plot", "m.runs(g[0])", points)
    assert [[point["atS"] for point in run] for run in runs] == [[0, 1], [3], [30, 31]]


def test_an_axis_ends_above_what_it_shows(page: Console) -> None:
    """An axis ends at the next round figure above its values, or at a value that is one."""
    rounded = page.of_module("plot", "[1, 1.01, 0.03, 6, 7, 999].map(m.roundAbove)")
    assert rounded == pytest.approx([1, 2, 0.04, 6, 10, 1000])


def test_a_gateway_that_does_not_answer_is_asked_ever_more_rarely(page: Console) -> None:
    """Each failure in a row doubles the wait before the gateway is asked again, up to 30 s."""
    waits = page.of_module("scraping", "[1, 2, 3, 4, 5, 9].map(m.backOff)")
    assert waits == [2000, 4000, 8000, 16000, 30000, 30000]


@pytest.mark.parametrize(
    ("attainment", "missing", "level", "title"),
    [
        (0.99, [], "good", "Promises are kept"),
        (0.99, [{"checkpoint": "x", "up": 0, "expected": 1}], "warn", "replicas missing"),
        (0.9, [], "warn", "slipping"),
        (0.5, [], "bad", "broken"),
        (None, [], "idle", "Idle"),
        (0.0, [], "bad", "broken"),
    ],
)
def test_one_glance_tells_whether_promises_are_kept(
    page: Console, attainment: float | None, missing: list[object], level: str, title: str
) -> None:
    """The glance judges by attainment against 95 %, and explains missing replicas and the capacity price."""
    asked = 0 if attainment is None else 100
    promises = {
        "asked": asked,
        "attainment": attainment,
        "offered": 10,
        "refused": 1,
        "late": 0,
        "expired": 2,
        "failed": 0,
    }
    script = (
        "m.glance({...g[0], tiers: new Map([['quality', 1], ['realtime', 3]]), prices: new Map([['classify', 7]])})"
    )
    told = page.of_module("glance", script, {"promises": promises, "missing": missing, "silent": 0})
    assert told["level"] == level and title in told["title"]
    assert "75 % of answers come from below" in told["notes"][-1]
    assert any("x has no replica" in note for note in told["notes"]) == bool(missing)


def test_a_handful_of_requests_raises_no_alarm(page: Console) -> None:
    """One late request in a quiet minute is mentioned, but judges no promise."""
    promises = {"asked": 1, "attainment": 0, "offered": 0.02, "refused": 0, "late": 0.02, "expired": 0, "failed": 0}
    script = "m.glance({...g[0], tiers: new Map(), prices: new Map()})"
    told = page.of_module("glance", script, {"promises": promises, "missing": [], "silent": 0})
    assert told == {"level": "idle", "title": "Quiet. One request in the last minute, 0 in time.", "notes": []}


def test_a_label_never_lies_across_the_budgets_line(page: Console) -> None:
    """A label that has space beside bar and budget line lies across neither."""
    places = [place / 20 for place in range(21)]
    script = "g[0].map(([from, to, budget]) => m.besideBar(from, to, budget, 0.3))"
    cases = [(a, b, line) for a in places for b in places if a <= b for line in places]
    for (bar_from, bar_to, line), told in zip(cases, page.of_module("ruler", script, cases), strict=True):
        start = told["at"] if told["side"] == "right" else told["at"] - 0.3
        crossed = start < line < start + 0.3
        assert not crossed or bar_to + 0.3 > 1 or line + 0.3 > 1
        assert start >= bar_to or start + 0.3 <= bar_from + 1e-9


FRAME = """{seconds: 10, grown: new Map([
  ["punctual_requests_total", g[0].map(([checkpoint, outcome, value]) =>
    ({labels: {task: "classify", checkpoint, outcome}, value}))],
  ["punctual_request_latency_seconds_bucket", g[1].map(([tier, le, value]) => ({labels: {tier, le}, value}))]])}"""


def test_quality_counts_only_what_was_in_time(page: Console) -> None:
    """A late or refused request counts as quality 0, and without a known quality nothing is claimed."""
    requests = [
        ("a", "in_time", 6),
        ("b", "in_time", 2),
        ("a", "late", 1),
        ("", "shed", 1),
        ("", "invalid", 5),
        ("", "in_time", 0),
    ]
    script = f"m.effectiveQuality([{FRAME}], 'classify', new Map(g[2]))"
    assert page.of_module("readings", script, requests, [], [["a", 90], ["b", 80]]) == pytest.approx(70)
    assert page.of_module("readings", script, requests, [], [["a", 90]]) is None
    assert page.of_module("readings", f"[...m.answers([{FRAME}])]", requests, []) == [["a", 0.7], ["b", 0.2], ["", 0]]


def test_latency_is_told_by_tier_over_all_its_checkpoints(page: Console) -> None:
    """Latency quantiles are taken over all checkpoints of a tier, and a tier without answers has none."""
    buckets = [("quality", "0.01", 0), ("quality", "0.02", 4), ("quality", "+Inf", 4), ("quality", "0.01", 0)]
    buckets += [("quality", "0.02", 6), ("quality", "+Inf", 6), ("realtime", "0.01", 0), ("realtime", "+Inf", 0)]
    told = dict(page.of_module("readings", f"[...m.latency([{FRAME}], 'tier', 0.5)]", [], buckets))
    assert told == {"quality": pytest.approx(0.015), "realtime": None}


def test_events_are_read_however_they_are_cut(page: Console) -> None:
    """Whole events are found with their names and data, comments are none, and what is cut off is left for later."""
    told = ': \n\ndata: {"text":"a\\n\\nb"}\n\nevent: done\ndata: {"outputs":[]}\n\ndata: {"te'
    found, rest = page.of_module("events", "m.eventsIn(g[0])", told)
    assert found == [{"name": "message", "data": {"text": "a\n\nb"}}, {"name": "done", "data": {"outputs": []}}]
    assert rest == 'data: {"te'


def test_only_tasks_that_stream_are_read_along(page: Console) -> None:
    """The contract says which answers can be read while they are written."""
    served = [{"name": name, "task": name} for name in TASKS]
    tasks = page.of_module("contract", "m.tasksOf(g[0], g[1])", served, openapi_document(TASKS.values()))
    assert {one["name"] for one in tasks if one["streams"]} == {task.name for task in TASKS.values() if task.streams}
