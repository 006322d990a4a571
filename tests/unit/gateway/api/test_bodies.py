"""Request bodies: each fault has its documented status and names its field or limit, and no text is quoted."""

from __future__ import annotations

import gzip
import json

import pytest

from gateway.api import bodies
from gateway.api.bodies import MOST_VALUES, MOST_VALUES_A_TEXT, RouteBody
from gateway.catalogs.catalog import Limits
from gateway.model.errors import InputTooLong, InvalidRequest, Problem
from gateway.tasks import TASKS
from gateway.tasks.classify import CLASSIFY, ClassifyBody, ClassifyBodyParameters, ClassifyParameters

LIMITS = Limits(max_body_bytes=4096, max_inputs=3, max_input_chars=40)
SECRET = "SECRET"


def read(body: bytes) -> tuple[str, ...]:
    """Return the texts of a body of `/classify`."""
    return bodies.limited(bodies.parse(body, ClassifyBody, LIMITS).texts(), LIMITS)


def read_json(document: object) -> tuple[str, ...]:
    """Return the texts of a JSON document."""
    return read(json.dumps(document).encode())


def refused(body: bytes) -> InvalidRequest:
    """Return the refusal of an invalid body, after checking that it quotes nothing of it."""
    with pytest.raises(InvalidRequest) as caught:
        read(body)
    assert SECRET not in str(caught.value.document())
    return caught.value


def fields(problem: Problem) -> set[str]:
    """Return the fields that a problem names."""
    errors = problem.members["errors"]
    assert isinstance(errors, list)
    return {error["field"] for error in errors}


def too_long(document: object) -> InputTooLong:
    """Return the 413 of a document over a limit, after checking that it quotes nothing of it."""
    with pytest.raises(InputTooLong) as caught:
        read_json(document)
    assert SECRET not in str(caught.value.document())
    assert caught.value.http_status == 413
    return caught.value


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"SECRET",
        b'{"inputs": "SECRET"} SECRET',
        b'{"inputs": "SECRET',
        b'{"inputs": "SECRET\n"}',
        b'{"inputs": "SECRET\\x"}',
        b'{"inputs": "SECRET\\ud8"}',
        b'{"inputs": "SECRET\\ud800',
        b'\xef\xbb\xbf{"inputs": "SECRET"',
        b"\xef\xbb\xbf" + b"[" * 500,
        b"[" * 500,
        b'{"inputs": ' + b"[" * 500 + b"]" * 500 + b"}",
        b'\xef\xbb\xbf{"inputs": ' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"a":' * 500,
        b"\x00\x01\x02",
    ],
)
def test_what_is_not_json_in_utf_8_is_a_400(body: bytes) -> None:
    """Invalid JSON and very deep nesting are a 400."""
    problem = refused(body)
    assert problem.http_status == 400
    assert problem.detail == "the body is not JSON in UTF-8"


@pytest.mark.parametrize(
    ("body", "guess"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"{'inputs': 'SECRET'}", "it looks like a Python literal; JSON has double quotes"),
        (b"inputs=SECRET", "it looks like a form"),
        (b'{"inputs": "SECRET\xe9"}', "byte 18 is no UTF-8; it looks like Latin-1"),
        (b'{"inputs": "SECRET\xc3\x28"}', "byte 18 is no UTF-8; it looks like Latin-1"),
        (b'{"inputs": "SECRET\xe2\x82', "it ends within a character"),
        (b'{"inputs": "SECRET", "options": {"x": NaN}}', "it has NaN or Infinity, which JSON does not"),
        (b'{"inputs": "SECRET", "options": [1, -Infinity]}', "it has NaN or Infinity, which JSON does not"),
        (b'\xef\xbb\xbf{"inputs": "SECRET\\ud83d", "x":NaN}', "it has NaN or Infinity, which JSON does not"),
        ('{"inputs": "SECRET"}'.encode("utf-16"), "it looks like UTF-16"),
        ('{"inputs": "SECRET"}'.encode("utf-16-be"), "it looks like UTF-16"),
        ('{"inputs": "SECRET"}'.encode("utf-16-le"), "it looks like UTF-16"),
        (gzip.compress(b'{"inputs": "SECRET"}', mtime=0), "it looks like gzip, which Content-Encoding has to say"),
    ],
)
def test_a_400_says_what_the_body_looks_like(body: bytes, guess: str) -> None:
    """A 400 says what the body looks like, where that can be told."""
    problem = refused(body)
    assert problem.http_status == 400
    assert problem.detail == f"the body is not JSON in UTF-8: {guess}"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'\xef\xbb\xbf{"inputs": "a"}', "a"),
        (b'{"inputs": "a\\ud83d"}', "a\ufffd"),
        (b'{"inputs": "\\uDE00b"}', "\ufffdb"),
        (b'{"inputs": "\\ude00\\ud83d"}', "\ufffd\ufffd"),
        (b'{"inputs": "\\ud83d\\ude00 \\ud83d"}', "\U0001f600 \ufffd"),
        (b'{"inputs": "\\\\ud83d \\ud83d"}', "\\ud83d \ufffd"),
        (b'\xef\xbb\xbf{"inputs": "\\ufeffa"}', "\ufeffa"),
    ],
)
def test_what_other_programs_write_is_read(body: bytes, text: str) -> None:
    """A byte-order mark is skipped, and half of a surrogate pair is read as U+FFFD."""
    assert read(body) == (text,)


