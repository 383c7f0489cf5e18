"""Stage one of learned views: a generator plays the view game, is measured as it goes, and travels as one file."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..common import files
from ..common.checks import check_choice
from ..common.distributed import setup_device, world_size
from ..common.seeds import seeded_generator, torch_seeded
from ..data.batches import Part, select_rows
from ..data.datasets import load
from ..methods import Context, Game, Group, InfoNCE
from ..networks.encoders import Encoders
from ..training.loop import Diverged, fit
from ..training.optim import build_training
from ..views import FlowSplit, PixelFlow, View, parse
from .folder import RunFolder, default_torch_state, log_training
from .fresh_critics import (
    Evaluator,
    Rows,
    classifier_scores,
    divide_rows,
    fresh_i_nce,
    mixed_batches,
)
from .game_monitor import best_generator, color_stretch, gradient_norms, judge_game
from .game_recipe import Learning
from .provenance import commit, describe_provenance
from .recipe import LOG_EVERY, FileDigests, recipe_key

FILE = "learned.safetensors"
FRESH_RATE = 2e-3  # of fresh critics, whatever the players' optimiser: the same for all games
COLORS = 1024  # pixels at whose colours the stretch is measured


def learn(
    recipe: Learning,
    out: str | Path = "runs/learn",
    *,
    bar: bool = False,
    tensorboard: bool = False,
) -> files.Row:
    """Play a view game, and keep its best generator as `out/<key>/learned.safetensors`.

    Before the game, every `fresh_every` steps and at the end the generator is measured: fresh
    critics learn from its views for `fresh_steps`, and their I_NCE is read on held-out images; so is
    the cross entropy of the game's classifiers. The generator kept has the least I_NCE (not counted
    in a supervised game) + weight * cross entropy (not counted in an unsupervised one), and has
    neither collapsed nor exploded, see `game_monitor.judge_game`.

    Args:
        recipe: what to do.
        out: folder of runs; this one writes into `out/<key>`, and resumes there if it was cut, with
            the same result.
        bar: show progress and the time left.
        tensorboard: also log TensorBoard events.

    Returns:
        the recipe's fields; `status` (`done` or `diverged`); `verdict` and `said`, how the game
        went; `file` and `step_kept`, None if no generator was worth keeping; of that one
        `i_nce_fresh`, beside `i_nce_raw` of the raw views (nats), `cross_entropy_held` (nats, over
        both views), `right_held` (0..1), `log_det` of the flow, `lipschitz` and its
        `lipschitz_inverse`; and where the row comes from.

    Raises:
        TypeError: not a Learning.
        ValueError: a field does not fit the others or the data, or the run's files are damaged.
        files.Locked: another process is at this very run.
    """
    if not isinstance(recipe, Learning):
        raise TypeError(
            f"learn: got a {type(recipe).__name__}, wanted a Learning, which says how the game is played; "
            "train networks by run"
        )
    check_view_path(out)
    crops = parse(recipe.view)
    digests = FileDigests.of(recipe, crops)
    key = recipe_key(recipe, digests)
    folder = RunFolder(out, key, recipe)
    path = Path(out) / key
    device = setup_device(None if recipe.device == "auto" else recipe.device)
    if world_size() > 1:
        raise ValueError(
            f"learn: a game needs 1 process, got {world_size()}; start it without torchrun"
        )
    if (finished := folder.finished_row()) is not None:
        return finished | _file_in(path, finished)  # the folder may have been moved since
    with folder.held(), default_torch_state("learn"):
        began = time.perf_counter()
        split, _ = load(recipe.data, recipe.size)
        classes = [name for name, y in split.labels.items() if not y.is_floating_point()]
        task = check_choice(recipe.task or classes[0], classes, "recipe: task")
        rows = divide_rows(split, task, recipe.labels, recipe.candidates)
        labels = split.labels[task].to(device)
        part: Part = split.images.to(device), {"label": labels}
        evaluator = _build_evaluator(recipe, part, rows, crops.to(device))
        flow, game = _build_game(recipe, int(labels.max()) + 1)
        game = game.to(device).to(memory_format=torch.channels_last)
        optimizer, rates = build_training(
            _players(game, recipe),
            recipe.optimizer,
            lr=1.0,  # each player has its own
            weight_decay=recipe.weight_decay,
            schedule=recipe.schedule,
            steps=recipe.steps,
            warmup=recipe.warmup_steps,
            momentum=recipe.momentum,
        )
        steps = fit(
            game,
            evaluator.crops,
            mixed_batches(
                part,
                rows,
                recipe.batch,
                recipe.labelled,
                plays=recipe.mode != "unsupervised",
                steps=recipe.steps,
                seed=recipe.seed,
            ),
            steps=recipe.steps,
            optimizer=optimizer,
            rate=rates,
            seed=recipe.seed,
            precision=evaluator.precision,
            checkpoint=path / "checkpoint.pt",
            log_every=LOG_EVERY,
        )
        row: files.Row = {"key": key, **asdict(recipe), "method": "game", "task": task}
        row |= {"status": "done", "precision_used": evaluator.precision}
        reason = ""
        try:
            log_training(
                _measure(steps, game, flow, evaluator, recipe, path, key),
                path,
                total=recipe.steps,
                name=f"{recipe.mode} game",
                bar=bar,
                tensorboard=tensorboard,
            )
        except Diverged as error:
            reason = str(error)
            row |= {"status": "diverged", "reason": reason}
        row |= _keep_best(recipe, path, reason)
        row |= describe_provenance(device) | {"seconds": time.perf_counter() - began}
        folder.save_row(row)
    return row | _file_in(path, row)


def check_view_path(path: files.PathLike) -> None:
    """Raise a ValueError unless `flow:PATH` can be a view: `+`, `|` and commas join views."""
    if {"+", "|", ","} & set(str(path)):
        raise ValueError(
            f"learn: the path must have no + | or comma, which join views, got {str(path)!r}; choose "
            "another"
        )


def _file_in(path: Path, row: Mapping[str, object]) -> dict[str, str | None]:
    return {"file": str(path / FILE) if row["file"] else None}


def _build_evaluator(recipe: Learning, part: Part, rows: Rows, crops: View) -> Evaluator:
    held, labels = select_rows(part, rows.held)

    def critics(channels: Sequence[int]) -> InfoNCE:
        context = Context(
            shapes=tuple((c, recipe.size, recipe.size) for c in channels),
            tiles=(1,) * len(channels),
            encoders=partial(Encoders, channels, recipe.encoder, recipe.width),
            dim=recipe.dim,
            head=recipe.head,
            tau=recipe.tau,
            images=len(rows.pool),
            batch=recipe.batch,
            steps=recipe.fresh_steps,
            processes=1,
            tasks={},
        )
        return InfoNCE(context)

    return Evaluator(
        part,
        rows.pool,
        crops,
        held,
        labels["label"][: len(rows.judged)],
        critics,
        steps=recipe.fresh_steps,
        batch=recipe.batch,
        lr=FRESH_RATE,
        candidates=recipe.candidates,
        precision=recipe.precision_on(held.device),
        seed=recipe.seed,
    )


def _build_game(recipe: Learning, classes: int) -> tuple[PixelFlow, Game]:
    flow = PixelFlow(
        3,
        recipe.couplings,
        recipe.hidden,
        recipe.depth,
        recipe.volume_preserving,
        recipe.space,
        seed=recipe.seed,
    )
    with torch_seeded(recipe.seed):
        game = Game(
            FlowSplit(flow),
            classes,
            mode=recipe.mode,
            weight=recipe.weight,
            task="label",
            encoder=recipe.encoder,
            width=recipe.width,
            dim=recipe.dim,
            head=recipe.head,
            tau=recipe.tau,
            waits=recipe.waits,
        )
    return flow, game


def _players(game: Game, recipe: Learning) -> list[Group]:
    """The game's groups, each with the rate and the schedule of the recipe."""
    rates = {
        "critics": (recipe.lr, recipe.schedule),
        "generator": (recipe.lr_generator, recipe.schedule_generator),
        "classifiers": (recipe.lr_classifiers, recipe.schedule_classifiers),
    }
    groups = []
    for group in game.groups():
        rate, schedule = rates[group.name]
        groups.append(group._replace(rate=rate, schedule=schedule))
    return groups


