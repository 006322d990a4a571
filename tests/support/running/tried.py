"""How many examples a property is tried on: those of the profile, or a share of them."""

from __future__ import annotations

from hypothesis import settings


def tried(share: float, **more: int) -> settings:
    """Return settings with this share of the usual number of examples, and further settings by name."""
    usual = settings.get_profile(settings.get_current_profile_name()).max_examples
    return settings(max_examples=max(1, round(share * usual)), **more)  # type: ignore[arg-type]
