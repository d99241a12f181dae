"""The fields of a deployment's form: what they stand for, and what the form offers."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from conf import compose
from flows import form
from flows.cli.deploy import _define
from flows.configure import configure, merge
from infra.services import deployments

ENTRIES = [entry for entry in deployments.read_entries(deployments.FILE) if entry["name"] != "job"]


def define(name: str) -> dict[str, Any]:
    (entry,) = (entry for entry in ENTRIES if entry["name"] == name)
    return dict(_define(entry, "1", "effnet")["body"])


@pytest.mark.parametrize(
    ("flow", "keys"),
    [
        ("train", {"profile": "profile", "model": "model", "data": "data", "epochs": "recipe.epochs"}),
        (
            "nightly",
            {
                "profile": "profile",
                "model": "nightly.model",
                "data": "data@transfer.data",
                "epochs": "transfer.recipe.epochs",
            },
        ),
        ("evaluate", {"profile": "profile", "model": "model_ref", "data": "data"}),
        ("shard", {"profile": "profile", "data": "data"}),
    ],
)
def test_a_form_has_the_fields_of_its_flow_with_choices_and_defaults_of_the_settings(
    flow: str, keys: dict[str, str]
) -> None:
    properties = define(flow)["parameter_openapi_schema"]["properties"]
    assert sorted(properties, key=lambda name: properties[name]["position"]) == [*keys, "overrides"]
    for name, key in keys.items():
        choices = compose.options(key) if key in compose.GROUPS else None
        assert properties[name].get("enum") == choices
        assert f"(`{key}`; default " in properties[name]["description"]
        assert "default" not in properties[name]  # the form would send it, and so replace the worker's setting


def test_every_deployment_s_fields_are_parameters_of_its_flow_and_none_must_be_given() -> None:
    for entry in ENTRIES:
        body = define(entry["name"])
        module, _, function = entry["entrypoint"].rpartition(".")
        flow = getattr(importlib.import_module(module), function)
        schema = body["parameter_openapi_schema"]
        assert set(schema["properties"]) == set(flow.parameters.properties)
        assert set(schema.get("required", [])) <= {"job"}
        assert "profile" in schema["properties"]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["name"])
def test_a_description_is_markdown_with_settings_and_a_command(entry: dict[str, Any]) -> None:
    text = define(entry["name"])["description"]
    assert text.startswith(entry["description"])
    assert text.count("```") == 2
    assert f"`prefect deployment run {entry['name']}/{entry['name']} --param overrides=" in text
    assert "services.prefect=" not in text


def test_fields_become_settings_below_the_overrides() -> None:
    given = {"overrides": ["recipe.epochs=3"], "model": "b3", "data": None, "epochs": 2, "began": 1.0}
    words = form.to_overrides("train", given)
    assert words == ["model=b3", "recipe.epochs=2"]
    assert merge(words, ["recipe.epochs=3"]) == ["model=b3", "recipe.epochs=3"]
    assert form.to_overrides("nightly", {"model": "efficientnet-b0-pets", "epochs": 4}) == [
        "nightly.model=efficientnet-b0-pets",
        "transfer.recipe.epochs=4",
    ]


def test_a_flow_is_configured_by_its_fields_and_its_command_names_them() -> None:
    config, words = configure(["recipe.seed=7"], model="b1", epochs=2)
    assert (config.model.name, config.recipe.epochs, config.recipe.seed) == ("efficientnet_b1", 2, 7)
    assert words == ["model=b1", "recipe.epochs=2", "recipe.seed=7"]


def test_a_set_chosen_in_the_form_replaces_the_list_of_sets_of_a_profile() -> None:
    """Eight sets were trained on instead of the chosen one: a list of sets counts more than a single set."""
    config = compose.compose(["profile=paper", *form.to_overrides("transfer", {"data": "pets"})])
    assert (config.transfer.sets, config.transfer.data.name) == ([], "pets")
    assert len(compose.compose(["profile=paper"]).transfer.sets) > 1
