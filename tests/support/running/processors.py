"""Processors: what tests need of them that not every host has."""

from __future__ import annotations

import pytest

from deployments.engines.host import read_host

needs_int8 = pytest.mark.skipif(read_host().dot_product is None, reason="this processor has no int8 dot products")
