"""Which of the project's extras brings a module, as its own metadata tells."""

import re
from importlib.metadata import PackageNotFoundError, requires

OTHER_NAMES = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml"}  # module -> package
REQUIREMENT = re.compile(r"([\w.-]+).*; *extra *== *['\"](\w+)['\"]")


def extra_of(module: str) -> str | None:
    """The first extra that brings the module's package; None for one that no extra brings.

    `module` is a top-level name such as "sklearn": none of its parts has an extra of its own.
    """
    return _extras().get(_package(module))


def how_to_install(module: str) -> str:
    """The command that installs the module, with all else of its extra if one brings it."""
    extra = extra_of(module)
    return f"pip install 'knorm[{extra}]'" if extra else f"pip install {_package(module)}"


def _extras() -> dict[str, str]:
    """Package -> the first extra that brings it; nothing where knorm is not installed."""
    try:
        lines = requires("knorm") or []
    except PackageNotFoundError:
        return {}
    found: dict[str, str] = {}
    for match in map(REQUIREMENT.match, lines):
        if match and match[1] != "knorm":  # an extra that is made of others
            found.setdefault(_package(match[1]), match[2])
    return found


def _package(name: str) -> str:
    """The package of that name or with that module, in the spelling that indices compare."""
    return OTHER_NAMES.get(name, name).lower().replace("_", "-")
