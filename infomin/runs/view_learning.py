"""Stage one of learned views: a generator plays the view game, is measured as it goes, and travels as one file."""

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..common import files
from ..common.checks import check_choice, check_positive
from ..common.distributed import setup_device, world_size
from ..common.seeds import seeded_generator as seeded
from ..common.seeds import torch_seeded
from ..data.batches import Part, select_rows
from ..data.datasets import load
from ..methods import Game, InfoNCE
from ..methods.game import MODES
from ..training.loop import Diverged, fit
from ..training.optim import SCHEDULES, build_optimizer, rate_factor
from ..views import FlowSplit, PixelFlow, parse
from ..views.color import SPACES
from .folder import load_or_run, log_training
from .fresh_critics import (
    Evaluator,
    Rows,
    classifier_scores,
    divide_rows,
    fresh_i_nce,
    mixed_batches,
)
from .game_monitor import best_generator, color_stretch, gradient_norms, judge_game
from .provenance import commit, describe_provenance
from .recipe import LOG_EVERY, Recipe, refresh_digests

FILE = "learned.safetensors"
UNBOUND = (
    "hsv",
    "luv",
)  # spaces that stretch grey or black without bound, so that no flow from them can be watched
FRESH_RATE = 2e-3  # of fresh critics, whatever the players' optimiser and rate: a referee is the same for all games
COLORS = 1024  # pixels whose colours the stretch is looked at


@dataclass(frozen=True)
class Learning(Recipe):
    """All that a learned generator depends on: a recipe whose method is the view game."""

    view: str = "crop:0.5"
    """What is drawn of each image before the generator, once for each of the two views."""
    method: str = "game"
    """How the generator learns; there is the view game alone."""
    width: float = 0.5
    """Factor on the channels of the critics' and the classifiers' encoders, one a view."""
    steps: int = 300
    """Optimiser steps."""
    batch: int = 128
    """Images in a batch, beside the labelled ones; critics contrast each with all of both."""
    optimizer: str = "adamw"
    """The optimiser of all players: sgd, adamw or lars."""
    lr: float = 2e-3
    """Learning rate of the critics."""
    schedule: str = "step"
    """How the critics' learning rate falls: cosine, step or constant."""
    mode: str = "semi-supervised"
    """Who plays beside the generator: unsupervised critics, supervised classifiers, semi-supervised both."""
    weight: float = 30.0
    """Factor on the cross entropy of the classifiers; chosen on the digits, where with 1 the critics decide alone."""
    task: str = ""
    """Whose labels; by default the first task of the data."""
    labels: int = 1000
    """Images whose labels are known; on a fifth of them the generator is judged, the classifiers learn from the others."""
    labelled: int = 64
    """Labelled images in a batch, beside the others; without classifiers as many others more."""
    space: str = "rgb"
    """Colour space that the flow starts from, of those that stretch no colour without bound: neither hsv nor luv."""
    volume_preserving: bool = True
    """Whether couplings are additive; otherwise they are affine."""
    couplings: int = 4
    """Couplings of the flow."""
    hidden: int = 8
    """Width of the hidden layers of a coupling's network."""
    depth: int = 1
    """Number of hidden layers of a coupling's network."""
    lr_generator: float = 2e-2
    """Learning rate of the generator."""
    schedule_generator: str = "step"
    """How the generator's learning rate falls: cosine, step or constant."""
    lr_classifiers: float = 2e-3
    """Learning rate of the classifiers."""
    schedule_classifiers: str = "step"
    """How the classifiers' learning rate falls: cosine, step or constant."""
    momentum: float = 0.5
    """Momentum of the optimiser, beta1 of adamw; games want less than usual."""
    weight_decay: float = 1e-4
    """Weight decay of critics and classifiers; the generator has none."""
    waits: int = 0
    """Steps of the critics for each one of the generator; 0 moves all at once, by gradient reversal. The log has gradients of who
    moves at its steps, each tenth."""
    fresh_every: int = 100
    """Steps between measurements by fresh critics, a multiple of 10; the generators measured are those to choose from."""
    fresh_steps: int = 100
    """Steps that fresh critics learn for."""

    @classmethod
    def choices(cls) -> dict[str, Iterable[str]]:
        """The names that fields may have, by field."""
        spaces = [space for space in SPACES if space not in UNBOUND]
        schedules = {"schedule_generator": SCHEDULES, "schedule_classifiers": SCHEDULES}
        return super().choices() | {"method": ("game",), "mode": MODES, "space": spaces} | schedules

    def check_candidates(self) -> None:
        """There is no probe; how many candidates there can be, the data decide."""
        if self.candidates < 2:
            raise ValueError(
                f"recipe: candidates: got {self.candidates}, wanted 2 or more; use more"
            )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (
            "steps",
            "couplings",
            "hidden",
            "labels",
            "lr_generator",
            "lr_classifiers",
            "fresh_every",
            "fresh_steps",
        ):
            check_positive(getattr(self, name), f"recipe: {name}")
        for name in ("weight", "labelled", "depth", "momentum", "waits"):
            check_positive(getattr(self, name), f"recipe: {name}", zero=True)
        if self.fresh_every % LOG_EVERY:
            raise ValueError(
                f"recipe: fresh_every: got {self.fresh_every}, wanted a multiple of {LOG_EVERY}; change it"
            )
        if self.share_encoder:
            raise ValueError(
                "recipe: share_encoder: got True, wanted False: the views of a flow differ in their channels"
            )
        most = self.labels * 4 // 5
        if self.mode != "unsupervised" and not 2 <= self.labelled <= most:
            raise ValueError(
                f"recipe: labelled: got {self.labelled} for a {self.mode} game with {self.labels} labels, wanted 2 to {most}, "
                "those that are not held out; change one of them"
            )
        view: Any = parse(self.view)
        if tuple(view.channels) != (3, 3) or getattr(view, "takes", "images") != "images":
            raise ValueError(
                f"recipe: view: got {self.view!r}, wanted what is drawn of images twice, three channels each, for example "
                "crop:0.5; change it"
            )


