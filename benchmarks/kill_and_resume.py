r"""Kill a training run again and again and compare its last weights with an uninterrupted run's.

    python -m benchmarks.kill_and_resume --kills 20 --out docs/results/kill-and-resume-1
    python -m benchmarks.kill_and_resume --processes 2 --kills 10 \
        --out docs/results/kill-and-resume-2

The reference run trains without a pause. Every other run is killed (SIGKILL, launcher and
processes alike) at a moment drawn from the reference's duration; then the same command is given
again with `--resume auto`. Compared: the SHA-256 of all weights, the moving average and the
optimizer's state in last/ and best/, the rows of the log but for what they cost, and the results.
Runs that end before their moment are not counted.
"""

import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from jsonargparse import auto_cli

from benchmarks.report import publish

RECIPE = [
    "--model.options.width=0.25",
    "--data.limit=400",
    "--epochs=4",
    "--ema_decay=0.9",
    "--accumulation=2",
    "--keep.minutes=0",
    "--augment.mixup=0.2",
]
COST = ("seconds", "samples_per_second", "data_wait", "memory_bytes")


def command(folder: Path, processes: int, options: list[str]) -> list[str]:
    """The training command of a run."""
    program = ["-m", "classification.train", *RECIPE, *options, f"--run_dir={folder}"]
    if processes == 1:
        return [sys.executable, *program]
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--quiet"]
    config = ["--config_file", "launch/cpu2.yaml", "--num_processes", str(processes)]
    return [*launcher, *config, *program, "--launch.cpu=true"]


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    """The command, silent."""
    quiet = subprocess.DEVNULL
    return subprocess.Popen(arguments, stdout=quiet, stderr=quiet)


def fingerprint(folder: Path) -> dict[str, Any]:
    """What must not depend on whether the run was killed."""
    files = sorted(folder.glob("*/*.safetensors"))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((folder / "result.json").read_text())
    return {
        "files": {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        },
        "rows": [{name: row[name] for name in row if name not in COST} for row in rows],
        "results": result["results"],
    }


def killed_run(arguments: list[str], moment: float) -> dict[str, Any]:
    """Start, kill after `moment` seconds, start again to the end."""
    process = start(arguments)
    began, killed = time.perf_counter(), False
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        leader = psutil.Process(process.pid)
        for one in [leader, *leader.children(recursive=True)]:
            one.kill()
        process.wait()
        killed = True
    seconds = time.perf_counter() - began
    time.sleep(0.2)  # the ports and files of the dead
    code = start(arguments).wait()
    return {"moment": round(moment, 2), "killed": killed, "seconds": seconds, "exit_code": code}


def main(
    kills: int = 20,
    processes: int = 1,
    options: tuple[str, ...] = (),
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Run the comparison.

    Args:
        kills: runs that are killed once each.
        processes: processes of every run.
        options: further options of the training command.
        seed: of the moments.
        out: OUT.json and OUT.md are written.
    """
    moments = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        began = time.perf_counter()
        assert start(command(Path(place, "whole"), processes, list(options))).wait() == 0
        duration = time.perf_counter() - began
        whole = fingerprint(Path(place, "whole"))
        runs: list[dict[str, Any]] = []
        while sum(run["killed"] for run in runs) < kills:
            folder = Path(place, f"killed-{len(runs)}")
            arguments = [*command(folder, processes, list(options)), "--resume=auto"]
            run = killed_run(arguments, moments.uniform(0.3, 1.0) * duration)
            run["equal"] = run["exit_code"] == 0 and fingerprint(folder) == whole
            runs.append(run)
            print(json.dumps(run), flush=True)
            if not run["killed"]:  # the reference was slower: later moments would come too late
                duration = min(duration, run["seconds"])
    runs = [run for run in runs if run["killed"]]  # some end before their moment
    equal = sum(run["equal"] for run in runs)
    print(f"{equal} of {len(runs)} killed runs equal")
    summary = {
        "processes": processes,
        "options": [*RECIPE, *options],
        "torch": torch.__version__,
        "seconds": round(duration, 1),
        "equal": equal,
        "runs": runs,
        "files": whole["files"],
    }
    publish(summary, render, out)
    if equal < len(runs):
        sys.exit(1)


def render(summary: dict[str, Any]) -> str:
    """The page that OUT.md is."""
    runs, processes = summary["runs"], summary["processes"]
    moments = sorted(run["moment"] for run in runs)
    options = "\n".join(summary["options"])
    files = "\n".join(f"| {name} | `{digest[:16]}` |" for name, digest in summary["files"].items())
    return (
        f"# Killed and resumed, {processes} process(es)\n\n"
        f"**{summary['equal']} of {len(runs)} runs** that were killed once (SIGKILL, after "
        f"{moments[0]} to {moments[-1]} s, drawn) and went on by the same\ncommand with "
        "`--resume auto` are equal to a run that was never stopped: all files below bit for bit, "
        "every\nrow of the log but for times and memory, and all results.\n\n"
        f"| file | SHA-256 (first 16 digits) |\n| --- | --- |\n{files}\n\n"
        f"The run, on the CPU, torch {summary['torch']}: `python -m classification.train` with\n\n"
        f"```\n{options}\n```\n\nMade by\n\n```\npython -m benchmarks.kill_and_resume "
        f"--kills {len(runs)} --processes {processes}\n```\n"
    )


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
