"""Runs one command: starts the services, runs the flow, and stops what it started if interrupted."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conf import schema
from conf.text import logger
from flows import configure
from flows.cli import given_files, signals, unread, working_folder
from flows.cli.verbs import VERBS
from infra import environment, store
from infra.errors import ConfigError, EffnetError, TransientError, first_line
from infra.launch import workpool
from infra.launch.engine import ENGINES
from infra.launch.job import JobSpec
from infra.services import flow_runs, prefect_api, stack
from infra.services.programs import TAG
from infra.store import files
from tasks.batches import check_batches

log = logger()
_SEND_S = 5.0

# Prefect uses the same log as effnet; its console handler would print every line twice. Its internal log prints each
# event that a stopped server does not take, a screen of text every half minute.
QUIET = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


def run(verb: str, config: schema.Config, overrides: list[str], **parameters: Any) -> Any:
    """Runs one flow on its services and returns its result.

    The services that this call started are stopped again if it is interrupted; after a good or a failed run
    they keep running, so that the user can inspect the result.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; everything started here has ended (``flows/cli/signals.py``).
        EffnetError: The error of the flow or of a service.
    """
    log.info("effnet %s: checking the settings, then the services", verb)
    unread.refuse_unread_network(verb, overrides)
    for line in unread.describe_unread(verb, overrides):
        log.warning("%s", line)
    if dropped := environment.describe_dropped(os.environ):
        log.info("%s", dropped)
    environment.clean(os.environ, config.services)  # before anything imports torch, which reads its variables then
    _check_early(verb, config)
    began, run_dir = time.monotonic(), Path(config.run_dir).resolve()
    is_checked = _check_places(verb, config, run_dir)
    for_worker = configure.worker_environment(config, configure.select_places(overrides))
    stack.connect(run_dir, config.services)
    os.environ.update(QUIET | for_worker)
    started: Collection[str] = ()
    # Importing Prefect takes seconds; the services take theirs meanwhile. They start in the main thread, the
    # only one that Ctrl-C reaches: `up` then stops again what it has started.
    module, _, name = VERBS[verb].flow.partition(":")
    imported = ThreadPoolExecutor(1).submit(_import_flow, module, config.services)
    try:
        started = stack.up(
            run_dir, config.services, jobs_at_once=config.launch.jobs_at_once, say=log.info, only=_needed(verb, config)
        ).names
        stack.check(config.services, config.storage)
        if not is_checked:
            _check_places(verb, config, run_dir)
        if config.launch.engine == "workpool":
            workpool.check_server()
        ready = f"services ready after {time.monotonic() - began:.0f} s" if started else "services are running"
        log.info("%s; loading the flow", ready)
        flow = getattr(imported.result(), name)
        try:
            return signals.run_flow(_run_labelled(flow, overrides=overrides, **parameters))
        except Exception as error:
            from flows.failures import explain_prefect

            if (known := explain_prefect(error)) is None:
                raise
            raise known from error
    except (KeyboardInterrupt, asyncio.CancelledError) as stop:
        with signals.deferred():
            if "prefect" in started:
                _send_to_prefect()
            stopped = stack.down(run_dir, only=started, say=log.info)
        if stopped:
            log.info("stopped %s, which this command had started", ", ".join(stopped))
        if isinstance(stop, KeyboardInterrupt):
            raise
        raise KeyboardInterrupt from None
    finally:
        wait([imported])  # a Prefect whose import is not done at the end of the process prints an error of its own


def _import_flow(module: str, services: schema.Services) -> Any:
    if services.prefect == "embedded":
        working_folder.ignore_prefect_files()
    return importlib.import_module(module)


def _send_to_prefect() -> None:
    """Sends what Prefect's client still holds of logs and events.

    At the end of this process it would try to reach the stopped server for a minute, and print an error of its own.
    """
    for module, name in (("prefect.logging.handlers", "APILogWorker"), ("prefect.events.worker", "EventsWorker")):
        if (imported := sys.modules.get(module)) is not None:
            getattr(imported, name).drain_all(timeout=_SEND_S)


async def _run_labelled(flow: Any, **parameters: Any) -> Any:
    """Runs a flow with the tag of effnet, and with the labels by which ``effnet cancel`` finds this process."""
    from prefect import tags

    with tags(TAG):
        return await flow.with_options(on_running=[*flow.on_running_hooks, _label])(**parameters)


def _label(_flow: Any, run: Any, _state: Any) -> None:
    try:
        flow_runs.label(prefect_api.from_environment(os.environ), str(run.id))
    except EffnetError as error:
        log.warning("`effnet cancel` cannot end this command, Ctrl-C can: %s", first_line(error))


def _check_early(verb: str, config: schema.Config) -> None:
    """Refuses before services start, which takes seconds, what the flow would refuse after it with the same message.

    It must not import Prefect, which reads its variables at that moment.

    Raises:
        ConfigError: As ``check_settings``, ``check_network`` and ``check_prefect_settings``, or an engine that is not
            available.
        DataError: As ``check_settings``.
        NotFoundError: As ``check_settings``.
    """
    environment.check_network(os.environ)
    if config.services.prefect != "embedded":
        working_folder.check_prefect_settings(os.environ)
    check_settings(verb, config)
    if _starts_jobs(verb):
        ENGINES[config.launch.engine].check(config.launch)


def _check_places(verb: str, config: schema.Config, run_dir: Path) -> bool:
    """Refuses remote data sets of which nothing is there; returns False if that needs the store, which does not run.

    The images of a night are judged by its flow, which records it.

    Raises:
        ConfigError: Nothing is there, or the object store refuses the bucket or the credentials.
        TransientError: The object store or server does not respond.
    """
    is_remote = {
        "data": VERBS[verb].opens_data,
        "transfer.data": verb in ("reproduce", "transfer") and not config.transfer.sets,
    }
    given = {"data": config.data, "transfer.data": config.transfer.data}
    remote = {key: given[key] for key, is_read in is_remote.items() if is_read and "://" in str(given[key].path)}
    if not remote:
        return True
    in_store = any(f"{data.path} {data.val_path}".count("s3://") for data in remote.values())
    if in_store and not stack.connect_if_running(run_dir, config.services, "s3"):
        return False
    from models.data.sources import catalog

    for key, data in remote.items():
        is_embedded = config.services.s3 == "embedded" and "s3://" in f"{data.path} {data.val_path}"
        hint = "; services.s3=embedded is a store of this run folder, services.s3=aws is Amazon's" * is_embedded
        with _named(key, hint):
            catalog.check_place(data)
        if catalog.is_small_folder(data):  # a large one takes long to list: its flow does that, and refuses the rest
            with _named(key):
                _check_images(data, one_class=VERBS[verb].takes_one_class)
    return True


@contextmanager
def _named(key: str, hint: str = "") -> Iterator[None]:
    """Adds the settings that data are of to an error about them, unless they are ``data``, and a hint."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{'' if key == 'data' else f'{key}: '}{error}{hint}") from error


