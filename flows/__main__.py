"""The ``effnet`` command: compose the configuration, call a flow, say what came of it.

Modules are imported by the functions that use them, so that ``effnet --help`` answers immediately.
"""

from __future__ import annotations

import argparse
import atexit
import difflib
import gc
import importlib
import io
import itertools
import os
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from conf import compose
from conf.overrides import NO_SETTING, find_mistake
from conf.text import did_you_mean, list_some, printable
from flows.cli import completion, help_text, signals, verbs
from flows.cli.command import FLAGS, Command
from infra.errors import EffnetError

ABOUT = """\
EfficientNet (Tan & Le, 2019) as a pipeline: shard, search, train B0 to B7,
transfer, register, report. By default it runs on this machine alone: object
store, Prefect and MLflow are started on 127.0.0.1."""

EPILOG = """\
Settings are words key=value after the verb: effnet train model=b3
The same command again finds what is done and continues what is not.

exit codes:
  0 done | 1 a job failed | 2 a mistake in the request | 3 data | 4 diverged
  5 damaged checkpoint or model | 6 nothing valid to resume
  7 made by another job | 8 preempted, saved | 9 hung | 10 out of memory
  11 below runtime.stop_below | 74 output not written
  75 a service did not answer | 130 interrupted"""

# Options of programs that Hydra runs, which effnet's users may know.
_OF_HYDRA = {
    ("m", "multirun"): "a command has one value of each setting: run it once for each value",
    ("c", "cfg", "info", "resolve", "hydra-help"): (
        "`effnet config KEY=VALUE` prints the settings, with --why their places"
    ),
    ("cd", "config-dir", "cn", "config-name", "cp", "config-path"): (
        "files of settings are those of conf/, chosen as profile=NAME; all others are words KEY=VALUE"
    ),
}
_FEW = 9  # verbs that a message names


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code (``infra/errors.py``, ``flows/cli/signals.py``)."""
    signals.handle()
    _collect_less_garbage()
    _reset_warnings()
    if isinstance(sys.stdout, io.TextIOWrapper):  # PYTHONIOENCODING or the locale may lack characters of names
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error
    try:
        try:
            return _main(_translate(sys.argv[1:] if argv is None else argv))
        finally:
            if sys.stdout is not None:  # the caller may have closed it
                sys.stdout.flush()  # not at the end of the interpreter, where nobody handles an error
    except KeyboardInterrupt as stop:
        return signals.leave(stop)
    except BrokenPipeError as error:
        return signals.leave_output(error)
    except OSError as error:
        return signals.report_lost_output(error)


def _collect_less_garbage() -> None:
    """Spares the imports of Prefect, MLflow and torch, and the end of the interpreter, to look through all objects."""
    gc.set_threshold(50_000, 10, 10)
    atexit.register(gc.freeze)


def _reset_warnings() -> None:
    """Undoes PYTHONWARNINGS, which Python has read: with ``error`` Prefect and MLflow fail at warnings of their own."""
    if "PYTHONWARNINGS" in os.environ:
        sys.warnoptions.clear()  # else processes of this one would inherit them
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)  # as Python does without options


def _main(words: Sequence[str]) -> int:
    if tuple(words[:2]) == completion.WORDS:
        print("\n".join(completion.complete(words[2:])))
        return 0
    if words and words[0].partition(" ")[0] in verbs.VERBS and words[0] not in verbs.VERBS:
        return _fail(f"{words[0]!r} is one word: write the command without quotes around it", 2)
    if words and not words[0].startswith("-") and words[0] not in verbs.VERBS:
        if "=" in words[0]:
            return _fail(f"a verb comes first, as in effnet train {words[0]}; `effnet --help` lists them", 2)
        hint = did_you_mean(words[0], verbs.VERBS)
        return _fail(" ".join(filter(None, [f"no verb {words[0]!r};", hint, "`effnet --help` lists them"])), 2)
    arguments, rest = _parser().parse_known_args(words)
    typed = [*arguments.overrides, *(word for word in rest if not word.startswith("-"))]  # those after an option
    verb = verbs.VERBS[arguments.verb]
    given = {name: getattr(arguments, name.replace("-", "_")) for name in verb.options}
    options = {name: value for name, value in given.items() if value}
    mistakes = [_explain_option(arguments.verb, word, words) for word in rest if word.startswith("-")]
    for name, (value, effect) in verb.options.items():
        if name not in options and not value.startswith("["):
            mistakes.append(f"effnet {arguments.verb} needs --{name} {value}: {effect}")
    if mistakes:  # those of the settings are told with them
        return _fail("; ".join([*mistakes, *_find_wrong_settings(typed)]), 2)
    flags = [flag for flag in FLAGS if getattr(arguments, flag.replace("-", "_"), False)]
    try:
        command = _command(arguments.verb, typed, flags)
        switches = frozenset(name for name in verb.switches if getattr(arguments, name.replace("-", "_")))
        command = replace(command, json=getattr(arguments, "json", False), quiet=getattr(arguments, "quiet", False))
        command = replace(command, switches=switches, options=options)
        from infra.environment import use_cache
        from infra.store import files

        with use_cache(command.run_dir), nullcontext() if verb.shared else files.private(command.run_dir):
            if getattr(arguments, "dry_run", False):
                _warn_of_unread(command)
                return _call(verb.dry_run, command)
            if verb.manage and (options or switches):
                return _call(verb.manage, command)
            return _run_flow(command) if verb.flow else _call(verb.call, command)
    except compose.OverrideError as error:
        return _fail(str(error), 2)
    except EffnetError as error:
        return _fail(str(error), error.exit_code)


def _warn_of_unread(command: Command) -> None:
    """Says which settings have no effect, as the command itself does, or refuses them."""
    from flows.cli import unread

    if verbs.VERBS[command.verb].flow:
        unread.refuse_unread_network(command.verb, command.overrides)
        for line in unread.describe_unread(command.verb, command.overrides):
            sys.stderr.write(f"warning: {printable(line)}\n")


def _translate(argv: Sequence[str]) -> Sequence[str]:
    """Other usual ways to ask for help and for the version, as options."""
    first = argv[0] if argv else "help"
    return {"help": [*argv[1:2], "--help"], "version": ["--version"]}.get(first, argv)


def _explain_option(verb: str, option: str, words: Sequence[str]) -> str:
    """Names the verbs that have an option; one that none has is a setting: ``--model b3`` is ``model=b3``.

    Args:
        verb: Verb of the command.
        option: The option, which the verb does not have.
        words: All words of the command.
    """
    name, equals, value = option.lstrip("-").partition("=")
    if takers := [other for other in verbs.VERBS if name in _list_options(other)]:
        return f"effnet {verb} has no option --{name}, which belongs to effnet {list_some(takers, _FEW)}"
    if not equals:
        after = next((word for before, word in itertools.pairwise(words) if before == option), "")
        value = "VALUE" if not after or "=" in after or after.startswith("-") else after
    if value in {*verbs.VERBS[verb].options, *verbs.VERBS[verb].switches}:  # as --format onnx for --onnx FILE
        return f"no option {option!r}; did you mean --{value}?"
    if (hint := next((hint for names, hint in _OF_HYDRA.items() if name in names), None)) is not None:
        return f"no option {option!r}; {hint}"
    options = _list_options(verb)
    close = [known for known in options if name and known.startswith(name)]
    if close := close or difflib.get_close_matches(name, options, n=1, cutoff=0.8):
        return f"no option {option!r}; did you mean --{close[0]}?"
    name = name.replace("-", "_")
    mistake = find_mistake(f"{name}={value}") or ""
    if mistake.startswith(NO_SETTING):
        return f"no option {option!r}, and {mistake}"
    return f"no option {option!r}; settings are written without dashes: {name}={value}"


def _list_options(verb: str) -> list[str]:
    """The options of a verb, without dashes."""
    entry = verbs.VERBS[verb]
    common = {"json": bool(entry.flow or entry.json), "quiet": bool(entry.flow), "dry-run": bool(entry.dry_run)}
    flags = FLAGS if entry.trains else {}
    return [*entry.options, *entry.switches, *(name for name, is_taken in common.items() if is_taken), *flags]


def _find_wrong_settings(words: Sequence[str]) -> list[str]:
    """The mistakes in the settings of a command that is refused for another reason; other words may be of options."""
    try:
        compose.compose([word for word in words if "=" in word])
    except compose.OverrideError as error:
        return [str(error)]
    return []


def _fail(message: str, code: int) -> int:
    if sys.stderr is not None:  # the caller may have closed it
        sys.stderr.write(f"error: {printable(message)}\n")
    return code


def _command(verb: str, words: Sequence[str], flags: Sequence[str]) -> Command:
    """Separates a verb's objects from its settings, and composes these.

    Raises:
        OverrideError: A setting is wrong, an object is missing or superfluous, or the working folder is gone.
    """
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise compose.OverrideError("the working folder no longer exists; change to one that does") from error
    names = verbs.VERBS[verb].objects
    objects = [word for word in words if "=" not in word] if names else []
    if len(objects) > len(names) or len(objects) < sum(not name.startswith("[") for name in names):
        given = f"{len(objects)} given" + (f": {' '.join(objects)}" if objects else "")
        raise compose.OverrideError(f"effnet {verb} takes {' '.join(names)}; {given}; see effnet {verb} --help")
    overrides = [word for word in words if word not in objects]
    overrides += [f"runtime.{flag.replace('-', '_')}=true" for flag in flags]
    return Command(verb, tuple(objects), overrides, compose.compose(overrides))


def _call(function: str, command: Command) -> int:
    module, _, name = function.partition(":")
    code: int = getattr(importlib.import_module(module), name)(command)
    return code


def _run_flow(command: Command) -> int:
    from flows.cli import prepare, progress, session, summary
    from infra.environment import check_torch
    from infra.services import stack

    needs, config = verbs.VERBS[command.verb].needs, command.config
    if needs is not None and compose.read_setting(config, needs[0]) is None:
        key, example = needs
        raise compose.OverrideError(f"{command.verb} needs {key}=..., e.g. {key}={example}")
    check_torch(os.environ)
    prepare.confirm_budget(command)
    began = time.time()
    names = [name.strip("[]").lower() for name in verbs.VERBS[command.verb].objects]
    parameters: dict[str, Any] = dict(zip(names, command.objects, strict=False))
    if command.verb == "reproduce":
        parameters["began"] = began
    with progress.attach(command.quiet):
        result = session.run(command.verb, config, command.overrides, **parameters)
    seconds = time.time() - began
    if command.json:
        print(summary.to_json(result))
    else:
        print(summary.block(result, config, stack.prepare(command.run_dir, config.services), seconds))
    return summary.exit_code(result)


class _Parser(argparse.ArgumentParser):
    """argparse repeats an unknown word as it is, and its message is two lines."""

    def error(self, message: str) -> NoReturn:
        sys.exit(_fail(message, 2))

    def _print_message(self, message: str, file: Any = None) -> None:
        """As argparse's, which ignores that an output cannot be written."""
        (file or sys.stderr).write(message)


