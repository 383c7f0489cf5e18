"""The command `infomin`. The help text of each option is the docstring under its field."""

import json
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_type_hints

from docstring_parser import parse_from_object
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from .common import files
from .common.allocator import keep_memory
from .common.distributed import is_main_process, leave_processes
from .experiment import exit_status, experiment, print_report, tolerate_encoding
from .report.gallery import view_sheet
from .report.rows import read_rows
from .runs.game_recipe import Learning
from .runs.presets import U_CURVE
from .runs.recipe import BaseRecipe, Recipe
from .runs.single import run
from .runs.sweeps import grid, sweep
from .runs.view_learning import check_view_path, learn
from .version import __version__
from .views import VIEWS

set_parsing_settings(docstring_parse_attribute_docstrings=True)
FIELDS = [field.name for field in fields(Recipe)]
LEARNING = [field.name for field in fields(Learning)]


class Parser(ArgumentParser):
    """Prints a mistake in one line that says where to look, instead of all options."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """Exit with status 2."""
        missing = re.search(r"required: ([\w-]+)\.", message)
        subcommand = re.match(r"Subcommand '([\w-]+)'", message) or missing
        parser: ArgumentParser = self
        name = self.prog.replace("[options] ", "")
        if subcommand:  # the parser above reports it
            parser, name = self._subparsers_by_name()[subcommand[1]], f"infomin {subcommand[1]}"
        known = ""
        if "nrecognized" in message or (subcommand and not missing):
            known = f"; wanted one of {', '.join(_option_names(parser))}"
        if missing:
            message = message.replace(f"{missing[1]}.", "")
        print(f"infomin: {' '.join(message.split())}{known}; see {name} --help", file=sys.stderr)
        self.exit(2)

    def _subparsers_by_name(self) -> dict[str, ArgumentParser]:
        for action in self._actions:
            if isinstance(action.choices, dict):
                return action.choices
        return {}


def _option_names(parser: ArgumentParser) -> list[str]:
    usual = ("help", "config", "print_config")
    actions = [a for a in parser._actions if a.option_strings and a.dest not in usual]
    return [action.option_strings[-1] for action in actions]


class Several:
    """Reads values joined by commas, such as `0,1,2`, or a list in a YAML file."""

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def __call__(self, words: Any) -> list[Any]:
        """The values; in a YAML file they mean what they mean on the command line."""
        words = words if isinstance(words, list) else str(words).split(",")
        return [self.read(str(word).strip()) for word in words]

    def read(self, word: str) -> Any:
        """A single value."""
        if self.kind is not bool:
            return self.kind(word)
        if word.lower() not in ("true", "false"):
            raise ValueError(f"got {word!r}, wanted true or false")
        return word.lower() == "true"

    def __repr__(self) -> str:
        return f"{self.kind.__name__}, …"


HELP = {
    "demo": "Draw the inverted U on bundled data: minutes on two cores, nothing is downloaded.",
    "run": "Carry out one recipe and print its row.",
    "sweep": "Carry out all combinations of the given values in parallel; run it again to resume.",
    "plot": "Draw the U-curve of folders of runs, or of .jsonl files of rows.",
    "learn-views": "Learn a generator of views in a game against critics, for --view flow:FILE.",
    "views": "List the families of views with their dials, or draw the views of an image.",
}


def build() -> Parser:
    """The parser of the command line."""
    parser = Parser(
        prog="infomin",
        description="What makes good views? Vary the view, hold everything else fixed, read nats "
        "and accuracy.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subcommands(title="commands")
    makers = {
        "demo": _demo,
        "run": _run,
        "sweep": _sweep,
        "plot": _plot,
        "learn-views": _learn,
        "views": _views,
    }
    for name, make in makers.items():
        commands.add_subcommand(name, make(Parser(description=HELP[name])), help=HELP[name])
    return parser


def _demo(parser: Parser) -> Parser:
    parser.add_argument(
        "--out", type=str, default="runs/demo", help="Folder for runs, table and figure."
    )
    parser.add_argument(
        "--preset",
        type=Literal["tiny", "quick"],
        default="quick",
        help="Budget: tiny is a smoke test.",
    )
    parser.add_argument(
        "--jobs", type=int, default=0, help="Runs in parallel; 0 means one per core."
    )
    return parser


def _run(parser: Parser) -> Parser:
    parser.add_argument(
        "--config",
        action="config",
        help="YAML file with any of the fields; --print_config writes one.",
    )
    parser.add_class_arguments(Recipe)
    parser.add_argument(
        "--out",
        type=str,
        default="runs/run",
        help="Folder of runs; this one gets a subfolder of its own.",
    )
    parser.add_argument(
        "--tensorboard",
        type=bool,
        default=False,
        help="Also log TensorBoard events into the run's folder.",
    )
    return parser


def _sweep(parser: Parser) -> Parser:
    parser.add_argument(
        "--config",
        action="config",
        help="YAML file with any of the fields, lists allowed; --print_config writes one.",
    )
    sentences = _field_help(Recipe)
    kinds = get_type_hints(Recipe)
    for field in fields(Recipe):
        parser.add_argument(
            f"--{field.name}",
            type=Several(kinds[field.name]),
            default=[field.default],
            help=f"{sentences[field.name]} Several: joined by commas.",
        )
    parser.add_argument(
        "--out",
        type=str,
        default="runs/sweep",
        help="Folder of runs; each gets a subfolder of its own.",
    )
    parser.add_argument(
        "--jobs", type=int, default=0, help="Runs in parallel; 0 means one per core."
    )
    return parser


def _field_help(recipe: type[BaseRecipe]) -> dict[str, str]:
    """The sentence under each field of a recipe, those of its base included."""
    parsed = [parse_from_object(base) for base in recipe.__mro__ if issubclass(base, BaseRecipe)]
    described = [parameter for docstring in reversed(parsed) for parameter in docstring.params]
    return {parameter.arg_name: parameter.description or "" for parameter in described}


def _plot(parser: Parser) -> Parser:
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
        help="Folder for table and figure; by default that of the rows, or the file's name.",
    )
    return parser


def _learn(parser: Parser) -> Parser:
    parser.add_argument(
        "--config",
        action="config",
        help="YAML file with any of the fields; --print_config writes one.",
    )
    parser.add_class_arguments(Learning)
    parser.add_argument(
        "--out",
        type=str,
        default="runs/learn",
        help="Folder of games; this one gets a subfolder of its own.",
    )
    parser.add_argument(
        "--save",
        type=str,
        default="",
        help="File to copy the learned generator to, such as learned.safetensors.",
    )
    parser.add_argument(
        "--tensorboard",
        type=bool,
        default=False,
        help="Also log TensorBoard events into the game's folder.",
    )
    return parser


def _views(parser: Parser) -> Parser:
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
    return parser


def _do_demo(options: Namespace) -> None:
    experiment(U_CURVE, options.preset, options.out, jobs=options.jobs)


def _do_run(options: Namespace) -> None:
    row = run(
        Recipe(**{name: options[name] for name in FIELDS}),
        options.out,
        bar=True,
        tensorboard=options.tensorboard,
    )
    if is_main_process():
        print(json.dumps(files.to_plain(row), indent=2))


def _do_sweep(options: Namespace) -> None:
    recipes = grid(Recipe(), **{name: options[name] for name in FIELDS})
    print_report(sweep(recipes, options.out, jobs=options.jobs), options.out)


def _do_plot(options: Namespace) -> None:
    where = Path(options.rows[0])
    print_report(
        read_rows(*options.rows),
        options.out or (where if where.is_dir() else where.with_suffix("")),
        options.task,
    )


def _do_learn(options: Namespace) -> None:
    check_view_path(options.save)
    row = learn(
        Learning(**{name: options[name] for name in LEARNING}),
        options.out,
        bar=True,
        tensorboard=options.tensorboard,
    )
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
        picture = view_sheet(options.show, options.out, options.image, options.draws, options.seed)
        print(f"figure: {picture}")
        return
    print(
        "A view is written family:dial; + joins parts that follow each other, | parts side by side."
    )
    print("Augmentations are drawn anew for each view; crop:0.2/1+color:lab is one crop.\n")
    for family in VIEWS:
        print(f"{family:12} {VIEWS.dial(family) or 'your own'}")


ACTIONS: dict[str, Callable[[Namespace], None]] = {
    "demo": _do_demo,
    "run": _do_run,
    "sweep": _do_sweep,
    "plot": _do_plot,
    "learn-views": _do_learn,
    "views": _do_views,
}


def main(words: Sequence[str] | None = None) -> int:
    """Carry out a command line; return its exit status, see `exit_status`."""
    tolerate_encoding()
    keep_memory()
    words = sys.argv[1:] if words is None else list(words)
    command = words[0] if words and words[0] in ACTIONS else ""
    try:
        return exit_status(partial(_execute, words), f"infomin {command}".strip())
    finally:
        leave_processes()


def _execute(words: Sequence[str]) -> None:
    try:
        parsed = build().parse_args(words)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"config: needs a YAML file, got one that is not text ({error}); see --print_config"
        ) from error
    ACTIONS[parsed.subcommand](parsed[parsed.subcommand])


if __name__ == "__main__":
    sys.exit(main())
