"""What every test run shares: how many examples a property is tried on."""

from __future__ import annotations

import os

from hypothesis import settings

# No deadline, since a loaded machine must not fail a property for its speed. HYPOTHESIS_PROFILE=thorough searches long.
settings.register_profile("quick", max_examples=60, deadline=None)
settings.register_profile("thorough", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
