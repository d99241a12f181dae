"""The ``effnet`` command: compose the configuration, call a flow, say what came of it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from conf import compose, schema
from flows import display, help_text, outcome, signals
from infra import files
from infra.errors import EffnetError

FLOWS = ("reproduce", "study", "shard", "search", "architecture", "scaling", "train", "evaluate", "transfer",
         "explain", "latency", "nightly", "import", "report")  # fmt: skip

TRAINS = ("reproduce", "study", "search", "architecture", "scaling", "train", "transfer", "explain", "nightly")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code (``infra/errors.py``, ``flows/signals.py``)."""
    signals.handle()
    arguments = _parser().parse_args(argv)
    overrides = arguments.overrides
    for flag in help_text.FLAGS:
        if getattr(arguments, flag.replace("-", "_"), False):
            overrides = [*overrides, f"runtime.{flag.replace('-', '_')}=true"]
    if arguments.verb == "download":  # the one verb with an object: `effnet download cifar10 data.path=FOLDER`
        overrides = [word if "=" in word else f"data={word}" for word in overrides]
    try:
        config = compose.compose(overrides)
        # A data set that is downloaded may be for others; all else that we write is the user's own.
        with nullcontext() if arguments.verb == "download" else files.private(Path(config.run_dir).resolve()):
            return _run(arguments.verb, config, overrides)
    except compose.OverrideError as error:
        return _fail(str(error), 2)
    except EffnetError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt as stop:
        return signals.leave(stop)


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"error: {message}\n")
    return code


def _run(verb: str, config: schema.Config, overrides: list[str]) -> int:
    if verb in FLOWS:
        return _run_flow(verb, config, overrides)
    from infra import local

    run_dir = Path(config.run_dir).resolve()
    if verb == "plan":
        from tasks import plan

        for line in plan.lines(config):
            print(line, flush=True)
        return 0
    if verb == "download":
        from models.data import download

        download.download(config.data, print)
        return 0
    if verb == "doctor":
        from infra import doctor
        from models.data import decode

        return doctor.main(config, decode.backends())
    if verb == "up":
        local.up(run_dir, config.services, jobs_at_once=config.launch.jobs_at_once, say=print)
        print(outcome.services(local.prepare(run_dir, config.services)))
    else:
        stopped = local.down(run_dir)
        print(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")
    return 0


def _run_flow(verb: str, config: schema.Config, overrides: list[str]) -> int:
    from flows import session
    from infra import local

    if verb == "import" and config.published.path is None:
        raise compose.OverrideError(
            "import needs published.path=FILE, e.g. published.path=efficientnet-b0-355c32eb.pth"
        )
    if verb == "evaluate" and config.model_ref is None:
        raise compose.OverrideError("evaluate needs model_ref=NAME@ALIAS, e.g. model_ref=efficientnet-b0@champion")
    began = time.time()
    parameters = {"began": began} if verb == "reproduce" else {}
    with display.attach():
        result = session.run(verb, config, overrides, **parameters)
    seconds = time.time() - began
    addresses = local.prepare(Path(config.run_dir).resolve(), config.services)
    print(outcome.block(result, config, addresses, seconds))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="effnet", description=help_text.ABOUT, epilog=help_text.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, (summary, details) in help_text.VERBS.items():
        sub = verbs.add_parser(
            verb, help=summary, description=f"{summary}\n\n{details}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        sub.add_argument("overrides", nargs="*", metavar="key=value", help="settings, in any order")
        for flag, about in help_text.FLAGS.items() if verb in TRAINS else ():
            sub.add_argument(f"--{flag}", action="store_true", help=about)
    return parser


if __name__ == "__main__":
    sys.exit(main())
