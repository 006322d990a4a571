"""Watching a gateway as operators do: dashboard queries, counts of client and gateway, and Prometheus' answers."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from rich.console import Console

from loadtests.bench.measuring.report import present
from loadtests.bench.observed import (
    UNREPORTED,
    Asked,
    Observed,
    ObservedSettings,
    TaskCounts,
    asked_of,
    counted_both,
    report_of,
    reported_outcome,
    targets,
    window_of,
)
from loadtests.bench.peers.prometheus import (
    SHIPPED_CONFIG,
    SHIPPED_DASHBOARDS,
    Prometheus,
    Query,
    Rule,
    Sample,
    config_of,
    now_s,
    panel_queries,
    watching,
)
from loadtests.client import Hung, NoReply, Reply
from loadtests.errors import NothingShipped, PrometheusFailed, PrometheusMissing
from loadtests.generator.calls import Call
from loadtests.generator.results import Result, result_of_call


def landing(task: str = "classify", latency_s: float = 0.05, outcome: str | None = "in_time", code: str = "") -> Result:
    """A request with a budget of 0.1 s: answered with this verdict of the gateway, or a problem with this code."""
    call = Call(1, 0, 0.0, task, 0.1, b"", {})
    if code:
        status = {"overloaded": 429, "budget_infeasible": 422, "deadline_exceeded": 504}.get(code, 500)
        reply = Reply(status, {}, json.dumps({"code": code}).encode())
    else:
        told = {} if outcome is None else {"x-checkpoint": "fast", "x-outcome": outcome}
        reply = Reply(200, told, b"")
    return result_of_call(call, reply, 0.0, latency_s)


def counter(**by_outcome: float) -> list[Sample]:
    """The counter of `classify` requests by outcome at an instant."""
    return [Sample((0.0, str(n)), {"task": "classify", "outcome": how}) for how, n in by_outcome.items()]


@contextmanager
def answering(answers: Mapping[str, list[tuple[int, object]]]) -> Iterator[str]:
    """A server that gives each path its answers in turn and then repeats the last; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            turns = answers[self.path.partition("?")[0]]
            status, document = turns.pop(0) if len(turns) > 1 else turns[0]
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Logs nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def vector(*values: str) -> tuple[int, object]:
    """Prometheus' answer to a query with these values."""
    result = [{"metric": {"task": "classify"}, "value": [5.0, value]} for value in values]
    return 200, {"status": "success", "data": {"resultType": "vector", "result": result}}


def test_every_panels_query_is_asked_with_its_variables_filled_in(tmp_path: Path) -> None:
    """Every panel's query is asked with its variables filled in and named by its place, also within folded rows."""
    inner = {"title": "inner", "targets": [{"expr": "rate(b[${window}])", "refId": "B"}]}
    panels = [
        {"title": "outer", "targets": [{"expr": 'a{task=~"$task"}', "refId": "A"}]},
        {"title": "row", "panels": [inner]},
        {"title": "text"},
    ]
    (tmp_path / "one.json").write_text(json.dumps({"panels": panels}))
    found = panel_queries(tmp_path, {"task": "x", "window": "5m"})
    assert found == [Query("one: outer A", 'a{task=~"x"}'), Query("one: inner B", "rate(b[5m])")]


def test_a_dashboard_that_cannot_be_asked_is_named(tmp_path: Path) -> None:
    """A malformed dashboard, one with an unknown variable, or a folder without any is an error that names it."""
    with pytest.raises(NothingShipped, match="no dashboard"):
        panel_queries(tmp_path)
    for content in ('{"panels": [{"targets": [{"expr": "$other"}]}]}', "{}", "no"):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(NothingShipped, match=r"bad\.json"):
            panel_queries(tmp_path)


def test_what_is_shipped_can_be_asked_and_scraped() -> None:
    """The shipped dashboards have no open variable, and the shipped config finds its rules for another target."""
    queries = panel_queries(SHIPPED_DASHBOARDS)
    assert len(queries) > 60 and not [one for one in queries if "$" in one.expr]
    config = config_of(SHIPPED_CONFIG, "127.0.0.1:1", 1)
    assert config["global"] == {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["127.0.0.1:1"]}] and job["scrape_timeout"] == "1s"
    for pattern in map(Path, config["rule_files"]):
        assert pattern.is_absolute() and list(pattern.parent.glob(pattern.name))


def test_a_config_that_is_not_as_it_should_be_is_named(tmp_path: Path) -> None:
    """A config that is missing, malformed or without its one job is an error that names the file."""
    path = tmp_path / "prometheus.yml"
    for content in (None, "rule_files: []\nscrape_configs: []", "a: [", "rule_files: []"):
        if content is not None:
            path.write_text(content)
        with pytest.raises(NothingShipped, match=r"prometheus\.yml"):
            config_of(path, "target", 1)


