import pytest

from knorm.training.mistakes import UserMistakeError
from segmentation.class_list import drawn_color, read_class_list
from segmentation.classes import MOST_CLASSES


def read(tmp_path, text):
    (tmp_path / "classes.txt").write_text(text, encoding="utf-8")
    return read_class_list(str(tmp_path / "classes.txt"))


def test_lines_give_value_name_and_color(tmp_path):
    classes = read(
        tmp_path, "# mine\n\n0 background\n7  traffic light  #FAaa1e\n9 ignored\n200 sky\n"
    )
    assert classes.names == ("background", "traffic light", "sky")
    assert classes.colors == (drawn_color(0), (250, 170, 30), drawn_color(2))
    assert classes.file_values == {0: 0, 7: 1, 9: 255, 200: 2}
    assert classes.to_file == (0, 7, 200)
    assert classes.categories == ()


def test_where_no_line_says_what_is_ignored_255_is(tmp_path):
    assert read(tmp_path, "0 a\n1 b").file_values == {0: 0, 1: 1, 255: 255}
    assert read(tmp_path, "0 a\n255 b").file_values == {0: 0, 255: 1}
    assert read(tmp_path, "0 a\n1 b\n2 ignored\n3 ignored").file_values == {
        0: 0,
        1: 1,
    } | dict.fromkeys((2, 3), 255)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 a\nb 1", "classes.txt, line 2: a line is `value name #rrggbb`, got 'b 1'"),
        ("0 a\n1", "line 2: a line is"),
        ("0 a\n-1 b", "line 2: a line is"),
        ("0 a #12345\n1 b", "line 1: a line is"),
        ("0 a\n256 b", "line 2: the value 256 is not between 0 and 255"),
        ("# all\n0 a\n0 b", "line 3: the value 0 is given twice"),
        ("0 a\n1 a", "line 2: the class 'a' is given twice"),
        ("0 a\n255 ignored", "classes.txt: 1 classes; it takes 2 to 254"),
        ("", "classes.txt: 0 classes"),
        ("\n".join(f"{value} c{value}" for value in range(256)), "256 classes; it takes 2 to 254"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path, text, message):
    with pytest.raises(UserMistakeError) as mistake:
        read(tmp_path, text)
    assert str(tmp_path) in str(mistake.value)
    assert message in str(mistake.value)


def test_a_list_that_is_not_there_or_no_text_is_named(tmp_path):
    with pytest.raises(UserMistakeError, match=r"data.pairs.classes .*none.txt: No such file"):
        read_class_list(str(tmp_path / "none.txt"))
    (tmp_path / "image").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(UserMistakeError, match="image: no text in UTF-8"):
        read_class_list(str(tmp_path / "image"))


def test_drawn_colors_are_pascals_and_all_different():
    assert [drawn_color(number) for number in range(3)] == [(128, 0, 0), (0, 128, 0), (128, 128, 0)]
    assert drawn_color(19) == (0, 64, 128)  # its tvmonitor
    assert len({drawn_color(number) for number in range(MOST_CLASSES)}) == MOST_CLASSES
