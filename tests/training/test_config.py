from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
import yaml

from knorm.training.config import option_types, parse, parse_content, to_yaml
from knorm.training.mistakes import UserMistakeError


@dataclass(kw_only=True)
class Wheel:
    """A wheel."""

    size: float
    """diameter"""
    kind: Literal["wood", "steel"] = "wood"
    """material"""
    range: tuple[float, float] = (0.0, 1.0)
    """from and to"""
    spokes: bool = False
    """whether it has them"""

    def __post_init__(self):
        if self.size <= 0:
            raise ValueError(f"wheel.size must be positive, got {self.size}")


@dataclass(kw_only=True)
class Cart:
    """A cart."""

    wheel: Wheel
    load: float | None = None
    """what it carries"""
    stops: list[float] = field(default_factory=list)
    """where it halts"""
    options: dict[str, Any] = field(default_factory=dict)
    """anything else"""


@pytest.fixture
def recipes(tmp_path):
    (tmp_path / "plain.yaml").write_text("wheel: {size: 1}\n")
    (tmp_path / "steel.yaml").write_text("wheel: {size: 2, kind: steel}\nstops: [1, 2]\n")
    return tmp_path


@pytest.fixture
def read(recipes):
    return lambda *argv: parse(Cart, argv, prog="cart", recipes=recipes, default="plain")


def test_without_a_file_the_default_recipe_is_used(read):
    assert read() == Cart(wheel=Wheel(size=1))


def test_files_and_overrides_are_applied_in_their_order(read, recipes):
    file = recipes / "steel.yaml"
    assert read("--config", "steel", "--wheel.size", "3").wheel == Wheel(size=3, kind="steel")
    assert read(f"--config={file}", "--config", "plain").wheel == Wheel(size=1, kind="steel")
    assert read("--wheel.size", "3", "--config", "steel").wheel.size == 2


@pytest.mark.parametrize(
    ("arguments", "spokes"),
    [
        (["--wheel.spokes"], True),
        (["--wheel.spokes", "--load", "1"], True),
        (["--wheel.spokes", "false"], False),
        (["--wheel.spokes=true", "--wheel.spokes=false"], False),
    ],
)
def test_a_switch_needs_no_value(read, arguments, spokes):
    assert read(*arguments).wheel.spokes is spokes


def test_free_keys_are_taken_only_below_an_option_that_holds_them(read):
    assert read("--options.width", "0.5", "--options.deep", "true").options == {
        "width": 0.5,
        "deep": True,
    }


def test_what_is_written_reads_back_the_same(read, tmp_path):
    cart = read("--config", "steel", "--load", "1e-3", "--options.width", "0.5")
    (tmp_path / "resolved.yaml").write_text(to_yaml(cart))
    assert read("--config", str(tmp_path / "resolved.yaml")) == cart


def test_print_config_prints_what_can_be_fed_back(read, tmp_path, capsys):
    with pytest.raises(SystemExit, match="0"):
        read("--config", "steel", "--load", "4", "--print_config")
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    assert read("--config", str(tmp_path / "printed.yaml")) == read("--config=steel", "--load=4")


def test_options_are_named_by_their_sections():
    wheel = {f"wheel.{name}" for name in ("size", "kind", "range", "spokes")}
    names = {"wheel", *wheel, "load", "stops", "options"}
    assert option_types(Cart).keys() == names


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--wheel.sise", "1"], "--wheel.sise: no such option; did you mean '--wheel.size'?"),
        (["--wheel.size", "big"], "--wheel.size: expected float, got 'big'"),
        (["--wheel.size", "-1"], "wheel.size must be positive, got -1.0"),
        (
            ["--wheel.kind", "stel"],
            "--wheel.kind: expected one of wood, steel, got 'stel'; did you",
        ),
        (["--load", "x"], "--load: expected float or null, got 'x'"),
        (["--stops", "1"], "--stops: expected a list, got '1'"),
        (
            ["--config", "stel"],
            "--config stel: no such file and no such recipe; did you mean 'steel'?",
        ),
        (["--config", "q.yaml"], "no such recipe; recipes: plain, steel"),
        (["--config"], "--config: name a recipe"),
        (["more"], "more: no option and no value of one"),
        (["--load"], "--load: expected one argument"),
    ],
)
def test_mistakes_on_the_command_line_say_what_was_meant(read, argv, message):
    with pytest.raises(UserMistakeError) as caught:
        read(*argv)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wheel: {sise: 1}", "wheel.sise: no such option; did you mean 'wheel.size'?"),
        ("weel: {size: 1}", "weel: no such option"),
        ("wheel: 1", "wheel: a section"),
        ("wheel: {size: big}", "wheel.size: expected float, got 'big'"),
        ("wheel: {size: 1}\nwheel: {size: 2}", "line 1: wheel stands twice"),
        ("wheel: [1", "line 1: expected"),
        ("- 1", "must hold `option: value` lines"),
        ("", "must hold `option: value` lines"),
    ],
)
def test_mistakes_in_a_file_name_the_file(read, tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserMistakeError) as caught:
        read("--config", str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_what_a_recipe_must_say_is_asked_for(read, tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text(yaml.safe_dump({"load": 1}))
    with pytest.raises(UserMistakeError, match=r"wheel\.size"):
        read("--config", str(path))


CONTENT = {"wheel": {"size": 2, "kind": "steel"}, "options": {"inner": {"a": 1}}}


def test_content_is_read_as_a_file_is_and_options_win():
    cart = parse_content(Cart, CONTENT, ["--wheel.size", "3", "--wheel.spokes"], where="row 1")
    assert cart.wheel == Wheel(size=3, kind="steel", spokes=True)
    assert parse_content(Cart, CONTENT, ["--options.inner.b=2"], where="").options == {
        "inner": {"a": 1, "b": 2}
    }
    assert parse_content(Cart, CONTENT, where="row 1").wheel.size == 2  # nothing stays behind


@pytest.mark.parametrize(
    ("content", "argv", "message"),
    [
        (
            {"wheel": {"sice": 2}},
            [],
            "^row 1: wheel.sice: no such option; did you mean 'wheel.size'",
        ),
        ({"wheel": {"size": "x"}}, [], "^row 1: wheel.size: expected float, got 'x'"),
        ({"wheel": {"size": -1}}, [], "^row 1: wheel.size must be positive, got -1"),
        ({"load": 1.0}, [], "row 1"),
        (CONTENT, ["--wheel.size", "x"], "^--wheel.size: expected float, got 'x'"),
        (CONTENT, ["--config", "plain"], "^--config: row 1 takes single options"),
    ],
)
def test_a_mistake_in_content_is_told_with_its_place(content, argv, message):
    with pytest.raises(UserMistakeError, match=message):
        parse_content(Cart, content, argv, where="row 1")