def learn(
    recipe: Learning,
    out: str | Path = "runs/learn",
    *,
    bar: bool = False,
    tensorboard: bool = False,
) -> dict[str, Any]:
    """Play a view game, and keep its best generator as `out/<key>/learned.safetensors`.

    Before the game, every `fresh_every` steps and at the end the generator is measured: critics that start anew learn from its
    views for `fresh_steps`, and their I_NCE is read on images that nobody has played with; so is the cross entropy of the game's
    classifiers. Kept is the generator of the least I_NCE (supervised: none of it) + weight * cross entropy (unsupervised: none of
    it), unless it has collapsed or exploded, see `referee.verdict`.

    Args:
        recipe: what to do.
        out: folder of runs; this one writes into `out/<key>`, and goes on from there if it was cut, with the same result.
        bar: show progress and the time left.
        tensorboard: also write what is logged as TensorBoard events.

    Returns:
        the recipe's fields; `status` (`done` or `diverged`); `verdict` and `said`, how the game went; `file` and `step_kept`,
        None if no generator was worth keeping; of that one `i_nce_fresh`, beside `i_nce_raw` of the raw views (nats),
        `cross_entropy_held` (nats, over both views), `right_held` (0..1), `log_det` of the flow, `lipschitz` and its
        `lipschitz_inverse`; and where the row comes from.

    Raises:
        ValueError: a field does not fit the others or the data, or the run's files are damaged.
        files.Locked: another process is carrying out this very run.
    """
    (recipe,) = refresh_digests([recipe])
    if not isinstance(recipe, Learning):
        raise TypeError(
            "learn: got a Recipe, wanted a Learning, which says how the game is played; train networks by run"
        )
    device = setup_device(None if recipe.device == "auto" else recipe.device)
    if world_size() > 1:
        raise ValueError(
            f"learn: got {world_size()} processes, wanted 1: players that take turns are not spread; start it without torchrun"
        )
    writable(out)
    row = load_or_run(
        recipe.key,
        asdict(recipe),
        out,
        lambda folder: _play(recipe, Path(folder or out), device, bar, tensorboard),
    )
    return row | {
        "file": row["file"] and str(Path(out) / recipe.key / FILE)
    }  # the folder may have been moved since


