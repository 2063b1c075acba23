import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from knorm.training import packages

EXTRAS = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"][
    "optional-dependencies"
]
LINES = [f'{line}; extra == "{extra}"' for extra, lines in EXTRAS.items() for line in lines]


@pytest.fixture
def metadata(monkeypatch):
    """The project's metadata as of today, whenever it was installed."""
    monkeypatch.setattr(packages, "requires", lambda name: ["torch>=2.11", *LINES])


@pytest.mark.usefixtures("metadata")
@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("sklearn", "train"),
        ("PIL", "vision"),
        ("yaml", "train"),
        ("safetensors", "train"),  # also in hub
        ("jsonargparse", "train"),
        ("huggingface_hub", "hub"),
        ("onnxruntime", "export"),
        ("knorm", None),
        ("torch", None),
        ("nothing", None),
    ],
)
def test_a_module_is_found_in_the_first_extra_that_brings_it(module, extra):
    assert packages.extra_of(module) == extra


@pytest.mark.usefixtures("metadata")
def test_every_package_of_an_extra_is_known():
    for extra, lines in EXTRAS.items():
        for line in lines:
            if not line.startswith("knorm["):
                assert packages.extra_of(line.split(">=")[0].split("[")[0]), (extra, line)


def test_without_the_projects_metadata_the_package_is_named_alone(monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(packages, "requires", absent)
    assert packages.how_to_install("PIL") == "pip install pillow"
