"""Small audits: a linear net on a hundred digits, four hundred canaries."""

from torch import nn

from classification.data import load_data
from classification.work import ClassificationWork
from knorm.training.launch import start
from knorm.training.resume import Place
from privacy.auditing import audit
from privacy.config import Audited, parse_recipe
from privacy.spending import budget_of
from tests.privacy.known import SECRET

SETTINGS = {
    "data.limit": 100,
    "batch_size": 50,
    "epochs": 8,
    "privacy.epsilon": "null",
    "privacy.noise_multiplier": 5,
    "privacy.accountant": "rdp",
    "privacy.physical_batch": 512,
    "canaries.gradients": 400,
    "canaries.images": 16,
}


def recipe_of(**settings):
    return parse_recipe(
        [f"--{key}={value}" for key, value in (SETTINGS | settings).items()], Audited
    )


def linear(*_):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def audited(folder, monkeypatch, net=linear, **settings):
    """The report of an audit of such a net, all else as in `python -m privacy.audit`."""
    monkeypatch.setattr(ClassificationWork, "make_net", lambda *_: net())
    monkeypatch.setattr("privacy.runs.of_run", lambda *_, **__: SECRET)
    recipe = recipe_of(**settings)
    accelerator = start(recipe.launch)
    work = ClassificationWork(recipe, load_data(recipe, accelerator))
    budget = budget_of(recipe, work.sizes["train"])
    return audit(recipe, work, budget, Place(folder), "a test")
