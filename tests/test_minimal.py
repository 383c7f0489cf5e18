"""experiments/minimal.py: the package's idea without the package, and so its oracle."""

import ast
import importlib.util
import runpy
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from infomin.measure.bounds import infonce_symmetric
from infomin.measure.critics import cosine_scores
from infomin.methods import InfoNCE

ROOT = Path(__file__).parents[1]
FILE = ROOT / "experiments" / "minimal.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("minimal", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


minimal = load()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_it_imports_nothing_of_ours() -> None:
    modules = set()
    for node in ast.walk(ast.parse(FILE.read_text())):
        if isinstance(node, ast.Import):
            modules |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            modules.add(str(node.module).partition(".")[0])
    assert modules <= {"argparse", "math", "torch", "sklearn"}


@pytest.mark.parametrize("tau", [0.05, 0.2, 1.0])
@pytest.mark.parametrize(("k", "d"), [(1, 3), (2, 1), (64, 32)])
def test_its_loss_and_gradient_are_the_packages(k: int, d: int, tau: float) -> None:
    ours, theirs = (
        [draw(k, d).requires_grad_(), draw(k, d, seed=1).requires_grad_()] for _ in range(2)
    )
    one = torch.tensor(k).log() - infonce_symmetric(cosine_scores(*ours, tau))
    other = minimal.loss(*theirs, tau)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    one.backward(), other.backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)


def test_its_loss_and_gradient_are_the_methods() -> None:
    method = InfoNCE((3, 3), width=0.25, shared=True, dim=8, tau=0.2)
    method.encoders[0], method.heads[0] = nn.Identity(), nn.Identity()  # views are embeddings
    ours, theirs = (
        [draw(40, 8).requires_grad_(), draw(40, 8, seed=1).requires_grad_()] for _ in range(2)
    )
    step, other = method(ours), minimal.loss(*theirs, 0.2)
    torch.testing.assert_close(step.loss, other, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        step.stats["i_nce"], torch.tensor(40).log() - other.detach(), rtol=0, atol=1e-5
    )
    step.loss.backward(), other.backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", [1, 2, 5, 10])
def test_a_neighbour_is_uniform_in_its_block(block: int) -> None:
    torch.manual_seed(0)
    x = torch.arange(10).repeat(2000)
    y = minimal.neighbour(x, block)
    assert torch.equal(y // block, x // block)
    share = torch.zeros(10, 10).index_put_((x, y), torch.tensor(1 / 2000), accumulate=True)
    torch.testing.assert_close(
        share,
        torch.block_diag(*[torch.full((block, block), 1 / block)] * (10 // block)),
        rtol=0,
        atol=0.06,
    )


def test_handwriting_of_the_test_is_not_in_training() -> None:
    (seen, classes), (unseen, others) = minimal.banks()
    assert len(seen) == len(classes) == 1200 and len(unseen) == len(others) == 597
    assert not set(map(bytes, seen.flatten(1).numpy())) & set(map(bytes, unseen.flatten(1).numpy()))
    v1, v2, digit = minimal.views((seen, classes), 64, (1, 1))
    assert v1.shape == v2.shape == (64, 3, 16, 16) and digit.shape == (64,)
    assert v1.min() >= 0 and v1.max() <= 1 and not torch.equal(v1, v2)


def test_the_command_of_its_docstring_prints_one_row_for_each_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (command,) = [
        line.strip() for line in minimal.__doc__.splitlines() if line.strip().startswith("python ")
    ]
    program, file = shlex.split(command, comments=True)
    assert program == "python" and ROOT / file == FILE
    monkeypatch.setattr(sys, "argv", [file, "--steps", "2"])
    runpy.run_path(str(FILE), run_name="__main__")
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["the", "views", "share", "nats", "I_NCE", "accuracy"]
    assert [row[:22].strip() for row in rows] == list(minimal.DIAL)
    assert all(0 <= float(row.split()[-1]) <= 1 for row in rows)
    assert len(rows) % 2 == 1 and rows[len(rows) // 2].startswith(
        "digit "
    )  # the task's own factor stands in the middle


def test_a_mistake_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["minimal.py", "--steps", "-3"])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(FILE), run_name="__main__")
    assert (
        capsys.readouterr().err.splitlines()[-1]
        == "minimal.py: error: argument --steps: got -3, wanted 1 or more"
    )
