"""The baselines, by their names in reports."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from loadtests.simulator.policies.clipper import ClipperAimd
from loadtests.simulator.policies.jellyfish import jellyfish
from loadtests.simulator.policies.model_switching import ModelSwitching
from loadtests.simulator.policies.per_query import PerQuery, best_of, fastest_of
from loadtests.simulator.policies.proteus import proteus
from loadtests.simulator.policies.ramsis import Ramsis
from loadtests.simulator.policies.setting import RuleMaker, Setting
from loadtests.simulator.policies.slackfit import SlackFit
from loadtests.simulator.policies.static import Static
from loadtests.workload.variants import Variant

BASELINES: dict[str, RuleMaker] = {
    "fastest-feasible": partial(PerQuery, select=fastest_of),
    "best-feasible": partial(PerQuery, select=best_of),
    "model-switching": ModelSwitching,
    "jellyfish": jellyfish,
    "clipper-aimd": ClipperAimd,
    "slackfit": SlackFit,
    "proteus": proteus,
    "ramsis": Ramsis,
}
"""The published policies; `statics` makes the static choices from the variants."""


def statics(variants: Iterable[Variant]) -> dict[str, RuleMaker]:
    """Every static choice, named `static:` and the variant's name; the setting must contain the variant."""
    return {f"static:{variant.name}": partial(_static, name=variant.name) for variant in variants}


def _static(setting: Setting, name: str) -> Static:
    return Static(setting, next(variant for variant in setting.variants if variant.name == name))
