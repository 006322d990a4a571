"""How many processes there are to be: of the ingress, and of a checkpoint that autoscales.

It knows what an operator may write of that in a catalog; it refuses to know who starts and stops them.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

MOST_REPLICAS = 64

Replicas = Annotated[int, Field(strict=True, ge=1, le=MOST_REPLICAS)]
Delay = Annotated[float, Field(strict=True, ge=0, le=86_400, allow_inf_nan=False)]


def begun_with_the_least(given: Any) -> Any:
    """The fields of a checkpoint as written, with the least that autoscaling keeps for `replicas` where that is not.

    Whatever is wrong with them is left for others to find.
    """
    match given:
        case {"replicas": _}:
            return given
        case {"autoscaling": {"min_replicas": int(least)}} if least is not True and 1 <= least <= MOST_REPLICAS:
            return {**given, "replicas": least}
    return given


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Ingress(_Frozen):
    """The gateway processes that divide the requests among them, and the cores that each reserves."""

    replicas: int = Field(default=1, strict=True, ge=1, le=16)
    cpus: float = Field(default=1.0, strict=True, gt=0, allow_inf_nan=False)


class Autoscaling(_Frozen):
    """How a checkpoint's replicas follow its load, between the least and the most.

    There are to be so many that each is busy for at most `target_busy_share` of its time and has at most
    `target_backlog_ms` of admitted work before it; without that, half the default budget of its task. More are started
    once that has held for `upscale_delay_s`, and some are retired once fewer have sufficed, with room to spare, for
    `downscale_delay_s`.
    """

    min_replicas: Replicas = 1
    max_replicas: Replicas
    target_busy_share: float = Field(default=0.6, strict=True, gt=0, lt=1, allow_inf_nan=False)
    target_backlog_ms: Annotated[float, Field(strict=True, gt=0, le=60_000, allow_inf_nan=False)] | None = None
    upscale_delay_s: Delay = 5.0
    downscale_delay_s: Delay = 300.0

    @field_validator("max_replicas")
    @classmethod
    def _most_is_not_below_least(cls, most: int, info: ValidationInfo) -> int:
        if most < info.data.get("min_replicas", 1):
            raise ValueError("must be at least min_replicas")
        return most
