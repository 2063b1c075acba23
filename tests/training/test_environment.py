import subprocess

import torch
from accelerate import Accelerator

from knorm.training.environment import describe_environment, git_state


def test_the_surroundings_that_numbers_depend_on_are_named(tmp_path):
    environment = describe_environment(Accelerator(cpu=True), tmp_path)
    assert environment["versions"]["torch"] == torch.__version__
    assert environment["threads"] == torch.get_num_threads()
    assert environment["processes"] == 1
    assert environment["device"].startswith("cpu")
    assert environment["git"] is None


def test_changes_to_tracked_files_are_noticed(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", "-C", tmp_path, *identity, *arguments], check=True)

    git("init", "--quiet")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "--quiet", "-m", "first")
    state = git_state(tmp_path)
    assert state is not None
    assert len(state["commit"]) == 40
    assert not state["changed"]
    (tmp_path / "file").write_text("2")
    assert git_state(tmp_path) == state | {"changed": True}
