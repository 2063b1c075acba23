import json

import pytest
import torch

from classification import export, exporting, train
from classification.evaluation import load_net
from knorm import create_model
from knorm.kan import FORMS
from knorm.training.mistakes import run_program

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

QUICK = [
    "--model.name=resnet8",  # few layers: an export takes a second for each
    "--model.norm=kernel",
    "--model.options={width: 0.125}",
    "--data.limit=100",
    "--data.scaling=standard",
    "--schedule.warmup_epochs=0",
    "--epochs=1",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run of one epoch."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    train.main([*QUICK, f"--run_dir={folder}"])
    return folder


def net_of(folder, weights):
    return load_net(folder, weights=weights, cpu=True).net.eval()


@pytest.mark.slow
def test_the_file_gives_the_nets_logits_for_any_number_of_images(folder, tmp_path, capsys):
    out = tmp_path / "nets" / "net.onnx"
    export.main([str(folder), "--out", str(out), "--weights", "last"])
    assert f"{out}: onnxruntime agrees within " in capsys.readouterr().out
    session = onnxruntime.InferenceSession(out)
    images = torch.rand(7, 1, 8, 8)
    (logits,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.as_tensor(logits), net_of(folder, "last")(images))
    about = session.get_modelmeta().custom_metadata_map
    state = json.loads((folder / "last" / "state.json").read_text())
    assert json.loads(about["mean"]) == state["mean"] != [0.0]
    assert json.loads(about["classes"]) == state["classes"]
    assert about["scaling"] == "(pixels / 255 - mean) / std"
    other = net_of(folder, "last")
    torch.nn.init.ones_(other.fc.bias)
    with pytest.raises(ArithmeticError, match=r"logits differ by \d.*, more than 1e-04"):
        exporting.check_onnx(other, images, out)


KAN = {"widths": [8, 8, 8, 8], "norm": "batch", "num_classes": 10}
IMAGES = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_kan_nets_are_exported_for_any_number_of_images(form, tmp_path):
    net = create_model("kannet4", conv=form, **KAN).eval()
    out = tmp_path / "net.onnx"
    assert exporting.checked_onnx(net, IMAGES, {}, out) <= exporting.TOLERANCE
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_a_file_that_fails_its_check_is_not_left_behind(tmp_path, monkeypatch):
    (tmp_path / "net.onnx").write_text("of another day")
    monkeypatch.setattr(exporting, "write_onnx", lambda net, images, facts, out: out.touch())

    def fails(net, images, path):
        raise ArithmeticError(path)

    monkeypatch.setattr(exporting, "check_onnx", fails)
    with pytest.raises(ArithmeticError):
        exporting.checked_onnx(torch.nn.Identity(), IMAGES, {}, tmp_path / "net.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
    assert (tmp_path / "net.onnx").read_text() == "of another day"


def test_without_a_name_the_file_is_in_the_run_folder(folder):
    options = export.parse_options([str(folder)])
    assert options.out == folder / "model.onnx"
    assert export.parse_options([str(folder), "--hub_folder=x"]).out is None


PLACES = {
    "a folder": (["--out={here}"], "{here} is a folder; name a file in it"),
    "below a file": (["--out={here}/file/net.onnx"], "{here}/file cannot be written into: "),
    "where nobody writes": (["--out=/proc/x/net.onnx"], "/proc/x cannot be written into: "),
    "a hub folder below a file": (
        ["--hub_folder={here}/file/x"],
        "{here}/file/x cannot be wri",
    ),
    "a hub folder where nobody writes": (
        ["--hub_folder=/proc/x"],
        "/proc/x cannot be written into",
    ),
    "a hub folder that is taken": (["--hub_folder={here}"], "hub_folder {here} exists already"),
    "no name of a repository": (["--push=me/my/net"], "--push me/my/net: no name of a repository"),
    "a repository with a space": (["--push=my net"], "--push my net: no name of a repository"),
}


@pytest.mark.parametrize(("arguments", "message"), PLACES.values(), ids=PLACES)
def test_a_place_that_cannot_be_had_is_told_before_anything_is_exported(
    folder, tmp_path, arguments, message, monkeypatch, capsys
):
    monkeypatch.setattr(exporting, "test_images", lambda *_: pytest.fail("the export began"))
    (tmp_path / "file").touch()
    arguments = [argument.format(here=tmp_path) for argument in arguments]
    assert run_program(lambda: export.main([str(folder), *arguments])) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {message.format(here=tmp_path)}")
    assert err.count("\n") == 1


def test_a_run_that_is_misspelt_is_not_made(tmp_path, capsys):
    assert run_program(lambda: export.main([str(tmp_path / "nowhere")])) == 2
    assert "nowhere is no run folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_nets_that_draw_in_evaluation_are_refused(folder, capsys):
    assert run_program(lambda: export.main([str(folder), "--eval_stats=sampled"])) == 2
    assert "export with --eval_stats expected" in capsys.readouterr().err
    assert not (folder / "model.onnx").exists()
