"""A destination type in the public API's words, filled from the schema of its settings."""

from typing import Any, Final
from typing import Literal as OneOf

from actors.destinations_state import DestinationType
from adapters.http.envelopes import Shape

TYPES: Final = {"boolean": "boolean", "integer": "number", "number": "number", "array": "array", "object": "map"}
"""JSON schema's types in the public API's words; all others are text."""


class Logos(Shape, frozen=True):
    """Where a picture lies; Turnout ships none, so it is empty."""

    default: str


class IntegrationOption(Shape, frozen=True):
    """One setting of a destination type."""

    name: str
    type: str
    required: bool
    description: str | None = None
    default_value: Any = None
    label: str | None = None


class Component(Shape, frozen=True):
    """Where a destination runs."""

    type: OneOf["SERVER"]
    code: str
    owner: OneOf["SEGMENT"]


class Features(Shape, frozen=True):
    """What a destination type can do."""

    cloud_mode_instances: OneOf["MULTIPLE"]
    device_mode_instances: OneOf["NONE"]
    replay: bool
    browser_unbundling: bool
    browser_unbundling_public: bool


class Methods(Shape, frozen=True):
    """The calls that a destination type takes."""

    pageview: bool
    identify: bool
    alias: bool
    track: bool
    group: bool


class Platforms(Shape, frozen=True):
    """Where a destination type takes data from."""

    browser: bool
    server: bool
    mobile: bool
    warehouse: bool
    cloud_app_object: bool
    linked_audiences: bool


class DestinationMetadata(Shape, frozen=True):
    """A destination type."""

    id: str
    name: str
    description: str
    slug: str
    logos: Logos
    options: list[IntegrationOption]
    status: OneOf["PUBLIC"]
    previous_names: list[str]
    categories: list[str]
    website: str
    components: list[Component]
    supported_features: Features
    supported_methods: Methods
    supported_platforms: Platforms
    actions: list[Any]
    presets: list[Any]
    settings_schema: dict[str, Any]
    partner_owned: bool = False


def metadata_of(kind: DestinationType) -> DestinationMetadata:
    """Return a destination type as the public API describes it."""
    how = (
        f"a list, brought up to date every {kind.interval_ms // 60_000} minutes"
        if kind.is_list
        else "each change as it happens"
    )
    return DestinationMetadata(
        id=kind.type,
        name=kind.title,
        description=f"{kind.title}: {how}, at most {kind.rate_per_s:g} requests a second unless set otherwise.",
        slug=kind.type,
        logos=Logos(default=""),
        options=_options(kind.settings_schema),
        status="PUBLIC",
        previous_names=[],
        categories=["Lists" if kind.is_list else "Events"],
        website=kind.page,
        components=[Component(type="SERVER", code="", owner="SEGMENT")],
        supported_features=Features(
            cloud_mode_instances="MULTIPLE",
            device_mode_instances="NONE",
            replay=False,
            browser_unbundling=False,
            browser_unbundling_public=False,
        ),
        supported_methods=Methods(
            pageview=False, identify=not kind.is_list, alias=False, track=not kind.is_list, group=not kind.is_list
        ),
        supported_platforms=Platforms(
            browser=False,
            server=True,
            mobile=False,
            warehouse=False,
            cloud_app_object=False,
            linked_audiences=False,
        ),
        actions=[],
        presets=[],
        settings_schema=kind.settings_schema,
    )


def _options(schema: dict[str, Any]) -> list[IntegrationOption]:
    required = schema.get("required", ())
    return [
        IntegrationOption(
            name=name,
            type="password" if part.get("writeOnly") else _type_of(part),
            required=name in required,
            description=part.get("description"),
            default_value=part.get("default"),
            label=part.get("title") or name,
        )
        for name, part in schema.get("properties", {}).items()
    ]


def _type_of(part: dict[str, Any]) -> str:
    """Return the type of a setting; of several, the first that is not null."""
    names = [part.get("type"), *(one.get("type") for one in part.get("anyOf", ()))]
    found = next((name for name in names if isinstance(name, str) and name != "null"), "string")
    return TYPES.get(found, "string")
