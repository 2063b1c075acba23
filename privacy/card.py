"""The card of a private run: what was done, what it guarantees, what was checked, what is not.

What such a report should hold follows Ponomareva et al., "How to DP-fy ML", JAIR 2023, section 5.3.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from knorm.training.environment import versions
from knorm.training.files import write_text
from knorm.training.run import Run, to_json
from knorm.training.study import SUMMARY, write_seeds
from privacy.budget import delta_warning
from privacy.checks import Proof
from privacy.config import Private
from privacy.ledger import Ledger, Mechanism
from privacy.spending import Budget

CARD = "privacy_card"
FOREIGN = ("pretrained", "checkpoint_path")  # options of timm's nets that bring weights

NOT_COVERED = (
    "the test numbers, where training images are among the test images",
    "the choice of hyper-parameters, where it was made on these training images",
    "best weights and validation numbers: they look at the validation images, which the budget "
    "does not count",
    "train.* numbers, batch sizes and times (images a second times seconds are the images drawn): "
    "metrics.jsonl, metrics.csv, curves.png, the state.json of checkpoints and trackers",
    "optimizer state and secret.key in this folder: share the .safetensors of weights, config.yaml "
    "and this card alone",
    "the number of training images, which stands on this card: it is taken as public",
)


def card_of(recipe: Private, budget: Budget, ledger: Ledger, proof: Proof | None) -> dict[str, Any]:
    """The card's facts, as privacy_card.json holds them."""
    privacy, mechanism = recipe.privacy, ledger.mechanism
    return {
        "guarantee": guarantee_of(budget, mechanism),
        "epsilon_by_accountant": budget.epsilons(),
        "mechanism": {
            "name": mechanism.mechanism,
            "sampling": "Poisson, every image by itself, one draw for all processes",
            "sampling_rate": str(budget.sampling_rate),
            "training_images": budget.num_samples,
            "noise_multiplier": budget.noise_multiplier,
            "max_norm": privacy.max_norm,
            "clipping": privacy.clipping,
            "views": privacy.views,
            "trained": ", ".join(privacy.trained),
            "steps": ledger.steps,
        },
        "budget_asked_for": {"epsilon": privacy.epsilon, "steps": budget.steps},
        "warnings": warnings_of(budget),
        "checked_before_training": "nothing" if proof is None else asdict(proof),
        "seeds": {
            "secret": "256 bits of the system's source key masks, noise, augmentation and dropout "
            "(secret.key)",
            "secret_commitment": ledger.secret.commitment,
            "public_seed": f"{recipe.seed}: first weights",
        },
        "not_covered": [*NOT_COVERED, *not_covered_here(recipe)],
        "versions": versions(),
    }


def guarantee_of(budget: Budget, mechanism: Mechanism) -> dict[str, Any]:
    """What is claimed of a run."""
    return {
        "epsilon": budget.epsilon(),
        "delta": budget.delta,
        "accountant": budget.accountant,
        "unit": mechanism.unit,
        "neighbours": mechanism.neighbours,
    }


def warnings_of(budget: Budget) -> list[str]:
    """What weakens the claim."""
    line = delta_warning(budget.delta, budget.num_samples)
    return [line] if line else []


def not_covered_here(recipe: Private) -> list[str]:
    """What this recipe does before or beside the private steps."""
    begins_with, options = recipe.begins_with(), recipe.model.options
    begun = Path(begins_with).name if begins_with else None
    options = options | (options.get("backbone_options") or {})
    foreign = [name for name in FOREIGN if options.get(name)]
    given = {
        f"the first weights, by {' and '.join(foreign)}: what these cost, where they were trained "
        "on the same images, adds up": foreign,
        f"the first weights, those of {begun}: what these cost, where they were trained on the "
        "same images, adds up": begun,
    }
    return [*(thing for thing, is_so in given.items() if is_so), *recipe.choices()]


