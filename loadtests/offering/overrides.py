"""A scenario with some of its numbers given at the command line, held to the same limits as in its file."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from loadtests.scenarios.errors import ScenarioError
from loadtests.scenarios.model import Scenario


def overridden(scenario: Scenario, given: Mapping[str, object]) -> Scenario:
    """The scenario with these fields in place of its own, None meaning its own. Raises ScenarioError."""
    new = {name: value for name, value in given.items() if value is not None}
    if not new:
        return scenario
    try:
        return Scenario.model_validate(scenario.model_dump(exclude_unset=True) | new)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        raise ScenarioError(
            *(f"--{'.'.join(map(str, one['loc'])) or scenario.name}: {one['msg']}" for one in faults)
        ) from None
