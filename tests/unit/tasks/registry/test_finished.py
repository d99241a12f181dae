"""The name under which a finished job is registered."""

import pytest

from conf import schema
from infra.errors import ConfigError
from tasks.registry.finished import name_model


@pytest.mark.parametrize(
    ("weights", "val", "name"),
    [
        (None, None, "efficientnet-b0"),
        (None, "second", "efficientnet-b0"),
        ("s3://w", None, "efficientnet-b0-pets"),
        ("s3://w", "first", "efficientnet-b0-pets"),
        ("s3://w", "second", "efficientnet-b0-pets-second"),
    ],
)
def test_a_fine_tuned_network_of_another_val_has_the_name_of_its_line(
    weights: str | None, val: str | None, name: str
) -> None:
    job = schema.Job(kind="train", data_name="pets", init_weights_uri=weights)
    assert name_model(None, job, val) == name
    assert name_model("mine", job, val) == "mine"


def test_a_name_that_is_too_long_is_refused_with_the_remedy() -> None:
    job = schema.Job(kind="train", data_name="p" * 60, init_weights_uri="s3://w")
    with pytest.raises(ConfigError, match="give another name, register=NAME"):
        name_model(None, job, None)