def writable(path: files.PathLike) -> None:
    """Raise a ValueError unless `flow:PATH` can be written, as a view is: `+` and `|` join views, and commas their list."""
    if {"+", "|", ","} & set(str(path)):
        raise ValueError(
            f"learn: got the path {str(path)!r}, wanted one without + | and comma, which join views; choose another"
        )


def _play(
    recipe: Learning, folder: Path, device: torch.device, bar: bool, tensorboard: bool
) -> dict[str, Any]:
    began = time.perf_counter()
    split, _ = load(recipe.data, recipe.size)
    tasks = [
        name for name, labels in split.labels.items() if not labels.is_floating_point()
    ]  # a place is no class
    task = check_choice(recipe.task or tasks[0], tasks, "recipe: task")
    rows, labels = (
        divide_rows(split, task, recipe.labels, recipe.candidates),
        split.labels[task].to(device),
    )
    part: Part = split.images.to(device), {"label": labels}
    stand = _stand(recipe, part, rows, device)
    game = _game(recipe, int(labels.max()) + 1).to(device).to(memory_format=torch.channels_last)
    solver, schedules = _optimizer(game, recipe)
    ask: Any = {"steps": recipe.steps, "seed": recipe.seed}
    steps = fit(
        game,
        stand.crops,
        mixed_batches(
            part, rows, recipe.batch, recipe.labelled, plays=recipe.mode != "unsupervised", **ask
        ),
        **ask,
        precision=stand.precision,
        log_every=LOG_EVERY,
        optimizer=solver,
        rate=lambda step: [
            rate_factor(name, step, recipe.steps, recipe.warmup_steps) for name in schedules
        ],
        checkpoint=folder / "checkpoint.pt",
    )
    row = {
        "key": recipe.key,
        **asdict(recipe),
        "task": task,
        "status": "done",
        "precision_used": stand.precision,
    }
    try:
        watched = _watched(steps, game, stand, recipe, folder)
        log_training(
            watched,
            folder,
            total=recipe.steps,
            name=f"{recipe.mode} game",
            bar=bar,
            tensorboard=tensorboard,
        )
    except Diverged as reason:
        row |= {"status": "diverged", "reason": str(reason)}
    return (
        row
        | _kept(recipe, folder, row.get("reason", ""))
        | describe_provenance(device)
        | {"seconds": time.perf_counter() - began}
    )


def _stand(recipe: Learning, part: Part, rows: Rows, device: torch.device) -> Evaluator:
    held, labels = select_rows(part, rows.held)
    return Evaluator(
        part,
        rows.pool,
        parse(recipe.view).to(device),
        held,
        labels["label"][: len(rows.judged)],
        lambda channels: InfoNCE(
            channels, recipe.encoder, recipe.width, False, recipe.dim, recipe.head, recipe.tau
        ),
        steps=recipe.fresh_steps,
        batch=recipe.batch,
        lr=FRESH_RATE,
        candidates=recipe.candidates,
        precision=recipe.precision_on(device),
        seed=recipe.seed,
    )


def _game(recipe: Learning, classes: int) -> Game:
    flow = PixelFlow(
        3,
        recipe.couplings,
        recipe.hidden,
        recipe.depth,
        recipe.volume_preserving,
        recipe.space,
        seed=recipe.seed,
    )
    settings = {
        name: getattr(recipe, name)
        for name in ("mode", "weight", "encoder", "width", "dim", "head", "tau", "waits")
    }
    with torch_seeded(recipe.seed):
        return Game(FlowSplit(flow), classes, task="label", **settings)


