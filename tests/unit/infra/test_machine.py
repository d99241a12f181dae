"""What provenance records of this machine."""

from infra.machine import format_utc


def test_a_time_is_written_in_utc() -> None:
    assert format_utc(1_764_231_164.9) == "2025-11-27 08:12:44 UTC"
