"""The bodies of `/summarize`, and of `/route` for it: how each parameter is read, and which field a fault names."""

from __future__ import annotations

import json

import pytest

from gateway.api import bodies
from gateway.api.bodies import RouteBody
from gateway.catalogs.catalog import Limits
from gateway.model.errors import InvalidRequest
from gateway.model.messages import Parameters
from gateway.tasks import TASKS
from gateway.tasks.classify import ClassifyParameters
from gateway.tasks.summarize import SUMMARIZE, SummarizeBody, SummarizeParameters

LIMITS = Limits()
SECRET = "SECRET"
GENERATE = "parameters.generate_parameters"


def read(parameters: object) -> SummarizeParameters:
    """Return the parameters as `/summarize` reads them."""
    body = bodies.parse(json.dumps({"inputs": SECRET, "parameters": parameters}).encode(), SummarizeBody, LIMITS)
    parameters_read = SUMMARIZE.read(body)[0]
    assert isinstance(parameters_read, SummarizeParameters)
    return parameters_read


def routed(parameters: object, task: str = "summarize") -> tuple[Parameters, str | None]:
    """Return the parameters and the domain as `/route` reads them."""
    document = {"task": task, "inputs": SECRET, "parameters": parameters}
    body = bodies.parse(json.dumps(document).encode(), RouteBody, LIMITS)
    return TASKS[task].read(bodies.of_task(body, TASKS[task]))


def generate(**parameters: object) -> dict[str, object]:
    """Return these parameters within `generate_parameters`."""
    return {"generate_parameters": parameters}


def named(refusal: InvalidRequest) -> set[str]:
    """Return the fields that a 422 names, after checking that it quotes no value."""
    assert refusal.http_status == 422
    assert SECRET not in str(refusal.document())
    errors = refusal.members["errors"]
    assert isinstance(errors, list)
    assert refusal.detail.startswith(f"{errors[0]['field']}: ")
    return {error["field"] for error in errors}


