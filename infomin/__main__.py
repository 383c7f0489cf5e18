"""The command `infomin`. The help text of each option is the docstring under its field."""

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_type_hints

from docstring_parser import parse_from_object
from jsonargparse import Namespace, set_parsing_settings

from .common import files
from .common.allocator import keep_memory
from .common.terminal import Parser, Several, exit_status, tolerate_encoding
from .version import __version__

# What computes is imported where it is used, because torch takes a second that help need not take.
set_parsing_settings(docstring_parse_attribute_docstrings=True)


def _add_training(parser: Parser, out: str, jobs: bool) -> None:
    """What all commands that train have: a file of options, a folder, and jobs or events."""
    parser.add_argument(
        "--config",
        action="config",
        help="YAML file with any of the options; --print_config writes one.",
    )
    parser.add_argument(
        "--out",
        type=str,
        default=out,
        help="Folder of runs; each gets a subfolder of its own.",
    )
    if jobs:
        parser.add_argument(
            "--jobs",
            type=int,
            default=0,
            help="Runs in parallel; 0 means one per core. Another number may change the last "
            "digits of a row, by rounding.",
        )
    else:
        parser.add_argument(
            "--tensorboard",
            type=bool,
            default=False,
            help="Also log TensorBoard events into the run's folder.",
        )


def _demo(parser: Parser) -> None:
    parser.add_argument(
        "--preset",
        type=Literal["tiny", "quick"],
        default="quick",
        help="Budget: tiny is a smoke test.",
    )
    _add_training(parser, "runs/demo", jobs=True)


def _run(parser: Parser) -> None:
    from .runs.recipe import Recipe

    parser.add_class_arguments(Recipe)
    _add_training(parser, "runs/run", jobs=False)


def _sweep(parser: Parser) -> None:
    from .runs.recipe import Recipe

    sentences = _field_help(Recipe)
    kinds = get_type_hints(Recipe)
    for field in fields(Recipe):
        parser.add_argument(
            f"--{field.name}",
            type=Several(kinds[field.name]),
            default=[field.default],
            help=f"{sentences[field.name]} Several: joined by commas.",
        )
    _add_training(parser, "runs/sweep", jobs=True)


def _field_help(recipe: type) -> dict[str, str]:
    """The sentence under each field of a recipe, those of its base included."""
    parsed = [parse_from_object(base) for base in recipe.__mro__[:-1]]
    described = [parameter for docstring in reversed(parsed) for parameter in docstring.params]
    return {parameter.arg_name: parameter.description or "" for parameter in described}


def _plot(parser: Parser) -> None:
    parser.add_argument(
        "rows",
        type=str,
        nargs="+",
        help="Folders of runs, or .jsonl files of rows; several go into one figure.",
    )
    parser.add_argument(
        "--task",
        type=str,
        default="",
        help="What accuracy is measured on; by default the first task of the rows.",
    )
    parser.add_argument(
        "--out",
        type=str,
        default="",
        help="Figure to write (.png, .pdf or .svg; the table is written beside it), or a folder "
        "for both; by default the folder of the rows, or the file's name.",
    )


def _learn(parser: Parser) -> None:
    from .runs.game_recipe import Learning

    parser.add_class_arguments(Learning)
    _add_training(parser, "runs/learn", jobs=False)
    parser.add_argument(
        "--save",
        type=str,
        default="",
        help="File to copy the learned generator to, such as learned.safetensors.",
    )


