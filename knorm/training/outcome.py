"""What a run says of itself: its plan at the start, its numbers at the end."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from knorm.training.cost import count_macs, count_mult_adds, count_parameters, peak_memory
from knorm.training.environment import device_name
from knorm.training.folder import BEST, LAST, RESULT
from knorm.training.launch import strategy
from knorm.training.loop import Trainer
from knorm.training.model_settings import Model
from knorm.training.nets import swap_report
from knorm.training.pictures import draw_curves
from knorm.training.report import in_time, write_report
from knorm.training.run import Run, to_json
from knorm.training.weights import Beginning
from knorm.training.work import Evaluated, Numbers, Work

SOURCE, SWAP = "source.json", "swap.txt"


def plan(work: Work, trainer: Trainer, where: str) -> str:
    """The first screen: net, data, arithmetic of the batch, rate, folder."""
    recipe, num_processes = work.recipe, trainer.accelerator.num_processes
    per_epoch = trainer.steps_per_epoch
    steps = trainer.steps
    first, last = (trainer.rate_at(step) for step in (0, steps - 1))
    return f"""\
net    {recipe.model.in_words()}  {count_parameters(trainer.net):,} parameters  \
{device_name(trainer.accelerator.device)}  {strategy(trainer.accelerator)}  \
mixed precision {recipe.launch.mixed_precision}
data   {work.describe()}
batch  {recipe.batch_size} = {recipe.batch_size / num_processes / recipe.accumulation:g} x \
{num_processes} process(es) x {recipe.accumulation} pass(es)  \
{steps} steps = {steps / per_epoch:g} epochs x {per_epoch}  seed {recipe.seed}
rate   {recipe.optim.lr:g} {recipe.schedule.name}, {first:.3g} -> {last:.3g}  \
{recipe.optim.name}  weight decay {recipe.optim.weight_decay:g}
run    {where}{f"  goes on after step {trainer.step}" if trainer.step else ""}"""


def write_beginning(model: Model, run: Run, weights: Beginning | None) -> None:
    """Where the first weights are from and what became of each norm, where that is to be told."""
    if weights is not None:
        run.write(SOURCE, to_json(weights.facts(), indent=2) + "\n")
    if model.swap is not None:
        facts = {name: run.facts[name] for name in ("num_classes", "in_chans")}
        run.write(SWAP, f"{swap_report(model, **facts)}\n")


def result_of(
    work: Work, trainer: Trainer, run: Run, tested: Mapping[str, Evaluated]
) -> dict[str, Any]:
    """result.json, without the time: every number with its split and its weights."""
    recipe, rows = work.recipe, []
    for weights, row in ((LAST, run.rows[-1]), (BEST, run.best)):
        if row is not None:
            val = {name: row.get(f"val.{name}") for name in (*work.scores, "count")}
            rows += rows_of("val", weights, val, work.scores)
            rows += rows_of("test", weights, tested[weights].numbers, work.scores)
    seconds = sum(row["seconds"] for row in run.rows)
    return {
        "name": recipe.name,
        "seed": recipe.seed,
        "epochs": trainer.epoch,
        "best_epoch": run.best["epoch"] if run.best else None,
        "results": rows,
        "parameters": count_parameters(trainer.net),
        "macs": count_macs(trainer.net, work.example()),
        "mult_adds": count_mult_adds(trainer.net, work.example()),
        "training_seconds": seconds,
        "samples_per_second": trainer.step * recipe.batch_size / seconds,
        "data_wait": sum(row["data_wait"] * row["seconds"] for row in run.rows) / seconds,
        "memory_bytes": peak_memory(trainer.accelerator.device),
    }


def data_of(work: Work) -> dict[str, Any]:
    """What data a run had, by its classes and numbers of images; no image goes into it."""
    classes, sizes = work.facts()["classes"], dict(work.sizes)
    digest = hashlib.sha256(to_json([classes, sizes]).encode()).hexdigest()[:8]
    name = work.recipe.data_name()
    return {"name": name, "num_classes": len(classes), "images": sizes, "hash": digest}


def rows_of(
    split: str, weights: str, numbers: Numbers, scores: Sequence[str]
) -> list[dict[str, Any]]:
    """One row per score that there is."""
    return [
        {
            "split": split,
            "weights": weights,
            "metric": name,
            "value": numbers[name],
            "count": numbers["count"],
        }
        for name in scores
        if numbers.get(name) is not None
    ]


def write_outcome(
    work: Work, run: Run, result: dict[str, Any], tested: Mapping[str, Evaluated]
) -> None:
    """The files that end a run, and its last line on the screen."""
    if not run.writes:
        return
    weights = BEST if run.best else LAST
    draw_curves(run.rows, run.folder / "curves.png")
    result |= work.write_pictures(run, tested[weights].details, weights)
    result["seconds"] = run.seconds
    write_report(run.folder, result)
    run.write(RESULT, to_json(result, indent=2) + "\n")  # the last file: the run is finished
    first = work.scores[0]
    tests = [
        f"{100 * row['value']:.2f} % with the {row['weights']} weights"
        for row in result["results"]
        if row["split"] == "test" and row["metric"] == first
    ]
    print(
        f"test {first} {', '.join(tests)}  {in_time(result['seconds'])}  {run.folder}", flush=True
    )