def test_without_prometheus_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Prometheus, the error says how to install it before anything is started."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(PrometheusMissing, match="apt-get install prometheus"), watching("http://127.0.0.1:1"):
        pass


def test_an_answer_is_read_with_its_labels() -> None:
    """An answer is read with its labels, be it a vector or a scalar; NaN is a value."""
    lone = {"status": "success", "data": {"resultType": "scalar", "result": [5.0, "3"]}}
    with answering({"/api/v1/query": [vector("1", "NaN"), (200, lone), vector()]}) as url:
        first, second = Prometheus(url).ask("a", 5.0)
        assert first == Sample((5.0, "1"), {"task": "classify"}) and math.isnan(second.number)
        assert [one.number for one in Prometheus(url).ask("3", 5.0)] == [3.0]
        assert Prometheus(url).ask("none", 5.0) == []


def test_what_prometheus_refuses_is_told_with_its_words() -> None:
    """A query that Prometheus refuses is an error with the query and the fault, and so is silence."""
    refused = pytest.raises(PrometheusFailed, match=r"rate\(a\).*parse error")
    with answering({"/api/v1/query": [(400, {"error": "parse error"})]}) as url, refused:
        Prometheus(url).ask("rate(a)", 5.0)
    with pytest.raises(PrometheusFailed, match="does not answer"):
        Prometheus(url).rules()


def test_a_sample_counts_once_it_is_of_after_the_instant() -> None:
    """Only a sample newer than the given instant ends the wait for one."""
    looks = [vector(), vector("99"), vector("100"), vector("100.5"), vector("7")]
    with answering({"/api/v1/query": looks}) as url:
        Prometheus(url).await_sample("a", 100.0, within_s=60.0)
        assert len(looks) == 1
        with pytest.raises(PrometheusFailed, match="new sample of a"):
            Prometheus(url).await_sample("a", now_s(), within_s=0.2)


@pytest.mark.parametrize(
    ("one", "outcome"),
    [
        (
            landing(outcome="in_time", latency_s=0.2),
            "in_time",
        ),  # the gateway says so, whatever the clock
        (landing(outcome="late", latency_s=0.05), "late"),
        (landing(outcome="lead"), "lead"),
        (landing(outcome=None), UNREPORTED),
        (landing(code="overloaded"), "shed"),
        (landing(code="budget_infeasible"), "infeasible"),
        (landing(code="deadline_exceeded"), "expired"),
        (landing(code="inference_failed"), "failed"),
        (landing(code="of_another_server"), UNREPORTED),
        (result_of_call(Call(1, 0, 0.0, "classify", 0.1, b"", {}), Hung("no answer"), 0.0, 9.0), UNREPORTED),
        (
            result_of_call(Call(1, 0, 0.0, "classify", 0.1, b"", {}), NoReply("ServerDisconnectedError"), 0.0, 9.0),
            UNREPORTED,
        ),
    ],
)
def test_an_end_is_what_the_gateway_said(one: Result, outcome: str) -> None:
    """The outcome is read from the answer's header or the problem's code; without an answer it is unreported."""
    assert reported_outcome(one) == outcome


def test_a_load_is_counted_on_both_sides() -> None:
    """A load is counted by the client and by the gateway, whose counters are compared with their values before."""
    results = [landing(), landing(latency_s=0.2), landing(outcome="late", latency_s=0.2), landing(code="overloaded")]
    (counts,) = counted_both(
        [*results], counter(in_time=10, late=0), counter(in_time=12, late=1, shed=1, failed=0), {"classify": 0.5}
    )
    assert counts.counted == {"in_time": 2, "late": 1, "shed": 1} == counts.reported and counts.agree
    assert (counts.by_client, counts.by_answers, counts.by_promql) == (0.25, 0.5, 0.5)
    assert counts.apart == 0.25 and counts.by_rule == 0.5


def test_a_request_that_only_one_side_has_is_seen() -> None:
    """A request that only one side counted, or that they counted differently, is a disagreement."""
    told = [landing(), landing(outcome="late")]
    for after in (counter(in_time=1), counter(in_time=2, late=1), counter(in_time=2), counter(in_time=1, late=-1)):
        (counts,) = counted_both(told, [], after, {})
        assert not counts.agree, after
    residual = [Sample((0.0, "1"), {"task": "summarize", "outcome": "late"})]
    assert [one.agree for one in counted_both(told, [], counter(in_time=1, late=1) + residual, {})] == [True, False]


