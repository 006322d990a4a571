"""Bodies as clients of the Hugging Face Inference API write them, against the whole application.

The parameters are those of the API's text classification and summarization, of transformers' generation, and of the
options that `huggingface_hub` and `@huggingface/inference` send.
"""

from __future__ import annotations

import asyncio
from typing import Any

import fake_summaries
import pytest
from huggingface_hub import InferenceClient
from served_app import serving
from worlds import OwnMetrics, client_of, embedding, filling, generating, summarizing, tagging, translating

from gateway.api import app
from gateway.model.messages import Delta

TEXT = "a good film"
PAGE = fake_summaries.PAGE
OPTIONS = {"wait_for_model": True, "use_cache": False, "use_gpu": False, "dont_load_model": False}


async def asked(path: str, body: dict[str, Any], code: int = 200) -> tuple[Any, dict[str, Any]]:
    """Post a body; return the document, and the parameters that were sent to the replica."""
    told = summarizing()
    response = await client_of(told).post(f"{path}?details=true", json=body)
    assert response.status_code == code, response.text
    sent = told.backend.dispatches[0].work.parameters if told.backend.dispatches else None
    return response.json(), {name: getattr(sent, name) for name in getattr(sent, "__struct_fields__", ())}


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("parameters", "understood"),
    [
        ({"top_k": 1}, {"top_k": 1}),
        ({"top_k": 1.0}, {"top_k": 1}),
        ({"top_k": None}, {"top_k": None}),
        ({"return_all_scores": True}, {"top_k": None}),
        ({"return_all_scores": False}, {"top_k": 1}),
        ({"function_to_apply": "sigmoid"}, {"function_to_apply": "sigmoid"}),
        ({"truncation": True}, {"truncation": "longest_first"}),
        ({"truncation": "only_first"}, {"truncation": "longest_first"}),
        ({"truncation": "only_second"}, {"truncation": "error"}),
        ({"truncation": "do_not_truncate"}, {"truncation": "error"}),
    ],
)
async def test_parameters_of_a_classification_are_understood(
    parameters: dict[str, Any], understood: dict[str, Any]
) -> None:
    """What means something here reaches the replica by its meaning, and is not called ignored."""
    document, sent = await asked("/classify", {"inputs": TEXT, "parameters": parameters})
    assert sent.items() >= understood.items() and document["ignored"] == []


