"""Names of classes in plain text: one a line, numbered or not, in a table with a header, or in a single line."""

from __future__ import annotations

import ast
import csv
import itertools
import re
from collections.abc import Sequence

from conf.text import logger
from infra.errors import ConfigError

log = logger()
# ``0 ant``, ``0,ant``, ``0: ant``, ``0. ant``, ``0) ant``, ``0 - ant``; 707-320 is a name.
_NUMBERED_LINE = re.compile(r"(\d{1,6})(?:\s+[-=]\s+|[.)]\s+|\s*[:,;=]+\s*|\s+)(\S.*)", re.ASCII)
_LINE_WITH_NUMBER = re.compile(r"(.*\S)(?:\s*[,;:=\t]\s*|\s+)(\d{1,6})", re.ASCII)
_WORDNET_LINE = re.compile(r"(n\d{8})[\s,:]+\S.*", re.ASCII)  # of LOC_synset_mapping.txt of Kaggle's ImageNet
_MARKUP = re.compile(r"</?\w[^<>]*>|---|<(\w+)>.*</\1>")
_SETTING = re.compile(r"[A-Za-z_]\w*\s*=\s*\S.*")
_CODE = re.compile(r"[\[({]\s*[\[({'\"]|['\"]\s*[\])}]|[\[({]$|^[\])}]")  # as CLASSES = ( or dict_keys(['ant'])
_COMMENTS = ("# ", "//")
_BULLETS = ("- ", "* ")
_BETWEEN = (";", "|", "\t")  # names in a single line; a comma may be a part of one
# Headers of the columns of a table of classes, and of one of names alone.
_NAMES = (
    *("name", "class_name", "classname", "label_name", "category_name", "display_name"),
    *("class", "category", "species", "breed", "label"),
)
_NUMBERS = ("id", "index", "idx", "class_id", "label_id", "category_id", "number", "label", "class", "")
_ALONE = (*_NAMES, "classes", "names", "labels", "categories", "class_names", "label_names")
_LONGEST = 10_000  # characters of a line
_SHOWN = 60  # characters of a text in a message


def read_lines(text: str, where: str) -> list[str]:
    """Returns the names of the lines, without the numbers from 0 that all of them may have, as ``0: ant``.

    Quotes, bullets, commas at the end of each, a header and comments at the beginning are no names.

    Args:
        text: Content of a file.
        where: The file, for messages.

    Raises:
        ConfigError: They are numbered in another way, so that a name may be that of another class, or a line is empty
            or no name.
    """
    lines = _drop_comments([line.strip() for line in text.splitlines()])
    if any(len(line) > _LONGEST for line in lines):
        raise ConfigError(f"{where} has lines of more than {_LONGEST:,} characters: write the names one a line")
    if lines and all(map(_SETTING.fullmatch, lines)):
        raise ConfigError(f"{where} holds settings, as {lines[0][:_SHOWN]!r}, and not the names of classes")
    if others := [line for line in lines if _MARKUP.fullmatch(line) or _CODE.search(line)]:
        raise ConfigError(f"{where}: {others[0][:_SHOWN]!r} is no name of a class: write the names one a line")
    if "" in lines:
        raise ConfigError(
            f"{where}: line {lines.index('') + 1} is empty, and a class needs a name: remove it or name it"
        )
    if len(lines) == 1:
        return _read_single(lines[0], where)
    lines = _without_bullets(lines)
    if (table := _read_table(lines, where)) is not None:
        return table
    lines = _without_quotes(lines)
    numbered = [match for line in lines if (match := _NUMBERED_LINE.fullmatch(line))]
    if len(numbered) >= 2 and len(numbered) >= len(lines) - 1:
        require_from_zero([int(match[1]) for match in numbered], where)
        return [match[2] for match in numbered]
    wordnet = [match for line in lines if (match := _WORDNET_LINE.fullmatch(line))]
    if wordnet and len(wordnet) == len(lines):
        if all(map(str.isdecimal, seconds := [re.split(r"[\s,:]+", line)[1] for line in lines])):  # map_clsloc.txt
            require_from_zero(list(map(int, seconds)), where)
        log.info("%s: the names of the classes are the WordNet ids of its lines, as in ImageNet's data", where)
        return [match[1] for match in wordnet]
    if lines and lines[0].casefold() in _ALONE:
        log.warning("%s: its first line, %r, is taken for a header and is no class", where, lines[0])
        lines = lines[1:]
    return _without_numbers_behind(lines)