def _views(parser: Parser) -> None:
    parser.add_argument(
        "--show",
        type=Several(str),
        default=[],
        help="View to draw, written family:dial, parts joined by +. Several: joined by commas.",
    )
    parser.add_argument(
        "--image",
        type=str,
        default="",
        help="Image file to draw the views of; by default a photograph of a cat.",
    )
    parser.add_argument(
        "--out", type=str, default="views.png", help="Picture to write: .png, .pdf or .svg."
    )
    parser.add_argument(
        "--draws", type=int, default=3, help="How many draws of a random view to show."
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of the draws.")


def _data_commands() -> dict[str, Callable[..., int]]:
    from .data.commands import clips, fetch, patches

    return {"fetch": fetch, "patches": patches, "clips": clips}


def _data(parser: Parser) -> None:
    commands = parser.add_subcommands(title="commands")
    for name, function in _data_commands().items():
        docstring = parse_from_object(function)
        about = docstring.short_description or ""
        options = Parser(description=f"{about}\n\n{docstring.long_description}")
        commands.add_subcommand(name, options, help=about)
        if name == "fetch":  # several words, not a list in brackets
            for parameter in docstring.params:
                flag = {"names": "names", "root": "--root"}[parameter.arg_name]
                several: dict[str, Any] = {"nargs": "+"} if flag == "names" else {"default": ""}
                options.add_argument(flag, type=str, help=parameter.description, **several)
        else:
            options.add_function_arguments(function, as_positional=True)


def _do_data(options: Namespace) -> int:
    name = options.subcommand
    return _data_commands()[name](**options[name].as_dict())


def _do_demo(options: Namespace) -> None:
    from .experiment import experiment
    from .runs.presets import U_CURVE

    experiment(U_CURVE, options.preset, options.out, jobs=options.jobs)


def _do_run(options: Namespace) -> None:
    from .common.distributed import is_main_process
    from .runs.recipe import Recipe
    from .runs.single import run

    recipe = Recipe(**_values(Recipe, options))
    row = run(recipe, options.out, bar=True, tensorboard=options.tensorboard)
    if is_main_process():
        print(json.dumps(files.to_plain(row), indent=2))


def _values(recipe: Any, options: Namespace) -> dict[str, Any]:
    """The options that are fields of a recipe, by name."""
    return {field.name: options[field.name] for field in fields(recipe)}


def _do_sweep(options: Namespace) -> None:
    from .experiment import print_report
    from .runs.recipe import Recipe
    from .runs.sweeps import grid, sweep

    recipes = grid(Recipe(), **_values(Recipe, options))
    print_report(sweep(recipes, options.out, jobs=options.jobs), options.out)


def _do_plot(options: Namespace) -> None:
    from .experiment import print_report
    from .report.rows import read_rows

    where = files.as_path(options.rows[0])
    print_report(
        read_rows(*options.rows),
        options.out or (where if where.is_dir() else where.with_suffix("")),
        options.task,
    )


def _do_learn(options: Namespace) -> None:
    from .runs.game_recipe import Learning
    from .runs.view_learning import check_view_path, learn

    check_view_path(options.save)
    game = Learning(**_values(Learning, options))
    row = learn(game, options.out, bar=True, tensorboard=options.tensorboard)
    file = str(row["file"] or "")
    if file and options.save:
        generator = Path(file).read_bytes()
        with files.atomic_write(options.save) as copy:
            copy.write(generator)
        file = options.save
    print(json.dumps(files.to_plain(row), indent=2))
    print(f"\n{row['said']}")
    view = f"{row['view']}+flow:{file}"
    use = ["--data", str(row["data"]), "--size", str(row["size"]), "--view", view]
    if file and row["step_kept"] == 0:
        print("Kept the views that it began with: no learned generator was better.")
    print(f"Use it: infomin run {shlex.join(use)}" if file else "No generator was worth keeping.")


def _do_views(options: Namespace) -> None:
    if options.image and not options.show:
        raise ValueError(
            "--image: got an image and no views to draw; add --show, for example --show color:lab"
        )
    if options.show:
        from .report.gallery import view_sheet

        picture = view_sheet(options.show, options.out, options.image, options.draws, options.seed)
        print(f"figure: {picture}")
        return
    from .views import VIEWS

    print(
        "A view is written family:dial; + joins parts that follow each other, | parts side by side."
    )
    print("Augmentations are drawn anew for each view; crop:0.2/1+color:lab is one crop.\n")
    for family in VIEWS:
        print(f"{family:12} {VIEWS.dial(family) or 'your own'}")


class Command(NamedTuple):
    """A command of `infomin`: what it does in a sentence, its options, its work."""

    about: str
    add_options: Callable[[Parser], None]
    work: Callable[[Namespace], int | None]


COMMANDS = {
    "demo": Command(
        "Draw the inverted U on bundled data: minutes on two cores, nothing is downloaded.",
        _demo,
        _do_demo,
    ),
    "run": Command("Carry out one recipe and print its row.", _run, _do_run),
    "sweep": Command(
        "Carry out all combinations of the given values in parallel; run it again to resume.",
        _sweep,
        _do_sweep,
    ),
    "plot": Command(
        "Draw the U-curve of folders of runs, or of .jsonl files of rows.", _plot, _do_plot
    ),
    "learn-views": Command(
        "Learn a generator of views in a game against critics, for --view flow:FILE.",
        _learn,
        _do_learn,
    ),
    "views": Command(
        "List the families of views with their dials, or draw the views of an image.",
        _views,
        _do_views,
    ),
    "data": Command(
        "Download data sets, cut patches from photographs, or write clips of moving digits.",
        _data,
        _do_data,
    ),
}


def build(command: str) -> Parser:
    """The parser of a command line; only the given command has its options.

    Those of a recipe need torch, and the help of the others does not.
    """
    parser = Parser(
        prog="infomin",
        description="What makes good views? Vary the view, hold everything else fixed, read nats "
        "and accuracy.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subcommands(title="commands")
    for name, (about, add_options, _) in COMMANDS.items():
        options = Parser(description=about)
        commands.add_subcommand(name, options, help=about)
        if name == command:
            add_options(options)
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Carry out a command line; return its exit status, see `exit_status`."""
    tolerate_encoding()
    keep_memory()
    words = sys.argv[1:] if words is None else list(words)
    command = words[0] if words and words[0] in COMMANDS else ""
    return exit_status(partial(_execute, command, words), f"infomin {command}".strip())


def _execute(command: str, words: Sequence[str]) -> int | None:
    try:
        parsed = build(command).parse_args(words)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"config: needs a YAML file, got one that is not text ({error}); see --print_config"
        ) from error
    from .common.distributed import leave_processes

    try:
        return COMMANDS[command].work(parsed[command])
    finally:
        leave_processes()


if __name__ == "__main__":
    sys.exit(main())