@pytest.mark.parametrize(
    ("parameters", "fields"),
    [
        ([], {"parameters"}),
        (SECRET, {"parameters"}),
        ({"topk": 1}, {"parameters.topk"}),
        ({"max_length": 0}, {"parameters.max_length"}),
        ({"length_penalty": 11.0}, {"parameters.length_penalty"}),
        ({"max_new_tokens": 0}, {"parameters.max_new_tokens"}),
        ({"max_new_tokens": -1}, {"parameters.max_new_tokens"}),
        ({"max_new_tokens": 4097}, {"parameters.max_new_tokens"}),
        ({"max_new_tokens": 10**40}, {"parameters.max_new_tokens"}),
        ({"max_new_tokens": 8.5}, {"parameters.max_new_tokens"}),
        ({"max_new_tokens": True}, {"parameters.max_new_tokens"}),
        ({"max_new_tokens": "8"}, {"parameters.max_new_tokens"}),
        ({"max_new_tokens": SECRET}, {"parameters.max_new_tokens"}),
        ({"min_new_tokens": -1}, {"parameters.min_new_tokens"}),
        ({"min_new_tokens": 4097}, {"parameters.min_new_tokens"}),
        ({"num_beams": 0}, {"parameters.num_beams"}),
        ({"num_beams": 17}, {"parameters.num_beams"}),
        ({"num_beams": 2.5}, {"parameters.num_beams"}),
        ({"truncation": SECRET}, {"parameters.truncation"}),
        ({"truncation": 1}, {"parameters.truncation"}),
        ({"truncation": ["chunk"]}, {"parameters.truncation"}),
        ({"domain": ""}, {"parameters.domain"}),
        ({"domain": "x" * 64}, {"parameters.domain"}),
        ({"domain": 7}, {"parameters.domain"}),
        ({"clean_up_tokenization_spaces": 1}, {"parameters.clean_up_tokenization_spaces"}),
        ({"generate_parameters": []}, {GENERATE}),
        ({"generate_parameters": SECRET}, {GENERATE}),
        (generate(temperature="hot"), {f"{GENERATE}.temperature"}),
        (generate(truncation="chunk"), {f"{GENERATE}.truncation"}),
        (generate(domain="law"), {f"{GENERATE}.domain"}),
        (generate(max_new_tokens=0), {f"{GENERATE}.max_new_tokens"}),
        (generate(max_length=0), {f"{GENERATE}.max_length"}),
        (generate(max_length=20.5), {f"{GENERATE}.max_length"}),
        (generate(min_new_tokens=-1), {f"{GENERATE}.min_new_tokens"}),
        (generate(min_length="1"), {f"{GENERATE}.min_length"}),
        (generate(num_beams=17), {f"{GENERATE}.num_beams"}),
        (generate(length_penalty=10.5), {f"{GENERATE}.length_penalty"}),
        (generate(length_penalty=-11), {f"{GENERATE}.length_penalty"}),
        (generate(length_penalty=SECRET), {f"{GENERATE}.length_penalty"}),
        (generate(no_repeat_ngram_size=-1), {f"{GENERATE}.no_repeat_ngram_size"}),
        (generate(no_repeat_ngram_size=33), {f"{GENERATE}.no_repeat_ngram_size"}),
        (generate(early_stopping="never"), {f"{GENERATE}.early_stopping"}),
        (generate(early_stopping=1), {f"{GENERATE}.early_stopping"}),
        (generate(do_sample=True), {f"{GENERATE}.do_sample"}),
        ({"num_beams": 0, **generate(num_beams=0)}, {"parameters.num_beams", f"{GENERATE}.num_beams"}),
        ({"max_new_tokens": 5, "min_new_tokens": 6}, {"parameters.min_new_tokens"}),
        ({"max_new_tokens": 5, **generate(min_new_tokens=6)}, {f"{GENERATE}.min_new_tokens"}),
        ({"max_new_tokens": 5, **generate(min_length=6)}, {f"{GENERATE}.min_length"}),
        ({"min_new_tokens": 6, **generate(max_new_tokens=5)}, {"parameters.min_new_tokens"}),
        (generate(max_length=5, min_length=6), {f"{GENERATE}.min_length"}),
        (generate(max_length=9, max_new_tokens=5, min_length=6), {f"{GENERATE}.min_length"}),
    ],
)
def test_a_bad_parameter_is_a_422_that_names_it(parameters: object, fields: set[str]) -> None:
    """`/summarize` and `/route` refuse a bad parameter at either level with a 422 that names its field."""
    with pytest.raises(InvalidRequest) as caught:
        read(parameters)
    assert named(caught.value) == fields
    with pytest.raises(InvalidRequest) as caught:
        routed(parameters)
    assert named(caught.value) == fields