def _measure(
    steps: Iterator[tuple[int, dict[str, float]]],
    game: Game,
    flow: PixelFlow,
    evaluator: Evaluator,
    recipe: Learning,
    path: Path,
    key: str,
) -> Iterator[tuple[int, dict[str, float]]]:
    """Add to the game's own stats what the monitor needs; generators that are measured are saved."""
    colors = _some_colors(evaluator.held)
    players = {group.name: group.parameters for group in game.groups()}

    def watch() -> dict[str, float]:
        # Of the flow itself: it starts from a colour space that may have a volume of its own.
        with torch.no_grad():
            return color_stretch(flow, colors) | {"log_det": float(flow.log_det(colors).mean())}

    def measure(step: int) -> dict[str, float]:
        try:
            stats = {"i_nce_fresh": fresh_i_nce(game.generator, evaluator)}
            stats |= classifier_scores(game, evaluator)
        except Diverged as reason:
            raise Diverged(f"fresh critics, after step {step} of the game: {reason}") from reason
        origin = {"key": key, "recipe": asdict(recipe), "step": step, "commit": commit()}
        flow.save(path / _generator_file(step), **origin, **stats)
        return stats

    if not any(line["step"] == 0 for line in files.read_log(path / "log.jsonl")):
        yield 0, watch() | measure(0)
    for step, stats in steps:
        stats = stats | gradient_norms(players) | watch()
        if step % recipe.fresh_every == 0 or step == recipe.steps:
            stats |= measure(step)
        yield step, stats