def _optimizer(game: Game, recipe: Learning) -> tuple[torch.optim.Optimizer, list[str]]:
    """One optimiser, whose groups are the players', and each group's schedule."""
    solvers: list[torch.optim.Optimizer] = []
    schedules: list[str] = []
    for player, parameters in game.players().items():
        suffix, decay = (
            "" if player == "critics" else f"_{player}",
            0.0 if player == "generator" else recipe.weight_decay,
        )
        solvers.append(
            build_optimizer(
                recipe.optimizer, parameters, getattr(recipe, f"lr{suffix}"), decay, recipe.momentum
            )
        )
        schedules += [getattr(recipe, f"schedule{suffix}")] * len(solvers[-1].param_groups)
    for group in (group for solver in solvers[1:] for group in solver.param_groups):
        solvers[0].add_param_group(group)
    return solvers[0], schedules


def _watched(
    steps: Iterator[tuple[int, dict[str, float]]],
    game: Game,
    stand: Evaluator,
    recipe: Learning,
    folder: Path,
) -> Iterator[tuple[int, dict[str, float]]]:
    """What the game says of itself, and with it what a referee sees; measured generators are saved."""
    pixels = stand.held.permute(1, 0, 2, 3).flatten(1)
    colors = (
        pixels[:, torch.randint(pixels.shape[1], (COLORS,), generator=seeded(0, "colors"))][
            None, :, None
        ]
        / 255
    )

    def watched() -> dict[str, float]:
        flow = game.generator.flow
        with (
            torch.no_grad()
        ):  # of the flow itself, which starts from a colour space that may have a volume of its own
            return color_stretch(flow, colors) | {"log_det": float(flow.log_det(colors).mean())}

    def measured(step: int) -> dict[str, float]:
        try:
            numbers = {
                "i_nce_fresh": fresh_i_nce(game.generator, stand),
                **classifier_scores(game, stand),
            }
        except Diverged as reason:
            raise Diverged(f"fresh critics, after step {step} of the game: {reason}") from reason
        note = {
            "key": recipe.key,
            "recipe": asdict(recipe),
            "step": step,
            "commit": commit(),
            **numbers,
        }
        game.generator.flow.save(folder / _name(step), **note)
        return numbers

    if not any(row["step"] == 0 for row in files.read_log(folder / "log.jsonl")):
        yield 0, watched() | measured(0)
    for step, own in steps:
        stats = own | gradient_norms(game.players()) | watched()
        yield (
            step,
            stats
            | (measured(step) if step % recipe.fresh_every == 0 or step == recipe.steps else {}),
        )


def _name(step: int) -> str:
    return f"generator-{step:06d}.safetensors"


def _kept(recipe: Learning, folder: Path, reason: str) -> dict[str, Any]:
    """Choose a generator, and say how the game went, or for which reason it diverged."""

    def value(row: Any) -> float:
        shared = 0.0 if recipe.mode == "supervised" else row["i_nce_fresh"]
        entropy = row.get("cross_entropy_held", 0.0)
        return (
            math.nan if entropy is None else shared + recipe.weight * entropy
        )  # a log has null for NaN

    log = files.read_log(folder / "log.jsonl")
    word, said = ("diverged", f"The game diverged: {reason}.") if reason else judge_game(log)
    kept = best_generator(log, value)
    found: dict[str, Any] = {"verdict": word, "said": said, "file": None, "step_kept": None}
    if kept is None:
        return found
    path, learned = folder / FILE, (folder / _name(kept["step"])).read_bytes()
    with files.atomic_write(path) as file:
        file.write(learned)
    names = (
        "i_nce_fresh",
        "cross_entropy_held",
        "right_held",
        "log_det",
        "lipschitz",
        "lipschitz_inverse",
    )
    numbers = {name: kept[name] for name in names if name in kept}
    return found | {
        "file": str(path),
        "step_kept": kept["step"],
        "i_nce_raw": log[0]["i_nce_fresh"],
        **numbers,
    }
