"""README: its commands parse, its messages exist; the tree in docs/architecture.md is the tree."""

import re
import shlex
import subprocess

import pytest

from src.config import load_config, load_flags
from src.deploy import preprocess_jobs
from src.deploy.results import PostprocessConfig
from src.report import predict_settings
from src.trainers import launch_plan
from src.weights import convert_settings
from tests.cpp_runner import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^python (\w+)\.py (.+)$", TEXT.replace("\\\n", " "), re.MULTILINE)
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
TREE = [line.split()[0] for line in ARCHITECTURE.split("## Files\n\n```\n")[1].split("\n```")[0].splitlines()]


def test_there_are_commands():
    assert {"train", "eval", "export", "verify"} <= {name for name, _ in COMMANDS}


@pytest.mark.parametrize(("name", "flags"), COMMANDS)
def test_commands_parse(name, flags, monkeypatch):
    monkeypatch.chdir(ROOT)
    if name == "postprocess":
        load_flags(PostprocessConfig, name, shlex.split(flags))
    elif name == "preprocess":
        preprocess_jobs.read_command_line(shlex.split(flags))
    elif name == "distribute":
        _, script, words = launch_plan.read_command_line(shlex.split(flags))
        load_config(script.removesuffix(".py"), list(words))
    elif name == "predict":
        # What lies beside the weights is there after a training only.
        monkeypatch.setattr(predict_settings, "recorded_values", lambda settings, flags: {})
        predict_settings.read_command_line(shlex.split(flags))
    elif name == "convert":
        convert_settings.read_command_line(shlex.split(flags))
    elif name != "benchmark":
        load_config(name, shlex.split(flags))


def test_messages_of_troubleshooting_are_ours():
    messages = re.findall(r"`(.+?)`", "\n".join(re.findall(r"^\| (`.*?) \|", part("Troubleshooting"), re.MULTILINE)))
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    assert len(messages) > 15
    for message in messages:
        # Numbers and names stand in braces in the source.
        pieces = [re.escape(piece) for piece in re.split(r"\b(?:\d+|train)\b", message)]
        assert re.search(r"[^\n]*?".join(pieces), sources), message


def parts(text: str) -> list[tuple[int, int, list[str], list[str]]]:
    """Of every section: level of its heading, lines of tables, what stands in backticks in any order, code blocks."""
    found = []
    for piece in re.split(r"^(?=#+ )", re.sub(r"^```.*?^```$", _as_one_line, text, flags=re.M | re.S), flags=re.M)[1:]:
        lines = piece.splitlines()
        code = re.findall(r"`([^`]+)`", " ".join(line for line in lines if not line.startswith("\0")))
        blocks = [line for line in lines if line.startswith("\0")]
        tables = sum(line.startswith("|") for line in lines)
        found.append((len(piece) - len(piece.lstrip("#")), tables, sorted(code), blocks))
    return found


def _as_one_line(block: re.Match) -> str:
    return "\0" + block[0].replace("\n", "\0")


def test_the_chinese_page_says_the_same():
    chinese = (ROOT / "README_CN.md").read_text(encoding="utf-8")
    for ours, theirs in zip(parts(TEXT), parts(chinese), strict=True):
        assert ours == theirs
    assert not re.search(r"@\w+@", TEXT + chinese)


def part(heading: str) -> str:
    """The text below a heading."""
    return TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("path", TREE)
def test_tree_names_what_exists(path):
    assert (ROOT / path).exists()


def test_tree_is_complete():
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    folders = tuple(name for name in TREE if name.endswith("/"))
    dotted = (".gitignore", ".editorconfig", ".clang-format", ".pre-commit-config.yaml")
    files = [name for name in listed.stdout.splitlines() if not name.startswith(folders) and name not in dotted]
    packages = ("", "data/", "weights/", "trainers/", "deploy/", "report/")
    assert sorted(set(files) - set(TREE) - {f"src/{package}__init__.py" for package in packages}) == []


@pytest.mark.parametrize("target", re.findall(r"^make (\S+)", TEXT, re.MULTILINE))
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
