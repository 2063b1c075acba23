"""The house rules: who imports whom, how long a file may be, what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import knorm
from knorm.choices import TASKS

ROOT = Path(__file__).parent.parent
PACKAGES = ("knorm", "classification", "segmentation", "privacy", "tests", "benchmarks")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

MAX_LINES = 400
CORE = {"torch"}
TRAINING = CORE | {
    "accelerate",
    "jsonargparse",
    "matplotlib",
    "numpy",
    "rich",
    "safetensors",
    "torchmetrics",
    "yaml",
}
ALLOWED = {  # from outside the standard library, and from our other packages
    "knorm/kernel": CORE | {"knorm.kernel", "knorm.choices"},
    **dict.fromkeys(
        [f"knorm/kernel/{name}loops.py" for name in ("", "unit_", "window_", "norm_")]
        + ["knorm/kernel/cpu.py"],
        CORE | {"numba", "numpy", "knorm.kernel"},
    ),
    "knorm/kan": CORE | {"knorm.kernel", "knorm.norms", "knorm.choices", "knorm.kan"},
    "knorm/models": CORE
    | {"knorm.kernel", "knorm.norms", "knorm.choices", "knorm.kan", "knorm.models"}
    | {"knorm.checkpoints"},
    "knorm/models/in_timm.py": CORE | {"timm", "knorm.norms", "knorm.choices", "knorm.swap"},
    "knorm/timm_bridge.py": CORE | {"timm", "knorm.kernel", "knorm.models", "knorm.checkpoints"},
    "knorm/swap": CORE | {"knorm.kernel", "knorm.norms", "knorm.choices", "knorm.swap"},
    "knorm/training": TRAINING | {"timm", "knorm"},
    "knorm/vision": CORE
    | {"numpy", "PIL", "torchvision", "knorm.vision"}
    | {"knorm.training.mistakes", "knorm.training.seeds"},
    "knorm/cli": CORE | {"knorm"},
    "knorm/hub.py": CORE | {"huggingface_hub", "knorm"},
    "classification/hub.py": CORE | {"huggingface_hub", "knorm", "classification"},
    "knorm": CORE
    | {"safetensors", "knorm.kernel", "knorm.norms", "knorm.choices", "knorm.models", "knorm.swap"}
    | {"knorm.kan"},
    "classification": TRAINING
    | {"torchvision", "scipy", "sklearn", "PIL", "onnxruntime", "knorm", "classification"},
    "segmentation": TRAINING | {"torchvision", "scipy", "PIL", "knorm", "segmentation"},
    "privacy": TRAINING
    | {"scipy", "opacus", "dp_accounting", "knorm", "classification", "segmentation", "privacy"},
}


def imports(path):
    """Every module that a file imports, wherever in it, with the line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            parts = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from ((part, node.lineno) for part in parts)


def rule_of(path):
    """The longest key of ALLOWED that is or holds the file."""
    name = path.relative_to(ROOT).as_posix()
    rules = (key for key in ALLOWED if name == key or name.startswith(f"{key}/"))
    return max(rules, key=len, default=None)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_point_one_way(path):
    rule = rule_of(path)
    for module, line in imports(path):
        if rule is None or module.split(".")[0] in sys.stdlib_module_names:
            continue
        allowed = any(module == name or module.startswith(f"{name}.") for name in ALLOWED[rule])
        assert allowed, f"{path.relative_to(ROOT)}:{line}: {rule} may not import {module}"


def test_no_file_is_long():
    long = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in FILES}
    assert {path: n for path, n in long.items() if n > MAX_LINES} == {}


def test_import_knorm_brings_in_torch_alone():
    program = (
        "import sys, torch; before = set(sys.modules); from knorm import *;"
        "new = {m.split('.')[0] for m in set(sys.modules) - before};"
        "print(*sorted(new - set(sys.stdlib_module_names) - {'knorm', 'torch'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


PROGRAMS = {
    "classification": ("train", "evaluate", "study", "export"),
    "segmentation": ("train", "evaluate", "predict", "submit", "check_submission"),
    "privacy": ("train", "account", "audit"),
}


@pytest.mark.parametrize(
    "program", [f"{package}.{name}" for package, names in PROGRAMS.items() for name in names]
)
def test_mistakes_do_not_wait_for_torch(program):
    code = (
        f"import sys; from {program} import main\n"
        "try: main(['--optim.lrr=1'])\n"
        "except ValueError: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == ["False"], done.stderr


def test_models_are_known_without_torch():
    code = "import sys; from knorm.choices import TASKS, model_names as names;"
    code += "print(*(name for task in TASKS for name in names(task)), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    known = [name for task in TASKS for name in knorm.list_models(task=task)]
    assert done.stdout.split() == [*known, "False"]


def test_every_test_file_mirrors_a_source_file():
    sources = {
        path.relative_to(ROOT).with_suffix("").as_posix()
        for path in FILES
        if not path.is_relative_to(ROOT / "tests")
    }
    sources |= {name.removeprefix("knorm/") for name in sources}
    own = {"layout", "recipes", "results", "timm_nets", "kernel/sparse_images"}
    own |= {"classification/study_fairness"}
    own |= {"models/models", "models/zoo_params"}
    own |= {"kan/defects", "privacy/broken", "privacy/defects", "privacy/recipes"}
    own |= {"classification/resume", "classification/mistakes", "classification/study_fairness"}
    own |= {"swap/swap", "swap/libraries"}
    own |= {f"segmentation/{name}" for name in ("resume", "mistakes", "recipes", "sizes")}
    for path in (ROOT / "tests").rglob("test_*.py"):
        mirrored = path.relative_to(ROOT / "tests").with_suffix("").as_posix().replace("test_", "")
        assert mirrored in sources | own, f"{path.relative_to(ROOT)} tests no file of that name"
