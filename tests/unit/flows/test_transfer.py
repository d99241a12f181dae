"""The source of a transfer: a registered network brings its evaluation crop and interpolation."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from conf import compose, schema
from flows import transfer


def test_a_set_is_read_as_the_registered_network_was_unless_the_command_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registered = schema.Augment(eval_crop_pad=7, eval_interpolation="bilinear")

    async def read(ref: str, augment: schema.Augment, key: str, overrides: Sequence[str]) -> schema.Augment:
        assert (ref, key, augment) == ("b1/2", "transfer.data.augment", config.transfer.data.augment)
        return augment if "transfer.data.augment.eval_crop_pad=1" in overrides else registered

    monkeypatch.setattr(transfer, "registered_input", read)
    config, model = compose.compose([]), schema.Model(name="efficientnet_b1")
    taken = asyncio.run(transfer.with_source(config, model, "b1/2", []))
    assert (taken.model, taken.transfer.data.augment) == (model, registered)
    assert taken.data == config.data
    kept = asyncio.run(transfer.with_source(config, model, "b1/2", ["transfer.data.augment.eval_crop_pad=1"]))
    assert kept.transfer == config.transfer
    trained_here = asyncio.run(transfer.with_source(config, model, None, []))
    assert trained_here.transfer == config.transfer
