"""What is asked of the adviser: the task, the texts, the load, and the machine.

It validates what a client or an operator says, and reads no machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gateway.model.deadline import MAX_BUDGET_MS
from gateway.model.request import DEFAULT_PERCENTILE


def _parts(given: object) -> object:
    """The parts of a list that is written with commas, without blanks."""
    return tuple(part.strip() for part in given.split(",") if part.strip()) if isinstance(given, str) else given


LanguageCode = Annotated[str, Field(pattern="^([a-z]{2,3}|[1-9][0-9]{0,2})$")]
Word = Annotated[str, Field(pattern="^[a-z0-9]+(-[a-z0-9]+)*$", max_length=63)]
MOST_LABELLED = 1_000_000_000


class Situation(BaseModel):
    """What a checkpoint is looked for. Fields are the parameters of `GET /advise` and the options of `punctual advise`.

    `labelled` is None where it was not said whether there are examples: then what would have to be fine-tuned is shown
    behind what need not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Word = Field(description="what is wanted of a text, such as classify, summarize, translate or generate")
    languages: Annotated[tuple[LanguageCode, ...], BeforeValidator(_parts)] = Field(
        default=("en",),
        min_length=1,
        max_length=200,
        description="languages of the texts by their codes, with commas: en,fr; or a number, of any languages",
    )
    budget_ms: float | None = Field(
        default=None,
        gt=0,
        le=MAX_BUDGET_MS,
        allow_inf_nan=False,
        description="latency budget of a request in milliseconds (default: the task's)",
    )
    percentile: float = Field(
        default=DEFAULT_PERCENTILE, ge=50, le=99.9, description="the percentage of requests that must make the budget"
    )
    rate: float = Field(default=1.0, gt=0, le=1e6, allow_inf_nan=False, description="requests a second, one text each")
    max_tokens: int = Field(
        default=128, ge=1, le=1_000_000, description="tokens of the longest text that must be read whole"
    )
    output_tokens: int = Field(default=60, ge=1, le=100_000, description="tokens to write, for tasks that write")
    memory_gb: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        allow_inf_nan=False,
        description="memory to serve in, and to train in, in gigabytes (default: the machine's)",
    )
    cores: float | None = Field(
        default=None, gt=0, le=1e5, allow_inf_nan=False, description="processors to serve on (default: the machine's)"
    )
    domain: Word | None = Field(
        default=None, description="subject or kind of the texts, such as biomedical, legal or dialogue"
    )
    needs: Annotated[tuple[Word, ...], BeforeValidator(_parts)] = Field(
        default=(), max_length=10, description="what not every checkpoint offers, with commas: layout, control"
    )
    labelled: int | None = Field(
        default=None, ge=0, le=MOST_LABELLED, description="labelled examples to fine-tune with (default: not said)"
    )
    train: bool = Field(default=False, description="fine-tune on this machine too: its memory must be enough")

    @property
    def language_codes(self) -> tuple[str, ...]:
        """The languages that were named by their codes."""
        return tuple(one for one in self.languages if not one.isdigit())

    @property
    def language_count(self) -> int:
        """The number of languages that is asked for."""
        return max([len(self.language_codes), *(int(one) for one in self.languages if one.isdigit())])


@dataclass(frozen=True)
class Machine:
    """Where it is to run, as far as that is known: cores, memory in bytes, and whether int8 is fast on them."""

    cores: float | None = None
    memory_bytes: float | None = None
    dot_product: bool | None = None
