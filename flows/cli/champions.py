"""The verbs that move the alias of a registered model by hand: promote and rollback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from conf.text import escaped
from flows.cli.command import Command, show
from flows.cli.services import connect
from infra.errors import ConfigError, EffnetError, first_line

if TYPE_CHECKING:
    from infra.tracking.registry import Version


def promote(command: Command) -> int:
    """Makes a version champion, whatever its verdict was, and records why."""
    from infra.tracking import registry

    connect(command, "s3", "mlflow")
    version = registry.resolve_version(command.objects[0])
    champion = registry.champion(version.name)
    if champion is not None and champion.version == version.version:
        show(f"{version.name}/{version.version} is champion already")
        _accept_data(version)  # which an earlier command may not have come to
        return 0
    current = None if champion is None else champion.version
    compared = {key: value for key, value in version.tags.items() if key.startswith("compared_")}
    _move(command, version, current, escaped(command.options["why"]), compared)
    _accept_data(version)
    return 0


def rollback(command: Command) -> int:
    """Makes the version champion that was champion before."""
    from infra.tracking import champions, registry

    connect(command, "s3", "mlflow")
    name = command.objects[0]
    champion = registry.resolve_version(f"{name}@{registry.CHAMPION}")
    history = champions.read_history(command.config.storage, name)
    if history and history[-1].new not in (None, champion.version):  # moved in MLflow's page since
        previous = registry.resolve_version(f"{name}/{history[-1].new}")
    elif (earlier := registry.find_alias(name, champions.PREVIOUS)) is not None:
        previous = earlier
    else:
        raise ConfigError(
            f"{name} had no champion before version {champion.version}; to make another version champion: "
            f"effnet promote {name}/VERSION --why TEXT"
        )
    if previous.version == champion.version:
        raise ConfigError(f"version {champion.version} of {name} is both champion and previous; use effnet promote")
    why = f"rollback of version {champion.version}"
    if "why" in command.options:
        why += f": {escaped(command.options['why'])}"
    _move(command, previous, champion.version, why)
    _accept_data(previous)
    _withdraw_data(champion, previous, why)
    return 0


def _withdraw_data(version: Version, champion: Version, why: str) -> None:
    """Refuses the images that a version which was taken back has added to its data; says what is withheld."""
    from tasks.nights.start import withdraw_data

    try:
        said = withdraw_data(version, champion, why)
    except EffnetError as error:
        said = f"its data stay accepted, and the next night trains on them again: {first_line(error)}"
    if said:
        show(said)


def _accept_data(version: Version) -> None:
    """Accepts the images that a version was trained on, which a night may have refused together with it."""
    from tasks.nights.start import accept_data

    try:
        accepted = accept_data(version)
    except EffnetError as error:
        show(f"whether its data were refused is not known, the next night accepts them: {first_line(error)}")
        return
    if accepted:
        show(f"its data {accepted}, which a night had refused or not judged, are accepted")


def _move(
    command: Command, version: Version, expected: int | None, why: str, evidence: Mapping[str, str] | None = None
) -> None:
    from infra.tracking import champions, registry
    from tasks.registry.family import describe_family
    from tasks.registry.verdict import complete_promotion, record_manual_promotion

    if expected is not None:
        complete_promotion(registry.resolve_version(f"{version.name}/{expected}"))
    ref = f"{version.name}/{version.version}"
    move = champions.move_champion(
        command.config.storage, version.name, version.version, expected=expected, why=why, evidence=evidence
    )
    if move is None:
        raise ConfigError(f"another process has changed the champion of {version.name} in the meantime; run again")
    record_manual_promotion(version, move)
    describe_family(version.name)
    was = "there was none" if move.old is None else f"it was {version.name}/{move.old}, now @{champions.PREVIOUS}"
    show(f"champion of {version.name} is {ref}; {was}")