@pytest.mark.parametrize("known", ["", ', "top_k": 1.0', ', "top_k": null'])
def test_an_unknown_field_that_is_null_counts_as_absent(known: str) -> None:
    """Clients write fields that nobody has set as null: those that are not known here refuse nothing."""
    body = f'{{"inputs": "a", "new": null, "parameters": {{"newer": null, "top\\ud83d": null{known}}}}}'
    assert read(body.encode()) == ("a",)


def test_an_unknown_field_that_says_something_is_refused_beside_one_that_is_null() -> None:
    """What is not null is refused by its name, and it alone."""
    assert fields(refused(b'{"inputs": "a", "new": null, "parameters": {"newer": 1, "new": 0}}')) == {
        "parameters.new",
        "parameters.newer",
    }


def test_a_fault_is_named_in_a_body_that_had_to_be_mended() -> None:
    """A body with a byte-order mark or half a pair has its faults named like any other."""
    assert fields(refused(b'\xef\xbb\xbf{"inputs": 7}')) == {"inputs"}
    assert fields(refused(b'{"inputs": ["SECRET\\ud83d", 7]}')) == {"inputs[1]"}


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({}, {"inputs"}),
        ({"inputs": None}, {"inputs"}),
        ({"inputs": 7}, {"inputs"}),
        ({"inputs": True}, {"inputs"}),
        ({"inputs": {"text": 7}}, {"inputs.text"}),
        ({"inputs": {"text_pair": SECRET}}, {"inputs.text"}),
        ({"inputs": {"text": SECRET, "text_pair": ""}}, {"inputs.text_pair"}),
        ({"inputs": {"text": SECRET, "other": SECRET}}, {"inputs.other"}),
        ({"inputs": [SECRET, {"text": SECRET, "text_pair": 7}]}, {"inputs[1].text_pair"}),
        ({"inputs": ""}, {"inputs"}),
        ({"inputs": []}, {"inputs"}),
        ({"inputs": [SECRET, ""]}, {"inputs[1]"}),
        ({"inputs": [SECRET, [SECRET]]}, {"inputs[1]"}),
        ({"inputs": [7, SECRET, None]}, {"inputs[0]"}),
        ({"inputs": SECRET, "options": []}, {"options"}),
        ({"inputs": SECRET, "parameters": []}, {"parameters"}),
        ({"inputs": SECRET, "parameters": {"topk": 1}}, {"parameters.topk"}),
        ({"inputs": SECRET, "parameters": {"top_k": 0}}, {"parameters.top_k"}),
        ({"inputs": SECRET, "parameters": {"top_k": -1}}, {"parameters.top_k"}),
        ({"inputs": SECRET, "parameters": {"top_k": 1001}}, {"parameters.top_k"}),
        ({"inputs": SECRET, "parameters": {"top_k": 10**4000}}, {"parameters.top_k"}),
        ({"inputs": SECRET, "parameters": {"top_k": True}}, {"parameters.top_k"}),
        ({"inputs": SECRET, "parameters": {"top_k": 2.5}}, {"parameters.top_k"}),
        ({"inputs": SECRET, "parameters": {"top_k": SECRET}}, {"parameters.top_k"}),
        ({"inputs": SECRET, "parameters": {"function_to_apply": SECRET}}, {"parameters.function_to_apply"}),
        ({"inputs": SECRET, "parameters": {"function_to_apply": 1}}, {"parameters.function_to_apply"}),
        ({"inputs": SECRET, "parameters": {"truncation": "chunk"}}, {"parameters.truncation"}),
        (
            {"inputs": SECRET, "parameters": {"top_k": 0, "truncation": 0}},
            {"parameters.top_k", "parameters.truncation"},
        ),
    ],
)
def test_what_does_not_validate_is_a_422_that_names_the_field(document: object, named: set[str]) -> None:
    """A JSON body that does not match the contract is a 422 that names every faulty field by its path."""
    problem = refused(json.dumps(document).encode())
    assert problem.http_status == 422
    assert fields(problem) == named


