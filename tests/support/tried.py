"""How often a property is tried: as often as the profile says, or in proportion where a try takes longer."""

from __future__ import annotations

from hypothesis import settings


def tried(share: float, **more: int) -> settings:
    """So many times as many examples as other properties have; further settings by their names."""
    usual = settings.get_profile(settings.get_current_profile_name()).max_examples
    return settings(max_examples=max(1, round(share * usual)), **more)  # type: ignore[arg-type]
