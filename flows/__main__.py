"""The ``effnet`` command: compose the configuration, call a flow, say what came of it.

Modules are imported by the functions that use them, so that ``effnet --help`` answers immediately.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from conf import compose, schema
from conf.text import did_you_mean, printable
from flows.cli import signals, verbs
from infra.errors import ConfigError, EffnetError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code (``infra/errors.py``, ``flows/cli/signals.py``)."""
    signals.handle()
    words = _translate(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-") and words[0] not in verbs.VERBS:
        hint = did_you_mean(words[0], verbs.VERBS)
        return _fail(" ".join(filter(None, [f"no verb {words[0]!r};", hint, "`effnet --help` lists them"])), 2)
    arguments, unknown = _parser().parse_known_args(words)
    if unknown:
        return _fail(_explain_options(unknown, arguments.overrides), 2)
    overrides = arguments.overrides
    for flag in verbs.FLAGS:
        if getattr(arguments, flag.replace("-", "_"), False):
            overrides = [*overrides, f"runtime.{flag.replace('-', '_')}=true"]
    if arguments.verb == "download":  # the one verb with an object: `effnet download cifar10 data.path=FOLDER`
        overrides = [word if "=" in word else f"data={word}" for word in overrides]
    page = ""
    if arguments.verb == "open":  # `effnet open mlflow`
        page = next((word for word in overrides if "=" not in word), "")
        overrides = [word for word in overrides if word != page]
    try:
        config = compose.compose(overrides)
        from infra.store import files

        # A data set that is downloaded may be for others; all else that we write is the user's own.
        with nullcontext() if arguments.verb == "download" else files.private(Path(config.run_dir).resolve()):
            return _open(page, config) if arguments.verb == "open" else _run(arguments.verb, config, overrides)
    except compose.OverrideError as error:
        return _fail(str(error), 2)
    except EffnetError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt as stop:
        return signals.leave(stop)


def _translate(argv: Sequence[str]) -> Sequence[str]:
    """Other usual ways to ask for help and for the version, as options."""
    first = argv[0] if argv else "help"
    return {"help": [*argv[1:2], "--help"], "version": ["--version"]}.get(first, argv)


def _explain_options(unknown: Sequence[str], overrides: Sequence[str]) -> str:
    """Says how an option that does not exist is written as a setting: ``--model b3`` is ``model=b3``."""
    key, equals, value = unknown[0].lstrip("-").partition("=")
    if not equals:
        value = next((word for word in overrides if "=" not in word), "VALUE")
    return f"no option {unknown[0]!r}; settings are written without dashes: {key}={value}"


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"error: {printable(message)}\n")
    return code


def _print(line: str) -> None:
    print(printable(line), flush=True)


def _open(page: str, config: schema.Config) -> int:
    from infra.services import stack

    for line in stack.open_in_browser(Path(config.run_dir).resolve(), config.services, page).splitlines():
        _print(line)
    return 0


def _run(name: str, config: schema.Config, overrides: list[str]) -> int:
    if verbs.VERBS[name].flow:
        return _run_flow(name, config, overrides)
    return {
        "plan": _plan,
        "download": _download,
        "doctor": _doctor,
        "env": _print_environment,
        "up": _up,
        "down": _down,
    }[name](config, overrides)


def _plan(config: schema.Config, _: list[str]) -> int:
    from tasks import plan

    for line in plan.lines(config):
        _print(line)
    return 0


def _download(config: schema.Config, _: list[str]) -> int:
    from models.data.sources import download

    download.download(config.data, _print)
    return 0


def _doctor(config: schema.Config, _: list[str]) -> int:
    from infra import doctor
    from models.data.loading import decode
    from models.data.sources import catalog

    return doctor.main(config, decode.backends(), catalog.packaged())


def _up(config: schema.Config, overrides: list[str]) -> int:
    from flows import configure
    from flows.cli import summary
    from infra.services import stack

    run_dir = Path(config.run_dir).resolve()
    os.environ.update(configure.worker_environment(config, overrides))
    stack.up(run_dir, config.services, jobs_at_once=config.launch.jobs_at_once, say=_print)
    if line := configure.kept_settings(run_dir):
        _print(line)
    print(summary.services(stack.prepare(run_dir, config.services), config.services))
    return 0


def _down(config: schema.Config, _: list[str]) -> int:
    from infra.services import stack

    stopped = stack.down(Path(config.run_dir).resolve())
    print(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")
    return 0


def _print_environment(config: schema.Config, overrides: list[str]) -> int:
    """Prints what makes Prefect, MLflow and boto3 of a shell use our services: ``eval "$(effnet env)"``."""
    from flows import configure
    from infra.services import stack

    run_dir = Path(config.run_dir).resolve()
    states = stack.status(run_dir, config.services)
    usable = ("running", "yours")
    if stopped := [name for name, state in states.items() if name != "worker" and not state.startswith(usable)]:
        raise ConfigError(f"not running in {run_dir}: {', '.join(stopped)}; start the services by `effnet up`")
    environment = stack.environment(run_dir, config.services) | configure.worker_environment(config, overrides)
    for name, value in sorted(environment.items()):
        print(f"export {name}={shlex.quote(value)}")
    return 0


def _run_flow(name: str, config: schema.Config, overrides: list[str]) -> int:
    from flows.cli import progress, session, summary
    from infra.services import stack

    verb = verbs.VERBS[name]
    if verb.needs is not None and compose.read_setting(config, verb.needs[0]) is None:
        key, example = verb.needs
        raise compose.OverrideError(f"{name} needs {key}=..., e.g. {key}={example}")
    began = time.time()
    parameters = {"began": began} if name == "reproduce" else {}
    with progress.attach():
        result = session.run(name, config, overrides, **parameters)
    seconds = time.time() - began
    addresses = stack.prepare(Path(config.run_dir).resolve(), config.services)
    print(summary.block(result, config, addresses, seconds))
    return 0


class _Parser(argparse.ArgumentParser):
    """argparse repeats an unknown word as it is, and its message is two lines."""

    def error(self, message: str) -> NoReturn:
        sys.exit(_fail(message, 2))


class _Version(argparse.Action):
    """Prints the version, which is read from files, so not on every command."""

    def __call__(self, *_: Any) -> NoReturn:
        from infra import machine

        print(f"effnet {metadata.version('effnet')} {machine.commit()}".rstrip())
        sys.exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="effnet",
        allow_abbrev=False,
        description=verbs.ABOUT,
        epilog=verbs.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and the commit, and exit")
    parsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, verb in verbs.VERBS.items():
        sub = parsers.add_parser(
            name,
            allow_abbrev=False,
            help=verb.summary,
            description=f"{verb.summary}\n\n{verb.details}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("overrides", nargs="*", metavar="key=value", help="settings, in any order")
        for flag, effect in verbs.FLAGS.items() if verb.trains else ():
            sub.add_argument(f"--{flag}", action="store_true", help=effect)
    return parser


if __name__ == "__main__":
    sys.exit(main())
