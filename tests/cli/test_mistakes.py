"""Mistakes at the command line: exit status 2, one line, nothing on standard output."""

import subprocess
import sys

import pytest
from tiny_cli import AS_TINY, SPEED

from infomin import experiment as experiments
from infomin.common import files
from infomin.training import loop


def test_without_tensorboard_the_option_says_how_to_get_it(call, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # the import fails
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    status, _, errors = call("run", *AS_TINY, "--out", tmp_path, "--tensorboard", "true")
    assert (
        status == 2 and "pip install 'infomin[tensorboard]'" in errors and "Traceback" not in errors
    )
    assert call("run", *AS_TINY, "--out", tmp_path)[0] == 0


MISTAKES = {
    "nothing at all": ([], ["demo", "run", "sweep", "plot", "views"]),
    "unknown command": (["sweeep"], ["'sweeep'", "choose from", "'sweep'"]),
    "unknown option": (
        ["run", "--veiw", "color:lab"],
        ["--veiw", "wanted one of --view, --data", "infomin run --help"],
    ),
    "unknown option of sweep": (
        ["sweep", "--sed", "1"],
        ["--sed", "--seed", "infomin sweep --help"],
    ),
    "unknown option of plot": (
        ["plot", "ROWS", "--tsak", "digit"],
        ["--tsak", "infomin plot --help"],
    ),
    "stray word": (["run", "color:lab"], ["color:lab", "infomin run --help"]),
    "no value": (["run", "--seed"], ["--seed", "expected one argument"]),
    "no folder": (["plot"], ["required: rows;", "infomin plot --help"]),
    "whole number": (["run", "--steps", "few"], ["steps", "int", "few", "infomin run --help"]),
    "whole number with a point": (["run", "--steps", "3.5"], ["steps", "int", "3.5"]),
    "number": (["run", "--tau", "hot"], ["tau", "float", "hot"]),
    "truth": (["run", "--share_encoder", "maybe"], ["share_encoder", "bool", "maybe"]),
    "whole numbers": (["sweep", "--seed", "0,one"], ["--seed", "int", "0,one"]),
    "whole numbers with a point": (["sweep", "--seed", "0,1.5"], ["--seed", "int", "0,1.5"]),
    "empty value": (["sweep", "--seed", "0,,1"], ["--seed", "int", "0,,1"]),
    "truths": (["sweep", "--share_encoder", "true,maybe"], ["share_encoder", "bool", "maybe"]),
    "view": (
        ["run", "--view", "colour:lab"],
        ["got 'colour'", "wanted one of aug, bits, blur, color"],
    ),
    "views": (
        ["sweep", "--view", "color:lab,colour:rgb"],
        ["got 'colour'", "wanted one of aug, bits, blur, color"],
    ),
    "space": (["run", "--view", "color:lap"], ["got 'lap'", "lab, luv"]),
    "data": (["sweep", "--data", "digits,imagenet"], ["data", "got 'imagenet'", "digits, photos"]),
    "encoder": (["run", "--encoder", "vgg"], ["encoder", "got 'vgg'", "alexnet, resnet18"]),
    "out of range": (["sweep", "--lr", "0.1,-1"], ["lr", "got -1", "above 0"]),
    "preset": (["demo", "--preset", "huge"], ["tiny", "quick", "huge", "infomin demo --help"]),
    "jobs": (["sweep", "--jobs", "-3"], ["jobs", "-3", "wanted"]),
    "an image without views": (
        ["views", "--image", "cat.jpg"],
        ["no views to draw", "add --show"],
    ),
    "missing folder": (
        ["plot", "nowhere"],
        ["nowhere", "wanted a folder of runs or a .jsonl file", "check its name"],
    ),
    "no rows": (["plot", "EMPTY"], ["empty", "none that can be read", "run a sweep"]),
    "rows of something else": (
        ["plot", "SPEED"],
        ["rows: need a column view with a name in every row", "use rows of runs"],
    ),
    "no such task": (
        ["plot", "ROWS", "--task", "colour"],
        ["got 'colour'", "wanted one of digit, background, position"],
    ),
    "missing file": (["run", "--config", "none.yaml"], ["none.yaml", "does not exist"]),
    "unreadable file": (["run", "--config", "YAML steps: ["], ["config", "line "]),
    "unreadable file of a sweep": (["sweep", "--config", "YAML seed: [0, 1"], ["config", "line "]),
    "no text": (["run", "--config", "YAML \xff\x00"], ["config"]),
    "unknown key": (
        ["run", "--config", "YAML veiw: color:lab"],
        ["'veiw'", "wanted one of --view, --data"],
    ),
    "unknown key of a sweep": (
        ["sweep", "--config", "YAML veiw: [color:lab]"],
        ["'veiw'", "wanted one of --view, --data"],
    ),
    "wrong type in a file": (["run", "--config", "YAML steps: few"], ["steps", "int", "few"]),
    "wrong type in a list": (
        ["sweep", "--config", "YAML steps: [4, few]"],
        ["steps", "int", "few"],
    ),
    "a point in a list": (["sweep", "--config", "YAML steps: [4, 4.5]"], ["steps", "int", "4.5"]),
    "nothing in a list": (["sweep", "--config", "YAML seed: [0, null]"], ["seed", "int", "None"]),
    "no mapping": (["sweep", "--config", "YAML - 1"], ["config"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_one_line(call, rows, tmp_path, monkeypatch, mistake):
    words, parts = MISTAKES[mistake]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "_train_step", lambda *_: pytest.fail("it was carried out"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.yaml").write_text(
        words[-1].removeprefix("YAML ") + "\n" if words else "", encoding="latin-1"
    )
    places = {"EMPTY": "empty", "ROWS": str(rows[0]), "SPEED": str(SPEED)}
    words = ["file.yaml" if word.startswith("YAML ") else places.get(word, word) for word in words]
    before = sorted(tmp_path.rglob("*"))
    status, said, errors = call(*words)
    assert status == 2 and said == ""
    assert (
        errors.startswith("infomin") and len(errors.splitlines()) == 1 and "Traceback" not in errors
    )
    assert all(part in errors for part in parts), errors
    assert sorted(tmp_path.rglob("*")) == before, "it has written something"


def test_a_mistake_leaves_the_shell_with_status_two_and_no_traceback(tmp_path):
    words = [sys.executable, "-m", "infomin", "run", "--data", "imagenet", "--out", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == "" and not list(tmp_path.iterdir())
    known = "digits, photos, clips, stl10, cifar10, clips:DIGITS@BACKGROUNDS, folder:PATH"
    assert done.stderr == f"infomin run: recipe: data: got 'imagenet', wanted one of {known}\n"


def test_rows_that_cannot_be_read_are_named_and_the_others_drawn(call, rows, tmp_path):
    files.write_jsonl(tmp_path / "rows.jsonl", rows[1])
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"view": \n')
    with pytest.warns(UserWarning, match=r"left out 1 row that .*rows\.jsonl, line 3"):
        assert call("plot", tmp_path / "rows.jsonl")[0] == 0


def test_an_interrupt_leaves_with_status_130(call, monkeypatch, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_train_step", interrupted)
    for command in ("run", "sweep"):
        status, said, errors = call(command, *AS_TINY, "--out", tmp_path)
        assert status == 130 and said == ""
        assert errors.rstrip().endswith(
            f"infomin {command}: interrupted; run the same command again to resume"
        )


def test_a_task_that_the_data_do_not_have_is_said_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "sweep", lambda *_, **__: pytest.fail("it was carried out"))
    presets = {"quick": {"views": ["color:lab"], "seeds": 1, "task": "digit", "data": "photos"}}
    with pytest.raises(ValueError, match="task: got 'digit', wanted one of background"):
        experiments.experiment(presets, "quick", tmp_path)
    with pytest.raises(
        ValueError, match="task: got 'place', wanted one of digit, background, position"
    ):
        experiments.experiment(presets, "quick", tmp_path, data="digits", task="place")


CLOSED = """
import os, sys
from infomin import experiment, sweep
from infomin.runs.presets import TINY
reads, writes = os.pipe()
os.close(reads)
os.dup2(writes, 1)
presets = {"tiny": {**TINY, "views": ["color:rgb", "color:lab"], "seeds": 1, "task": "digit"}}
main = lambda: experiment.experiment(presets, "tiny", "runs", jobs=1, save="saved") and None
experiment.run_script(main, "")
"""


def test_what_is_saved_is_there_though_nobody_reads_the_table(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CLOSED], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert done.returncode == 141 and "Broken pipe" not in done.stderr, done.stderr
    assert (tmp_path / "saved.jsonl").exists() and (tmp_path / "saved.png").exists()