@pytest.mark.parametrize("document", [[], [SECRET], SECRET, 7, None, True])
def test_a_body_must_be_an_object(document: object) -> None:
    """JSON that is not an object is a 422."""
    assert refused(json.dumps(document).encode()).http_status == 422


def test_the_last_of_a_field_written_twice_counts() -> None:
    """The last of two fields with one name counts, as in every common JSON parser."""
    assert read(b'{"inputs": "a", "inputs": "b"}') == ("b",)
    assert refused(b'{"inputs": "a", "inputs": 1}').http_status == 422


@pytest.mark.parametrize(
    "text", ["a", " ", "\n\t", "a\x00b", "\x07\x1b[31m", "👩‍👩‍👧 \U0001f600", "\u202eabc", "\ufeff", "e\u0301"]
)
def test_any_text_is_a_text(text: str) -> None:
    """Control characters, NUL, emoji and combining marks arrive unchanged, escaped or not."""
    assert read_json({"inputs": text}) == (text,)
    assert read(json.dumps({"inputs": [text]}, ensure_ascii=True).encode()) == (text,)


def test_limits_hold_to_the_last_character() -> None:
    """A body exactly at a limit is accepted, and characters count as code points."""
    assert read_json({"inputs": "é" * 40}) == ("é" * 40,)
    assert read_json({"inputs": ["é" * 20, "a" * 19, "b"]}) == ("é" * 20, "a" * 19, "b")
    frame = len(b'{"inputs":"a"}')
    assert read(b'{"inputs":"a"}' + b" " * (4096 - frame)) == ("a",)


def test_too_many_texts_are_a_413_with_the_limit() -> None:
    """A request with one text too many is a 413 that gives their number and the limit."""
    problem = too_long({"inputs": [SECRET] * 4})
    assert problem.members == {"inputs": 4, "limit": 3, "unit": "inputs"}
    assert "inputs" in problem.detail and "3" in problem.detail


@pytest.mark.parametrize("inputs", [SECRET + "x" * 35, [SECRET * 6, "x" * 5]])
def test_too_much_text_is_a_413_with_the_limit(inputs: object) -> None:
    """The limit on characters applies to all texts of a request together."""
    problem = too_long({"inputs": inputs})
    assert problem.members == {"characters": 41, "limit": 40, "unit": "characters"}
    assert problem.detail.startswith("inputs: ")


def test_a_body_too_large_is_a_413_before_it_is_parsed() -> None:
    """A body over the size limit is a 413 before it is parsed."""
    with pytest.raises(InputTooLong) as caught:
        read(b"{" * 4097)
    assert caught.value.members == {"limit": 4096, "unit": "bytes"}


@pytest.mark.parametrize("name", ["top-k", "str", "int", "nullable", "one", "many", "list[str]", "a b", "é", "[0]"])
def test_any_unknown_field_is_named(name: str) -> None:
    """An unknown field of any name is refused by its path."""
    assert fields(refused(json.dumps({"inputs": SECRET, name: 1}).encode())) == {name}
    nested = {"inputs": SECRET, "parameters": {name: 1}}
    assert fields(refused(json.dumps(nested).encode())) == {f"parameters.{name}"}