def _starts_jobs(verb: str) -> bool:
    return VERBS[verb].trains or verb == "evaluate"


def check_settings(verb: str, config: schema.Config) -> None:
    """Refuses settings with which a command would fail on any machine that has its files.

    Raises:
        ArtifactError: Weights are damaged, or fit no network of effnet.
        ConfigError: A missing ``data.path`` or file, weights or an address that are not read, a folder whose images
            cannot be used or whose classes are ambiguous, an unknown network or one that cannot have so few pixels, a
            batch that the processes cannot share, a grid without points, unusable sets or points, or the setting
            ``register`` for a verb that does not read it.
        DataError: An archive of images is damaged.
        NotFoundError: The Python package of a public network is not installed.
    """
    if config.register is not None and not VERBS[verb].registers:
        registering = ", ".join(name for name, other in VERBS.items() if other.registers)
        raise ConfigError(f"register is for effnet {registering}, not for effnet {verb}")
    check_batches(verb, config)
    if _starts_jobs(verb):
        engine, uri = ENGINES[config.launch.engine], store.join(config.storage, "jobs", "KEY")
        # Every job has these paths: one that cannot be written into a script is refused here, not after sharding.
        engine.describe(JobSpec("KEY", verb, "models.train", uri, config.launch, Path(config.run_dir).resolve()))
    given_files.check_files(verb, config)
    if verb in ("reproduce", "transfer"):
        from models.experiments.transfer import check_sets

        check_sets(config.transfer)
    if verb == "transfer":
        from models.experiments.transfer import check_source

        check_source(config)
    if verb == "gate":
        from models.experiments.full_run import check_request

        check_request(config)
    if verb in ("scaling", "study"):
        from models.experiments.scaling_study import check_points

        check_points(config.scaling)
    if verb in ("latency", "study"):
        from models.experiments.latency import list_networks

        list_networks(config.latency)
    if verb == "linear":
        from models.networks.packaged import check_networks

        check_networks(config.linear)
    given_files.check_packaged(verb, config)
    if verb == "import":
        given_files.check_weights(config.published)
    if verb in ("architecture", "study") and config.architecture.storage is not None:
        from infra.trials import check_address

        check_address(config.architecture.storage)
    _check_networks(verb, config)
    _check_data_sets(verb, config)  # last: a large folder takes seconds