def write_card(
    run: Run, recipe: Private, budget: Budget, ledger: Ledger, proof: Proof | None
) -> None:
    """privacy_card.json and privacy_card.md."""
    card = card_of(recipe, budget, ledger, proof)
    run.write(f"{CARD}.json", to_json(card, indent=2) + "\n")
    run.write(f"{CARD}.md", in_words(card))


def write_seeds_card(budget: Budget, folder: Path, results: Sequence[dict[str, Any]]) -> str:
    """The numbers of several seeds, and what all of them cost together, if all are published."""
    runs = len(results)
    together = budget.epsilons(runs)
    card = {
        "runs": runs,
        "guarantee_of_each": {"epsilon": budget.epsilon(), "delta": budget.delta},
        "guarantee_of_all": {"epsilon": together[budget.accountant], "delta": budget.delta},
        "accountant": budget.accountant,
        "epsilon_of_all_by_accountant": together,
    }
    write_text(folder / f"{CARD}.json", to_json(card, indent=2) + "\n")
    cost = (
        f"Each run alone costs epsilon {in_digits(budget.epsilon())}; publishing all {runs}, or "
        f"what was chosen or averaged from them, costs {in_digits(together[budget.accountant])} "
        f"at delta {budget.delta:g} ({budget.accountant})."
    )
    text = f"{write_seeds(folder, results)}\n{cost}\n"
    write_text(folder / SUMMARY, text)
    return text


def in_words(card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    given, mechanism = card["guarantee"], card["mechanism"]
    epsilons = card["epsilon_by_accountant"]
    lines = [
        "# Privacy card",
        "",
        claim(given),
        "",
        "| accountant | epsilon |",
        "| --- | --- |",
        *(f"| {name} | {in_digits(value)} |" for name, value in epsilons.items()),
        *(f"\n**Warning**: {line}." for line in card["warnings"]),
        "",
        "| mechanism | |",
        "| --- | --- |",
        *(f"| {name.replace('_', ' ')} | {value} |" for name, value in mechanism.items()),
        "",
        f"Checked before training: {checked(card['checked_before_training'])}",
        "",
        "Seeds: " + "; ".join(str(value) for value in card["seeds"].values()) + ".",
        "",
        "Not covered by the guarantee:",
        "",
        *(f"- {thing}" for thing in card["not_covered"]),
        "",
        "Versions: " + ", ".join(f"{name} {text}" for name, text in card["versions"].items()) + ".",
    ]
    return "\n".join(lines) + "\n"


def claim(given: Mapping[str, Any]) -> str:
    """The guarantee in one sentence."""
    if not math.isfinite(given["epsilon"]):
        return "**No guarantee: no noise was added.**"
    return (
        f"The weights are ({in_digits(given['epsilon'])}, {given['delta']:g})-differentially "
        f"private; unit: {given['unit']}; neighbours: {given['neighbours']}; "
        f"accountant: {given['accountant']}."
    )


def checked(proof: Any) -> str:
    """The checks and their figures."""
    if isinstance(proof, str):
        return f"{proof} (privacy.checks was off)."
    return (
        f"on {proof['records']} made-up images, {proof['parameters']} parameters: with another "
        "image in one place all other gradients kept their bits, "
        f"{without_one(proof)}; gradients add up to torch's "
        f"within {proof['largest_difference']:.1e}; the largest clipped norm was "
        f"{proof['largest_norm']:.4f} of the bound."
    )


def without_one(proof: Mapping[str, Any]) -> str:
    """What was found where an image was left out."""
    if proof["without_one"]:
        return "with an image less their values"
    return "(with an image less was not tried: the net draws numbers that no rate turns off)"


def in_digits(epsilon: float | str) -> str:
    """Rounded up, as a bound must be; the words of an accountant that refused."""
    if isinstance(epsilon, str):
        return epsilon
    return f"{math.ceil(epsilon * 1000) / 1000:g}" if math.isfinite(epsilon) else "infinite"
