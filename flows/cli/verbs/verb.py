"""What describes a verb of the command line: a row of the tables beside this file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Verb:
    """One verb of the command line.

    Attributes:
        summary: What it does, in one line of a terminal of 80 columns.
        examples: Commands without ``effnet``, for ``effnet VERB --help``.
        settings: Its most used settings, as they are typed, and what they mean.
        notes: What else its user has to know, a paragraph each.
        shared_settings: Whether its help also has the settings of every command (``help.SHARED``).
        flow: Module and name of the flow it runs, ``flows.train:train``; empty for a verb without a flow.
        call: Module and name of the function of a verb without a flow; it takes a ``Command``.
        json: Whether the function can print its result as JSON, as all flows do.
        switches: Options without a value, and what they do.
        objects: Names of the words that it takes beside settings; one in brackets may be omitted.
        dry_run: Module and name of the function that prints what it would do; it takes a ``Command``.
        manage: Module and name of the function that is called in place of the flow if an option or a switch is given.
        options: Its options with a value: the name of the value, in brackets if it may be omitted, and what it does.
        reads: Groups of settings that its flow reads, of those that not every verb reads; others have no effect.
        opens_data: Whether its flow reads the images of ``data`` first.
        takes_one_class: Whether these may be of a single class.
        registers: Whether it reads the setting ``register``.
        trains: Whether it starts training jobs, so that it takes ``FLAGS`` of ``command.py``.
        needs: Setting that must be given, and an example of its value.
        shared: Whether other users may read what it writes; otherwise it is private.
    """

    summary: str
    examples: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    shared_settings: bool = True
    flow: str = ""
    call: str = ""
    json: bool = False
    switches: Mapping[str, str] = field(default_factory=dict)
    objects: tuple[str, ...] = ()
    dry_run: str = ""
    manage: str = ""
    options: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    opens_data: bool = False
    takes_one_class: bool = False
    registers: bool = False
    trains: bool = False
    needs: tuple[str, str] | None = None
    shared: bool = False