def test_a_long_name_is_cut() -> None:
    """The name of an unknown field is cut in the answer."""
    assert fields(refused(json.dumps({"inputs": SECRET, "x" * 3000: 1}).encode())) == {"x" * 64}


def test_the_first_fault_is_the_one_that_helps() -> None:
    """The detail of a refusal is about the faulty text, not about the list that contains it."""
    assert refused(b'{"inputs": [1]}').detail == "inputs[0]: Input should be a text or a pair of texts"
    assert refused(b'{"inputs": 7}').detail == "inputs: Input should be a text, a pair of texts, or a list of them"


@pytest.mark.parametrize("document", [{"inputs": [0] * 500}, {"inputs": "a"} | {f"{at}": 1 for at in range(300)}])
def test_many_faults_are_told_in_a_bounded_answer(document: object) -> None:
    """A refusal lists at most 16 faults, however many there are."""
    errors = refused(json.dumps(document).encode()).members["errors"]
    assert isinstance(errors, list) and len(errors) <= 16


MOST = MOST_VALUES + MOST_VALUES_A_TEXT * LIMITS.max_inputs


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs":[' + b"1," * (MOST - 1) + b"1]}",
        b'{"inputs":["\\ud83d"' + b",1" * (MOST - 1) + b"]}",
        b'{"inputs":"\\\\","x":[' + b"[]," * (MOST - 2) + b"[]]}",
        b"{" + b'"a":1,' * MOST + b'"inputs":"a"}',
        b"[" * 4000,
        b"[1," * MOST,
    ],
)
def test_a_body_of_too_many_values_is_refused_before_they_are_read(body: bytes) -> None:
    """Lists and objects over the limit are a 413, whatever is in them."""
    with pytest.raises(InputTooLong) as caught:
        bodies.parse(body, ClassifyBody, LIMITS)
    assert caught.value.members == {"limit": MOST, "unit": "values"}


@pytest.mark.parametrize(
    ("body", "values"),
    [
        (b"1", 0),
        (b"[]", 1),
        (b"[[],[]]", 2 + 2),
        (b'["a,[{", "\\",", "\\\\", 1]', 4),
        (b'{"a": {"b": [1, 2]}, "c": {}}', 2 + 1 + 2 + 1),
        (b'"' + b"," * 99 + b'"', 0),
        (b'[1, "' + b"," * 99, 2),
    ],
)
def test_values_are_items_and_members_and_nothing_within_texts(body: bytes, values: int) -> None:
    """Commas and brackets of texts count nothing."""
    assert not bodies.has_more_values(body, values)
    assert values == 0 or bodies.has_more_values(body, values - 1)


def test_parameters_left_out_or_null_are_the_contracts_defaults() -> None:
    """Absent and null parameters mean the defaults: all labels, softmax, and the head of a long text."""
    for body in (b'{"inputs": "a"}', b'{"inputs": "a", "parameters": null}', b'{"inputs": "a", "parameters": {}}'):
        parsed = bodies.parse(body, ClassifyBody, LIMITS)
        assert CLASSIFY.read(parsed) == (ClassifyParameters(None, None, "longest_first"), None)
    given = ClassifyBodyParameters(top_k=1, function_to_apply="none", truncation="error")
    assert CLASSIFY.read(ClassifyBody(inputs="a", parameters=given)) == (ClassifyParameters(1, "none", "error"), None)


def test_route_takes_a_task_and_its_parameters() -> None:
    """`/route` takes the name of a task, and the rest as the task's own endpoint does."""
    body = bodies.parse(b'{"task": "classify", "inputs": ["a"], "parameters": {"top_k": 1}}', RouteBody, LIMITS)
    assert (body.task, body.inputs) == ("classify", ["a"])
    assert CLASSIFY.read(bodies.of_task(body, CLASSIFY)) == (ClassifyParameters(top_k=1), None)
    for wrong in (b'{"inputs": "a"}', b'{"task": 1, "inputs": "a"}', b'{"task": "a", "inputs": "a", "parameters": []}'):
        with pytest.raises(InvalidRequest):
            bodies.parse(wrong, RouteBody, LIMITS)
    for wrong in (b'{"top_k": 0}', b'{"topk": 1}'):
        sent = b'{"task": "classify", "inputs": "a", "parameters": ' + wrong + b"}"
        with pytest.raises(InvalidRequest):
            bodies.of_task(bodies.parse(sent, RouteBody, LIMITS), CLASSIFY)


