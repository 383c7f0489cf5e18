"""experiments/minimal.py has the idea of the package without the package, so it is its oracle."""

import ast
import importlib.util
import runpy
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from helpers import context
from torch import Tensor, nn

from infomin.measure.bounds import infonce_symmetric
from infomin.measure.critics import cosine_scores
from infomin.methods import InfoNCE
from infomin.training.step import make_batch

ROOT = Path(__file__).parents[1]
FILE = ROOT / "experiments" / "minimal.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("minimal", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


minimal = load()


def draw_pair(k: int, d: int) -> list[Tensor]:
    """Two embeddings `[k, d]` with gradients, the same at each call."""
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    return [torch.randn(k, d, generator=generator).requires_grad_() for generator in generators]


def test_it_does_not_import_the_package() -> None:
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
def test_its_loss_and_gradient_are_those_of_the_bound(k: int, d: int, tau: float) -> None:
    ours, minimals = draw_pair(k, d), draw_pair(k, d)
    loss = torch.tensor(k).log() - infonce_symmetric(cosine_scores(*ours, tau))
    minimal_loss = minimal.loss(*minimals, tau)
    torch.testing.assert_close(loss, minimal_loss, rtol=0, atol=1e-5)
    loss.backward()
    minimal_loss.backward()
    for a, b in zip(ours, minimals, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)


def test_its_loss_and_gradient_are_those_of_the_method() -> None:
    method = InfoNCE(context((3, 3), width=0.25, shared=True, dim=8, tau=0.2))
    method.encoders[0], method.heads[0] = nn.Identity(), nn.Identity()  # views are embeddings
    ours, minimals = draw_pair(40, 8), draw_pair(40, 8)
    step, minimal_loss = method(ours, make_batch(40)), minimal.loss(*minimals, 0.2)
    torch.testing.assert_close(step.loss, minimal_loss, rtol=0, atol=1e-5)
    i_nce = torch.tensor(40).log() - minimal_loss.detach()
    torch.testing.assert_close(step.stats["i_nce"], i_nce, rtol=0, atol=1e-5)
    step.loss.backward()
    minimal_loss.backward()
    for a, b in zip(ours, minimals, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", [1, 2, 5, 10])
def test_a_neighbour_is_uniform_in_its_block(block: int) -> None:
    torch.manual_seed(0)
    x = torch.arange(10).repeat(2000)
    y = minimal.neighbour(x, block)
    assert torch.equal(y // block, x // block)
    share = torch.zeros(10, 10).index_put_((x, y), torch.tensor(1 / 2000), accumulate=True)
    blocks = [torch.full((block, block), 1 / block)] * (10 // block)
    torch.testing.assert_close(share, torch.block_diag(*blocks), rtol=0, atol=0.06)


def test_training_and_test_share_no_handwriting() -> None:
    (seen, classes), (unseen, unseen_classes) = minimal.banks()
    assert len(seen) == len(classes) == 1200 and len(unseen) == len(unseen_classes) == 597
    seen_bytes, unseen_bytes = (set(map(bytes, ink.flatten(1).numpy())) for ink in (seen, unseen))
    assert not seen_bytes & unseen_bytes
    v1, v2, digit = minimal.views((seen, classes), 64, (1, 1))
    assert v1.shape == v2.shape == (64, 3, 16, 16) and digit.shape == (64,)
    assert v1.min() >= 0 and v1.max() <= 1 and not torch.equal(v1, v2)


def test_the_command_in_its_docstring_prints_one_row_per_setting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line.strip() for line in minimal.__doc__.splitlines()]
    (command,) = [line for line in lines if line.startswith("python ")]
    program, file = shlex.split(command, comments=True)
    assert program == "python" and ROOT / file == FILE
    monkeypatch.setattr(sys, "argv", [file, "--steps", "2"])
    runpy.run_path(str(FILE), run_name="__main__")
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["the", "views", "share", "nats", "I_NCE", "accuracy"]
    assert [row[:22].strip() for row in rows] == list(minimal.DIAL)
    assert all(0 <= float(row.split()[-1]) <= 1 for row in rows)
    assert len(rows) % 2 == 1
    assert rows[len(rows) // 2].startswith("digit "), "the factor of the task is in the middle"


def test_a_mistake_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["minimal.py", "--steps", "-3"])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(FILE), run_name="__main__")
    message = "minimal.py: error: argument --steps: got -3, wanted 1 or more"
    assert capsys.readouterr().err.splitlines()[-1] == message
