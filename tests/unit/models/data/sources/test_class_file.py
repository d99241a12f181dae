"""Files with the names of classes whose lines are numbered."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.errors import ConfigError
from models.data.sources.class_file import rank_labels, read_class_names


@pytest.mark.parametrize(
    "text",
    [
        "0 ant\n1 red bee\n2 cat",
        "0: ant\n1: red bee\n2: cat\n",
        "id,name\n0,ant\n1,red bee\n2,cat\n",
        "0. ant\n1. red bee\n2. cat",
        "0) ant\n1) red bee\n2) cat",
        "0 - ant\n1 - red bee\n2 - cat",
        '"0","ant"\n"1","red bee"\n"2","cat"\n',
    ],
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


@pytest.mark.parametrize(
    "text",
    [
        "cat,2\nant,0\nred bee,1\n",
        "class,index\nant,0\nred bee,1\ncat,2",
        "ant\t0\nred bee\t1\ncat\t2",
        "ant 0\nred bee 1\ncat 2",
    ],
)
def test_numbers_behind_the_names_are_their_order(text: str, tmp_path: Path) -> None:
    (tmp_path / "names").write_text(text)
    assert read_class_names(str(tmp_path / "names"), "data.class_file") == ["ant", "red bee", "cat"]


@pytest.mark.parametrize(
    "text", ["class 0\nclass 1\nclass 2", "Boeing 707\nBoeing 737\nAudi 100", "707-320\n727-200", "A-0 x\nB-1 x"]
)
def test_numbers_that_are_parts_of_names_stay(text: str, tmp_path: Path) -> None:
    (tmp_path / "names").write_text(text)
    assert read_class_names(str(tmp_path / "names"), "data.class_file") == text.splitlines()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"ant": "0", "red bee": "1", "cat": "2"}'),
        ("a.json", '{"names": ["ant", "red bee", "cat"]}'),
        ("config.json", '{"architecture": "b0", "num_classes": 3, "label_names": ["ant", "red bee", "cat"]}'),
        ("config.json", '{"id2label": {"0": "ant", "1": "red bee", "2": "cat"}, "label2id": {"ant": 0}}'),
        ("a.json", '{"class_to_idx": {"ant": 0, "red bee": 1, "cat": 2}}'),
        ("info.json", '{"features": {"label": {"names": ["ant", "red bee", "cat"], "_type": "ClassLabel"}}}'),
        ("a.json", '[{"id": 0, "name": "ant"}, {"id": 1, "name": "red bee"}, {"id": 2, "name": "cat"}]'),
        ("a.txt", "{0: 'ant',\n 1: 'red bee',\n 2: \"cat\",}"),
        ("a.txt", "['ant', 'red bee', 'cat']"),
        ("data.yaml", "nc: 3\nnames: [ant, red bee, cat]\n"),
        ("data.yml", "names:\n  0: ant\n  1: red bee\n  2: cat\n"),
        ("data.yaml", "- ant\n- red bee\n- cat\n"),
        ("a.txt", '"ant"\n"red bee"\n"cat"\n'),
        ("a.txt", "# classes of the set\nant\nred bee\ncat\n"),
        ("a.jsonl", '{"id": 0, "name": "ant"}\n{"id": 1, "name": "red bee"}\n{"id": 2, "name": "cat"}\n'),
        (
            "a.json",
            '[{"label": 1, "class_name": "red bee"}, {"label": 0, "class_name": "ant"}, {"label": 2, "class": "cat"}]',
        ),
        ("a.txt", "('ant', 'red bee', 'cat')"),
        ("a.py", '"""Classes."""\nimport os\n\nCLASSES = (\n    "ant",\n    "red bee",\n    "cat",\n)\n'),
        ("a.py", "METAINFO = {'classes': ('ant', 'red bee', 'cat'), 'palette': [(1, 2, 3)]}"),
        ("a.py", "PALETTE = [1, 2]\nclass_names: list[str] = ['ant', 'red bee', 'cat']"),
        ("a.txt", "id2label = {0: 'ant', 1: 'red bee', 2: 'cat'}"),
        ("a.toml", 'names = ["ant", "red bee", "cat"]\n'),
        ("a.txt", "ant;red bee;cat"),
        ("a.txt", "ant; red bee; cat;\n"),
        ("a.txt", "ant\tred bee\tcat\n"),
        ("a.txt", "ant|red bee|cat"),
        ("a.txt", "'ant', 'red bee', 'cat'"),
        ("a.csv", '"ant";"red bee";"cat"\n'),
        ("a.txt", "ant,\nred bee,\ncat\n"),
        ("a.txt", "'ant',\n'red bee',\n'cat',\n"),
        ("a.txt", "- ant\n- red bee\n- cat\n"),
        ("a.txt", "#classes\nant\nred bee\ncat\n"),
        ("a.csv", "class\nant\nred bee\ncat\n"),
        ("a.csv", "id,name,color\n0,ant,red\n1,red bee,\n2,cat,red\n"),
        ("a.csv", "Class Name;ID\nred bee;1\nant;0\ncat;2\n"),
        (
            "coco.json",
            '{"images": [{"id": 7}], "categories": [{"id": 0, "name": "ant"}, {"id": 1, "name": "red bee"}, '
            '{"id": 2, "name": "cat", "supercategory": "pet"}]}',
        ),
        ("cvat.json", '[{"name": "ant", "color": "#fff"}, {"name": "red bee"}, {"name": "cat", "attributes": []}]'),
        ("a.json", '[[0, "ant"], [1, "red bee"], [2, "cat"]]'),
        ("a.json", '[["n1", "ant"], ["n2", "red bee"], ["n3", "cat"]]'),
        ("dataset_infos.json", '{"default": {"features": {"label": {"names": ["ant", "red bee", "cat"]}}}}'),
        (
            "a.pbtxt",
            "item {\n  id: 0\n  name: 'ant'\n}\nitem { name: \"red bee\" id: 1 }\nitem { id: 2 name: 'cat' }\n",
        ),
        (
            "a.pbtxt",
            "".join(
                f"item {{ name: '/m/{i}' id: {i} display_name: '{n}' }}\n"
                for i, n in enumerate(("ant", "red bee", "cat"))
            ),
        ),
    ],
)
def test_names_are_read_from_the_files_of_other_tools(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert read_class_names(str(tmp_path / name), "data.class_file") == ["ant", "red bee", "cat"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"ant": 0, "bee": 0}', "has several names for class 0: each class needs one"),
        ("a.txt", "ant\n\nbee\n", "line 2 is empty, and a class needs a name"),
        ("a.txt", "ant,bee,cat\n", "holds a single line, 'ant,bee,cat': write the names one a line"),
        ("a.txt", "ant,bee\n", "holds a single line, 'ant,bee': write the names one a line"),
        ("a.txt", "0\tant\n", "holds a single line, '0\\\\tant': write the names one a line"),
        (
            "coco.json",
            '{"categories": [{"id": 1, "name": "ant"}, {"id": 3, "name": "bee"}]}',
            "it numbers them 1, 3 and",
        ),
        ("a.csv", "id,name,color\n1,ant,red\n2,bee,red\n", "it numbers them 1, 2 and so on"),
        ("a.txt", "n02119789 1 kit_fox\nn02100735 2 English_setter\n", "it numbers them 1, 2 and so on"),
        ("a.py", "{'ant', 'bee'}", "is a set of Python, whose names have no order"),
        ("a.js", "const a = ['ant', 'bee'];\nexport default a;\n", ";. is no name of a class: write the"),
        ("a.txt", "dict_keys(['ant', 'bee'])", "is no name of a class: write the names one a line"),
        ("a.json", '{"ant": {"color": 1}, "bee": {"color": 2}}', "one a line or as a JSON list; its keys are ant, bee"),
        (
            "a.txt",
            "version https://git-lfs.github.com/spec/v1\noid sha256:ab\n",
            "is a Git LFS pointer; `git lfs pull`",
        ),
        ("a.rtf", "{\\rtf1\\ansi ant\\par bee}", "is rich text of a word processor; save the names as text"),
        ("a.txt", "a\0n\0t\0\n\0b\0e\0e\0", "looks like UTF-16 without its mark: save it as UTF-8"),
        ("a.pbtxt", "item { id: 1 name: 'ant' } item { id: 2 name: 'bee' }", "it numbers them 1, 2 and so on"),
        ("a.jsonl", '{"id": 0, "name": "ant"}\n{"id": 1', "is no JSON list: "),
        ("a.data", "classes = 2\nnames = a.names\n", "holds settings, as 'classes = 2', and not the names of cl"),
        ("a.txt", "ant\n---\nbee\n", "'---' is no name of a class"),
        ("a.xml", "<labels>\n<label>ant</label>\n</labels>\n", "'<labels>' is no name of a class"),
        ("a.txt", "\0\1\2", "holds other bytes than names of classes"),
        ("a.yaml", "a: [", "is no YAML: "),
        ("a.yaml", "", "must hold the names of the classes, one a line or as a JSON list$"),
        ("a.yaml", "5", "must hold the names of the classes, one a line or as a JSON list$"),
        ("a.yaml", "- 2001-99-99", "is no YAML: month must be in 1..12"),
        ("a.txt", "ant" * 100_000, "has lines of more than 10,000 characters: write the names one a line"),
        ("a.txt", "[" * 5000, "is no JSON list: "),
        ("a.txt", "{0: open('x')}", "is no JSON list: "),
        ("a.yaml", "!!python/object/apply:os.getcwd []", "is no YAML: "),
    ],
)
def test_a_file_that_would_shift_the_classes_is_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_class_names(str(tmp_path / name), "data.class_file")


def test_a_name_of_two_classes_is_said_and_refused_as_a_label(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As in the usual class index of ImageNet, of which two classes are cranes."""
    file = tmp_path / "class_index.json"
    file.write_text('{"0": ["n02012849", "crane"], "1": ["n03126707", "crane"], "2": ["n01440764", "tench"]}')
    with caplog.at_level("WARNING", "effnet"):
        names = read_class_names(str(file), "data.class_file")
    assert names == ["crane", "crane", "tench"]
    assert "class_index.json: 1 names are of several classes, as 'crane'" in caplog.text
    assert rank_labels(str(file), names, {"0", "1", "tench"})[0]["1"] == 1
    with pytest.raises(ConfigError, match="the label 'crane' is the name of several classes"):
        rank_labels(str(file), names, {"crane", "tench"})


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_mark_at_the_beginning_tells_the_encoding(encoding: str, tmp_path: Path) -> None:
    """Windows writes UTF-16 where it says Unicode."""
    (tmp_path / "names.txt").write_bytes("ant\r\nb\u00e9e\r\ncat\r\n".encode(encoding))
    assert read_class_names(str(tmp_path / "names.txt"), "data.class_file") == ["ant", "b\u00e9e", "cat"]


