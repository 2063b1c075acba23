"""`knorm COMMAND ...`: finds the command's module. Nothing slow is imported before it is known."""

import sys
from collections.abc import Sequence
from importlib import import_module

from knorm.training.mistakes import UserMistakeError, did_you_mean, run_program

COMMANDS = {
    "models": "list the nets with their parameters and multiplications",
    "describe": "options, size and stages of a net",
    "profile": "time and memory of a net, also against another norm",
    "recipes": "list the recipes, and the published numbers that they aim at",
    "report": "runs side by side: a table and a picture",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command that the arguments name."""
    name, *rest = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
        return
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS) or f"; commands: {', '.join(COMMANDS)}"
        raise UserMistakeError(f"knorm {name}: no such command{hint}")
    import_module(f"knorm.cli.{name}").main(rest)


def usage() -> str:
    """What `knorm --help` says."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        ("usage: knorm COMMAND ...\n", *lines, "\nknorm COMMAND --help tells a command's arguments")
    )


def run() -> int:
    """The console script: `main` with its exit code."""
    return run_program(main)


if __name__ == "__main__":
    sys.exit(run())