@pytest.mark.virtual_time
async def test_what_another_parameter_goes_before_is_ignored() -> None:
    """`top_k` says how many labels are wanted, and `return_all_scores` beside it changes nothing."""
    document, sent = await asked("/classify", {"inputs": TEXT, "parameters": {"return_all_scores": False, "top_k": 2}})
    assert sent["top_k"] == 2 and document["ignored"] == ["parameters.return_all_scores"]


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("parameters", "understood"),
    [
        ({"max_length": 60, "min_length": 5}, {"max_new_tokens": 60, "min_new_tokens": 5}),
        ({"max_length": 60.0, "min_length": 5.0}, {"max_new_tokens": 60, "min_new_tokens": 5}),
        ({"max_new_tokens": 60.0}, {"max_new_tokens": 60}),
        ({"do_sample": False, "num_beams": 2, "length_penalty": 2, "early_stopping": True}, {"num_beams": 2}),
        ({"no_repeat_ngram_size": 3.0}, {"no_repeat_ngram_size": 3}),
        ({"repetition_penalty": 1.0, "num_return_sequences": 1, "num_beam_groups": 1}, {"num_beams": None}),
        ({"truncation": "only_second"}, {"truncation": "chunk"}),
        ({"truncation": "do_not_truncate"}, {"truncation": "chunk"}),
        ({"generate_parameters": {"max_length": 60, "do_sample": False}}, {"max_new_tokens": 60}),
    ],
)
async def test_parameters_of_a_summary_are_understood(parameters: dict[str, Any], understood: dict[str, Any]) -> None:
    """Lengths and the search may stand in `parameters` itself, under either name, whole numbers as floats."""
    document, sent = await asked("/summarize", {"inputs": PAGE, "parameters": parameters})
    assert sent.items() >= understood.items() and document["ignored"] == []


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("path", "body", "listed"),
    [
        ("/classify", {"inputs": TEXT, "options": OPTIONS}, [f"options.{name}" for name in OPTIONS]),
        ("/classify", {"inputs": TEXT, "options": {}}, []),
        ("/classify", {"inputs": TEXT, "options": None}, []),
        ("/classify", {"inputs": TEXT, "parameters": {"padding": True}}, ["parameters.padding"]),
        ("/summarize", {"inputs": PAGE, "options": {"use_cache": True}}, ["options.use_cache"]),
        ("/summarize", {"inputs": PAGE, "parameters": {"temperature": 1.0}}, ["parameters.temperature"]),
        (
            "/summarize",
            {"inputs": PAGE, "parameters": {"top_k": 50, "top_p": 0.9, "seed": 7, "do_sample": False}},
            ["parameters.top_k", "parameters.top_p", "parameters.seed"],
        ),
        (
            "/summarize",
            {"inputs": PAGE, "parameters": {"generate_parameters": {"temperature": 0}}},
            ["parameters.generate_parameters.temperature"],
        ),
        (
            "/summarize",
            {"inputs": PAGE, "parameters": {"clean_up_tokenization_spaces": True, "temperature": None}},
            ["parameters.clean_up_tokenization_spaces"],
        ),
    ],
)
async def test_what_changes_nothing_is_ignored_and_listed(path: str, body: dict[str, Any], listed: list[str]) -> None:
    """What changes nothing is accepted, and the details and `/route` list it by its path."""
    document, _ = await asked(path, body)
    assert sorted(document["ignored"]) == sorted(listed)
    routed, _ = await asked("/route", {"task": path[1:], **body})
    assert routed["ignored"] == document["ignored"]


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("path", "parameters", "named"),
    [
        ("/summarize", {"do_sample": True}, "parameters.do_sample"),
        ("/summarize", {"do_sample": True, "temperature": 0.7}, "parameters.do_sample"),
        ("/summarize", {"generate_parameters": {"do_sample": True}}, "parameters.generate_parameters.do_sample"),
        ("/summarize", {"repetition_penalty": 1.2}, "parameters.repetition_penalty"),
        ("/summarize", {"num_return_sequences": 3}, "parameters.num_return_sequences"),
        ("/summarize", {"num_beam_groups": 2}, "parameters.num_beam_groups"),
        ("/summarize", {"max_time": 2.0}, "parameters.max_time"),
        ("/summarize", {"max_length": 60.5}, "parameters.max_length"),
        ("/classify", {"temperature": 0.7}, "parameters.temperature"),
        ("/classify", {"max_length": 128}, "parameters.max_length"),
    ],
)
async def test_what_would_change_the_answer_is_refused_by_name(
    path: str, parameters: dict[str, Any], named: str
) -> None:
    """What would change the answer and cannot be done is a 422 that names it, and nothing is run."""
    document, sent = await asked(path, {"inputs": PAGE, "parameters": parameters}, 422)
    assert named in [error["field"] for error in document["errors"]] and not sent


@pytest.mark.virtual_time
@pytest.mark.parametrize("text", ["33.333333333333336", ".5e3", "5e2", "500.", "1.0E3"])
async def test_a_budget_is_read_as_languages_print_a_float(text: str) -> None:
    """A budget may have any number of decimals, or an exponent; the answer tells it to a millionth."""
    response = await client_of(summarizing()).post(
        "/classify", json={"inputs": TEXT}, headers={"X-Latency-SLA-Ms": text}
    )
    assert response.status_code == 200
    assert float(response.headers["X-Latency-SLA-Ms"]) == round(float(text), 6)


async def test_labels_of_its_own_reach_the_replica_as_hugging_faces_client_sends_them() -> None:
    """`InferenceClient.zero_shot_classification` works against `/classify` and the task's own endpoint."""
    told = embedding(also=("zero-shot",))
    application = app.build(told.service, OwnMetrics(told.catalog), told.catalog.limits, told.clock)
    async with serving(application) as served:

        def ask(path: str) -> Any:
            client = InferenceClient(model=f"http://127.0.0.1:{served.server.port}{path}")
            return client.zero_shot_classification(TEXT, ["a", "b"], multi_label=True, hypothesis_template="so {}")

        found = [await asyncio.to_thread(ask, path) for path in ("/classify", "/zero-shot")]
    assert [[(one.label, one.score) for one in labels] for labels in found] == [[("a", 1.0), ("b", 0.5)]] * 2
    sent = [one.work for one in told.backend.dispatches]
    assert {work.task for work in sent} == {"zero-shot"} and {work.inputs for work in sent} == {(TEXT, "so a", "so b")}
    assert all(work.parameters.multi_label for work in sent)


