"""The card of a private run: what was done, what it guarantees, what was checked, what is not.

What such a report should hold follows Ponomareva et al., "How to DP-fy ML", JAIR 2023, section 5.3.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from knorm.training.environment import versions
from knorm.training.run import Run, to_json
from privacy.checks import Proof
from privacy.config import PrivateRecipe
from privacy.ledger import Ledger
from privacy.spending import Budget

NOT_COVERED = (
    "the test numbers, where training images are among the test images",
    "the choice of hyper-parameters, where it was made on these training images",
    "best weights and validation numbers: they look at the validation images, which the budget "
    "does not count",
    "train.* numbers, batch sizes and times in metrics.jsonl, metrics.csv and curves.png",
    "optimizer state and secret.key in this folder: share weights, config and this card alone",
)


def card_of(
    recipe: PrivateRecipe, budget: Budget, ledger: Ledger, proof: Proof | None
) -> dict[str, Any]:
    """The card's facts, as privacy_card.json holds them."""
    epsilons = budget.epsilons(ledger.steps)
    privacy = recipe.privacy
    return {
        "guarantee": {
            "epsilon": epsilons[privacy.accountant],
            "delta": privacy.delta,
            "accountant": privacy.accountant,
            "unit": ledger.mechanism.unit,
            "neighbours": ledger.mechanism.neighbours,
        },
        "epsilon_by_accountant": epsilons,
        "mechanism": {
            "name": ledger.mechanism.mechanism,
            "sampling": "Poisson, every image by itself, one draw for all processes",
            "sampling_rate": str(budget.sampling_rate),
            "training_images": budget.num_samples,
            "noise_multiplier": budget.noise_multiplier,
            "max_norm": privacy.max_norm,
            "clipping": privacy.clipping,
            "views": privacy.views,
            "steps": ledger.steps,
        },
        "budget_asked_for": {"epsilon": privacy.epsilon, "steps": budget.steps},
        "checked_before_training": "nothing" if proof is None else asdict(proof),
        "seeds": {
            "secret": "256 bits of the system's source key masks and noise (secret.key)",
            "secret_commitment": ledger.secret.commitment,
            "public_seed": f"{recipe.seed}: first weights, augmentation, dropout",
        },
        "not_covered": list(NOT_COVERED),
        "versions": versions(),
    }


def write_card(
    run: Run, recipe: PrivateRecipe, budget: Budget, ledger: Ledger, proof: Proof | None
) -> None:
    """privacy_card.json and privacy_card.md."""
    card = card_of(recipe, budget, ledger, proof)
    run.write("privacy_card.json", to_json(card, indent=2) + "\n")
    run.write("privacy_card.md", in_words(card))


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
        "image in one place all other gradients kept their bits; gradients add up to torch's "
        f"within {proof['largest_difference']:.1e}; the largest clipped norm was "
        f"{proof['largest_norm']:.4f} of the bound."
    )


def in_digits(epsilon: float) -> str:
    """Rounded up, as a bound must be."""
    return f"{math.ceil(epsilon * 1000) / 1000:g}" if math.isfinite(epsilon) else "infinite"
