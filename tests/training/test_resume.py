import json

import pytest

from knorm.training.folder import with_resumed_config
from knorm.training.mistakes import UserMistakeError
from knorm.training.resume import changed_surroundings, find_place

SURROUNDINGS = {
    "python": "3.13",
    "versions": {"torch": "2.13.0", "rich": "1"},
    "device": "cpu",
    "processes": 1,
    "threads": 1,
    "git": None,
}
SETTINGS = "optim: {lr: 0.1}\ndata: {root: here}\nseed: 0\n"


def begin(folder, settings=SETTINGS, processes=1, files=()):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(settings)
    environment = SURROUNDINGS | {"processes": processes}
    (folder / "environment.json").write_text(json.dumps(environment))
    for name in files:
        (folder / name).mkdir() if name == "last" else (folder / name).touch()
    return folder


def test_without_resume_a_run_needs_a_folder_of_its_own(tmp_path):
    assert find_place(None, None, tmp_path, SETTINGS).folder is None
    assert find_place(None, str(tmp_path), tmp_path, SETTINGS).folder == tmp_path
    (tmp_path / "file").touch()
    for taken in (tmp_path, tmp_path / "file"):
        with pytest.raises(UserMistakeError, match="exists already; give another one"):
            find_place(None, str(taken), tmp_path, SETTINGS)
    begin(tmp_path / "run")
    with pytest.raises(UserMistakeError, match="add --resume auto to go on with it"):
        find_place(None, str(tmp_path / "run"), tmp_path, SETTINGS)


def test_auto_takes_the_newest_run_of_these_settings(tmp_path):
    begin(tmp_path / "0003", files=("last", "result.json"))
    begin(tmp_path / "0010", files=("last",))
    begin(tmp_path / "0011", SETTINGS.replace("0.1", "0.2"))
    (tmp_path / "0012").mkdir()
    place = find_place("auto", None, tmp_path, SETTINGS)
    assert (place.folder, place.saved, place.finished) == (tmp_path / "0010", True, False)
    assert find_place("auto", None, tmp_path, SETTINGS.replace("0.1", "0.3")).folder is None


@pytest.mark.parametrize("files", [(), ("command.txt", "environment.json", ".config.yaml.tmp")])
def test_auto_begins_in_a_folder_in_which_no_run_began(tmp_path, files):
    for name in files:
        (tmp_path / name).touch()
    place = find_place("auto", str(tmp_path), tmp_path, SETTINGS)
    assert (place.folder, place.begun, place.saved) == (tmp_path, False, False)


def test_auto_does_not_touch_a_folder_of_something_else(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserMistakeError, match="exists already"):
        find_place("auto", str(tmp_path), tmp_path, SETTINGS)


@pytest.mark.parametrize("how", ["auto", "path"])
def test_other_settings_are_named_and_refused(tmp_path, how):
    folder = begin(tmp_path / "run")
    resume, run_dir = ("auto", str(folder)) if how == "auto" else (str(folder), None)
    with pytest.raises(UserMistakeError, match=r"other settings: optim\.lr was 0\.1, now 0\.5"):
        find_place(resume, run_dir, tmp_path, SETTINGS.replace("0.1", "0.5"))


def test_where_the_data_lies_may_change(tmp_path):
    folder = begin(tmp_path / "run")
    place = find_place(str(folder), None, tmp_path, SETTINGS.replace("here", "there"))
    assert place.begun


def test_another_number_of_processes_is_refused_with_the_right_command(tmp_path):
    folder = begin(tmp_path / "run", processes=4)
    with pytest.raises(UserMistakeError, match=r"made by 4 process.*--num_processes 4"):
        find_place(str(folder), None, tmp_path, SETTINGS)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserMistakeError, match=r"no run folder: it holds no config\.yaml"):
        find_place(str(tmp_path), None, tmp_path, SETTINGS)
    with pytest.raises(UserMistakeError, match="differ; give one"):
        find_place(str(tmp_path), "elsewhere", tmp_path, SETTINGS)


def test_a_folder_alone_brings_its_settings(tmp_path):
    folder = begin(tmp_path / "run")
    for argv in (["--resume", str(folder)], [f"--resume={folder}"]):
        assert with_resumed_config(argv) == [f"--config={folder / 'config.yaml'}", *argv]
    argv = ["--data.root", "there", "--resume", str(folder)]
    assert with_resumed_config(argv) == [f"--config={folder / 'config.yaml'}", *argv]
    for argv in (["--resume", "auto"], ["--config", "x", "--resume", str(folder)], []):
        assert with_resumed_config(argv) == argv


def test_surroundings_that_changed_are_told(tmp_path):
    folder = begin(tmp_path / "run")
    versions = {"torch": "2.15.0", "rich": "1"}
    now = SURROUNDINGS | {"versions": versions, "threads": 2, "git": {"commit": "abc"}}
    assert changed_surroundings(folder, now) == [
        "threads 1 -> 2",
        "torch 2.13.0 -> 2.15.0",
        "commit None -> abc",
    ]


def test_a_run_that_lost_its_last_weights_does_not_start_over(tmp_path):
    folder = begin(tmp_path / "run")
    (folder / "metrics.jsonl").write_text("{}\n")
    assert not find_place(str(folder), None, tmp_path, SETTINGS).saved
    (folder / "metrics.jsonl").write_text("{}\n{}\n")
    with pytest.raises(UserMistakeError, match="has 2 epochs but no last/ to go on from"):
        find_place(str(folder), None, tmp_path, SETTINGS)


def test_a_path_may_hold_an_equals_sign(tmp_path):
    folder = begin(tmp_path / "lr=0.1")
    argv = ["--resume", str(folder)]
    assert with_resumed_config(argv) == [f"--config={folder / 'config.yaml'}", *argv]


@pytest.mark.parametrize(("had", "wanted"), [(1, 3), (3, 1)])
def test_one_run_does_not_become_a_folder_of_runs_nor_the_other_way(tmp_path, had, wanted):
    folder = begin(tmp_path / "run", SETTINGS + f"seeds: {had}\n")
    with pytest.raises(UserMistakeError, match=f"seeds was {had}, now {wanted}"):
        find_place(str(folder), None, tmp_path, SETTINGS + f"seeds: {wanted}\n")


def test_more_seeds_and_rates_may_be_asked_for(tmp_path):
    folder = begin(tmp_path / "run", SETTINGS + "seeds: 2\nrates: 3\n")
    assert find_place(str(folder), None, tmp_path, SETTINGS + "seeds: 5\nrates: 9\n").begun
