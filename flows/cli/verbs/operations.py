"""Verbs that look at runs, and that manage services and machines."""

from __future__ import annotations

from flows.cli.verbs.settings import RUN_DIR
from flows.cli.verbs.verb import Verb

_RUN = "RUN is its id, its key, the beginning of one, or its name: the newest run of that name."

RUNS = {
    "runs": Verb(
        "list the newest runs, or those whose name contains a word",
        examples=("runs", "runs b3"),
        settings={"experiment=NAME": "of MLflow (default effnet)"},
        shared_settings=False,
        call="flows.cli.browse:runs",
        json=True,
        objects=("[NAME]",),
    ),
    "logs": Verb(
        "print what the workers of a job wrote",
        examples=("logs 'train b3 mnist5k'",),
        notes=(_RUN,),
        shared_settings=False,
        call="flows.cli.browse:logs",
        objects=("RUN",),
    ),
    "diff": Verb(
        "print where two runs or two registered models differ",
        examples=("diff efficientnet-b0@champion efficientnet-b0@previous",),
        notes=(
            "A and B are runs as for `effnet logs`, or models, NAME@ALIAS or NAME/VERSION. It compares settings, code, "
            "data and results.",
        ),
        shared_settings=False,
        call="flows.cli.browse:diff",
        json=True,
        objects=("A", "B"),
    ),
    "status": Verb(
        "print what runs: services, flows, and jobs with the time left",
        examples=("status",),
        settings=RUN_DIR,
        shared_settings=False,
        call="flows.cli.control:status",
        json=True,
    ),
    "cancel": Verb(
        "end a flow that runs, after its jobs have saved their state",
        examples=("cancel 'train b3'",),
        notes=("FLOW is its name, or the beginning of its id, as `effnet status` prints them.",),
        shared_settings=False,
        call="flows.cli.control:cancel",
        objects=("FLOW",),
    ),
    "rerun": Verb(
        "run the command of a run again",
        examples=("rerun 'train b3 mnist5k' recipe.epochs=4",),
        notes=(
            _RUN,
            "Settings replace those of the run. The command is printed first; what is done is taken from the store, "
            "what is missing is made.",
        ),
        shared_settings=False,
        call="flows.cli.control:rerun",
        objects=("RUN",),
    ),
}

MACHINES = {
    "up": Verb(
        "start the embedded services, or find them",
        examples=("up",),
        notes=("All settings given here, of whatever kind, are the defaults of the deployments' runs.",),
        call="flows.cli.services:up",
    ),
    "down": Verb("stop the embedded services", call="flows.cli.services:down"),
    "open": Verb(
        "open Prefect or MLflow in a browser, logged in",
        examples=("open prefect", "open mlflow"),
        settings=RUN_DIR,
        notes=("Where there is no browser it prints the link, which holds the password.",),
        shared_settings=False,
        call="flows.cli.services:open_page",
        objects=("PAGE",),
    ),
    "env": Verb(
        "print the variables that lead other programs to the services",
        examples=('eval "$(effnet env)"   # prefect, mlflow and boto3 of this shell use them',),
        notes=("They hold passwords.",),
        call="flows.cli.services:print_environment",
    ),
    "doctor": Verb("check whether this machine and the services are fit", call="flows.cli.services:doctor", json=True),
    "deploy": Verb(
        "set up a Prefect server: work pool, limit, deployments",
        examples=("deploy services.prefect=https://prefect.example/api --dry-run",),
        settings={
            "services.prefect=URL": "the server; credentials: PREFECT_API_AUTH_STRING or PREFECT_API_KEY",
            "launch.jobs_at_once=N": "limit `accelerator` of jobs that flows run themselves; kept if not given",
        },
        notes=(
            "It also sets up the automation that ends flows without a heartbeat. It prints every change and makes it; "
            "run again, it changes nothing. Objects of others are not touched.",
        ),
        shared_settings=False,
        call="flows.cli.deploy:deploy",
        dry_run="flows.cli.deploy:show_changes",
        options={
            "file": ("[PATH]", "definitions of the deployments (default: those of effnet, infra/prefect.yaml)"),
            "pool": ("[NAME]", "work pool (default effnet)"),
            "pods": ("[NAME]", "work pool of type kubernetes for jobs, each of which is a pod of launch.kubernetes"),
        },
    ),
    "worker": Verb(
        "run jobs of launch.engine=workpool on this machine",
        examples=("worker services.prefect=URL services.s3=URL services.mlflow=URL storage=s3://BUCKET/PREFIX",),
        settings={
            "services.prefect=URL": "or PREFECT_API_URL; services.s3: AWS_ENDPOINT_URL_S3; services.mlflow: "
            "MLFLOW_TRACKING_URI",
            "launch.nproc_per_node=N": "GPUs of a job",
            "launch.jobs_at_once=N": "jobs on a machine without GPUs",
            "run_dir=PATH": "its files: cache, logs (default runs)",
        },
        notes=(
            "It checks the machine first and runs until it is stopped; then its jobs save their state, and other "
            "workers resume them.",
        ),
        shared_settings=False,
        call="flows.cli.worker:worker",
        switches={"flows": "take whole flows of the deployments, e.g. the schedule's, instead of jobs"},
        options={
            "pool": ("[NAME]", "work pool (default effnet)"),
            "gpus": ("[LIST]", "GPUs to use, e.g. 0,2, or none (default: all)"),
            "name": ("[NAME]", "its name in Prefect and MLflow (default: the host's)"),
        },
    ),
    "completion": Verb(
        "print a completion script for bash, zsh or fish",
        examples=(
            'eval "$(effnet completion bash)"   # in ~/.bashrc',
            'eval "$(effnet completion zsh)"    # in ~/.zshrc, after compinit',
            "completion fish > ~/.config/fish/completions/effnet.fish",
        ),
        shared_settings=False,
        call="flows.cli.completion:print_script",
        objects=("SHELL",),
        shared=True,
    ),
}