class _Version(argparse.Action):
    """Prints the version, which is read from files, so not on every command."""

    def __call__(self, *_: Any) -> NoReturn:
        from infra import machine

        print(f"effnet {metadata.version('effnet')} {machine.commit()}".rstrip())
        sys.exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="effnet",
        usage="effnet [-h] [-V] VERB [key=value ...]",
        allow_abbrev=False,
        description=f"{ABOUT}\n\n{help_text.list_verbs()}",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-V", "--version", action=_Version, nargs=0, help="print the version and the commit, and exit")
    parsers = parser.add_subparsers(
        dest="verb", metavar="VERB", required=True, prog=parser.prog, help=argparse.SUPPRESS
    )
    for name, verb in verbs.VERBS.items():
        sub = parsers.add_parser(
            name,
            usage=help_text.usage(name),
            allow_abbrev=False,
            description=help_text.describe(verb),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("overrides", nargs="*", help=argparse.SUPPRESS)
        for name, effect in verb.switches.items():
            sub.add_argument(f"--{name}", action="store_true", help=effect)
        for option, (value, effect) in verb.options.items():
            sub.add_argument(f"--{option}", metavar=value.strip("[]"), help=effect)
        if verb.flow or verb.json:
            sub.add_argument("--json", action="store_true", help="print the result as JSON")
        if verb.flow:
            sub.add_argument("--quiet", action="store_true", help="print no progress, only warnings and the result")
        if verb.dry_run:
            sub.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")
        for flag, effect in FLAGS.items() if verb.trains else ():
            sub.add_argument(f"--{flag}", action="store_true", help=effect)
    return parser


if __name__ == "__main__":
    sys.exit(main())
