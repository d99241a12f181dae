"""Files with the names of classes whose lines are numbered."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.errors import ConfigError
from models.data.sources.class_file import read_class_names


@pytest.mark.parametrize(
    "text", ["0 ant\n1 red bee\n2 cat", "0: ant\n1: red bee\n2: cat\n", "id,name\n0,ant\n1,red bee\n2,cat\n"]
)
def test_numbers_from_0_before_the_names_are_no_part_of_these(text: str, tmp_path: Path) -> None:
    (tmp_path / "names").write_text(text)
    assert read_class_names(str(tmp_path / "names"), "data.class_file") == ["ant", "red bee", "cat"]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1 ant\n2 bee\n3 cat", "1, 2, 3"),
        ("0 ant\n2 bee\n1 cat", "0, 2, 1"),
        ("0,ant\n1,bee\n3,cat\n", "0, 1, 3"),
        ('{"ant": 1, "bee": 2}', "1, 2"),
        ('{"1": "ant", "2": "bee", "3": "cat"}', "1, 2, 3"),
    ],
)
def test_numbers_that_do_not_count_from_0_are_refused(text: str, numbers: str, tmp_path: Path) -> None:
    """The first name would be that of label 0, though its number is 1."""
    (tmp_path / "names").write_text(text)
    with pytest.raises(ConfigError, match=f"which count from 0: it numbers them {numbers} and so on; number them"):
        read_class_names(str(tmp_path / "names"), "data.class_file")


@pytest.mark.parametrize("text", ["3 series\nant\nbee", "10 spot\n", "7\n8\n9", "1a x\n2a y"])
def test_other_names_with_numbers_are_names(text: str, tmp_path: Path) -> None:
    (tmp_path / "names").write_text(text)
    assert read_class_names(str(tmp_path / "names"), "data.class_file") == text.splitlines()
