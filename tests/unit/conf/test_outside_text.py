"""Configuration that was stored or sent: nothing in it is resolved, and whatever it holds, one line refuses it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from matrix import with_slow_rest
from omegaconf import OmegaConf

from conf import compose, schema
from conf.compose import OverrideError
from infra import store
from infra.errors import ConfigError

CANARY = "canary-4f1e77"
JOB = schema.Job(kind="train", data_name="x", manifest_uri="s3://b/m", manifest_sha256="0" * 64)
TEXT = compose.to_yaml(JOB)
REACHES = [
    "${oc.env:EFFNET_CANARY}",
    "a${oc.env:EFFNET_CANARY}b",
    "${oc.decode:${oc.env:EFFNET_CANARY}}",
    "${.kind}",
    "${manifest_uri}",
    r"\${oc.env:EFFNET_CANARY}",
    r"\\${oc.env:EFFNET_CANARY}",
]


@pytest.fixture(autouse=True, scope="module")
def _canary() -> Iterator[None]:
    os.environ["EFFNET_CANARY"] = CANARY
    yield
    del os.environ["EFFNET_CANARY"]


def refused(text: str | bytes, kind: type[Any] = schema.Job) -> str:
    """The one line that refuses the text."""
    with pytest.raises(OverrideError) as caught:
        compose.from_yaml(kind, text)
    message = str(caught.value)
    assert message
    assert message.isprintable()
    assert CANARY not in message
    return message


def with_value(key: str, value: Any) -> str:
    return yaml.safe_dump(yaml.safe_load(TEXT) | {key: value})


@pytest.mark.parametrize("value", with_slow_rest(REACHES, plain=3))
def test_a_value_that_is_read_back_reaches_for_nothing(value: str) -> None:
    for key in ("data_name", "manifest_uri", "leave_out", "init_weights_uri"):
        for text in (with_value(key, [value]), with_value(key, value), with_value(key, {value: value})):
            assert "may not contain ${...}" in refused(text)
    assert "may not contain ${...}" in refused(with_value(value, 1))


@pytest.mark.parametrize(
    "text",
    [
        'data_name: "$\\x7Boc.env:EFFNET_CANARY}"',
        'data_name: "\\u0024{oc.env:EFFNET_CANARY}"',
        "data_name: >-\n  ${oc.env:EFFNET_CANARY}",
        "data_name: |\n  ${oc.env:EFFNET_CANARY}",
        "? ${oc.env:EFFNET_CANARY}\n: 1",
        "recipe: {epochs: '${oc.env:EFFNET_CANARY}'}",
        "recipe: '${oc.env:EFFNET_CANARY}'",
    ],
)
def test_no_way_to_write_a_resolver_in_yaml_is_overlooked(text: str) -> None:
    assert "may not contain ${...}" in refused(text)


@pytest.mark.parametrize(
    "override",
    [
        r"scaling.points=[{network:$\{oc.env\:EFFNET_CANARY\}}]",
        "data.path=${oc.env:EFFNET_CANARY}",
        "data.path='${oc.env:EFFNET_CANARY}'",
    ],
)
def test_an_override_reaches_for_nothing_by_hydra_s_own_escapes_either(override: str) -> None:
    """Hydra makes ``${`` out of ``$\\{``, behind the check of the word itself."""
    with pytest.raises(OverrideError, match=r"values may not contain \$\{\.\.\.\}") as caught:
        compose.compose([override])
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    "value", [r"$\{oc.env\:EFFNET_CANARY\}", r"\$\{oc.env\:EFFNET_CANARY\}", r"$\{oc.env:EFFNET_CANARY\}"]
)
def test_hydra_s_escapes_are_plain_characters_of_a_text_and_no_number(value: str) -> None:
    config = compose.compose([f"data.path={value}", f"data.leave_out=[a,{value}]"])
    assert (config.data.path, config.data.leave_out) == (value, ["a", value])
    for word in (f"recipe.epochs={value}", f"variants=[{value}]"):
        with pytest.raises(OverrideError, match=r"must be (a whole number|1 to 63)") as caught:
            compose.compose([word])
        assert CANARY not in str(caught.value)


BOMB = "a0: &a0 [x]\n" + "".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(20))


@pytest.mark.parametrize(
    ("text", "message"),
    with_slow_rest(
        [
            ("42", "expected a mapping"),
            ("[1, 2]", "expected a mapping"),
            ("", "expected a mapping"),
            ("text", "expected a"),
            ("null", "expected a mapping"),
            ("# only a comment\n", "expected a mapping"),
            ("--- {}\n--- {}\n", "single document"),
            ("{" * 3000, "nested more than 16 deep"),
            ("[" * 3000, "nested more than 16 deep"),
            ("- " * 3000, "deep"),
            ("a: " + "{a: " * 3000, "nested more than 16 deep"),
            (BOMB, "anchors and aliases"),
            ("a: &x 1", "anchors and"),
            ("a: *x", "anchors and aliases"),
            ("a: !!python/object/apply:os.system [id]", "tags are refused"),
            ("!!python/object:x {}", "tags are refused"),
            ("a: !!binary AA==", "tags are refused"),
            ("a: !own 1", "tags are"),
            ("kind: tr\x00ain", "special characters"),
            (b"kind: \xff\xfe", "codec can't decode"),
            ("kind: train\n x", ""),
            ("x" * 2**21, "characters are no configuration"),
            ("_target_: os.system", "_target_"),
            ("{}", "kind"),
            ("recipe: {_target_: builtins.exec}", "_target_"),
            ("1: 2", ""),
            ("null: 2", ""),
            ("? [a]\n: b", ""),
            ("kind: train\nkind: train", "duplicate key kind (line 2)"),
            ("recipe: {lr_per_256: 0x" + "f" * 400 + "}", ""),
            ("recipe: {epochs: " + "9" * 5000 + "}", ""),
            ("data_name: 2020-13-45", ""),
            ("kind: [train", "while parsing"),
            ("kind: \x1b[31m[", ""),
            (f"{TEXT}\nsplit: {{}}", "split"),
            ("\ufeff", "expected a"),
        ],
        plain=12,
    ),
)
def test_what_is_no_job_is_refused_in_one_line_and_at_once(text: str | bytes, message: str) -> None:
    began = time.monotonic()
    assert message in refused(text)
    assert time.monotonic() - began < 30  # the bomb would be 12 billion billion items


@pytest.mark.parametrize("kind", with_slow_rest([schema.Job, schema.Model, schema.Config]))
def test_a_job_s_own_yaml_and_its_bytes_are_still_read(kind: type[Any]) -> None:
    value = {schema.Job: JOB, schema.Model: schema.Model(width=0.1 + 0.2), schema.Config: compose.compose()}[kind]
    text = compose.to_yaml(value)
    assert compose.from_yaml(kind, text) == compose.from_yaml(kind, text.encode()) == value


PIECES = st.sampled_from(
    [
        "${",
        "}",
        "oc.env:EFFNET_CANARY",
        "${oc.env:EFFNET_CANARY}",
        r"$\{oc.env\:EFFNET_CANARY\}",
        "$",
        "{",
        "\\",
        "'",
        '"',
        ": ",
        "- ",
        "\n",
        " ",
        "&a",
        "*a",
        "!!python/name:os.system",
        "!!int",
        "<<",
        "kind: train",
        "recipe:",
        "[",
        "]",
        "_target_:",
        ",",
        "#",
        "|",
        ">",
        "?",
        "%YAML 1.1",
        "---",
        "...",
        "\x00",
        "\x1b",
        "\u202e",
        "1e999",
        ".inf",
    ]
)
WORDS = st.one_of(st.text(max_size=30), st.lists(PIECES, max_size=12).map("".join))
LEAVES = st.one_of(WORDS, st.integers(), st.floats(), st.booleans(), st.none(), st.dates(), st.binary(max_size=4))
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3))
FIELDS = st.sampled_from([*yaml.safe_load(TEXT), "leave_out", "split", "until_epoch", "_target_", "<<"])
JOBS = st.dictionaries(FIELDS, TREES, max_size=4).map(lambda changes: yaml.safe_dump(yaml.safe_load(TEXT) | changes))
QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


def outcome(call: Callable[[], object]) -> str:
    """All that the value or the one line of the error says; empty where the line is none, or a value is unresolved."""
    try:
        value = repr(call())
    except OverrideError as error:
        return str(error) if str(error).isprintable() else ""
    return "" if "${" in value else value


@pytest.mark.slow
@settings(QUICK, max_examples=150)
@given(st.one_of(WORDS, WORDS.map(lambda word: f"{TEXT}\n{word}"), st.binary(max_size=40), JOBS))
@example(TEXT.replace("data_name: x", "data_name: ${oc.env:EFFNET_CANARY}"))
def test_whatever_text_is_read_back_is_a_job_without_secrets_or_one_line(text: str | bytes) -> None:
    shown = outcome(lambda: compose.from_yaml(schema.Job, text))
    assert shown
    assert CANARY not in shown


@dataclass
class Request:
    """A field of each kind that the schema has."""

    text: str
    texts: list[str]
    number: float
    numbers: list[float]
    whole: int
    maybe: float | None = None
    model: schema.Model = field(default_factory=schema.Model)


LOOKALIKES = [
    "y",
    "No",
    "ON",
    "null",
    "~",
    "1",
    "1_0",
    "1e3",
    "0x1f",
    "nan",
    ".inf",
    "2026-01-01",
    "12:30:00",
    "=",
    "é",
]
TEXTS = WORDS.filter(lambda word: "$" not in word)
NUMBERS = st.integers(-9, 9) | st.floats()


@settings(QUICK, max_examples=40)  # OmegaConf takes 30 ms
@given(st.builds(Request, TEXTS, st.lists(TEXTS, max_size=2), NUMBERS, st.lists(NUMBERS, max_size=2), st.integers()))
@example(Request("long " * 40, [*LOOKALIKES, "\n a\n", "\U0001f600"], 1, [2, 0.1 + 0.2], 10**12, 3))
def test_a_request_is_written_in_the_bytes_of_omegaconf(request: Request) -> None:
    """The keys of stored jobs are digests of these bytes: text in quotes, a whole number as the float that it is."""
    plain = OmegaConf.to_container(OmegaConf.structured(request))
    assert isinstance(plain, dict)
    plain["model"] = compose.to_request(request.model)
    assert compose.to_yaml(request) == OmegaConf.to_yaml(OmegaConf.create(plain))


KEYS = st.sampled_from(
    [
        "data.path",
        "data.name",
        "data.leave_out",
        "recipe.epochs",
        "variants",
        "storage",
        "launch",
        "scaling.points",
        "model",
        "data",
        "data@transfer.data",
        "run_dir",
    ]
)


@settings(QUICK, max_examples=40)  # Hydra takes a quarter of a second
@given(st.lists(st.one_of(st.tuples(KEYS, WORDS).map("=".join), WORDS), min_size=1, max_size=2))
def test_whatever_words_are_composed_are_a_configuration_without_secrets_or_one_line(words: list[str]) -> None:
    shown = outcome(lambda: compose.compose(words))
    assert shown
    assert CANARY not in shown


PATTERN = "must be 1 to 63 of A-Z a-z 0-9 . _ - and start with a letter or digit"
HOSTILE = [
    "$(id)",
    "a;id",
    "a\nb",
    "a\x1b[31m",
    "-rf",
    "--export=x",
    "a:b",
    "{}",
    "a b",
    "../x",
    "..",
    ".hidden",
    "a/b",
    "`id`",
    "a'b",
    "x" * 64,
    "",
    "é",
    "a\n",
    "*",
    "@x",
]


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (schema.Data, "name"),
        (schema.Config, "experiment"),
        (schema.Config, "profile"),
        (schema.Published, "name"),
        (schema.Published, "network"),
        (schema.Nightly, "model"),
        (schema.Model, "name"),
        (schema.Transfer, "protocol"),
        (schema.Point, "network"),
        (schema.GalleryEntry, "network"),
        (schema.LatencyPair, "ours"),
        (schema.LatencyPair, "rival"),
        (schema.Job, "data_name"),
    ],
)
def test_a_name_that_could_mean_more_than_itself_is_refused(kind: type[Any], key: str) -> None:
    for name in HOSTILE:
        with pytest.raises(ValueError, match=re.escape(PATTERN)):
            kind(**{key: name})


def test_lists_of_names_and_references_are_checked_too() -> None:
    for name in HOSTILE:
        with pytest.raises(ValueError, match="variants"):
            schema.Config(variants=["efficientnet_b0", name])
        with pytest.raises(ValueError, match=r"transfer\.sets"):
            schema.Transfer(sets=[name])
        for reference in (name, f"{name}@champion", f"b0@{name}", f"{name}/1", f"b0/{name}"):
            with pytest.raises(ValueError, match="must be NAME@ALIAS or NAME/VERSION"):
                schema.Config(model_ref=reference)
            with pytest.raises(ValueError, match="must be NAME@ALIAS or NAME/VERSION"):
                schema.GalleryEntry(registered=reference)


@pytest.mark.parametrize("name", ["mine", "5", "a.b_c-D", "x" * 63])
def test_a_plain_name_is_taken(name: str) -> None:
    config = compose.compose([f"{key}={name}" for key in ("data.name", "experiment", "published.name")])
    assert (config.data.name, config.experiment, config.published.name) == (name, name, name)
    assert schema.Config(model_ref=f"{name}@champion").model_ref == f"{name}@champion"
    assert schema.Config(model_ref=f"{name}/12").model_ref == f"{name}/12"


def test_a_table_that_hydra_cannot_parse_is_named_with_what_to_do() -> None:
    word = "scaling.points=[{network:a b=c}]"
    with pytest.raises(OverrideError) as caught:
        compose.compose([word])
    assert str(caught.value).startswith(f"{word!r} cannot be read: ")
    assert str(caught.value).endswith("scaling.points=[{KEY: VALUE}], with quotes around other characters")


def test_a_refusal_is_escaped_where_it_is_made() -> None:
    assert str(OverrideError("no a\x1b[31m\n")) == r"no a\x1b[31m\n"


def test_a_hostile_name_on_the_command_line_is_one_line_with_the_pattern() -> None:
    with pytest.raises(OverrideError) as caught:
        compose.compose(["data.name=--export=x"])
    assert str(caught.value) == f"data.name {PATTERN}, is '--export=x'"


def test_the_parameters_of_a_job_s_deployment_are_those_of_the_job_in_its_run_folder(tmp_path: Path) -> None:
    from flows.job import read_spec
    from tasks.jobs import name_job

    storage = f"file://{tmp_path}/store"
    config = compose.compose([f"storage={storage}"])
    job = schema.Job(
        kind="train",
        data_name="x",
        manifest_uri="s3://b/m",
        manifest_sha256="0" * 64,
        init_weights_uri="s3://b/w",
        until_epoch=2,
    )
    run = name_job(config, job, "finetune-b0-x")
    text, launch = compose.to_yaml(job), compose.to_yaml(config.launch)
    secret = text.replace("data_name: x", "data_name: ${oc.env:EFFNET_CANARY}")
    evaluation = text.replace("kind: train", "kind: evaluate")
    store.write(f"{run.job_uri}/config.yaml", text.encode())
    assert read_spec(config, run.key, storage, launch).job_uri == run.job_uri
    for content, key, place, how in (
        (text, "../../escape-" + run.key[-10:], storage, launch),
        (text, "-rf", storage, launch),
        (text, run.key, storage, launch + "nnodes: ${oc.env:EFFNET_CANARY}"),
        (text, run.key, storage, launch.replace("nproc_per_node: ", "nproc_per_node: many")),
        (secret, run.key, storage, launch),
        (evaluation, run.key, storage, launch),
    ):
        store.write(f"{run.job_uri}/config.yaml", content.encode())
        with pytest.raises(ConfigError, match=r"^job[: ]") as caught:
            read_spec(config, key, place, how)
        assert CANARY not in str(caught.value)