@pytest.mark.parametrize(
    ("inputs", "texts", "second_at"),
    [
        ("one", ["one"], None),
        (["one", "two"], ["one", "two"], None),
        ({"text": "one", "text_pair": "two"}, ["onetwo"], (3,)),
        ({"text": "one"}, ["one"], None),
        ({"text": "one", "text_pair": None}, ["one"], None),
        (
            ["one", {"text": "two", "text_pair": "three"}, {"text": "four"}],
            ["one", "twothree", "four"],
            (None, 3, None),
        ),
    ],
)
def test_a_pair_travels_as_one_text_with_the_place_of_its_second(
    inputs: object, texts: list[str], second_at: tuple[int | None, ...] | None
) -> None:
    """Inputs may be texts, pairs or both; each is one text on its way, and the parameters say where pairs divide."""
    body = bodies.parse(json.dumps({"inputs": inputs}).encode(), ClassifyBody, LIMITS)
    assert list(body.texts()) == texts
    assert CLASSIFY.read(body) == (ClassifyParameters(second_at=second_at), None)


@pytest.mark.parametrize("nulls", [1, 17, 100])
def test_any_number_of_unknown_nulls_counts_as_absent(nulls: int) -> None:
    """No number of fields that nobody has set makes a body invalid, nor hides what is wrong beside them."""
    unset = {f"unset{at}": None for at in range(nulls)}
    assert read_json({"inputs": "a", "parameters": {"top_k": 1.0, **unset}, **unset}) == ("a",)
    assert fields(refused(json.dumps({"inputs": 7, **unset}).encode())) == {"inputs"}


def test_a_parameter_that_is_null_claims_no_body() -> None:
    """A body is that of another task by what its parameters say, and null says nothing."""
    sent = {"inputs": "a", "parameters": {"candidate_labels": None, "top_k": 1}}
    document = bodies.read(json.dumps(sent).encode(), LIMITS)
    assert not bodies.has_parameter(document, "candidate_labels") and bodies.has_parameter(document, "top_k")
    assert list(bodies.validated(document, ClassifyBody).texts()) == ["a"]


@pytest.mark.parametrize(
    ("task", "given", "lost"),
    [
        ("embed", {"normalize": True, "parameters": {"normalize": False}}, ["normalize"]),
        ("embed", {"normalize": True, "parameters": {"truncate": False}}, []),
        ("classify", {"parameters": {"top_k": 2, "return_all_scores": True}}, ["parameters.return_all_scores"]),
        ("classify", {"parameters": {"return_all_scores": True}}, []),
        ("generate", {"parameters": {"stop": ["a"], "stop_sequences": ["b"]}}, ["parameters.stop_sequences"]),
        ("generate", {"parameters": {"stop": [], "stop_sequences": ["b"]}}, []),
        ("summarize", {"parameters": {"max_length": 5, "max_new_tokens": 4}}, ["parameters.max_length"]),
        (
            "summarize",
            {"parameters": {"max_length": 5, "generate_parameters": {"max_new_tokens": 4, "num_beams": 2}}},
            ["parameters.generate_parameters.max_new_tokens"],
        ),
        (
            "translate",
            {"parameters": {"num_beams": 1, "generate_parameters": {"num_beams": 2}}},
            ["parameters.generate_parameters.num_beams"],
        ),
    ],
)
def test_what_another_parameter_goes_before_is_ignored_by_name(
    task: str, given: dict[str, object], lost: list[str]
) -> None:
    """Of several parameters for one thing, each that counts for nothing is listed."""
    assert bodies.ignored(bodies.validated({"inputs": "a", **given}, TASKS[task].body)) == lost


def test_a_number_without_an_end_is_read_where_it_changes_nothing() -> None:
    """RFC 8259 limits no number: one of 5,000 digits is JSON, also beside a byte-order mark."""
    body = b'{"inputs": "a", "options": {"x": ' + b"9" * 5000 + b"}}"
    for sent in (body, b"\xef\xbb\xbf" + body):
        assert list(bodies.parse(sent, ClassifyBody, Limits()).texts()) == ["a"]
