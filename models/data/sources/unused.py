"""Files below ``data.path`` that do not become samples, counted by reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from conf import schema
from conf.text import escaped, list_some
from infra.errors import ConfigError

LOST_SHARE, LOST_FEW = 0.01, 10  # files or images that may be lost without data.allow_partial: the larger of the two


@dataclass
class Unused:
    """Names by reason; ``lost`` are those whose files could be samples, ``many`` if a file may hold many.

    ``whole`` are the folders of held-out splits that would have no image at all.
    """

    names: dict[str, list[str]] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    many: bool = False
    whole: list[str] = field(default_factory=list)

    def add(self, reason: str, name: str, *, could_be_sample: bool = True, holds_many: bool = False) -> None:
        """Adds one file; a reason is the plural of what the files are, as ``WebP files``."""
        self.names.setdefault(reason, []).append(name)
        self.many |= holds_many
        if could_be_sample:
            self.lost.add(reason)

    def lines(self) -> tuple[str, ...]:
        """Returns one line per reason: number, reason and first name; those that could have been samples first."""
        order = sorted(self.names, key=lambda reason: (reason not in self.lost, -len(self.names[reason]), reason))
        return tuple(self._line(reason) for reason in order)

    def lost_in(self, folders: Sequence[str]) -> tuple[str, ...]:
        """Returns a line for each reason for which files in some folders, that could be samples, are unused."""
        inside = tuple(folders)
        kept = {
            reason: here
            for reason, names in self.names.items()
            if reason in self.lost and (here := [name for name in names if name.startswith(inside)])
        }
        return Unused(kept).lines()

    def _line(self, reason: str) -> str:
        names: Sequence[str] = self.names[reason]
        first = min(names).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        return f"{len(names):,} {reason}, first {escaped(first)}"

    def check(self, data: schema.Data, used: int) -> None:
        """Refuses many files that could have been samples, and any number of them if a held-out split has no others.

        Raises:
            ConfigError: They are more than 1 % (and more than 10) of all, or may hold many, or are all of a held-out
                split, and ``data.allow_partial`` is not set.
        """
        lost = sum(len(self.names[reason]) for reason in self.lost)
        too_many = self.many or self.whole or lost > max(LOST_FEW, LOST_SHARE * (lost + used))
        if too_many and not data.allow_partial:
            raise ConfigError(
                f"{data.name} at {data.path}: {lost:,} of {lost + used:,} files would not be used: "
                f"{'; '.join(line for line in self.lines()[: len(self.lost)])}"
                f"{f'; nothing is left of {list_some(self.whole)}' if self.whole else ''}. "
                "Add, rename or remove them, or set data.allow_partial=true to work without them"
            )
