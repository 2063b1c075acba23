"""Audit a recipe: train it once with canaries, and tell what they refute of its claim.

    python -m privacy.audit
    python -m privacy.audit --config mnist-knresnet13 --canaries.gradients 2000

What is attacked is a run of its own, in whose training data a thousand canaries are or are not by
the toss of a coin; the weights are of no use. audit.json and audit.md in its folder set the lower
bounds on epsilon, which hold with 95 % confidence, beside the epsilon that the recipe claims. A
bound above the claim is exit code 1. One below it proves nothing: it is what these attacks found.
"""

import sys
from collections.abc import Sequence

from knorm.training.mistakes import run_program
from privacy.config import Audited, parse_recipe


def main(argv: Sequence[str] | None = None) -> None:
    """Read the recipe, then audit it; what trains is imported between, for it takes seconds."""
    argv = sys.argv[1:] if argv is None else argv
    recipe = parse_recipe(argv, Audited, prog="python -m privacy.audit", about=__doc__)
    from privacy.auditing import carry_out

    refutation = carry_out(recipe, argv)
    if refutation:
        sys.exit(refutation)


if __name__ == "__main__":
    sys.exit(run_program(main))
