"""The Python clients of Hugging Face and of OpenAI against a gateway: `python clients.py http://127.0.0.1:8000`.

It runs where an old or a new version of both is installed, and nothing of this project. It ends with 1 where an answer
is not as its client promises it.
"""

from __future__ import annotations

import sys
import unittest
from collections.abc import Callable
from functools import cache
from typing import Any

import huggingface_hub
import openai
from huggingface_hub import InferenceClient

TEXT = "What a wonderful film. The actors were good and the story was better."
MESSAGES: Any = [{"role": "user", "content": "Name three fruits."}]
URL = sys.argv[1] if len(sys.argv) > 1 else ""

Call = Callable[[], object]


@cache
def at(path: str) -> Any:
    """Return the client of one path. It is kept: a client that is collected ends its streams."""
    return InferenceClient(model=URL + path)


@cache
def chatting() -> Any:
    """Return the client of the gateway's address, to which it adds the path of a chat."""
    return InferenceClient(base_url=URL)


def of_openai() -> Any:
    """Return OpenAI's client, which asks each request once."""
    return openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)


def said(chunks: Any) -> str:
    """Return what the chunks of a chat say together."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def refused() -> bool:
    """Return whether a model that is not served is OpenAI's own error."""
    try:
        of_openai().chat.completions.create(model="nobody", messages=MESSAGES)
    except openai.NotFoundError:
        return True
    return False


CALLS: dict[str, Call] = {
    "text_classification": lambda: at("/classify").text_classification(TEXT)[0].label == "positive",
    "summarization": lambda: at("/summarize").summarization(TEXT).summary_text,
    "feature_extraction": lambda: at("/embed").feature_extraction(TEXT).size,
    "sentence_similarity": lambda: (
        len(at("/similarity").sentence_similarity(TEXT, other_sentences=["A film", "Rain"])) == 2
    ),
    "token_classification": lambda: at("/tokens").token_classification("Ann Lee lives in Paris, 12 Hill Road."),
    "question_answering": lambda: (
        at("/answer").question_answering(question="What was good?", context=TEXT).answer in TEXT
    ),
    "zero_shot_classification": lambda: at("/zero-shot").zero_shot_classification(TEXT, ["cinema", "cooking"])[0].label,
    "text_generation": lambda: at("/generate").text_generation("Once upon a time", max_new_tokens=8),
    "text_generation, streamed": lambda: "".join(
        at("/generate").text_generation("Once upon a time", max_new_tokens=8, stream=True)
    ),
    "chat_completion": lambda: chatting().chat_completion(MESSAGES, max_tokens=8).choices[0].message.content,
    "chat_completion, streamed": lambda: said(chatting().chat_completion(MESSAGES, max_tokens=8, stream=True)),
    "openai models": lambda: [model.id for model in of_openai().models.list()],
    "openai chat": lambda: (
        of_openai()
        .chat.completions.create(model="punctual", messages=MESSAGES, max_tokens=8)
        .choices[0]
        .message.content
    ),
    "openai chat, streamed": lambda: said(
        of_openai().chat.completions.create(model="punctual", messages=MESSAGES, max_tokens=8, stream=True)
    ),
    "openai completions": lambda: (
        of_openai().completions.create(model="punctual", prompt="Once", max_tokens=8).choices[0].text
    ),
    "openai completions, streamed": lambda: "".join(
        chunk.choices[0].text
        for chunk in of_openai().completions.create(model="punctual", prompt="Once", max_tokens=8, stream=True)
        if chunk.choices
    ),
    "openai embeddings": lambda: (
        of_openai().embeddings.create(model="all-minilm-l6", input=[TEXT, "Rain"]).data[1].embedding
    ),
    "openai, a model that is not served": refused,
}


class Clients(unittest.TestCase):
    """Every call, so that one that fails is told and the others are made."""

    def test_every_call_is_answered_as_promised(self) -> None:
        """Each client takes its answer, which says something."""
        for name, call in CALLS.items():
            with self.subTest(name):
                assert call()


if __name__ == "__main__":
    print(f"huggingface_hub {huggingface_hub.__version__}, openai {openai.__version__}, {len(CALLS)} calls", flush=True)
    unittest.main(argv=sys.argv[:1])