@pytest.mark.parametrize(
    ("parameters", "understood"),
    [
        (None, SummarizeParameters()),
        ({}, SummarizeParameters()),
        ({"generate_parameters": None, "truncation": None, "domain": None}, SummarizeParameters()),
        ({"generate_parameters": {}}, SummarizeParameters()),
        ({"max_new_tokens": 4096, "num_beams": 16}, SummarizeParameters(max_new_tokens=4096, num_beams=16)),
        ({"max_new_tokens": 5, "min_new_tokens": 5}, SummarizeParameters(max_new_tokens=5, min_new_tokens=5)),
        ({"min_new_tokens": 0}, SummarizeParameters(min_new_tokens=0)),
        ({"truncation": "error"}, SummarizeParameters(truncation="error")),
        ({"truncation": "longest_first"}, SummarizeParameters(truncation="longest_first")),
        ({"truncation": "only_first"}, SummarizeParameters(truncation="longest_first")),
        ({"truncation": "do_not_truncate"}, SummarizeParameters(truncation="chunk")),
        (generate(max_length=50), SummarizeParameters(max_new_tokens=50)),
        ({"max_length": 50, "min_length": 5}, SummarizeParameters(max_new_tokens=50, min_new_tokens=5)),
        ({"max_length": 50, **generate(max_new_tokens=40)}, SummarizeParameters(max_new_tokens=50)),
        ({"max_new_tokens": 60.0, "num_beams": 2.0}, SummarizeParameters(max_new_tokens=60, num_beams=2)),
        (generate(max_length=60.0), SummarizeParameters(max_new_tokens=60)),
        ({"truncation": "only_second"}, SummarizeParameters(truncation="chunk")),
        ({"truncation": True}, SummarizeParameters(truncation="longest_first")),
        ({"truncation": False}, SummarizeParameters(truncation="chunk")),
        (generate(max_length=50, max_new_tokens=40), SummarizeParameters(max_new_tokens=40)),
        (generate(min_length=0), SummarizeParameters(min_new_tokens=0)),
        (generate(min_length=5, min_new_tokens=4), SummarizeParameters(min_new_tokens=4)),
        (generate(do_sample=False), SummarizeParameters()),
        (generate(length_penalty=2), SummarizeParameters(length_penalty=2.0)),
        (
            generate(num_beams=2, length_penalty=-1.5, no_repeat_ngram_size=0, early_stopping=False),
            SummarizeParameters(num_beams=2, length_penalty=-1.5, no_repeat_ngram_size=0, early_stopping=False),
        ),
        (
            {
                "max_new_tokens": 9,
                "min_new_tokens": 0,
                "num_beams": 1,
                **generate(max_length=5, min_length=8, num_beams=4),
            },
            SummarizeParameters(max_new_tokens=9, min_new_tokens=0, num_beams=1),
        ),
    ],
)
def test_parameters_mean_what_the_contract_says(parameters: object, understood: SummarizeParameters) -> None:
    """Absent and null mean the checkpoint's own, and the upper level overrides `generate_parameters`."""
    assert read(parameters) == understood
    assert routed(parameters) == (understood, None)


@pytest.mark.parametrize(
    "parameters",
    [
        {"clean_up_tokenization_spaces": None, "generate_parameters": None, "truncation": None},
        {"clean_up_tokenization_spaces": True, "generate_parameters": {"max_length": 60}, "truncation": "only_first"},
        {"clean_up_tokenization_spaces": False, "truncation": "do_not_truncate"},
        {"truncation": "longest_first", "generate_parameters": {"do_sample": False, "min_length": 0, "num_beams": 4}},
    ],
)
def test_what_the_hubs_client_sends_is_accepted(parameters: dict[str, object]) -> None:
    """The parameters that `InferenceClient.summarization` sends are accepted, with or without nulls."""
    wanted = 60 if "max_length" in json.dumps(parameters) else None
    assert read(parameters).max_new_tokens == wanted


def test_a_body_without_parameters_is_one_of_the_contracts_defaults() -> None:
    """A text alone, or a list of texts, is a complete body."""
    for body in (b'{"inputs": "a"}', b'{"inputs": ["a", "b"]}', b'{"inputs": "a", "parameters": null}'):
        parsed = bodies.parse(body, SummarizeBody, LIMITS)
        assert SUMMARIZE.read(parsed) == (SummarizeParameters(), None)


def test_route_reads_the_parameters_of_its_task() -> None:
    """`/route` reads the parameters of its task and refuses those of the other."""
    assert routed({"top_k": 1}, "classify") == (ClassifyParameters(top_k=1), None)
    assert routed({"domain": "law", "num_beams": 2}) == (SummarizeParameters(num_beams=2), "law")
    for parameters, task in (({"function_to_apply": "none"}, "summarize"), ({"domain": "law"}, "classify")):
        with pytest.raises(InvalidRequest) as caught:
            routed(parameters, task)
        assert named(caught.value) == {f"parameters.{next(iter(parameters))}"}
