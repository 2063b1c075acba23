"""What an audit's attacks show of a claim: bounds, whether they refute it, and both in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from knorm.training.environment import versions
from knorm.training.tables import markdown
from privacy.card import in_digits
from privacy.config import Audited
from privacy.one_run import Bound, best_bound, epsilon_bound, gaussian_bound
from privacy.spending import Budget

BOUNDS: dict[str, Bound] = {"any_mechanism": epsilon_bound, "if_gaussian": gaussian_bound}
HEAD = ("canaries", "of them in", "right guesses", "epsilon at least", "if Gaussian")
MEANING = """\
All bounds hold together with that confidence. The first holds for any mechanism, the second for
one that is as private as a Gaussian one in what guesses test, as DP-SGD is. A bound below the claim
is what these attacks found; it proves no privacy."""
Report = dict[str, Any]


@dataclass(frozen=True)
class Attack:
    """Scores of canaries, made without a look at their coins."""

    name: str
    scores: np.ndarray
    included: np.ndarray


def judge(recipe: Audited, budget: Budget, attacks: Sequence[Attack]) -> Report:
    """Bounds of all attacks, which hold together, beside the claim."""
    privacy = recipe.privacy
    share = recipe.canaries.significance / (len(attacks) * len(BOUNDS))
    rows = [row_of(attack, share, privacy.delta) for attack in attacks]
    return {
        "claimed": {
            "epsilon": budget.epsilon(),
            "delta": privacy.delta,
            "accountant": privacy.accountant,
        },
        "at_least": max(row[name]["at_least"] for row in rows for name in BOUNDS),
        "confidence": 1 - recipe.canaries.significance,
        "attacks": rows,
        "mechanism": {
            "sampling_rate": str(budget.sampling_rate),
            "noise_multiplier": budget.noise_multiplier,
            "steps": budget.steps,
            "max_norm": privacy.max_norm,
            "clipping": privacy.clipping,
        },
        "versions": versions(),
    }


def row_of(attack: Attack, significance: float, delta: float) -> Report:
    """An attack's bounds, each at that significance, and the guesses that they are of."""
    row: Report = {
        "name": attack.name,
        "canaries": len(attack.scores),
        "included": int(attack.included.sum()),
    }
    for name, bound in BOUNDS.items():
        found, guesses = best_bound(attack.scores, attack.included, bound, significance, delta)
        row[name] = {"at_least": found, "guesses": guesses.made, "right": guesses.right}
    return row


def refutation(report: Report) -> str | None:
    """A line where a bound is above the claim."""
    is_refuted = report["at_least"] > report["claimed"]["epsilon"]
    return f"the claim is refuted: {comparison(report)}" if is_refuted else None


def comparison(report: Report) -> str:
    """What was found and what is claimed."""
    claimed, percent = report["claimed"], 100 * report["confidence"]
    return (
        f"epsilon is at least {report['at_least']:.3f} at delta {claimed['delta']:g} with "
        f"{percent:g} % confidence; claimed is {in_digits(claimed['epsilon'])} "
        f"({claimed['accountant']})"
    )


def in_words(report: Report) -> str:
    """The report as Markdown."""
    rows = [
        [
            f"{row['canaries']} {row['name']}",
            str(row["included"]),
            ", ".join(f"{row[name]['right']} of {row[name]['guesses']}" for name in BOUNDS),
            *(f"{row[name]['at_least']:.3f}" for name in BOUNDS),
        ]
        for row in report["attacks"]
    ]
    lines = [
        "# Privacy audit",
        "",
        f"**{refutation(report) or f'the claim stands: {comparison(report)}'}**",
        "",
        markdown(HEAD, rows),
        "",
        MEANING,
        "",
        markdown(("mechanism", ""), [(k, str(v)) for k, v in report["mechanism"].items()]),
        "",
        "Versions: " + ", ".join(f"{name} {text}" for name, text in report["versions"].items()),
    ]
    return "\n".join(lines) + "\n"