def _some_colors(images: Tensor) -> Tensor:
    """Colours of pixels drawn from uint8 images `[M, C, H, W]`: `[1, C, 1, COLORS]` in [0, 1]."""
    pixels = images.permute(1, 0, 2, 3).flatten(1)
    draws = seeded_generator(0, "colors")
    chosen = torch.randint(pixels.shape[1], (COLORS,), generator=draws)
    return pixels[:, chosen][None, :, None] / 255


def _generator_file(step: int) -> str:
    return f"generator-{step:06d}.safetensors"


def _keep_best(recipe: Learning, path: Path, reason: str) -> files.Row:
    """Choose a generator, and say how the game went, or for which reason it diverged."""

    def value(line: Mapping[str, float | None]) -> float:
        i_nce, entropy = line["i_nce_fresh"], line.get("cross_entropy_held", 0.0)
        if entropy is None or i_nce is None:  # a log has null for NaN
            return math.nan
        return (0.0 if recipe.mode == "supervised" else i_nce) + recipe.weight * entropy

    log = files.read_log(path / "log.jsonl")
    verdict, said = judge_game(log)
    if reason:
        verdict, said = "diverged", f"The game diverged: {reason}."
    row: files.Row = {"verdict": verdict, "said": said, "file": None, "step_kept": None}
    kept = best_generator(log, value)
    if kept is None:
        return row
    generator = (path / _generator_file(kept["step"])).read_bytes()
    with files.atomic_write(path / FILE) as file:
        file.write(generator)
    row |= {"file": str(path / FILE), "step_kept": kept["step"]}
    row["i_nce_raw"] = log[0]["i_nce_fresh"]
    measured = ("i_nce_fresh", "cross_entropy_held", "right_held")
    for name in (*measured, "log_det", "lipschitz", "lipschitz_inverse"):
        if name in kept:
            row[name] = kept[name]
    return row
