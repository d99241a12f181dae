"""Settings that the help of several verbs shows: as they are typed, and what they mean."""

from __future__ import annotations

from conf.compose import options


def names(group: str) -> str:
    """The files of a group of settings, e.g. the data sets."""
    return ", ".join(options(group))


MODEL = {
    "model=NAME": names("model"),
    "model.width=X": "multiplies the network's channels; model.depth its layers, model.resolution its image side",
}
DATA = {
    "data=NAME": names("data"),
    "data.path=PATH": "folder or archive of the images, or s3://BUCKET/FOLDER",
    "data.limit=N": "only so many images",
}
RECIPE = {
    "recipe=NAME": names("recipe"),
    "recipe.epochs=N": "length of a training; also recipe.global_batch, recipe.seed",
}
LAUNCH = {
    "launch.nproc_per_node=N": "processes of a job, one per GPU",
    "launch.jobs_at_once=N": "jobs that run side by side on this machine",
}
TRAINING = {**MODEL, **DATA, **RECIPE, **LAUNCH}
RUN_DIR = {"run_dir=PATH": "local files of the services (default runs)"}
