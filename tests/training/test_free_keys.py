from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

from knorm.training.config import parse


@dataclass(kw_only=True)
class Box:
    """A box."""

    options: dict[str, Any] = field(default_factory=dict)
    """anything"""


@pytest.fixture
def read(tmp_path):
    (tmp_path / "empty.yaml").write_text("options: {}\n")
    return lambda *argv: parse(Box, argv, prog="box", recipes=tmp_path, default="empty")


@pytest.mark.parametrize("word", ["--options.inner.size=0.5", "--options.inner.size 0.5"])
def test_one_key_of_a_dictionary_among_free_keys_is_changed_and_no_other(read, word, capsys):
    given = ["--options={inner: {size: 1, name: a}, outer: 2}", *word.split()]
    assert read(*given).options == {"inner": {"size": 0.5, "name": "a"}, "outer": 2}
    with pytest.raises(SystemExit):
        read(*given, "--print_config")
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["options"] == {"inner": {"size": 0.5, "name": "a"}, "outer": 2}


def test_values_deep_in_free_keys_are_what_yaml_takes_them_for(read):
    words = ["--options.a.list=[1, 2]", "--options.a.on=true", "--options.a.b.c", "x: y"]
    assert read(*words).options == {"a": {"list": [1, 2], "on": True, "b": {"c": {"x": "y"}}}}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--options.inner.size"], "--options.inner.size: expected one argument"),
        (["--options.inner.size", "--options.a=1"], "--options.inner.size: expected one argument"),
        (["--options.a=cart", "--options.a.size=1"], "--options.a.size: a is 'cart', which holds"),
    ],
)
def test_what_cannot_be_set_is_one_line(read, words, message):
    with pytest.raises(ValueError, match=message):
        read(*words)
