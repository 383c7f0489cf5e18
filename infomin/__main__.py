"""The command `infomin`: demo, run, sweep, plot, learn-views, views. Its help is the sentences under Recipe's fields."""

import json
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

from docstring_parser import parse_from_object
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from .common import files
from .common.distributed import is_main_process, leave_processes
from .experiment import demo, print_report, silence_stdout, tolerate_encoding
from .report.gallery import view_sheet
from .report.rows import read_rows
from .runs.game_recipe import Learning
from .runs.recipe import Recipe
from .runs.single import run
from .runs.sweeps import grid, sweep
from .runs.view_learning import check_view_path, learn
from .version import __version__
from .views import VIEWS

set_parsing_settings(docstring_parse_attribute_docstrings=True)
FIELDS = [field.name for field in fields(Recipe)]
LEARNING = [field.name for field in fields(Learning)]


class Parser(ArgumentParser):
    """Says what was wrong in one line, and where to look, instead of printing all options."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """Exit with status 2."""
        lacks = re.search(r"required: ([\w-]+)\.", message)
        within = (
            re.match(r"Subcommand '([\w-]+)'", message) or lacks
        )  # what is found by the parser above
        commands: Any = next(
            (action.choices for action in self._actions if isinstance(action.choices, dict)), {}
        )
        parser, who = (
            (commands[within[1]], f"infomin {within[1]}")
            if within
            else (self, self.prog.replace("[options] ", ""))
        )
        usual = ("help", "config", "print_config")
        names = [
            action.option_strings[-1]
            for action in parser._actions
            if action.option_strings and action.dest not in usual
        ]
        about = (
            f"; wanted one of {', '.join(names)}"
            if "nrecognized" in message or (within and not lacks)
            else ""
        )
        said = message.replace(f"{lacks[1]}.", "") if lacks else message
        print(f"infomin: {' '.join(said.split())}{about}; see {who} --help", file=sys.stderr)
        self.exit(2)


class Several:
    """Reads values joined by commas, such as `0,1,2`, or a list in a YAML file."""

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def __call__(self, words: Any) -> list[Any]:
        """The values; those of a YAML file are read like words of the command line, so 1.5 is no whole number in either."""
        return [
            self.one(str(word).strip())
            for word in (words if isinstance(words, list) else str(words).split(","))
        ]

    def one(self, word: str) -> Any:
        """A single value."""
        if self.kind is bool and word.lower() not in ("true", "false"):
            raise ValueError(f"got {word!r}, wanted true or false")
        return word.lower() == "true" if self.kind is bool else self.kind(word)

    def __repr__(self) -> str:
        return f"{self.kind.__name__}, …"


def build() -> Parser:
    """The parser, without having read anything."""
    parser = Parser(
        prog="infomin",
        description="What makes good views? Vary the view, hold everything else fixed, read nats and accuracy.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subcommands(title="commands")
    for name, (make, line) in {
        "demo": (_demo, DEMO_HELP),
        "run": (_run, RUN_HELP),
        "sweep": (_sweep, SWEEP_HELP),
        "plot": (_plot, PLOT_HELP),
        "learn-views": (_learn, LEARN_HELP),
        "views": (_views, VIEWS_HELP),
    }.items():
        commands.add_subcommand(name, make(Parser(description=line)), help=line)
    return parser


DEMO_HELP = (
    "Draw the inverted U on data that are embedded: minutes on two cores, nothing is downloaded."
)
RUN_HELP = "Carry out one recipe and print its row."
SWEEP_HELP = "Carry out every combination of the values given, in parallel; the same command again goes on where it was cut."
PLOT_HELP = "Draw the U-curve of folders of runs, or of .jsonl files of rows."
LEARN_HELP = "Learn a generator of views in a game against critics, and keep it as one file for --view flow:FILE."
VIEWS_HELP = "List the families of views with their dials, or draw the views of an image."


def _demo(parser: Parser) -> Parser:
    parser.add_argument(
        "--out", type=str, default="runs/demo", help="Folder that runs, table and figure go to."
    )
    parser.add_argument(
        "--preset",
        type=Literal["tiny", "quick"],
        default="quick",
        help="Budget: tiny only shows that it runs.",
    )
    parser.add_argument(
        "--jobs", type=int, default=0, help="Processes at a time; 0 means one per core."
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
        help="Folder of runs; this one writes into a folder of its own there.",
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
    sentences = {p.arg_name: p.description for p in parse_from_object(Recipe).params}
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
        help="Folder that every run writes a folder of its own into.",
    )
    parser.add_argument(
        "--jobs", type=int, default=0, help="Processes at a time; 0 means one per core."
    )
    return parser


def _plot(parser: Parser) -> Parser:
    parser.add_argument(
        "rows",
        type=str,
        nargs="+",
        help="Folders of runs, or .jsonl files of rows; several are drawn together, a run once.",
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
        help="Folder for table and figure; by default that of the rows, of several the first; for a file one of its name.",
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
        help="Folder of games; this one writes into a folder of its own.",
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
        "--draws", type=int, default=3, help="How often a view is drawn that is drawn at random."
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of the draws.")
    return parser


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
        print("Kept are the views that it began with: nothing that was learned is better.")
    print(f"Use it: infomin run {shlex.join(use)}" if file else "No generator was worth keeping.")


def _do_views(options: Namespace) -> None:
    if options.image and not options.show:
        raise ValueError(
            "--image: got an image and no views to draw of it; add --show, for example --show color:lab"
        )
    if options.show:
        print(
            f"figure: {view_sheet(options.show, options.out, options.image, options.draws, options.seed)}"
        )
        return
    print(
        "A view is written family:dial; parts joined by + are applied one after the other, parts joined by | side by side."
    )
    print(
        "Augmentations are drawn anew for each view; a slash and a number fix how often: crop:0.2/1+color:lab is one crop.\n"
    )
    for family in VIEWS:
        print(f"{family:12} {VIEWS.dial(family) or 'your own'}")


ACTIONS: dict[str, Callable[[Namespace], Any]] = {
    "demo": lambda options: demo(options.out, options.preset, options.jobs),
    "run": _do_run,
    "sweep": _do_sweep,
    "plot": _do_plot,
    "learn-views": _do_learn,
    "views": _do_views,
}


def main(words: Sequence[str] | None = None) -> int:
    """Carry out a command line; returns 0 when done, 2 for a mistake that the message explains, 130 when interrupted."""
    tolerate_encoding()
    name = ""
    try:
        parsed = build().parse_args(words)
        name, options = f" {parsed.subcommand}", parsed[parsed.subcommand]
        ACTIONS[parsed.subcommand](options)
    except UnicodeDecodeError as error:
        print(
            f"infomin{name}: config: got a file that is not text ({error}), wanted YAML; see --print_config",
            file=sys.stderr,
        )
        return 2
    except BrokenPipeError:  # who read the output has gone, as `head` does
        silence_stdout()
        return 141
    except (ValueError, TypeError, OSError, files.Locked) as error:
        print(f"infomin{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            f"\ninfomin{name}: stopped; run the same command again to go on where it was cut",
            file=sys.stderr,
        )
        return 130
    finally:
        leave_processes()
    return 0


if __name__ == "__main__":
    sys.exit(main())
