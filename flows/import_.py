"""Public weights into the registry, from where evaluation, transfer and the nightly job take them."""

from __future__ import annotations

from prefect import flow

from conf.compose import compose
from models.results import Registered
from tasks.published import import_published


@flow(name="import")
async def import_(overrides: list[str]) -> Registered:
    """Registers ``published.path``; the same file again finds its version."""
    return await import_published(compose(overrides))