async def test_hugging_faces_own_client_works_unchanged() -> None:
    """`huggingface_hub.InferenceClient` reads answers of both tasks, with every parameter that its methods have."""
    told = summarizing()
    application = app.build(told.service, OwnMetrics(told.catalog), told.catalog.limits, told.clock)
    async with serving(application) as served:
        url = f"http://127.0.0.1:{served.server.port}"

        def ask() -> tuple[Any, Any]:
            labels = InferenceClient(model=f"{url}/classify").text_classification(
                TEXT, top_k=1, function_to_apply="sigmoid"
            )
            summary = InferenceClient(model=f"{url}/summarize").summarization(
                PAGE,
                clean_up_tokenization_spaces=True,
                truncation="only_second",
                generate_parameters={"max_length": 60, "do_sample": False, "temperature": 1.0},
            )
            return labels, summary

        labels, summary = await asyncio.to_thread(ask)
    assert (labels[0].label, labels[0].score) == ("positive", 0.75)
    assert summary.summary_text == "In short."
    sent = [one.work.parameters for one in told.backend.dispatches]
    assert (sent[0].top_k, sent[0].function_to_apply) == (1, "sigmoid")
    assert (sent[1].max_new_tokens, sent[1].truncation) == (60, "chunk")


async def test_hugging_faces_own_client_has_texts_translated() -> None:
    """`InferenceClient.translation` reads answers of `/translate`, with every parameter that the method has."""
    told = translating()
    application = app.build(told.service, OwnMetrics(told.catalog), told.catalog.limits, told.clock)
    async with serving(application) as served:
        client = InferenceClient(model=f"http://127.0.0.1:{served.server.port}/translate")
        asked = await asyncio.to_thread(
            client.translation,
            TEXT,
            src_lang="en_XX",
            tgt_lang="de_DE",
            clean_up_tokenization_spaces=True,
            truncation="only_first",
            generate_parameters={"max_length": 60, "num_beams": 2, "do_sample": False, "temperature": 1.0},
        )
    assert asked.translation_text == "Alles ist gut."
    sent = told.backend.dispatches[0].work.parameters
    assert (sent.source, sent.target, sent.max_new_tokens, sent.num_beams) == ("en_XX", "de_DE", 60, 2)
    assert sent.truncation == "longest_first"


async def test_hugging_faces_own_client_finds_entities() -> None:
    """`InferenceClient.token_classification` reads answers of `/tokens`, with every parameter that the method has."""
    told = tagging()
    application = app.build(told.service, OwnMetrics(told.catalog), told.catalog.limits, told.clock)
    async with serving(application) as served:
        client = InferenceClient(model=f"http://127.0.0.1:{served.server.port}/tokens")
        (plain,) = await asyncio.to_thread(client.token_classification, "ann")
        (asked,) = await asyncio.to_thread(
            client.token_classification, "ann", aggregation_strategy="max", ignore_labels=["O", "LOC"], stride=4
        )
    assert (plain.entity_group, plain.word, plain.start, plain.end, plain.score) == ("PER", "ann", 0, 3, 0.9)
    assert asked == plain
    sent = told.backend.dispatches[1].work.parameters
    assert (sent.aggregation, sent.ignored, sent.stride) == ("max", ("O", "LOC"), 4)


async def test_hugging_faces_own_client_has_texts_written_on() -> None:
    """`InferenceClient.text_generation` reads answers of `/generate`, with every parameter that is done here."""
    told = generating()
    application = app.build(told.service, OwnMetrics(told.catalog), told.catalog.limits, told.clock)
    async with serving(application) as served:
        client = InferenceClient(model=f"http://127.0.0.1:{served.server.port}/generate")
        plain = await asyncio.to_thread(client.text_generation, "Say:")
        asked = await asyncio.to_thread(
            client.text_generation,
            "Say:",
            details=False,
            stream=False,
            best_of=1,
            decoder_input_details=False,
            do_sample=True,
            frequency_penalty=0.5,
            max_new_tokens=9,
            repetition_penalty=1.2,
            return_full_text=True,
            seed=7,
            stop=["."],
            temperature=0.7,
            top_k=5,
            top_p=0.9,
            truncate=20,
            typical_p=1.0,
            watermark=False,
        )
    assert plain == asked == " all is well."
    sent = told.backend.dispatches[1].work.parameters
    assert (sent.max_new_tokens, sent.sample, sent.temperature, sent.top_k, sent.top_p) == (9, True, 0.7, 5, 0.9)
    assert (sent.repetition_penalty, sent.frequency_penalty, sent.seed, sent.stop) == (1.2, 0.5, 7, (".",))
    assert (sent.full_text, sent.truncate) == (True, 20)


