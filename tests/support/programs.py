"""Programs that are no Python packages: where tests find them, and what is said where they are missing."""

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
}
"""The Debian package that brings a program."""

OPTIONAL = ("wrk",)
"""Skipped in CI, too: what they test is tested by other means besides."""

OTHER_NAMES = {"chromium": ("chromium-browser", "google-chrome")}


def program(name: str) -> str:
    """The path of a program. Without it the test is skipped, and says how to get it; in CI (`CI=true`) it fails."""
    for one in (name, *OTHER_NAMES.get(name, ())):
        path: str | None = shutil.which(one)
        if path is not None:
            return path
    said = f"{name} is not installed (Debian: apt install {PACKAGES[name]})"
    if os.environ.get("CI") == "true" and name not in OPTIONAL:
        pytest.fail(said)
    pytest.skip(said)
