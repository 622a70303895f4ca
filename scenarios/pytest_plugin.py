"""Scenario files as tests: `pytest` collects them wherever Turnout is installed.

A scenario is a `.yaml` file with a `scenario:` line, in a folder named `scenarios` or below one (ini option
`turnout_scenarios`: other folders; empty: none), or named on the command line. Anything else is left alone: of a file
elsewhere not a byte is read, and the engine is imported only when a scenario runs.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

FOLDERS: Final = ("scenarios",)
SUFFIXES: Final = (".yaml", ".yml")
FILE_BYTES_MAX: Final = 4 << 20  # ours: above it a file is no scenario that anybody wrote
_TITLE: Final = re.compile(rb"^scenario:[ \t]+(\S.*)$", re.MULTILINE)


class ScenarioFailedError(AssertionError):
    """A scenario differs from what it expects."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ini option."""
    parser.addini(
        "turnout_scenarios",
        "folders that hold Turnout scenarios (names, or paths from the root)",
        type="args",
        default=list(FOLDERS),
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> "ScenarioFile | None":
    """Return a collector for a scenario file, None for any other."""
    if file_path.suffix not in SUFFIXES:
        return None
    folders: list[str] = parent.config.getini("turnout_scenarios")
    wanted = _lies_in(file_path, parent.config.rootpath, folders) or parent.session.isinitpath(file_path)
    if not wanted or _title(file_path) is None:
        return None
    made: ScenarioFile = ScenarioFile.from_parent(parent, path=file_path)
    return made


def _lies_in(file: Path, root: Path, folders: list[str]) -> bool:
    above = (file.relative_to(root) if file.is_relative_to(root) else file).parent.parts
    for folder in folders:
        parts = Path(folder).parts
        if parts and any(above[n : n + len(parts)] == parts for n in range(len(above))):
            return True
    return False


def _title(file: Path) -> str | None:
    """Return what a file says it is a scenario of, None if it says nothing."""
    try:
        with file.open("rb") as opened:
            found = _TITLE.search(opened.read(FILE_BYTES_MAX))
    except OSError:
        return None
    return found[1].decode(errors="replace").strip() if found else None


class ScenarioFile(pytest.File):
    """A file that holds a scenario."""

    def collect(self) -> Iterator["ScenarioItem"]:
        """Yield its test."""
        yield ScenarioItem.from_parent(self, name=self.path.stem)


class ScenarioItem(pytest.Item):
    """A scenario as a test: it runs on a simulated clock and must go as it expects."""

    def runtest(self) -> None:
        """Run the scenario."""
        import anyio

        from scenarios.runner import run_file

        outcome = anyio.run(run_file, self.path, backend_options={"use_uvloop": True})
        if not outcome.passed:
            raise ScenarioFailedError("\n".join(_told(failure) for failure in outcome.failures))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *given: Any, **named: Any) -> Any:
        """Tell what differs; of anything else the traceback."""
        if isinstance(excinfo.value, ScenarioFailedError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, *given, **named)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Return where it stands and what it is about."""
        return self.path, 0, _title(self.path) or self.name


def _told(failure: Any) -> str:
    if failure.step < 0 and not failure.path:
        return str(failure.actual)
    return f"at {failure.at}, {failure.path}\n  expected {failure.expected!r}\n  found    {failure.actual!r}"