async def test_hugging_faces_own_client_reads_what_is_streamed() -> None:
    """`text_generation` and `chat_completion`, the latter of OpenAI's interface, read an answer piece by piece."""
    told = generating()
    told.backend.deltas = (Delta(0, " all"), Delta(0, " is well."))
    application = app.build(told.service, OwnMetrics(told.catalog), told.catalog.limits, told.clock)
    async with serving(application) as served:
        url = f"http://127.0.0.1:{served.server.port}"

        def ask() -> tuple[list[str], list[Any], Any]:
            written = list(InferenceClient(model=f"{url}/generate").text_generation("Say:", stream=True))
            client = InferenceClient(base_url=f"{url}/v1")
            messages = [{"role": "user", "content": "Hello?"}]
            parts = list(client.chat_completion(messages, model="punctual", stream=True, max_tokens=9))
            return written, parts, client.chat_completion(messages, model="punctual", temperature=0.5, seed=1)

        written, parts, whole = await asyncio.to_thread(ask)
    assert written == [" all", " is well.", ""]
    assert "".join(one.choices[0].delta.content or "" for one in parts) == " all is well."
    assert parts[-1].choices[0].finish_reason == whole.choices[0].finish_reason == "stop"
    assert whole.choices[0].message.content == " all is well." and whole.usage.completion_tokens == 4


async def test_hugging_faces_own_client_finds_answers() -> None:
    """`InferenceClient.question_answering` reads answers of `/answer`, with every parameter that the method has."""
    told = embedding(also=("answer",))
    application = app.build(told.service, OwnMetrics(told.catalog), told.catalog.limits, told.clock)
    asked: dict[str, Any] = {
        "align_to_words": False,
        "doc_stride": 9,
        "handle_impossible_answer": True,
        "max_answer_len": 8,
        "max_question_len": 7,
        "max_seq_len": 60,
        "top_k": 2,
    }
    async with serving(application) as served:
        client = InferenceClient(model=f"http://127.0.0.1:{served.server.port}/answer")
        one: Any = await asyncio.to_thread(client.question_answering, "Who?", "Ann did it.")
        two: Any = await asyncio.to_thread(client.question_answering, "Who?", "Ann did it.", **asked)
    assert (one.answer, one.score, one.start, one.end) == ("A", 0.5, 0, 1)
    assert [other.answer for other in two] == ["A", "n"]
    sent = told.backend.dispatches[1].work.parameters
    assert (sent.top_k, sent.max_answer_tokens, sent.impossible, sent.whole_words) == (2, 8, True, False)
    assert (sent.window_tokens, sent.overlap, sent.question_tokens) == (60, 9, 7)


async def test_hugging_faces_own_client_fills_masks() -> None:
    """`InferenceClient.fill_mask` reads answers of `/fill`, with every parameter that the method has."""
    told = filling()
    application = app.build(told.service, OwnMetrics(told.catalog), told.catalog.limits, told.clock)
    async with serving(application) as served:
        client = InferenceClient(model=f"http://127.0.0.1:{served.server.port}/fill")
        plain = await asyncio.to_thread(client.fill_mask, "Ann <mask>.")
        (asked,) = await asyncio.to_thread(client.fill_mask, "Ann [MASK].", top_k=1, targets=["ann", "lee"])
    assert len(plain) == 5 and plain[0] == asked
    assert (asked.score, asked.token, asked.token_str, asked.sequence) == (0.5, 5, "ann", "ann said")
    sent = told.backend.dispatches[1].work.parameters
    assert (sent.top_k, sent.targets) == (1, ("ann", "lee"))
