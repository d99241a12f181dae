"""Describes a registered model on its page and in the list of models: its champion and its versions.

Prefect is not imported, which takes a second: the verbs that move a champion call this too.
"""

from __future__ import annotations

from tasks.registry.card import LICENSE_UNKNOWN, NOT_MEASURED, family_card

DESCRIBED = {"variant", "params", "resolution"}  # tags of every version since there are model cards
# Of a registered model, those of its champion; accuracy and data first, since its list has room for the first two.
MODEL_TAGS = ("top1", "dataset", "ci95", "variant", "params", "multiply_adds", "resolution", "license")


def describe_family(name: str) -> None:
    """Writes the description of a registered model, after a new version and after each move of the champion.

    Raises:
        TransientError: MLflow does not answer; the same call resumes later.
    """
    from infra.tracking import registry

    described = [one for one in registry.versions(name) if one.tags.keys() >= DESCRIBED]
    if not described:  # of an earlier version of effnet
        return
    champion = registry.champion(name)
    shown = described[-1] if champion is None or not champion.tags.keys() >= DESCRIBED else champion
    known = {"top1": NOT_MEASURED, "license": LICENSE_UNKNOWN, **shown.tags}
    tags = {key: known[key] for key in MODEL_TAGS if key in known}
    text = family_card(name, described, None if champion is None else champion.version)
    registry.describe_model(name, text, tags)
