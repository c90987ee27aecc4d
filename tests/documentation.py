"""The code blocks of README and documentation, as the tests of both environments check them.

Run as a script, it writes the Python blocks into a folder, for mypy: a module for each page, in
which a block keeps its lines.
"""

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(ROOT.glob("*/README.md")),
    *sorted(ROOT.glob("examples/*/README.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
]

_BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)(?: title=\"(?P<title>[^\"]*)\")?\n(?P<text>.*?)^ *```$",
    flags=re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    """The line of the page on which its text begins."""
    language: str
    title: str
    """The file that it shows, if the page says so."""
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """Return the blocks in one of these languages, by default in any."""
    found = [block for page in PAGES for block in _blocks_of(page)]
    return [block for block in found if not languages or block.language in languages]


def pages_with(language: str) -> dict[str, list[Block]]:
    """Return the pages that have blocks in a language, with these blocks."""
    pages: dict[str, list[Block]] = {}
    for block in blocks(language):
        pages.setdefault(block.page, []).append(block)
    return pages


def _blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start()) + 2
        lines = [each.removeprefix(found["indent"]) for each in found["text"].splitlines()]
        yield Block(
            page=str(page.relative_to(ROOT)),
            line=line,
            language=found["language"],
            title=found["title"] or "",
            text="\n".join(lines) + "\n",
        )


def commands(block: Block) -> list[str]:
    """Return the commands of a console block, without prompts, output and comments."""
    found: list[str] = []
    continued = False
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append(line[2:])
        elif continued:
            found[-1] = found[-1].removesuffix("\\") + line.strip()
        continued = line.endswith("\\")
    return found


def calls(program: str) -> list[tuple[str, list[str]]]:
    """Return where a program is called in console blocks, with its arguments."""
    return [
        (str(block), words[1:])
        for block in blocks("console")
        for words in simple_commands(block)
        if Path(words[0]).name == program
    ]


def simple_commands(block: Block) -> Iterator[list[str]]:
    """Yield the simple commands of a console block, each as its words."""
    for command in commands(block):
        yield from _split(command)


def _split(command: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for token in [*lexer, ";"]:
        if token == ">" or not set(token) <= set("();<|&"):
            words.append(token)
        elif words:
            yield _without_redirection(words)
            words = []


def _without_redirection(words: list[str]) -> list[str]:
    """Return a command's words without the variables that are set for it, and its output's file."""
    while len(words) > 1 and re.fullmatch(r"\w+=.*", words[0]):
        words = words[1:]
    return words[: words.index(">")] if ">" in words else words


def check_options(command: click.Command, arguments: list[str], where: str) -> None:
    """Check that a command has the subcommands and options of a call; values are not looked at.

    Raises:
        AssertionError: it has not.
    """
    context = click.Context(command)
    try:
        _, rest, _ = command.make_parser(context).parse_args(list(arguments))
        # The subcommands of `dg scaffold defs` are the components of a project.
        if isinstance(command, click.Group) and type(command).__name__ != "ScaffoldDefsGroup":
            _, subcommand, rest = command.resolve_command(context, rest)
            assert subcommand is not None
            check_options(subcommand, rest, where)
    except click.UsageError as error:
        msg = f"{where}: {command.name}: {error.message}"
        raise AssertionError(msg) from error


def as_module(of_page: list[Block]) -> str:
    """Return a page's Python as one module, in which each block keeps its lines.

    Its first line is a heading in the page. Methods may go without types, as users write them.
    """
    lines = ["# mypy: allow-untyped-defs, allow-incomplete-defs"]
    for block in of_page:
        lines += [""] * (block.line - 1 - len(lines))
        lines += block.text.splitlines()
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.py"):
        old.unlink()
    for page, of_page in pages_with("python").items():
        name = re.sub(r"\W", "_", page.removesuffix(".md"))
        (folder / f"{name}.py").write_text(as_module(of_page), encoding="utf-8")
