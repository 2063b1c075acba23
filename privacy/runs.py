"""Private runs: what happens from a recipe to a run folder with its ledger and its card."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from knorm.choices import nearest
from knorm.training.launch import start
from knorm.training.loop import Trainer, Window
from knorm.training.mistakes import UserMistakeError, mistakes_of_the_user
from knorm.training.run import Run, command_line
from knorm.training.sampling import Share
from knorm.training.session import train_or_rehearse
from knorm.training.trainer import make_ema, rate_of
from knorm.training.weights import Beginning
from knorm.training.work import Steps, Way
from privacy.card import in_digits, warnings_of, write_card, write_seeds_card
from privacy.checks import Proof, prove, refuse_batch_statistics
from privacy.config import Private
from privacy.ledger import FILE as LEDGER
from privacy.ledger import Ledger, Mechanism
from privacy.origin import origin_of
from privacy.physical import physical_batch
from privacy.pipelines import PrivateWork, pipeline_of, prepare
from privacy.sampler import PoissonSampling, chunks
from privacy.secret import FILE as KEY
from privacy.secret import Secret, of_run
from privacy.spending import Budget, budget_of
from privacy.step import Mechanics, private_step

UNIT = "one training image"


@dataclass(frozen=True)
class PrivateCut:
    """The Poisson samples of all steps, cut into chunks that are dealt to the ranks.

    Each "epoch" is one step, counted from 1, so that augmentation is drawn anew for every step.
    Chunks are those of the whole sample: what is computed in one does not depend on how many ranks
    there are.
    """

    sampling: PoissonSampling
    views: int
    physical_batch: int
    """views of images in a chunk, at most"""
    seed: int
    """of augmentation, secret"""

    def windows(
        self, epoch: int, rank: int, num_ranks: int, first_step: int = 0
    ) -> Iterator[tuple[list[Share], int]]:
        """This rank's chunks of the one step of an epoch."""
        records = self.sampling.batch(epoch - 1)
        size = max(1, self.physical_batch // self.views)
        copies = torch.arange(self.views) * self.sampling.num_samples
        mine = chunks(records, size)[rank::num_ranks]
        numbers = [(part[:, None] + copies).flatten() for part in mine]
        yield [Share(views, len(views)) for views in numbers], len(records)


def carry_out(recipe: Private, argv: Sequence[str]) -> None:
    """The plan of a private run; `argv` is what its command line said."""
    place = prepare(recipe)  # the last place for mistakes before any process group
    accelerator = start(recipe.launch)
    work = pipeline_of(recipe).load(recipe, accelerator)
    with mistakes_of_the_user():
        budget = budget_of(recipe, work.sizes["train"])
    tell(recipe, budget, accelerator)
    work.check_net()
    way = private_way(budget, proof_of(work, private_net(work)))
    train_or_rehearse(work, place, command_line("privacy.train", argv), way)


def tell(recipe: Private, budget: Budget, accelerator: Accelerator) -> None:
    """What the run, or all of its seeds, will cost, and what is doubtful about it."""
    if not accelerator.is_main_process:
        return
    for line in warnings_of(budget):
        print(f"warning: {line}", file=sys.stderr, flush=True)
    together = ""
    if recipe.seeds > 1:
        cost = budget.epsilons(recipe.seeds)[budget.accountant]
        together = f", all {recipe.seeds} runs together {in_digits(cost)},"
    print(
        f"cost   epsilon {in_digits(budget.epsilon())}{together} at delta {budget.delta:g} "
        f"({budget.accountant})  noise {budget.noise_multiplier:g}  sampling rate "
        f"{budget.sampling_rate}  {budget.steps} steps",
        flush=True,
    )


def private_way(budget: Budget, proof: Proof | None) -> Way:
    """How runs step within a budget."""
    return Way(
        partial(make_trainer, budget=budget),
        partial(private_steps, budget=budget, proof=proof),
        partial(write_seeds_card, budget),
        unseen="train",
    )


def private_steps(
    work: PrivateWork, run: Run, trainer: Trainer, *, budget: Budget, proof: Proof | None
) -> Steps:
    """Private steps on Poisson samples; at the end of the run its card."""
    recipe = work.recipe
    size = physical_batch(recipe.privacy, run, trainer, work.loss, maker_of(work))
    secret, ledger = keys_of(work, budget, run, trainer, size)
    cut = cut_of(recipe, budget, secret, size)

    def end() -> None:
        if ledger is not None:
            write_card(run, recipe, budget, ledger, proof)

    return Steps(
        partial(private_windows, work, trainer, cut),
        private_step(trainer, work.loss, mechanics_of(work, budget, secret, ledger)),
        end,
    )


def proof_of(work: PrivateWork, net: nn.Module) -> Proof | None:
    """What the checks before training measured; None where the recipe leaves them out.

    Norms over the batch are refused all the same: what one image can do would have no bound.
    """
    privacy = work.recipe.privacy
    if not privacy.checks:
        refuse_batch_statistics(net)
        return None
    return prove(net, work.loss, maker_of(work), privacy)


def maker_of(work: PrivateWork) -> Callable[[int, int], Any]:
    """What makes a batch of so many random records, with their views, from a seed."""
    return lambda records, seed: work.made_up(records * work.recipe.privacy.views, seed)


def mechanics_of(
    work: PrivateWork, budget: Budget, secret: Secret, ledger: Ledger | None
) -> Mechanics:
    """What the steps of the recipe need."""
    return Mechanics(
        privacy=work.recipe.privacy,
        noise_multiplier=budget.noise_multiplier,
        expected_batch=work.recipe.batch_size,
        logged=work.logged,
        secret=secret,
        ledger=ledger,
    )


def cut_of(recipe: Private, budget: Budget, secret: Secret, physical_batch: int) -> PrivateCut:
    """Which images make up which step."""
    sampling = PoissonSampling(
        num_samples=budget.num_samples,
        sampling_rate=budget.sampling_rate,
        steps=budget.steps,
        secret=secret,
    )
    key = secret.number("augmentation")
    return PrivateCut(sampling, recipe.privacy.views, physical_batch, key)


def private_net(work: PrivateWork, weights: Beginning | None = None) -> nn.Module:
    """The net with its first weights, all but `privacy.trained` frozen.

    Raises:
        UserMistakeError: a name of `privacy.trained` is that of no parameter.
    """
    recipe, net = work.recipe, work.make_net(weights)
    names, trained = [name for name, _ in net.named_parameters()], set[str]()
    for pattern in recipe.privacy.trained:
        found = [name for name in names if fnmatchcase(name, pattern)]
        if not found:
            raise UserMistakeError(
                f"privacy.trained: {recipe.model.name} has no parameter {pattern}"
                f"{nearest(pattern, names)}"
            )
        trained.update(found)
    for name, parameter in net.named_parameters():
        if name not in trained:
            parameter.requires_grad_(False)
    return net


def make_trainer(work: PrivateWork, weights: Beginning | None, *, budget: Budget) -> Trainer:
    """Net and plain optimizer; Accelerate wraps neither, for it would step rank by rank."""
    recipe, net = work.recipe, private_net(work, weights)
    return Trainer(
        accelerator=work.accelerator,
        model=net,
        optimizer=work.make_optimizer(net),
        rate_at=rate_of(recipe, budget.steps, budget.steps_per_epoch),
        seed=recipe.seed,
        steps_per_epoch=budget.steps_per_epoch,
        steps=budget.steps,
        ema=make_ema(recipe, net),
        ema_every=recipe.ema_every,
    )


def private_windows(
    work: PrivateWork, trainer: Trainer, cut: PrivateCut, epoch: int, first_step: int
) -> Iterator[Window[Any]]:
    """What this rank computes in the steps of an epoch that are left, augmented."""
    begin = (epoch - 1) * trainer.steps_per_epoch
    end = min(begin + trainer.steps_per_epoch, trainer.steps)
    for step in range(begin + first_step, end):
        yield from work.windows(cut, epoch=step + 1)


def keys_of(
    work: PrivateWork, budget: Budget, run: Run, trainer: Trainer, physical_batch: int
) -> tuple[Secret, Ledger | None]:
    """The secret on every rank, and the main process's ledger, new or gone on with."""
    recipe = work.recipe
    begun = trainer.step > 0 or (run.folder / LEDGER).exists() or (run.folder / KEY).exists()
    secret = of_run(run.accelerator, run.folder, resumes=begun)
    if not run.writes:
        return secret, None
    mechanism = Mechanism(
        sampling_rate=budget.sampling_rate,
        noise_multiplier=budget.noise_multiplier,
        clip_norm=recipe.privacy.max_norm,
        delta=recipe.privacy.delta,
        unit=UNIT,
        accountant=recipe.privacy.accountant,
        origin=origin_of(work, physical_batch, secret),
    )
    if trainer.step > 0 or (run.folder / LEDGER).exists():
        return secret, Ledger.resume(run.folder, mechanism, secret, trainer.step)
    return secret, Ledger.begin(run.folder, mechanism, secret)
