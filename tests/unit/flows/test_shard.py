"""Sharding outside of nights."""

from __future__ import annotations

import pytest

from conf.schema import Data
from flows.shard import without_accept


def test_that_data_accept_is_read_by_nights_alone_is_said(caplog: pytest.LogCaptureFixture) -> None:
    data = Data(name="pets", source="folder", append=True)
    assert without_accept(data) == data
    assert caplog.text == ""
    named = Data(name="pets", source="folder", append=True, accept=["pets/0002-5f0c9a31"])
    assert without_accept(named) == data
    assert "data.accept=[pets/0002-5f0c9a31] has no effect here: only effnet nightly reads it" in caplog.text
