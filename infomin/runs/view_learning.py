"""Learn views, stage one: play a view game, measure its generators, and keep the best one."""

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
from ..views import FlowSplit, PixelFlow, View
from .folder import RunFolder, default_torch_state, run_training
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
# Learning rate of fresh critics. It must not depend on the players' optimiser: generators of all
# games are measured alike.
FRESH_RATE = 2e-3
COLORS = 1024  # the number of pixels at whose colours the stretch is measured


def learn(
    recipe: Learning,
    out: files.PathLike = "runs/learn",
    *,
    bar: bool = False,
    tensorboard: bool = False,
) -> files.Row:
    """Play a view game, and save its best generator as `out/<key>/learned.safetensors`.

    The generator is measured before the game, every `fresh_every` steps and at the end: fresh
    critics learn from its views for `fresh_steps`, then their I_NCE and the cross-entropy of the
    game's classifiers are measured on held-out images. Of the generators that have neither
    collapsed nor exploded (see `game_monitor.judge_game`), the one with the least I_NCE + weight *
    cross-entropy is kept. A supervised game leaves out I_NCE, an unsupervised one cross-entropy.

    Args:
        recipe: the game.
        out: folder of runs. The game writes into `out/<key>`; if it was interrupted, it resumes
            there, with the same result.
        bar: show progress and the time left.
        tensorboard: also log TensorBoard events.

    Returns:
        the recipe's fields; `status` (`done` or `diverged`); `verdict` and `said`, how the game
        went, as a word and as a sentence; `file` and `step_kept`, None if no generator was kept;
        `i_nce_raw` of the raw views (nats); of the kept generator `i_nce_fresh` (nats),
        `cross_entropy_held` (nats, summed over both views), `right_held` (accuracy, 0..1),
        `log_det` of the flow, `lipschitz` and `lipschitz_inverse`; and versions, commit, host and
        seconds.

    Raises:
        TypeError: not a Learning, or an `out` that is no path.
        FileNotFoundError: the generator of a finished game has been deleted.
        ValueError: fields that do not fit each other or the data, or damaged files of the run.
        files.Locked: another process is running this game.
    """
    if not isinstance(recipe, Learning):
        raise TypeError(
            f"learn: got {type(recipe).__name__}, wanted a Learning; "
            "train networks with infomin.run"
        )
    out = files.as_path(out, "learn: out")
    check_view_path(out)
    with default_torch_state("learn"):
        crops = recipe.build_view()
        key = recipe_key(recipe, FileDigests.of(recipe, crops))
        folder, path = RunFolder(out, key, recipe), out / key
        device = setup_device(None if recipe.device == "auto" else recipe.device)
        if world_size() > 1:
            raise ValueError(
                f"learn: a game needs 1 process, got {world_size()}; start it without torchrun"
            )
        if (finished := folder.finished_row()) is not None:
            return finished | _file_in(path, finished)
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
            lr=1.0,  # each player has its own rate
            weight_decay=recipe.weight_decay,
            schedule=recipe.schedule,
            steps=recipe.steps,
            warmup=recipe.warmup_steps,
            momentum=recipe.momentum,
        )
        batches = mixed_batches(
            part,
            rows,
            recipe.batch,
            recipe.labelled,
            plays=recipe.mode != "unsupervised",
            steps=recipe.steps,
            seed=recipe.seed,
        )
        with folder.held():
            training = fit(
                game,
                evaluator.crops,
                batches,
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
                run_training(
                    _measure(training, game, flow, evaluator, recipe, path, key),
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
            row = folder.save_row(row)
    return row | _file_in(path, row)


def check_view_path(path: files.PathLike) -> None:
    """Raise a ValueError if `flow:PATH` cannot be a view: `+`, `|` and commas join views."""
    if {"+", "|", ","} & set(str(path)):
        raise ValueError(
            f"learn: the path must not contain +, | or a comma, which join views, got {str(path)!r}"
        )


def _file_in(path: Path, row: Mapping[str, object]) -> dict[str, str | None]:
    """The column `file` of a row in this folder, which may have been moved since."""
    if row["file"] is None:
        return {"file": None}
    if not (path / FILE).exists():
        raise FileNotFoundError(
            f"{path / FILE}: wanted the generator of a finished game, got no file; put it back, or "
            f"delete {path / 'row.json'} and run the same command again"
        )
    return {"file": str(path / FILE)}


def _build_evaluator(recipe: Learning, part: Part, rows: Rows, crops: View) -> Evaluator:
    held, labels = select_rows(part, rows.held)
    assert isinstance(held, Tensor)  # a game takes images

    def build_critics(channels: Sequence[int]) -> InfoNCE:
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
        part=part,
        pool=rows.pool,
        crops=crops,
        held=held,
        labels=labels["label"][: len(rows.judged)],
        critics=build_critics,
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
    """The game's groups, with the recipe's learning rate and schedule for each."""
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
    training: Iterator[tuple[int, dict[str, float]]],
    game: Game,
    flow: PixelFlow,
    evaluator: Evaluator,
    recipe: Learning,
    path: Path,
    key: str,
) -> Iterator[tuple[int, dict[str, float]]]:
    """Add the metrics that `game_monitor` needs to those of the game; save measured generators."""
    colors = _sample_colors(evaluator.held)
    players = {group.name: group.parameters for group in game.groups()}

    def measure_stretch() -> dict[str, float]:
        # log_det of the flow alone: the colour space it starts from may change the volume too.
        with torch.no_grad():
            return color_stretch(flow, colors) | {"log_det": float(flow.log_det(colors).mean())}

    def measure_and_save(step: int) -> dict[str, float]:
        try:
            stats = {"i_nce_fresh": fresh_i_nce(game.generator, evaluator)}
            stats |= classifier_scores(game, evaluator)
        except Diverged as error:
            raise Diverged(f"fresh critics, after step {step} of the game: {error}") from error
        provenance = {"key": key, "recipe": asdict(recipe), "step": step, "commit": commit()}
        flow.save(path / _generator_file(step), **provenance, **stats)
        return stats

    if not any(line["step"] == 0 for line in files.read_log(path / "log.jsonl")):
        yield 0, measure_stretch() | measure_and_save(0)
    for step, stats in training:
        metrics = stats | gradient_norms(players) | measure_stretch()
        if step % recipe.fresh_every == 0 or step == recipe.steps:
            metrics |= measure_and_save(step)
        yield step, metrics


def _sample_colors(images: Tensor) -> Tensor:
    """Colours of random pixels of uint8 images `[M, C, H, W]`: `[1, C, 1, COLORS]` in [0, 1]."""
    pixels = images.permute(1, 0, 2, 3).flatten(1)
    generator = seeded_generator(0, "colors")
    chosen = torch.randint(pixels.shape[1], (COLORS,), generator=generator)
    return pixels[:, chosen][None, :, None] / 255


def _generator_file(step: int) -> str:
    return f"generator-{step:06d}.safetensors"


def _keep_best(recipe: Learning, path: Path, reason: str) -> files.Row:
    """Save the best generator; return its columns of the row and how the game went.

    Args:
        recipe: the game.
        path: its folder.
        reason: why it diverged; empty if it did not.
    """

    def value(line: Mapping[str, float | None]) -> float:
        i_nce, entropy = line["i_nce_fresh"], line.get("cross_entropy_held", 0.0)
        if entropy is None or i_nce is None:  # logs have null for NaN
            return math.nan
        return (0.0 if recipe.mode == "supervised" else i_nce) + recipe.weight * entropy

    log = files.read_log(path / "log.jsonl")
    verdict, sentence = judge_game(log)
    if reason:
        verdict, sentence = "diverged", f"The game diverged: {reason}."
    row: files.Row = {"verdict": verdict, "said": sentence, "file": None, "step_kept": None}
    best = best_generator(log, value)
    if best is None:
        return row
    source = path / _generator_file(best["step"])
    if not source.exists():
        raise FileNotFoundError(
            f"{source}: wanted the best generator of this game, got no file; put it back, or "
            f"delete {path} and play the game again"
        )
    generator = source.read_bytes()
    with files.atomic_write(path / FILE) as file:
        file.write(generator)
    row |= {"file": str(path / FILE), "step_kept": best["step"]}
    row["i_nce_raw"] = log[0]["i_nce_fresh"]
    measured = ("i_nce_fresh", "cross_entropy_held", "right_held")
    for name in (*measured, "log_det", "lipschitz", "lipschitz_inverse"):
        if name in best:
            row[name] = best[name]
    return row
