"""The verbs that move the alias of a registered model by hand: promote and rollback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from conf.text import escaped
from flows.cli.command import Command, print_json
from flows.cli.services import connect
from infra.errors import ConfigError, EffnetError, first_line

if TYPE_CHECKING:
    from infra.tracking.champions import AliasMove
    from infra.tracking.registry import Version


def promote(command: Command) -> int:
    """Makes a version champion, whatever its verdict was, and records why."""
    from infra.tracking import registry

    connect(command, "s3", "mlflow")
    version = registry.resolve_version(command.objects[0])
    registry.require_model_of_effnet(version.name)  # whose description and tags change with its champion
    champion = registry.champion(version.name)
    if champion is not None and champion.version == version.version:
        command.say(f"{version.name}/{version.version} is champion already")
        notes = _accept_data(version)  # which an earlier command may not have come to
        return _finish(command, version, None, notes)
    current = None if champion is None else champion.version
    compared = {key: value for key, value in version.tags.items() if key.startswith("compared_")}
    move = _move(command, version, current, escaped(command.options["why"]), compared)
    return _finish(command, version, move, _accept_data(version))


def rollback(command: Command) -> int:
    """Makes the version champion that was champion before."""
    from infra.tracking import champions, registry

    connect(command, "s3", "mlflow")
    name = command.objects[0]
    champion = registry.resolve_version(f"{name}@{registry.CHAMPION}")
    registry.require_model_of_effnet(name)
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
    move = _move(command, previous, champion.version, why)
    notes = _accept_data(previous)
    return _finish(command, previous, move, [*notes, *_withdraw_data(champion, previous, why)])


def _finish(command: Command, version: Version, move: AliasMove | None, notes: list[str]) -> int:
    """Prints the notes, and with ``--json`` the result: the champion, and the move that made it, if one was needed."""
    for note in notes:
        command.say(note)
    if command.json:
        moved = {"previous": move.old, "who": move.who, "when": move.when, "why": move.why} if move is not None else {}
        of_move = {"previous": None, "who": None, "when": None, "why": None} | moved
        champion = {"name": version.name, "champion": version.version, "moved": move is not None}
        print_json(champion | of_move | {"notes": notes})
    return 0


def _withdraw_data(version: Version, champion: Version, why: str) -> list[str]:
    """Refuses the images that a version which was taken back has added to its data; says what is withheld."""
    from tasks.nights.start import withdraw_data

    try:
        said = withdraw_data(version, champion, why)
    except EffnetError as error:
        said = f"its data stay accepted, and the next night trains on them again: {first_line(error)}"
    return [said] if said else []


def _accept_data(version: Version) -> list[str]:
    """Accepts the images that a version was trained on, which a night may have refused with it; says which."""
    from tasks.nights.start import accept_data

    try:
        accepted = accept_data(version)
    except EffnetError as error:
        return [f"whether its data were refused is not known, the next night accepts them: {first_line(error)}"]
    return [f"its data {accepted}, which a night had refused or not judged, are accepted"] if accepted else []


def _move(
    command: Command, version: Version, expected: int | None, why: str, evidence: Mapping[str, str] | None = None
) -> AliasMove:
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
    command.say(f"champion of {version.name} is {ref}; {was}")
    return move
