"""The table of commands agrees with the functions, and the generated page with what the program prints."""

import importlib
import inspect
from pathlib import Path

import pytest

from adapters.cli.commands import COMMANDS
from scenarios.cli import COMMANDS as MORE_COMMANDS
from scenarios.cli import program
from scenarios.cli_reference import commands, page

DOCS = Path(__file__).parents[2] / "docs" / "cli.md"


ALL_COMMANDS = {**COMMANDS, **MORE_COMMANDS}


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_a_commands_help_is_its_functions_docstring(name: str) -> None:
    module, _, function = ALL_COMMANDS[name].where.partition(":")
    told = inspect.getdoc(getattr(importlib.import_module(module), function)) or ""
    assert " ".join(told.split("\n\nArgs:")[0].split()) == " ".join(ALL_COMMANDS[name].about.split())


def test_the_page_of_the_command_line_is_what_the_program_prints() -> None:
    assert DOCS.read_text() == page(), "write it anew with: make docs"


def test_every_command_of_the_contract_is_there() -> None:
    names = {" ".join(words) for words in commands(program())}
    assert names >= {
        "serve",
        "demo",
        "import",
        "replay",
        "simulate",
        "preview",
        "members",
        "check",
        "explain",
        "export",
        "tokens create",
        "tokens list",
        "tokens revoke",
        "backup",
        "restore",
        "destinations",
    }
