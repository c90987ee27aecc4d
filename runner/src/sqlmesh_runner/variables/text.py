"""Environment variables that Jinja in YAML and SQL files reads by `env_var`."""

import re
from typing import Final

__all__ = ["parse_config", "parse_text"]

_ENV_VAR: Final = re.compile(r"""\benv_var\(\s*["']([^"']+)["']\s*([,)])""")
_COMMENT: Final = re.compile(r"^\s*(?:#|--).*$", re.MULTILINE)
_BLOCK: Final = re.compile(
    r"^gateways:[^\n]*\n(?P<gateways>(?:(?:[ \t#][^\n]*)?\n)*)", re.MULTILINE
)
_DEFAULT_GATEWAY: Final = re.compile(
    r"""^default_gateway:\s*["']?([\w-]+)["']?\s*$""", re.MULTILINE
)


def parse_text(text: str) -> dict[str, bool]:
    """Return the variables that a file reads, and whether each must be set: it has no default."""
    variables: dict[str, bool] = {}
    for name, follows in _ENV_VAR.findall(_COMMENT.sub("", text)):
        variables[name] = variables.get(name, False) or follows == ")"
    return variables


def parse_config(text: str, *, gateway: str | None, also: str = "") -> dict[str, bool]:
    """Return the variables that a configuration reads for one gateway.

    SQLMesh renders the file whole, but what another gateway's connection lacks does not matter.

    Args:
        text: the YAML, not rendered.
        gateway: the gateway in use; None for the configuration's default.
        also: a text that may name other gateways which matter, such as an error's.
    """
    text = _COMMENT.sub("", text) + "\n"
    block = _BLOCK.search(text)
    sections = _sections(block["gateways"]) if block else {}
    default = _DEFAULT_GATEWAY.search(text)
    used = gateway or (default[1] if default else next(iter(sections), None))
    if used not in sections:
        return parse_text(text)
    for name, section in sections.items():
        if name != used and not re.search(rf"\b{re.escape(name)}\b", also):
            text = text.replace(section, "", 1)
    return parse_text(text)


def _sections(block: str) -> dict[str, str]:
    """Return the entries of a YAML mapping as text, by key."""
    first = re.search(r"^([ \t]+)\S", block, re.MULTILINE)
    if first is None:
        return {}
    indent = re.escape(first[1])
    entry = re.compile(
        rf"^{indent}([\w-]+)[ \t]*:[^\n]*\n(?:(?:{indent}[ \t][^\n]*|[ \t]*)\n)*", re.MULTILINE
    )
    return {match[1]: match[0] for match in entry.finditer(block)}
