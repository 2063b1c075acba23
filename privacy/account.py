r"""What a budget buys, told by all accountants side by side.

    python -m privacy.account --delta 1e-5 --sampling_rate 0.04 --noise_multiplier 1.5 --steps 2250
    python -m privacy.account --delta 1e-5 --batch_size 4096 --num_samples 50000 --epochs 30 \
        --epsilon 3

Of epsilon, sampling rate, noise multiplier and steps give three, and the fourth is answered:
epsilon and noise rounded up, steps and sampling rate rounded down, so that what is printed keeps
the budget, too. Neighbouring data sets differ by one image; batches are drawn, not shuffled.
"""

import sys
from argparse import ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from fractions import Fraction

from knorm.training.mistakes import (
    OneLineParser,
    UserMistakeError,
    mistakes_of_the_user,
    run_program,
)
from privacy.budget import check_budget, delta_warning, steps_in

ROUNDING = {  # of what is asked for, to the side that keeps the budget
    "epsilon": ROUND_CEILING,
    "noise_multiplier": ROUND_CEILING,
    "steps": ROUND_FLOOR,
    "sampling_rate": ROUND_FLOOR,
}
DIGITS = 6


def main(argv: Sequence[str] | None = None) -> None:
    """Read the options, then account; what accounts is imported between, for it takes seconds."""
    options = parse_options(argv)
    with mistakes_of_the_user():
        given = numbers_of(options)
    asked = next(name for name in ROUNDING if name not in given)
    answers, refusals = ask_all(asked, given)
    if not answers:
        raise UserMistakeError("; ".join(refusals.values()))
    if options.num_samples and (line := delta_warning(options.delta, options.num_samples)):
        print(f"warning: {line}", file=sys.stderr)
    print((as_json if options.json else as_table)(asked, given, answers, refusals))


def parse_options(argv: Sequence[str] | None) -> Namespace:
    """The numbers that are given."""
    parser = OneLineParser(
        prog="python -m privacy.account",
        description=__doc__,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--delta", type=float, required=True, help="below 1 / number of images")
    parser.add_argument("--epsilon", type=float, help="the budget")
    parser.add_argument("--noise_multiplier", type=float, help="in clipping norms")
    parser.add_argument("--sampling_rate", type=fraction, help="such as 0.04 or 4096/50000")
    parser.add_argument("--batch_size", type=int, help="expected, in place of the sampling rate")
    parser.add_argument("--num_samples", type=int, help="images in the training set")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--epochs", type=fraction, help="in place of steps, as in privacy.train")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    return parser.parse_args(argv)


def fraction(text: str) -> Fraction:
    """0.04, 1e-3 or 4096/50000, exactly."""
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise ArgumentTypeError(f"expected a number or a fraction, got {text!r}") from error


def numbers_of(options: Namespace) -> dict[str, float]:
    """Delta and the three given of epsilon, noise multiplier, sampling rate and steps, in range.

    Raises:
        ValueError: other than three are given, one twice, or one is out of range.
    """
    rate = sampling_rate_of(options)
    steps = options.steps
    if options.epochs is not None:
        if steps is not None:
            raise ValueError("give --steps or --epochs, not both")
        if rate is None:
            raise ValueError("--epochs needs the sampling rate; ask with --steps")
        steps = steps_in(options.epochs, rate)
    numbers = {
        "delta": options.delta,
        "epsilon": options.epsilon,
        "noise_multiplier": options.noise_multiplier,
        "sampling_rate": rate if rate is None else float(rate),
        "steps": steps,
    }
    given = {name: value for name, value in numbers.items() if value is not None}
    if len(given) != len(numbers) - 1:
        names = [f"--{name}" for name in ROUNDING if name in given]
        raise ValueError(
            "of --epsilon, --sampling_rate, --noise_multiplier and --steps give three, and the "
            f"fourth is answered; got {', '.join(names) or 'none'}"
        )
    check_budget(**given)
    return given


def sampling_rate_of(options: Namespace) -> Fraction | None:
    """The sampling rate, or batch size over images; None where neither is given."""
    rate = options.sampling_rate
    if options.batch_size is not None:
        if rate is not None:
            raise ValueError("give --sampling_rate or --batch_size, not both")
        if options.num_samples is None:
            raise ValueError("--batch_size needs --num_samples, the images in the training set")
        if not 0 < options.batch_size <= options.num_samples:
            raise ValueError(
                f"--batch_size must lie between 1 and the {options.num_samples} images of "
                f"--num_samples, got {options.batch_size}"
            )
        rate = Fraction(options.batch_size, options.num_samples)
    if rate is not None:
        check_budget(sampling_rate=rate)
    return rate


def ask_all(asked: str, given: Mapping[str, float]) -> tuple[dict[str, float], dict[str, str]]:
    """What each accountant answers, and why others do not."""
    from privacy import accounting

    ask: dict[str, Callable[..., float]] = {
        "epsilon": accounting.epsilon,
        "noise_multiplier": accounting.noise_multiplier_for,
        "steps": accounting.steps_for,
        "sampling_rate": accounting.sampling_rate_for,
    }
    answers, refusals = {}, {}
    for accountant in accounting.ACCOUNTANTS:
        try:
            answers[accountant] = ask[asked](accountant, **given)
        except ValueError as error:
            refusals[accountant] = str(error)
    return answers, refusals


def as_table(
    asked: str,
    given: Mapping[str, float],
    answers: Mapping[str, float],
    refusals: Mapping[str, str],
) -> str:
    """A row for each accountant; below it, why one has no answer."""
    from knorm.training.tables import columns

    digits = Context(prec=DIGITS, rounding=ROUNDING[asked])
    rows = [
        (name, str(value) if isinstance(value, int) else f"{digits.create_decimal(value):g}")
        for name, value in answers.items()
    ]
    lines = [f"{name} {value:g}" for name, value in given.items()]
    head = ("accountant", asked)
    return "\n".join((", ".join(lines), "", columns(head, rows), *refusals.values()))


def as_json(
    asked: str,
    given: Mapping[str, float],
    answers: Mapping[str, float],
    refusals: Mapping[str, str],
) -> str:
    """One line; an infinite epsilon is null."""
    from knorm.training.run import to_json

    return to_json({**given, "asked": asked, "answers": answers, "refusals": refusals})


if __name__ == "__main__":
    sys.exit(run_program(main))
