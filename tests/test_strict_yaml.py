"""The YAML reader: numbers are numbers, words are words, and what is ambiguous is refused with its line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.errors import ConfigError
from src.strict_yaml import read_yaml


def read(text: str) -> dict:
    path = Path("recipe.yaml")
    path.write_text(text, encoding="utf-8")
    tree, warnings = read_yaml(path)
    assert warnings == []
    return tree


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("5e-4", 5e-4),
        ("1E6", 1e6),
        ("-1.5e+3", -1500.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("0.0005", 0.0005),
        ("7", 7),
        ("-3", -3),
        ("010", "010"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("no", "no"),
        ("on", "on"),
        ("y", "y"),
        ("True", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'5'", "5"),
        ("rand-m9-mstd0.5-inc1", "rand-m9-mstd0.5-inc1"),
        ("[ 0.9, 0.999 ]", [0.9, 0.999]),
    ],
)
def test_scalars(written, value):
    found = read(f"key: {written}\n")["key"]
    assert found == value
    assert type(found) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_as_python_writes_it(value):
    assert read(f"key: {value!r}\n") == {"key": value}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "'a' stands twice"),
        ("a: &x 1\nb: *x\n", 2, "aliases are not allowed"),
        ("a: !!python/object/apply:os.system ['true']\n", 1, "could not determine a constructor"),
        ("a: !own 1\n", 1, "could not determine a constructor"),
        ("? [1, 2]\n: 3\n", 1, "a key must be a word"),
        ("a: [1, 2\n", 2, "not valid YAML"),
        ("a:\n\tb: 1\n", 2, "not valid YAML"),
        ("a: 1\n  b: 2\n", 2, "not valid YAML"),
    ],
)
def test_refused_with_file_and_line(text, line, words):
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert str(caught.value).startswith(f"recipe.yaml:{line}")
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "just words\n", "5\n"])
def test_refused_without_keys(text):
    with pytest.raises(ConfigError, match="must hold lines of `key: value`"):
        read(text)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_nothing_is_an_empty_mapping(text):
    assert read(text) == {}


def test_byte_order_mark_is_skipped():
    Path("recipe.yaml").write_bytes(b"\xef\xbb\xbfkey: 1\r\n")
    assert read_yaml(Path("recipe.yaml")) == ({"key": 1}, [])


def test_tabs_between_value_and_comment_are_read_and_named():
    Path("recipe.yaml").write_text("a: 1\t\t# one\nb: two \t# two\nc: 3\t\n", encoding="utf-8")
    tree, warnings = read_yaml(Path("recipe.yaml"))
    assert tree == {"a": 1, "b": "two", "c": 3}
    assert warnings == ["recipe.yaml: tabs before comments are read as blanks"]


def test_unreadable_files_are_named():
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such file"):
        read_yaml(Path("nowhere.yaml"))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(Path("."))
    Path("latin.yaml").write_bytes(b"key: \xff\xfe\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(Path("latin.yaml"))
