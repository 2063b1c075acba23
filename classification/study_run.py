"""The runs of a study: what is missing is trained, and one that fails does not stop the rest."""

import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from classification.config import Recipe
from classification.data import ImageData, load_data
from classification.runs import check_recipe_and_net
from classification.study_options import Asked
from classification.study_records import ASKED, FAILED, failure, identify, state_of
from classification.study_rows import Row, Study, settings_in
from classification.work import ClassificationWork
from knorm.training.config import to_yaml, told_with
from knorm.training.cost import forget_peak_memory
from knorm.training.files import check_folder, write_text
from knorm.training.folder import has_config
from knorm.training.launch import start
from knorm.training.lock import locked
from knorm.training.mistakes import InUseError, OneRankMistakeError, UserMistakeError, line_for
from knorm.training.run import command_line, to_json
from knorm.training.session import place_of, train

DONE, ELSEWHERE = "done", "at work in another process"


def carry_out(asked: Asked, argv: Sequence[str]) -> None:
    """The plan; raises SystemExit with 1 where a run failed."""
    study, folder = asked.study, asked.folder
    check(study, folder)
    if asked.dry_run:
        count = len(study.rows) * len(study.seeds)
        print(f"{len(study.rows)} rows build their nets: {count} runs for {folder}")
        return
    accelerator = start(study.rows[0].recipe.launch)
    if accelerator.is_main_process:
        check_folder(folder)
        write_text(folder / ASKED, to_json({"overrides": asked.overrides}) + "\n")
    command, loader = command_line("classification.study", argv), Loader(accelerator)
    ended: dict[Path, str] = {}
    for row in by_data(study.rows):
        for seed in study.seeds:
            recipe = row.at(seed, folder)
            place = Path(recipe.run_dir or "")
            if accelerator.is_main_process:
                print(f"\nrow {row.number} of {study.name}: {row.slug}, seed {seed}", flush=True)
            ended[place] = run_one(recipe, place, loader, command)
            accelerator.free_memory()
    if accelerator.is_main_process:
        print(summary(ended, folder), flush=True)
    accelerator.end_training()
    if FAILED in ended.values():
        raise SystemExit(1)


def check(study: Study, folder: Path) -> None:
    """Build the net of every row, and look at every folder, before anything is trained."""
    for row in study.rows:
        with told_with(f"row {row.number}, {row.slug}"):
            check_recipe_and_net(row.recipe)
            if settings_in(row.recipe) != row.settings:
                raise UserMistakeError(
                    f"{row.recipe.model.name} is built for one size of images: give "
                    "model.options.img_size in the study"
                )
            for seed in study.seeds:
                check_place(row, row.at(seed, folder), study)


def check_place(row: Row, recipe: Recipe, study: Study) -> None:
    """Raise `UserMistakeError` where the run's folder holds a run of something else."""
    place = Path(recipe.run_dir or "")
    if has_config(place) and identify(place, study).row is not row:
        raise UserMistakeError(f"{place} is a run of another row of the study; move it away")


def by_data(rows: Sequence[Row]) -> list[Row]:
    """The rows, those of the same data beside each other."""
    order = list(dict.fromkeys(data_key(row.recipe) for row in rows))
    return sorted(rows, key=lambda row: order.index(data_key(row.recipe)))


def data_key(recipe: Recipe) -> str:
    """The same for recipes whose data are loaded alike."""
    return f"{to_yaml(recipe.data)}{recipe.augment.resized_crop is not None}"


class Loader:
    """The data of the recipe at work; they are read again where the next one has others."""

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self._key: str | None = None
        self._data: ImageData | None = None

    def data(self, recipe: Recipe) -> ImageData:
        """What `load_data` gives."""
        if self._data is None or self._key != data_key(recipe):
            self._data = None  # not two sets in memory
            self._data = load_data(recipe, self.accelerator)
            self._key = data_key(recipe)
        return self._data


def run_one(recipe: Recipe, place: Path, loader: Loader, command: str) -> str:
    """Train a run, or go on with it; how that ended. Only a signal gets through."""
    accelerator = loader.accelerator
    with claimed(accelerator, place) as ours:
        if not ours:
            return ELSEWHERE
        if state_of(place) == "done":
            return DONE
        try:
            found = place_of(recipe)
            forget_peak_memory(accelerator.device)
            train(ClassificationWork(recipe, loader.data(recipe)), found, command)
        except Exception as error:
            together = accelerator.num_processes == 1 or is_shared(error)
            if accelerator.is_main_process or not together:
                note_failure(place, error)
            if not together:  # the other processes wait for this one
                raise
            return FAILED
    return DONE


@contextmanager
def claimed(accelerator: Accelerator, place: Path) -> Iterator[bool]:
    """Whether this job alone has the run; other jobs at the same study then leave it alone."""
    ours = [True]
    with ExitStack() as stack:
        if accelerator.is_main_process:
            check_folder(place.parent)
            try:
                stack.enter_context(locked(place.parent, f".{place.name}.lock"))
                (place / FAILED).unlink(missing_ok=True)
            except InUseError:
                ours = [False]
        broadcast_object_list(ours)
        yield ours[0]


def is_shared(error: Exception) -> bool:
    """Whether all processes of a job meet this error, or one of them alone."""
    alone = isinstance(error, OneRankMistakeError | InUseError)
    return isinstance(error, UserMistakeError) and not alone


def note_failure(place: Path, error: Exception) -> None:
    """failed.txt: the line for the user, or the traceback."""
    check_folder(place)
    line = line_for(error)
    write_text(place / FAILED, (line or "".join(traceback.format_exception(error)).strip()) + "\n")
    print(f"failed: {place}: {failure(place)}", flush=True)


def summary(ended: dict[Path, str], folder: Path) -> str:
    """The last lines on the screen."""
    counts = {state: list(ended.values()).count(state) for state in (DONE, FAILED, ELSEWHERE)}
    counts["failed"] = counts.pop(FAILED)
    words = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    failed = [place for place, state in ended.items() if state == FAILED]
    lines = [f"failed: {place}: {failure(place)}" for place in failed]
    return "\n".join([f"\n{len(ended)} runs in {folder}: {words}", *lines])
