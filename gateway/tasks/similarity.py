"""`/similarity`: a text and others in, the cosine with each out. Whole in itself, so any checkpoint may answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import ConfigDict, Field, JsonValue

from gateway.model.messages import Parameters
from gateway.tasks.base import OPTIONS, ListOf, Options, RequestBody, Strict, Task, Text
from gateway.tasks.embed import EMBEDDER


class SimilarityInputs(Strict):
    """One text, and those that it is compared with."""

    source_sentence: Text = Field(description="the text that the others are compared with")
    sentences: Annotated[ListOf[Text], Field(min_length=1, description="the texts that are compared with it")]


class SimilarityBodyParameters(Strict):
    """The `parameters` of `POST /similarity`."""

    truncate: bool | None = Field(
        default=None, description="true (the default) cuts a text over the window; false refuses it"
    )


_EXAMPLES: list[JsonValue] = [
    {
        "inputs": {
            "source_sentence": "The train was two hours late.",
            "sentences": [
                "We waited at the station until midnight.",
                "The railway had delays all evening.",
                "The soup needs more salt.",
            ],
        }
    },
    {
        "inputs": {
            "source_sentence": "How do I reset my password?",
            "sentences": [
                "I have forgotten the code that lets me in.",
                "Where can I see my last invoice?",
                "Our office is closed on Mondays.",
            ],
        }
    },
]
"""Bodies that the contract shows and the console offers; written for Punctual."""


class SimilarityBody(RequestBody):
    """The body of `POST /similarity`: the Hugging Face Inference API's for sentence similarity."""

    model_config = ConfigDict(json_schema_extra={"examples": _EXAMPLES})

    inputs: SimilarityInputs
    parameters: SimilarityBodyParameters | None = Field(default=None, description="how long texts are treated")
    options: Options = OPTIONS

    def texts(self) -> Sequence[str]:
        """The source first, then the sentences."""
        return (self.inputs.source_sentence, *self.inputs.sentences)

    def place_of(self, at: int) -> tuple[str, int | None]:
        """The source, which is in no list, or one of the sentences."""
        return (f"inputs.sentences[{at - 1}]", at - 1) if at else ("inputs.source_sentence", None)

    @staticmethod
    def inputs_of(texts: Sequence[str]) -> object:
        """The first text compared with the others; a single one with itself."""
        return {"source_sentence": texts[0], "sentences": list(texts[1:] or texts)}


class SimilarityParameters(Parameters, frozen=True, array_like=True, tag="similarity"):
    """How texts over the window are treated."""

    truncate: bool = True


def _read(body: SimilarityBody) -> tuple[SimilarityParameters, None]:
    given = body.parameters
    return SimilarityParameters(given is None or given.truncate is not False), None


SIMILARITY = Task(
    name="similarity",
    summary="Compare a text with others within a latency budget",
    body=SimilarityBody,
    read=_read,
    parameters=SimilarityParameters,
    output=float,
    kinds={"embedder": EMBEDDER},
    default_budget_ms=1000.0,
    niceness={},
    runs_equal_texts_once=True,
)