def test_text_of_another_encoding_is_refused_with_what_converts_it(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes("ant\nb\u00e9e\n".encode("latin1"))
    with pytest.raises(ConfigError, match=r"is not UTF-8 text: .*; save it as UTF-8, e.g. with iconv -f lat"):
        read_class_names(str(tmp_path / "names.txt"), "data.class_file")


def test_lines_that_begin_with_wordnet_ids_are_these_classes(tmp_path: Path) -> None:
    """As LOC_synset_mapping.txt; ImageNet's folders, and so its classes, have these names."""
    (tmp_path / "names.txt").write_text("n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius auratus\n")
    assert read_class_names(str(tmp_path / "names.txt"), "data.class_file") == ["n01440764", "n01443537"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("label\nant\nbee\n", "its first line, 'label', is taken for a header and is no class"),
        ("ant bee cat\n", "has the name of a single class, 'ant bee cat'"),
    ],
)
def test_what_may_be_meant_otherwise_is_said(
    text: str, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "names.txt").write_text(text)
    with caplog.at_level("WARNING", "effnet"):
        read_class_names(str(tmp_path / "names.txt"), "data.class_file")
    assert said in caplog.text


@pytest.mark.parametrize(
    ("labels", "first"),
    [
        ({"1", "2", "3"}, "1"),
        ({"1", "3"}, "1"),
        ({"-1", "2", "3"}, "1"),
        ({"0", "1", "3"}, "0"),  # one that is wrong
        ({"1", "2"}, "0"),  # no image of ant
        ({"1", "bee", "3"}, "0"),
    ],
)
def test_labels_that_count_from_1_are_the_classes_in_their_order_which_is_said(labels: set[str], first: str) -> None:
    rank, said = rank_labels("names.txt", ["ant", "bee", "cat"], labels)
    assert [rank[str(int(first) + n)] for n in range(3)] == [0, 1, 2]
    assert said == ("the labels count from 1 to 3, so 1 is ant and 3 is cat of names.txt" if first == "1" else "")


def test_labels_that_are_the_first_words_of_the_names_are_these_classes() -> None:
    names = ["n01 tench, Tinca tinca", "n02 goldfish", "n03 great white shark"]
    rank, said = rank_labels("synsets.txt", names, {"n01", "n03"})
    assert rank == {"n01": 0, "n02": 1, "n03": 2}
    assert said == "the labels are the first words of the names in synsets.txt, as n01"
    assert "n01" not in rank_labels("synsets.txt", names, {"n01", "n09"})[0]
    assert "0" in rank_labels("names.txt", ["0 ant", "1 bee", "ant"], {"0", "ant"})[0]


def test_what_is_odd_about_names_is_said_once_by_a_command_that_reads_them_often(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "names.txt"
    file.write_text("class\nant\nbee\n")
    read = [read_class_names(str(file), "data.class_file") for _ in range(3)]
    assert read == [["ant", "bee"]] * 3
    assert caplog.text.count("is taken for a header") == 1
    file.write_text("class\nbee\nant\n")
    assert read_class_names(str(file), "data.class_file") == ["bee", "ant"]
