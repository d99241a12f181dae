"""Completion in shells: ``effnet completion bash|zsh|fish`` prints a script that calls ``effnet completion words``.

The words are computed for each key press, so nothing here imports more than the table of verbs and the schema.
"""

from __future__ import annotations

from collections.abc import Sequence

from conf import overrides
from flows.cli.command import FLAGS, Command
from flows.cli.verbs import VERBS
from infra.errors import ConfigError

WORDS = ("completion", "words")  # the beginning of the command by which a script requests words
_OBJECTS = {"[DATASET]": overrides.options("data"), "PAGE": ["mlflow", "prefect"], "SHELL": ["bash", "fish", "zsh"]}
_SCRIPTS = {
    "bash": """\
_effnet() {
    local line="${COMP_LINE:0:COMP_POINT}" typed current prefix IFS=$' \\t\\n'
    read -ra typed <<< "$line"
    [[ "$line" == *" " ]] && typed+=("")
    current="${typed[-1]}"
    IFS=$'\\n'
    COMPREPLY=($("${typed[0]}" completion words "${typed[@]:1}" 2>/dev/null))
    prefix="${current%"${current##*[=:@]}"}"  # readline replaces only what follows
    COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
    [[ "${COMPREPLY[0]}" == *[=.] ]] && compopt -o nospace 2>/dev/null
}
complete -o default -F _effnet effnet
""",
    "zsh": """\
#compdef effnet
_effnet() {
    local -a typed
    typed=("${(@f)$("${words[1]}" completion words "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    typed=(${typed:#})
    if (( ! $#typed )); then
        compset -P '*='
        _files
        return
    fi
    compadd -S '' -- ${(M)typed:#*[=.]}
    compadd -- ${typed:#*[=.]}
}
compdef _effnet effnet
""",
    "fish": """\
function __effnet_words
    set -l typed (commandline -opc) (commandline -ct)
    $typed[1] completion words $typed[2..-1] 2>/dev/null
end
complete -c effnet -f -a '(__effnet_words)'
""",
}


def print_script(command: Command) -> int:
    """Prints the script of a shell.

    Raises:
        ConfigError: There is none for this shell.
    """
    shell = command.objects[0]
    if shell not in _SCRIPTS:
        raise ConfigError(f"effnet completion {shell}: there are {', '.join(_SCRIPTS)}")
    print(_SCRIPTS[shell], end="")
    return 0


def complete(typed: Sequence[str]) -> list[str]:
    """Words that can stand in place of the last one.

    Args:
        typed: Words after ``effnet``; the last one is being typed and may be empty.
    """
    current = typed[-1] if typed else ""
    if len(typed) < 2 or (len(typed) == 2 and typed[0] == "help"):
        return [verb for verb in VERBS if verb.startswith(current)]
    if (name := typed[0]) not in VERBS:
        return []
    if current.startswith("-"):
        return [option for option in _options(name) if option.startswith(current)]
    if "=" in current:
        key = current.partition("=")[0]
        return [word for word in _assignments(key) if word.startswith(current)]
    objects = [choice for object_name in VERBS[name].objects for choice in _OBJECTS.get(object_name, [])]
    return [*(word for word in objects if word.startswith(current)), *_next_keys(current)]


def _options(name: str) -> list[str]:
    verb = VERBS[name]
    usual = {"json": verb.flow or verb.json, "quiet": verb.flow, "dry-run": verb.dry_run, "help": True}
    names = [
        *verb.switches,
        *verb.options,
        *(FLAGS if verb.trains else ()),
        *(key for key, has in usual.items() if has),
    ]
    return [f"--{option}" for option in names]


def _assignments(key: str) -> list[str]:
    values = overrides.options(key) if key in overrides.GROUPS else overrides.choices(key)
    return [f"{key}={value}" for value in values]


def _next_keys(current: str) -> list[str]:
    """Settings up to the next dot: of ``rec``, ``recipe=`` and ``recipe.``; of ``recipe.ep``, ``recipe.epochs=``."""
    names = [key for key in (*overrides.GROUPS, *overrides.leaves()) if key.startswith(current)]
    ends = [name.find(".", len(current)) for name in names]
    return sorted({f"{name}=" if end < 0 else name[: end + 1] for name, end in zip(names, ends, strict=True)})
