"""The rules of the house, held by tests: what the docs promise about files, dependencies and commands is so."""

import re
import stat
import subprocess
import tomllib
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HOUSE = Path(__file__).parent.parent
PACKAGES = ("eventlog", "actors", "adapters", "scenarios")
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
MODULE_LINES_MAX = 800  # rarely over 400; far above that a module has two subjects


@cache
def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]
    return found


def requirements() -> list[Requirement]:
    optional = project()["optional-dependencies"]
    return [Requirement(line) for line in (*project()["dependencies"], *optional["postgres"], *optional["dev"])]


def pins() -> dict[str, str]:
    lines = (HOUSE / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): pinned for name, pinned in pairs}


def python_files() -> list[Path]:
    return [file for package in (*PACKAGES, "tests") for file in sorted((HOUSE / package).rglob("*.py"))]


def pages() -> list[Path]:
    return [*HOUSE.glob("*.md"), *sorted((HOUSE / "docs").rglob("*.md"))]


# -- dependencies ----------------------------------------------------------------------------------------------------


def test_every_dependency_has_its_reason_and_no_page_line_is_left_over() -> None:
    page = (HOUSE / "docs" / "dependencies.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \| (\S.*) \|$", page, re.MULTILINE)
    assert {canonicalize_name(name) for name, _ in rows} == {canonicalize_name(r.name) for r in requirements()}


def test_every_pin_is_exact_and_free_of_addresses_and_paths() -> None:
    lines = (HOUSE / "constraints.txt").read_text().splitlines()
    for line in (line for line in lines if not line.startswith("#")):
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+", line), line


def test_every_dependency_is_pinned_within_its_bounds() -> None:
    for requirement in requirements():
        assert pins()[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_the_tests_run_with_the_pinned_versions() -> None:
    for requirement in requirements():
        assert version(requirement.name) == pins()[canonicalize_name(requirement.name)], requirement.name


def test_every_dependency_that_users_install_is_imported_somewhere() -> None:
    imported = {
        name
        for package in PACKAGES
        for file in (HOUSE / package).rglob("*.py")
        for name in re.findall(r"^\s*(?:from|import) ([A-Za-z0-9_]+)", file.read_text(), re.MULTILINE)
    }
    modules = packages_distributions()
    provided = {canonicalize_name(name) for module in imported for name in modules.get(module, ())}
    needed = {canonicalize_name(Requirement(line).name) for line in project()["dependencies"]}
    assert needed - provided == {"httptools"}, "uvicorn loads it by name; all else is imported"


# -- code ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", python_files(), ids=lambda file: str(file.relative_to(HOUSE)))
def test_a_module_has_one_subject_and_leaves_nothing_undone(file: Path) -> None:
    text = file.read_text()
    assert file.stem not in BANNED_NAMES
    assert text.count("\n") <= MODULE_LINES_MAX
    unfinished = re.search(r"\b(TODO|FIXME|XXX|HACK)\b|pytest\.mark\.skip\b|pytest\.(mark\.)?xfail\b", text)
    assert unfinished is None or file == Path(__file__), unfinished
    for line in text.splitlines():
        if "# noqa" in line and file != Path(__file__):
            assert re.search(r"# noqa: [A-Z]+\d+(, [A-Z]+\d+)* - \S", line), f"say why: {line.strip()}"


def test_every_package_and_every_tests_folder_says_what_it_is() -> None:
    for package in (*PACKAGES, "tests"):
        for folder in {file.parent for file in (HOUSE / package).rglob("*.py")}:
            assert (folder / "__init__.py").read_text().startswith('"""'), folder


# -- make and CI -----------------------------------------------------------------------------------------------------


def test_make_alone_lists_every_target() -> None:
    shown = subprocess.run(["make", "-C", HOUSE, "--no-print-directory"], capture_output=True, text=True, check=True)
    listed = re.findall(r"^  make (\S+)", shown.stdout, re.MULTILINE)
    makefile = (HOUSE / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    assert sorted(listed) == sorted(phony[1].split())
    told = "\n".join(page.read_text() for page in pages())
    assert set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", told, re.MULTILINE)) <= set(listed)


def test_what_ci_and_pre_commit_run_is_what_make_runs() -> None:
    ci = HOUSE / ".ci" / "run"
    assert ci.stat().st_mode & stat.S_IXUSR
    assert "make test" in ci.read_text()
    subprocess.run(["bash", "-n", ci], check=True)
    assert "entry: make check" in (HOUSE / ".pre-commit-config.yaml").read_text()


# -- docs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(HOUSE)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), target


def test_every_test_that_a_page_names_is_there() -> None:
    files = [file for file in python_files() if "tests" in file.relative_to(HOUSE).parts]
    known = {name for file in files for name in re.findall(r"def (test_\w+)\(", file.read_text())}
    for page in pages():
        text = page.read_text()
        assert set(re.findall(r"`(test_\w+)`", text)) - known == set(), page
        assert [path for path in re.findall(r"`(tests/[\w./]+)`", text) if not (HOUSE / path).exists()] == [], page


def test_the_index_of_the_docs_lists_every_page() -> None:
    docs = HOUSE / "docs"
    index = (docs / "README.md").read_text()
    for page in docs.rglob("*.md"):
        name = str(page.relative_to(docs))
        if name not in {"README.md", "decisions/0000-template.md"}:
            assert f"({name})" in index, f"{name} is not in docs/README.md"


def test_sample_data_never_lies_without_its_source() -> None:
    for data in HOUSE.glob("scenarios/**/*.ndjson.gz"):
        assert "CC BY 4.0" in (data.parent / "README.md").read_text()
