"""Short training runs, and what is read from their folders."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
from safetensors.torch import load_file

from classification import evaluate, train
from knorm.training.run import Run

ROOT = Path(train.__file__).parents[1]
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--quiet"]
TWO = [*LAUNCH, "--config_file", "launch/cpu2.yaml"]
QUICK = ["--model.options.width=0.25", "--data.limit=300", "--schedule.warmup_epochs=0"]


def run(folder, *arguments):
    train.main([*QUICK, f"--run_dir={folder}", *arguments])
    return json.loads((folder / "result.json").read_text())


def value(result, split, weights, metric):
    (row,) = (
        row
        for row in result["results"]
        if (row["split"], row["weights"], row["metric"]) == (split, weights, metric)
    )
    return row["value"]


def evaluated(capsys, *arguments):
    capsys.readouterr()
    evaluate.main([str(argument) for argument in arguments])
    return json.loads(capsys.readouterr().out)


def launched(command, module, *arguments):
    """A launched module, with one thread each process."""
    return subprocess.Popen(
        [*command, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_all(process):
    """SIGKILL for the launcher and the processes that it started, in sessions of their own."""
    leader = psutil.Process(process.pid)
    for one in [leader, *leader.children(recursive=True)]:
        one.kill()
    process.communicate()


def launch(command, module, *arguments):
    """Standard output of a launched module that ends well."""
    process = launched(command, module, *arguments)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


class Killed(BaseException):
    """Ends a run as a kill would: nothing catches it, nothing is saved on the way out."""


def killed_at(step, monkeypatch):
    """Let the next training run die after so many steps, its last/ just saved."""
    after_step = Run.after_step

    def die(run, trainer):
        after_step(run, trainer)
        if trainer.step == step:
            raise Killed

    monkeypatch.setattr(Run, "after_step", die)


def what_remains(folder):
    """All weights, and the rows of the log but for the times in them."""
    weights = {
        f"{path.parent.name}/{path.stem}/{name}": tensor
        for path in folder.glob("*/*.safetensors")
        for name, tensor in load_file(path).items()
    }
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = [{k: v for k, v in line.items() if k.startswith(("epoch", "t", "v"))} for line in lines]
    return weights, rows, json.loads((folder / "result.json").read_text())["results"]
