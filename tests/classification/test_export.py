import json

import pytest
import torch

from classification import export, exporting, train
from classification.evaluation import load_net
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


def test_without_a_name_the_file_is_in_the_run_folder(folder):
    options = export.parse_options([str(folder)])
    assert options.out == folder / "model.onnx"
    assert export.parse_options([str(folder), "--hub_folder=x"]).out is None


def test_nets_that_draw_in_evaluation_are_refused(folder, capsys):
    assert run_program(lambda: export.main([str(folder), "--eval_stats=sampled"])) == 2
    assert "export with --eval_stats expected" in capsys.readouterr().err
    assert not (folder / "model.onnx").exists()