def _check_networks(verb: str, config: schema.Config) -> None:
    """Raises for networks that a verb trains and that do not exist, or cannot have so few pixels."""
    from models.experiments.scaling_study import network_of, network_of_entry

    trained: dict[str, Sequence[schema.Model]] = {"train": [config.model], "search": [config.model]}
    if config.model_ref is None and config.transfer.network is None:
        trained["transfer"] = [config.model]
    trained["scaling"] = trained["study"] = [network_of(config.model, point) for point in config.scaling.points]
    trained["explain"] = trained["reproduce"] = [
        network_of_entry(config.explain.model, entry) for entry in config.explain.models if entry.registered is None
    ]
    if verb == "reproduce":
        from models.networks.build import check_names

        check_names("variants", config.variants)
    for model in trained.get(verb, ()):
        from models.networks.baselines import BASELINES
        from models.networks.build import resolve_architecture

        if model.name not in BASELINES:
            resolve_architecture(model)  # also refuses an unknown name


def _check_data_sets(verb: str, config: schema.Config) -> None:
    """Raises for data sets that the flow of a verb would refuse."""
    _refuse_unread_paths(verb, config)
    if VERBS[verb].opens_data or (verb == "gate" and config.data.path is not None):
        _check_data(config.data, one_class=VERBS[verb].takes_one_class)
    if verb == "nightly" or (verb in ("reproduce", "transfer") and not config.transfer.sets):
        with _named("transfer.data"):
            # The images of a night are judged by its flow, which records and reports the night if they are refused.
            _check_path(config.transfer.data) if verb == "nightly" else _check_data(config.transfer.data)


def check_given_paths(verb: str, config: schema.Config) -> None:
    """Refuses a path of a command's data sets that cannot be read, for a plan: it needs no path and opens no archive.

    Raises:
        ConfigError: The path does not exist, also in an object store that runs, is an address that is not read, or is a
            folder that is refused.
    """
    _refuse_unread_paths(verb, config)
    given = [config.data] if VERBS[verb].opens_data else []
    given += [config.transfer.data] if verb in ("nightly", "reproduce", "transfer") else []
    for data in given:
        if data.path is not None:  # a compressed archive would be decompressed, which takes long
            _check_path(data) if Path(data.path).is_file() else _check_data(data, one_class=VERBS[verb].takes_one_class)
    try:
        _check_places(verb, config, Path(config.run_dir).resolve())
    except TransientError as error:
        log.warning("%s", first_line(error))


def _check_data(data: schema.Data, *, one_class: bool = False) -> None:
    """Raises as ``_check_path``, and for images of the user's own on this machine that the flow would refuse.

    A large folder takes long to list: its flow does that, and refuses the rest before it writes anything.

    Args:
        data: Data settings.
        one_class: Whether the verb takes a set of a single class.
    """
    _check_path(data)
    from models.data.sources import catalog

    if not str(data.path).startswith("s3://") and catalog.is_small_folder(data):
        _check_images(data, one_class=one_class)


def _check_images(data: schema.Data, *, one_class: bool) -> None:
    """Raises for images of the user's own that the flow would refuse; arguments as of ``_check_data``."""
    from models.data.sources import catalog, listing
    from models.data.sources.folders import tree

    log.addFilter(_is_of_decompression)  # the flow opens the data again, and says the rest
    try:
        with files.errors(Path(str(data.path))):
            source = catalog.open_source(data)
            tree.refuse_small_files(data, source)
    finally:
        log.removeFilter(_is_of_decompression)
    if not one_class and not data.append:  # new images of a set may be of one class
        listing.require_classes(data, source)


def _is_of_decompression(record: logging.LogRecord) -> bool:
    return record.module == "decompress"


def _check_path(data: schema.Data) -> None:
    """Raises for data without the path that they need, one that does not exist, or an address that is not read."""
    given_files.check_class_file(data)
    path = data.path
    if data.source == "webdataset" and path is not None:
        from models.data.sources import catalog
        from models.data.sources.wds.addresses import check_patterns

        check_patterns(data)
        if "://" not in path.replace("file://", ""):
            catalog.check_place(data)
    elif path is None or ("://" not in path and not Path(path).exists()):
        from models.data.sources import catalog

        if path is not None or data.source not in catalog.packaged():
            catalog.open_source(data)
    else:
        from models.data.sources.files.container import locate

        locate(path)


def _refuse_unread_paths(verb: str, config: schema.Config) -> None:
    """Refuses a path beside a data set of a Python package, which has its images: the result would be theirs."""
    given = {"data": ("data", config.data), "transfer.data": ("data@transfer.data", config.transfer.data)}
    for key, (group, data) in given.items():
        if data.path is None or key.partition(".")[0] not in VERBS[verb].reads:
            continue
        from models.data.sources import catalog

        if catalog.find(data.source).packaged:
            raise ConfigError(
                f"{key}.path={data.path} would have no effect: {group}={data.source} is part of a Python package, and "
                f"{group}=folder reads images of your own, {group}=webdataset shards of others"
            )


def _needed(verb: str, config: schema.Config) -> tuple[str, ...]:
    """Services that a command needs: a single local flow needs no worker, whose start takes seconds."""
    whole = verb == "reproduce" or config.launch.engine == "workpool"
    return stack.NAMES if whole else tuple(name for name in stack.NAMES if name != "worker")
