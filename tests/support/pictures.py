"""Charts as PNG: a seventh of a short run, and only a few tests look at one. The others' runs draw none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from backtrack_mrt.reports.charts import Chart

_DRAWN = Chart.save_png


@pytest.fixture(scope="session", autouse=True)
def no_pictures() -> Iterator[None]:
    """Until a test asks for `pictures`. Charts are SVG and CSV all the same, of the same figure."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Chart, "save_png", lambda chart, path: None)
        yield


@contextmanager
def pictures() -> Iterator[None]:
    """Charts that are saved within are PNG, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Chart, "save_png", _DRAWN)
        yield
