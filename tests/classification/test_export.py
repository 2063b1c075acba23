import json
from argparse import Namespace

import pytest
import torch

from classification import export, train
from classification.evaluate import load_net
from knorm.training.mistakes import run_program

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

QUICK = [
    "--model.options.width=0.25",
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
    options = Namespace(run_dir=folder, weights=weights, eval_stats=None, seed=None, cpu=True)
    return load_net(options)[1].eval()


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


def test_without_a_name_the_file_is_in_the_run_folder(folder):
    options = export.parse_options([str(folder)])
    assert options.out == folder / "model.onnx"
    assert export.parse_options([str(folder), "--hub_folder=x"]).out is None


def test_logits_that_differ_are_an_error(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(ArithmeticError, match="logits differ by"):
        export.main([str(folder), "--out", str(tmp_path / "net.onnx")])


def test_nets_that_draw_in_evaluation_are_refused(folder, capsys):
    assert run_program(lambda: export.main([str(folder), "--eval_stats=sampled"])) == 2
    assert "export with --eval_stats expected" in capsys.readouterr().err
    assert not (folder / "model.onnx").exists()
