"""What the first lines of every recipe file say."""


def check_header(path, module, *, is_default, has_rows):
    """The comment on top tells the command that runs the recipe, or a row of it."""
    header = [line for line in path.read_text(encoding="utf-8").splitlines() if line[:1] == "#"]
    text = "\n".join(line.removeprefix("#").strip() for line in header).replace("\\\n", "")
    assert f"-m {module}" in text
    name = "" if is_default else f" --config {path.stem}"
    assert f"{name}{'/' if has_rows else ''}" in text
