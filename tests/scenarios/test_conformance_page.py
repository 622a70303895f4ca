"""The page that says what holds each rule names scenarios and tests that are there."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_what_holds_a_rule_is_there() -> None:
    text = (REPOSITORY / "docs" / "conformance.md").read_text(encoding="utf-8")
    rules = text.split("## Rule by rule")[1].split("## Broken on purpose")[0]
    held = [line.split(" | ")[1] for line in rules.splitlines() if line.startswith("| ")][1:]
    named = [name for cell in held for name in re.findall(r"`([^` ]+)`", cell)]
    assert len(named) > 60
    paths = [name if "/" in name else f"scenarios/library/{name}.yaml" for name in named]
    assert [path for path in paths if not (REPOSITORY / path).exists()] == []
