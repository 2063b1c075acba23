"""Audits: a private run with canaries, and the attacks on what it releases."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
from torch import Tensor

from classification.data import load_data
from classification.work import ClassificationWork
from knorm.training.launch import start
from knorm.training.loop import Trainer, train_epoch
from knorm.training.mistakes import DivergedError, mistakes_of_the_user
from knorm.training.progress import Progress
from knorm.training.resume import Place
from knorm.training.run import Run, command_line, to_json
from knorm.training.session import facts_of, open_run_folder
from privacy.canaries import (
    LOUD,
    MarkedNet,
    Watch,
    differences,
    draw_canaries,
    loss_with_canaries,
    losses,
    totals,
    with_canaries,
)
from privacy.config import Audited
from privacy.physical import physical_batch
from privacy.pipelines import prepare
from privacy.runs import (
    PrivateCut,
    cut_of,
    keys_of,
    make_trainer,
    maker_of,
    mechanics_of,
    private_windows,
    proof_of,
)
from privacy.spending import Budget, budget_of
from privacy.step import Mechanics, private_step
from privacy.verdict import Attack, Report, in_words, judge, refutation


def carry_out(recipe: Audited, argv: Sequence[str]) -> str | None:
    """The plan of an audit; on the main process, what refutes the claim, if anything does."""
    place = prepare(recipe)
    accelerator = start(recipe.launch)
    work = ClassificationWork(recipe, load_data(recipe, accelerator))
    with mistakes_of_the_user():
        budget = budget_of(recipe, work.sizes["train"])
    work.check_net()
    command = command_line("privacy.audit", argv)
    report = audit(recipe, work, budget, place, command)
    accelerator.end_training()
    return refutation(report) if accelerator.is_main_process else None


def audit(
    recipe: Audited, work: ClassificationWork, budget: Budget, place: Place, command: str
) -> Report:
    """Train once with canaries in the data, attack, and write down what that shows."""
    trainer, accelerator = make_trainer(work, work.first_weights(), budget=budget), work.accelerator
    proof_of(work, trainer.net)
    with open_run_folder(recipe, place, accelerator, command) as folder:
        run = Run(folder, accelerator, facts_of(work), recipe.keep)
        report = judge(recipe, budget, attacks_on(recipe, work, budget, trainer, run))
        run.write("audit.json", to_json(report, indent=2) + "\n")
        run.write("audit.md", in_words(report))
    accelerator.print(f"{in_words(report)}\n{folder}")
    return report


def attacks_on(
    recipe: Audited, work: ClassificationWork, budget: Budget, trainer: Trainer, run: Run
) -> list[Attack]:
    """Train, and score every canary in every way."""
    data, task = work.data, work.task
    size = physical_batch(recipe.privacy, run, trainer, work.loss, maker_of(work))
    secret, ledger = keys_of(work, budget, run, trainer, size)
    mechanics = mechanics_of(work, budget, secret, ledger)
    wanted, net = recipe.canaries, trainer.net
    canaries = draw_canaries(
        data, secret, images=wanted.images, gradients=wanted.gradients, seed=recipe.seed
    )
    before = losses(net, canaries, data, task, recipe.eval_batch_size)
    crowd = with_canaries(data, canaries)
    all_records = replace(budget, num_samples=len(crowd.labels("train")))  # at the recipe's rate
    cut = cut_of(recipe, all_records, secret, size)
    released = train(recipe, replace(work, data=crowd), trainer, mechanics, cut)
    fallen = before - losses(net, canaries, data, task, recipe.eval_batch_size)
    if not np.isfinite(fallen).all():
        raise DivergedError("the loss left all bounds: lower optim.lr")
    of_gradients = canaries.gradients_in
    return [
        Attack("gradient canaries, all steps together", totals(released), of_gradients),
        Attack("gradient canaries, two steps compared", differences(released), of_gradients),
        Attack("image canaries, fall of the loss", fallen, canaries.images_in),
    ]


def train(
    recipe: Audited,
    crowd: ClassificationWork,
    trainer: Trainer,
    mechanics: Mechanics,
    cut: PrivateCut,
) -> Tensor:
    """All steps of the recipe on data with canaries; what was released of the marks."""
    net = MarkedNet(trainer.net, recipe.canaries.gradients, LOUD * recipe.privacy.max_norm)
    optimizer = crowd.make_optimizer(net)
    trainer = replace(trainer, model=net, optimizer=optimizer, ema=None)
    watch = Watch(net, optimizer)
    quiet = replace(mechanics.privacy, train_metrics=False)  # canaries would be among the images
    loss_of = loss_with_canaries(crowd.task, recipe.canaries.gradients)
    step = private_step(trainer, loss_of, replace(mechanics, privacy=quiet))
    windows = chain.from_iterable(
        private_windows(crowd, trainer, cut, epoch, 0) for epoch in range(1, trainer.epochs + 1)
    )
    main = trainer.accelerator.is_main_process
    with Progress(epochs=1, steps=trainer.steps, unit="img", enabled=main) as progress:
        train_epoch(trainer, windows, step, progress)
    return watch.released()
