"""Settings that a verb does not read are named, and a network that would not be the one of the result is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from checkout import ROOT

from conf import schema
from flows.__main__ import main
from flows.cli.unread import GROUPS, describe_unread, list_unread, refuse_unread_network
from flows.cli.verbs import VERBS
from flows.evaluate import refuse_other_network
from infra.errors import ConfigError

FLOWS = [name for name, verb in VERBS.items() if verb.flow]


@pytest.mark.parametrize("verb", FLOWS)
def test_what_the_help_of_a_verb_shows_is_read(verb: str) -> None:
    """The settings in its text, but for those of every verb."""
    row = VERBS[verb]
    own = [*row.settings, *row.settings.values(), *row.notes, *(e for e in row.examples if e.startswith(f"{verb} "))]
    shown = re.findall(r"(?<![\w.])([a-z_@]+(?:\.[a-z_]+)*)=", "\n".join(own))
    assert list_unread(verb, [f"{key}=x" for key in shown]) == []


@pytest.mark.parametrize("verb", FLOWS)
def test_what_a_flow_reads_of_the_configuration_is_in_its_row(verb: str) -> None:
    """A verb that began to read another group would have told its users that this has no effect."""
    module = VERBS[verb].flow.partition(":")[0]
    text = Path(ROOT, *module.split(".")).with_suffix(".py").read_text()
    read = {group for group in GROUPS if re.search(rf"\bconfig\.{group}\b", text)}
    assert read - set(VERBS[verb].reads) <= ({"data", "model"} if verb == "register" else set())  # set from the job


@pytest.mark.parametrize(
    ("verb", "word", "said"),
    [
        ("evaluate", "recipe.epochs=3", "effnet evaluate does not read it; effnet reproduce, study, gate, search"),
        ("shard", "model=b3", "effnet shard does not read it"),
        ("train", "search.alpha=[1.0]", "effnet train does not read it; effnet reproduce, search would"),
        (
            "train",
            "data@transfer.data=pets",
            "effnet train does not read it; effnet reproduce, study, transfer, nightly",
        ),
        ("nightly", "data.path=/images", "the data of effnet nightly are transfer.data; transfer.data.path=/images s"),
        ("nightly", "data=folder", "the data of effnet nightly are transfer.data; data@transfer.data=folder sets it"),
        ("report", "variants=[resnet50]", "effnet report does not read it"),
        ("nightly", "data.accept=[mine/0002-5f0c9a31]", "a night reads transfer.data.accept"),
    ],
)
def test_a_setting_without_effect_is_named_with_the_verbs_that_read_it(verb: str, word: str, said: str) -> None:
    (line,) = describe_unread(verb, [word, "storage=s3://b", "launch.nnodes=1", "profile=laptop", "budget.hours=1"])
    assert line.startswith(f"{word} has no effect: {said}")


@pytest.mark.parametrize("verb", ["nightly", "linear", "photographs", "import"])
def test_a_network_that_another_setting_names_is_refused(verb: str) -> None:
    with pytest.raises(ConfigError, match="model=b3 would have no effect: the network"):
        refuse_unread_network(verb, ["data=digits", "model=b3"])
    for other in ("train", "reproduce", "search"):
        refuse_unread_network(other, ["model=b3"])


def test_another_network_than_the_registered_one_is_refused_for_its_evaluation() -> None:
    registered = schema.Model(name="efficientnet_b3", padding="same")
    words = ["model_ref=b3@champion", "data=digits"]
    refuse_other_network(schema.Model(), registered, "b3/1", words)
    refuse_other_network(schema.Model(name="efficientnet_b3"), registered, "b3/1", [*words, "model=b3"])
    with pytest.raises(ConfigError, match=r"b3/1 has model\.name=efficientnet_b3, so model=b0 would have no effect"):
        refuse_other_network(schema.Model(), registered, "b3/1", [*words, "model=b0"])
    with pytest.raises(ConfigError, match=r"has model\.width=1\.0, so model\.width=2 would have no effect: remove it"):
        refuse_other_network(schema.Model(width=2.0), registered, "b3/1", [*words, "model.width=2"])


def test_a_dry_run_says_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data=digits", "search.alpha=[1.0]", f"run_dir={tmp_path}", f"storage=file://{tmp_path}/store"]
    assert main(["train", "--dry-run", *words]) == 0
    assert capsys.readouterr().err.startswith(
        "warning: search.alpha=[1.0] has no effect: effnet train does not read it"
    )
    assert main(["nightly", "--dry-run", "model=b3", f"run_dir={tmp_path}"]) == 2
    assert "model=b3 would have no effect" in capsys.readouterr().err