def test_of_a_request_without_an_answer_it_is_enough_that_it_was_counted() -> None:
    """A request without an answer may be counted under any outcome, but must be counted."""
    for after, agree in ((counter(in_time=1, cancelled=1), True), (counter(in_time=2), True), (counter(late=2), False)):
        counts = replace(counted_both([landing()], [], after, {})[0], reported={"in_time": 1, UNREPORTED: 1})
        assert counts.agree is agree, after


def test_what_could_not_be_served_is_not_offered() -> None:
    """Invalid and too long requests do not count as offered; with nothing offered there is no attainment."""
    counts = TaskCounts(
        "classify", {"in_time": 1, "late": 1, "too_long": 2}, {"in_time": 1, "shed": 1, "invalid": 5}, 1
    )
    assert counts.by_client == counts.by_answers == counts.by_promql == 0.5 and counts.apart == 0.0
    none = TaskCounts("classify", {"invalid": 1}, {"invalid": 1}, 0)
    assert none.by_promql is None and none.apart is None


def test_a_query_that_gives_nan_or_nothing_has_no_data() -> None:
    """A query has data if one element is a number; a failing rule is named with its fault."""
    figures = {"nan": ["NaN", "NaN"], "one": ["NaN", "0"], "none": [], "r:ok": ["1"], "r:silent": ["NaN"]}
    rules = [
        Rule("r:ok", "recording", "ok"),
        Rule("r:ok", "recording", "ok"),
        Rule("r:silent", "recording", "ok"),
        Rule("Alert", "alerting", "err", "many-to-many"),
    ]
    queries = [Query("here", expr) for expr in ("nan", "one", "none")]
    asked = asked_of(lambda expr, _: [Sample((0.0, v)) for v in figures[expr]], rules, queries, 5.0)
    assert asked == Asked(3, (queries[0], queries[2]), 2, ("r:silent",), ("Alert: many-to-many",))


def test_a_recorded_window_holds_the_load() -> None:
    """The recorded window is the shortest one that holds the whole load."""
    assert [window_of(seconds) for seconds in (10, 300, 301, 3600, 1e6)] == ["5m", "5m", "30m", "1h", "6h"]


GOOD = TaskCounts("classify", {"in_time": 99, "late": 1}, {"in_time": 99, "late": 1}, in_time=98, by_rule=0.99)
REPORT = Observed(
    settings=ObservedSettings(),
    host="here",
    rate_per_s=30.0,
    rule="task:punctual_attainment:ratio_rate5m",
    tasks=(GOOD,),
    asked=Asked(2, (), 1, (), ()),
    scrapes=120,
    scrapes_failed=0,
    invalid="",
    lasted_s=150.0,
)


def with_asked(**changed: object) -> Observed:
    """The good report, with these changes in what Prometheus was asked."""
    return replace(REPORT, asked=replace(REPORT.asked, **changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("report", "missed"),
    [
        (REPORT, []),
        (replace(REPORT, invalid="sent late"), [0]),
        (replace(REPORT, tasks=(replace(GOOD, reported={"in_time": 99}),)), [1]),
        (replace(REPORT, tasks=(replace(GOOD, in_time=97),)), [2]),
        (replace(REPORT, tasks=()), [1, 2]),
        (with_asked(silent_queries=(Query("here", "a"),)), [3]),
        (with_asked(silent_rules=("r",)), [4]),
        (with_asked(ailing=("r: fault",)), [4]),
    ],
)
def test_each_target_is_missed_by_its_own_fault(report: Observed, missed: list[int]) -> None:
    """Each fault makes exactly its own target missed."""
    assert [at for at, target in enumerate(targets(report)) if not target.met] == missed


def test_a_report_names_what_was_missed(tmp_path: Path) -> None:
    """A report names the missed target and query at the terminal, and its file holds the attainments."""
    report = with_asked(silent_queries=(Query("overview: price A", 'a{b="c"}[red]'),))
    told = io.StringIO()
    status = present(report_of(report), Console(file=told, width=150), json=tmp_path / "out.json")
    text = told.getvalue()
    assert 'overview: price A: a{b="c"}[red]' in text and "returns data: MISSED: 1 of 2" in text
    assert status == 1 and text.count("MISSED") == 1 and "98.00%" in text
    document = json.loads((tmp_path / "out.json").read_bytes())
    assert document["attainment"]["classify"] == pytest.approx(
        {"by_client": 0.98, "by_answers": 0.99, "by_promql": 0.99, "by_rule": 0.99}
    )
    assert [verdict["met"] for verdict in document["verdicts"]] == [True, True, True, False, True]
