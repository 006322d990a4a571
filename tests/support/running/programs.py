"""Programs that are not Python packages: where tests find them, and what they say if one is missing."""

from __future__ import annotations

import os
import shutil

import pytest

PACKAGES = {
    "chromedriver": "chromium-driver",
    "chromium": "chromium",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "wrk": "wrk",
    "yamllint": "yamllint",
}
"""The Debian package of each program."""

OPTIONAL = ("wrk",)
"""Skipped in CI as well: what they test is tested by other means."""

OTHER_NAMES = {"chromium": ("chromium-browser", "google-chrome")}


def program(name: str) -> str:
    """Return the path of a program. If it is missing, skip the test; in CI (`CI=true`) fail it."""
    for one in (name, *OTHER_NAMES.get(name, ())):
        path: str | None = shutil.which(one)
        if path is not None:
            return path
    said = f"{name} is not installed (Debian: apt install {PACKAGES[name]})"
    if os.environ.get("CI") == "true" and name not in OPTIONAL:
        pytest.fail(said)
    pytest.skip(said)