def read_numbers(text: str) -> dict[int, str]:
    """Returns the names by the numbers before them, from any number on; empty unless each line has its own."""
    lines = _drop_comments([line.strip() for line in text.strip().splitlines()])
    numbered = [match for line in lines if (match := _NUMBERED_LINE.fullmatch(line))]
    names = {int(match[1]): match[2].strip("\"'") for match in numbered}
    return names if 1 < len(names) == len(numbered) == len(lines) else {}


def require_from_zero(numbers: Sequence[int], where: str) -> None:
    """Raises ConfigError unless numbers count from 0, in order."""
    if list(numbers) != list(range(len(numbers))):
        shown = ", ".join(map(str, numbers[:3]))
        raise ConfigError(
            f"{where} must hold the names of the classes in the order of the labels, which count from 0: it numbers "
            f"them {shown} and so on; number them from 0 in order, or write them alone"
        )


def _drop_comments(lines: Sequence[str]) -> list[str]:
    """Returns lines without comments at the beginning; a first ``#ant`` is one if no other line begins so."""
    rest = list(itertools.dropwhile(lambda line: line.startswith(_COMMENTS), lines))
    is_comment = len(rest) > 1 and rest[0].startswith("#") and not any(line.startswith("#") for line in rest[1:])
    return rest[is_comment:]


def _read_single(line: str, where: str) -> list[str]:
    """Returns the names of a single line: between semicolons, bars or tabs, or quoted ones between commas.

    Raises:
        ConfigError: It has several parts that may be names or not.
    """
    if re.fullmatch(r"(['\"]).+\1\s*(,\s*(['\"]).+\3\s*)+,?", line):
        try:
            return list(ast.literal_eval(f"[{line}]"))
        except (ValueError, SyntaxError):
            pass
    for separator in _BETWEEN:
        cells = [cell.strip() for cell in line.strip(separator).split(separator)]
        if len(cells) > 1 and all(cells) and not any(map(str.isdecimal, cells)):
            return [cell.strip("\"'") for cell in cells]
    if any(one in line for one in (*_BETWEEN, ",")):
        raise ConfigError(f"{where} holds a single line, {line[:_SHOWN]!r}: write the names one a line")
    return _without_quotes([line])


def _without_bullets(lines: Sequence[str]) -> list[str]:
    bullet = next((one for one in _BULLETS if all(line.startswith(one) for line in lines)), "")
    return [line.removeprefix(bullet).strip() for line in lines]


def _without_quotes(lines: Sequence[str]) -> list[str]:
    """Returns lines without the comma or semicolon at the end of each, and without the quotes around each."""
    end = next((one for one in (",", ";") if all(line.endswith(one) for line in lines[:-1])), "")
    lines = [line.removesuffix(end).rstrip() for line in lines]
    if any(line.startswith('"') and line.endswith('"') for line in lines):
        return [",".join(cells) for cells in csv.reader(lines, skipinitialspace=True)]
    if all(len(line) > 2 and line[0] == line[-1] == "'" for line in lines):
        return [line[1:-1] for line in lines]
    return list(lines)


def _read_table(lines: Sequence[str], where: str) -> list[str] | None:
    """Returns the column of names of a table with a header, in the order of its numbers if it has them; or None.

    Raises:
        ConfigError: The numbers do not count from 0.
    """
    for separator in (",", ";", "\t"):
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator, skipinitialspace=True)]
        if len(rows) < 2 or not 1 < len(rows[0]) == max(map(len, rows)) == min(map(len, rows)):
            continue
        header, *body = rows
        columns = {re.sub(r"[\s-]+", "_", cell.casefold()): [row[i] for row in body] for i, cell in enumerate(header)}
        are_numbers = {cell for cell, column in columns.items() if all(map(str.isdecimal, column))}
        named = next((cell for cell in _NAMES if cell in columns and cell not in are_numbers), None)
        if named is None or len(columns) < len(header):
            continue
        numbers = next((cell for cell in _NUMBERS if cell in are_numbers), None)
        if numbers is None:
            return columns[named]
        by_number = sorted(zip(map(int, columns[numbers]), columns[named], strict=True))
        require_from_zero([number for number, _ in by_number], where)
        return [name for _, name in by_number]
    return None


def _without_numbers_behind(lines: Sequence[str]) -> list[str]:
    """Returns names in the order of the numbers behind them, as of ``ant,0``; other names, as ``class 1``, as they are.

    The numbers are those of classes if they are all from 0 to the last, each once, and the names differ without them.
    """
    matches = [match for line in lines if (match := _LINE_WITH_NUMBER.fullmatch(line))]
    names = {int(match[2]): match[1] for match in matches}
    is_numbered = len(matches) >= max(2, len(lines) - 1) and sorted(names) == list(range(len(matches)))
    if not is_numbered or len(set(names.values())) < len(names):
        return list(lines)
    return [names[number] for number in range(len(names))]
