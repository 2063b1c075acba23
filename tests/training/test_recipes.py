from dataclasses import dataclass, field
from typing import Any

import pytest

from knorm.training.config import parse
from knorm.training.mistakes import UserMistakeError
from knorm.training.recipes import RecipeInfo, list_recipes, merged

STUDY = """\
# Carts of all sizes. And more.
source: the book of carts
base:
  wheel: {size: 1, spokes: 8}
  options: {color: red}
variants:
  large: {published: 3.10, wheel: {size: 3}, options: {bell: 1}}
  small: {wheel: {size: 0.5}}
"""


@dataclass(kw_only=True)
class Wheel:
    """A wheel."""

    size: float
    """diameter"""
    spokes: int = 4
    """number of spokes"""


@dataclass(kw_only=True)
class Cart:
    """A cart."""

    wheel: Wheel
    name: str | None = None
    """name"""
    options: dict[str, Any] = field(default_factory=dict)
    """anything else"""


@pytest.fixture
def recipes(tmp_path):
    (tmp_path / "plain.yaml").write_text("# A plain cart.\nwheel: {size: 1}\n")
    (tmp_path / "carts.yaml").write_text(STUDY)
    return tmp_path


@pytest.fixture
def read(recipes):
    return lambda *argv: parse(Cart, argv, prog="cart", recipes=recipes, default="plain")


def test_a_row_is_the_base_with_its_own_keys_and_names_its_run(read):
    large = Cart(
        wheel=Wheel(size=3, spokes=8), name="carts-large", options={"color": "red", "bell": 1}
    )
    assert read("--config", "carts/large") == large


def test_a_row_is_found_by_the_path_of_its_file(read, recipes):
    assert read(f"--config={recipes}/carts.yaml/small") == read("--config=carts/small")


def test_files_and_options_after_a_row_win(read):
    cart = read("--config", "carts/large", "--config", "plain", "--wheel.spokes", "6")
    assert cart.wheel == Wheel(size=1, spokes=6)
    assert read("--config", "carts/large", "--name", "mine").name == "mine"


def test_print_config_of_a_row_prints_what_can_be_fed_back(read, tmp_path, capsys):
    with pytest.raises(SystemExit, match="0"):
        read("--config", "carts/large", "--wheel.spokes", "5", "--print_config")
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    expected = read("--config=carts/large", "--wheel.spokes=5")
    assert read("--config", str(tmp_path / "printed.yaml")) == expected


def test_merging_leaves_its_arguments_alone():
    base = {"a": {"b": 1, "c": 2}, "d": 1}
    assert merged(base, {"a": {"b": 3}, "d": {"e": 1}}) == {"a": {"b": 3, "c": 2}, "d": {"e": 1}}
    assert base == {"a": {"b": 1, "c": 2}, "d": 1}


def test_a_list_of_recipes_tells_what_they_aim_at(recipes):
    about, source = "Carts of all sizes", "the book of carts"
    assert list_recipes(recipes) == {
        "carts/large": RecipeInfo(about, "3.1", source),
        "carts/small": RecipeInfo(about, None, source),
        "plain": RecipeInfo("A plain cart"),
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("carts", "--config carts: a study of 2 rows; name one of them, such as carts/large"),
        ("carts/larg", "carts.yaml has no such row; did you mean 'large'?"),
        ("cart/large", "no such file and no such recipe; did you mean 'carts'?"),
        ("plain/large", "plain.yaml has no such row; it is a single recipe"),
    ],
)
def test_rows_that_are_not_there_are_refused_with_the_nearest(read, name, message):
    with pytest.raises(UserMistakeError) as caught:
        read("--config", name)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("spokes: 8", "spoke: 8", ": base: wheel.spoke: no such option; did you mean"),
        ("size: 3", "sise: 3", "/large: wheel.sise: no such option; did you mean 'wheel.size'?"),
        ("size: 3", "size: big", "/large: wheel.size: expected float, got 'big'"),
        ("{size: 3}", "3", "/large: wheel: a section"),
        ("source:", "sourc:", ": sourc: no such part of a study; did you mean 'source'?"),
        ("base:", "basis:", ": basis: no such part of a study"),
        ("{wheel: {size: 0.5}}", "5", "/small: must hold {option: value}, got 5"),
        ("  small:", "  large:", "line 7: large stands twice"),
    ],
)
def test_mistakes_in_a_study_name_file_and_row(read, recipes, old, new, message):
    file = recipes / "carts.yaml"
    file.write_text(STUDY.replace(old, new))
    with pytest.raises(UserMistakeError) as caught:
        read("--config", "carts/large")
    assert str(caught.value).startswith(str(file))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("variants: {a: {}}", "base: must hold"),
        ("base: {}\nvariants: {}", "variants: must hold"),
        ("base: {}\nvariants: [a]", "variants: must hold"),
        ("base: {}\nvariants: {1: {}}", "variants: 1 is no name; put it in quotes"),
    ],
)
def test_half_a_study_is_none(read, recipes, text, message):
    (recipes / "half.yaml").write_text(text)
    with pytest.raises(UserMistakeError, match=message):
        read("--config", "half/a")
