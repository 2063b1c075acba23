"""Models by name: the function's name is the model's, its keyword arguments are the options."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from fnmatch import fnmatchcase
from typing import Any, TypeVar, overload

from torch import nn

from knorm.choices import TASKS, Task, check_name, nearest
from knorm.models import in_timm

Function = TypeVar("Function", bound=Callable[..., nn.Module])

_MODELS: dict[str, Callable[..., nn.Module]] = {}
_TASKS: dict[str, Task] = {}


@overload
def register_model(function: Function) -> Function: ...


@overload
def register_model(*, task: Task) -> Callable[[Function], Function]: ...


def register_model(function: Any = None, *, task: Task = "classification") -> Any:
    """Make a function that builds a net known to `create_model` under the function's name.

    A decorator, plain or with the net's task. The net's options are the function's keyword-only
    arguments; if it takes any (`**options`), also the fields of the `Options` of the class that it
    says it returns.
    """
    check_name("task", task, TASKS)

    def register(function: Function) -> Function:
        name = function.__name__
        if name in _MODELS:
            raise ValueError(f"there is a model {name!r} already")
        _MODELS[name], _TASKS[name] = function, task
        return function

    return register if function is None else register(function)


def create_model(name: str, **options: Any) -> nn.Module:
    """Build the net of that name, with the given options and its own defaults for the others.

    All nets take num_classes, in_chans=3, norm, stem ("imagenet", "cifar", ...), activation,
    dropout_p, final_dropout_p, eval_stats and norm_options; see
    `knorm.models.common.NetOptions`, and for segmentation also
    `knorm.models.segmenter.SegmenterOptions`. `model_options` lists what a net takes.
    `timm:<name>` is timm's net of that name; see `knorm.models.in_timm`.

    Raises:
        ValueError: an unknown name, option or value; the message names what is possible.
    """
    taken = model_options(name)
    for option in options:
        if option not in taken:
            hint = nearest(option, taken)
            raise ValueError(
                f"{name} takes no option {option!r}{hint} (it takes {', '.join(taken)})"
            )
    if name.startswith(in_timm.PREFIX):
        return in_timm.build(name, options)
    return _model(name)(**options)


def list_models(pattern: str = "*", task: Task = "classification") -> list[str]:
    """The names of a task's nets that match a shell-style pattern, sorted; none of them is timm's.

    task: "classification" or "segmentation".
    """
    check_name("task", task, TASKS)
    return sorted(n for n, its in _TASKS.items() if its == task and fnmatchcase(n, pattern))


def model_options(name: str) -> tuple[str, ...]:
    """The names of the options that this model takes."""
    if name.startswith(in_timm.PREFIX):
        return in_timm.options_of(name)
    signature = inspect.signature(_model(name))
    parameters = signature.parameters.values()
    names = list(own_defaults(name))
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        names += [field.name for field in fields(signature.return_annotation.Options)]
    return tuple(names)


def own_defaults(name: str) -> dict[str, Any]:
    """The options that the model's function names itself, none of `timm:<name>`, with defaults."""
    if name.startswith(in_timm.PREFIX):
        return {}
    parameters = inspect.signature(_model(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def options_class(name: str) -> type | None:
    """The `Options` of the class that a model's function says it returns, if there are such."""
    return getattr(inspect.signature(_model(name)).return_annotation, "Options", None)


def _model(name: str) -> Callable[..., nn.Module]:
    check_name("model", name, sorted(_MODELS))
    return _MODELS[name]
