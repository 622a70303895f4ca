"""The public API's answers, field by field, as its official clients read them; and a check of an answer against them.

A shape is a text of `name:type`; `name?` may be left out. Types: str, bool, number, any, map, another shape's name,
`[type]` for a list, `A|B` for one of these words.
"""

import re
from typing import Any, Final

_AUDIENCE: Final = (
    "id:str spaceId:str name:str description?:str key:str enabled:bool definition?:AudienceDefinition status?:str "
    "createdBy:str updatedBy:str createdAt:str updatedAt:str audienceType:ACCOUNTS|LINKED|USERS"
)
_STATES: Final = "FAILED|FINISHED|INITIALIZED|INVALID|NOT_SUPPORTED|PARTIAL_SUCCESS|RUNNING"
_PUBLIC: Final = "DEPRECATED|PRIVATE_BETA|PRIVATE_BUILDING|PRIVATE_SUBMITTED|PUBLIC|PUBLIC_BETA|UNAVAILABLE"

SHAPES: Final[dict[str, str]] = {
    "Space": "id:str slug:str name:str",
    "Pagination": "current:str next?:str previous?:str totalEntries?:number",
    "AudienceDefinition": "targetEntity?:str query:str",
    "AudienceOptions": "includeHistoricalData?:bool filterByExternalIds?:[str] backfillEventDataDays?:number",
    "LookbackOptions": "includeHistoricalData?:bool filterByExternalIds:[str] backfillEventDataDays?:number",
    "Cadence": "type:BATCH|REALTIME",
    "Size": "count?:number type:ACCOUNTS|ENTITIES|USERS uniqueCount?:number",
    "Schedule": "id:str strategy:PERIODIC|SPECIFIC_DAYS config?:map nextExecution?:str",
    "AudienceSummary": f"{_AUDIENCE} options?:AudienceOptions",
    "Audience": f"{_AUDIENCE} computeCadence:Cadence size?:Size options?:LookbackOptions schedules?:[Schedule]",
    "Id": "id:str",
    "Preview": "id:str audienceType:ACCOUNTS|LINKED|USERS definition:AudienceDefinition options:AudienceOptions "
    "status:COMPLETED|FAILED|RUNNING results?:[Id] size?:Size failureReason?:str",
    "TraitDefinition": "query:str type:ACCOUNTS|USERS",
    "TraitOptions": "includeHistoricalData?:bool includeAnonymousUsers?:bool backfillDurationDays?:number",
    "Trait": "id:str spaceId:str name:str description?:str key:str enabled:bool definition?:TraitDefinition "
    "status?:str createdBy:str updatedBy:str createdAt:str updatedAt:str options?:TraitOptions",
    "IdSync": "externalId:str strategy:str mapTo?:str",
    "Brief": "id:str name:str slug:str",
    "Connection": "id:str name?:str sourceId:str enabled:bool createdAt:str updatedAt:str settings:map "
    "destinationId:str metadata?:Brief idSyncConfiguration?:[IdSync] connectionSettings?:any",
    "PersonalizedProfile": "properties:[str] mapping?:map",
    "Entity": "properties:[str] relationshipSlug:str",
    "Personalization": "profile:PersonalizedProfile entities?:[Entity] syncEntityPropertyChanges?:bool",
    "Mapping": "actionId:str settings?:map",
    "Activation": "id:str enabled:bool workspaceId:str spaceId:str audienceId:str connectionId:str activationType:str "
    "activationName:str displayName?:str personalization:Personalization destinationMapping?:Mapping "
    "performResync?:bool",
    "Logos": "default:str mark?:str alt?:str",
    "Option": "name:str type:str required:bool description?:str defaultValue?:any label?:str",
    "Component": "type:ANDROID|BROWSER|IOS|SERVER code:str owner?:PARTNER|SEGMENT",
    "Features": "cloudModeInstances?:0|1|MULTIPLE|NONE|SINGLE deviceModeInstances?:0|1|NONE|SINGLE replay?:bool "
    "browserUnbundling?:bool browserUnbundlingPublic?:bool",
    "Methods": "pageview?:bool identify?:bool alias?:bool track?:bool group?:bool",
    "Platforms": "browser?:bool server?:bool mobile?:bool warehouse?:bool cloudAppObject?:bool linkedAudiences?:bool",
    "Metadata": "id:str name:str description:str slug:str logos:Logos options:[Option] previousNames:[str] "
    f"categories:[str] website:str components:[Component] supportedFeatures:Features supportedMethods:Methods "
    f"supportedPlatforms:Platforms actions:[map] presets:[map] contacts?:[map] partnerOwned?:bool "
    f"supportedRegions?:[str] regionEndpoints?:[str] multiInstanceSupportedVersion?:str status:{_PUBLIC}",
    "Destination": "id:str name?:str enabled:bool metadata:Metadata sourceId:str settings:map",
    "SourceMetadata": "id:str name:str slug:str description:str logos:Logos options:[Option] categories:[str] "
    f"isCloudEventSource:bool status:{_PUBLIC} partnerOwned?:bool",
    "Label": "key:str value:str description?:str",
    "Source": "id:str slug:str name?:str metadata:SourceMetadata workspaceId:str enabled:bool writeKeys:[str] "
    "settings?:map labels:[Label]",
    "DestinationState": f"name:str id:str status:{_STATES} errString:str finishedAt:str",
    "Stream": "id:str destinationStatus:[DestinationState]",
    "Regulation": f"id:str workspaceId:str overallStatus:{_STATES} finishedAt?:str createdAt:str streamStatus:[Stream]",
    "Suppressed": "subjectType:str subjectIds:[str]",
    "Act": "id:str timestamp:str type:str actor:str actorEmail?:str resourceId:str resourceType:str resourceName:str",
    "Error": "type:str message?:str field?:str data?:any status?:number",
    "Done": "status:SUCCESS",
}

_AT: Final = "/spaces/{space_id}/audiences/{audience_id}"
_TRAIT: Final = "/spaces/{space_id}/computed-traits/{trait_id}"
ANSWERS: Final[dict[str, str]] = {
    "GET /spaces": "spaces:[Space] pagination:Pagination",
    "GET /spaces/{space_id}": "space?:Space",
    "POST /spaces/{space_id}/audiences": "audience:AudienceSummary",
    "GET /spaces/{space_id}/audiences": "audiences:[Audience] pagination:Pagination",
    f"GET {_AT}": "audience:Audience",
    f"PATCH {_AT}": "audience:AudienceSummary",
    f"DELETE {_AT}": "status:SUCCESS",
    "POST /spaces/{space_id}/audiences/previews": "audiencePreview:Id",
    "GET /spaces/{space_id}/audiences/previews/{preview_id}": "audiencePreview:Preview",
    f"POST {_AT}/runs": "run:Id",
    f"GET {_AT}/audience-references": "audiences:[AudienceSummary] pagination:Pagination",
    "POST /spaces/{space_id}/computed-traits": "computedTrait:Trait",
    "GET /spaces/{space_id}/computed-traits": "computedTraits:[Trait] pagination:Pagination",
    f"GET {_TRAIT}": "computedTrait:Trait",
    f"PATCH {_TRAIT}": "computedTrait:Trait",
    f"DELETE {_TRAIT}": "status:SUCCESS",
    "GET /spaces/{space_id}/audienceType/{audience_type}/supported-destinations": (
        "destinations:map pagination?:Pagination"
    ),
    f"POST {_AT}/destination-connections": "connection:Id idSyncConfiguration:[IdSync] connectionSettings?:any",
    f"GET {_AT}/destination-connections": "connections:[Connection] pagination?:Pagination",
    f"PATCH {_AT}/destination-connections/{{destination_id}}": (
        "destination:Id idSyncConfiguration?:[IdSync] connectionSettings?:any"
    ),
    f"DELETE {_AT}/destination-connections/{{destination_id}}": "status:SUCCESS",
    f"POST {_AT}/destination-connections/{{connection_id}}/activations": "activation:Activation",
    f"GET {_AT}/activations": "status:str",
    "POST /destinations": "destination:Destination",
    "GET /destinations": "destinations:[Destination] pagination:Pagination",
    "POST /sources": "source:Source",
    "POST /regulations": "regulateId:str",
    "GET /regulations/{regulate_id}": "regulation:Regulation",
    "GET /suppressions": "suppressed:[Suppressed] pagination:Pagination",
    "GET /audit-events": "events:[Act] pagination?:Pagination",
}
"""What `data` holds."""


def wrong(value: Any, shape: str, at: str = "data") -> list[str]:
    """Return what of a value is not as a shape says; nothing where all is."""
    if not isinstance(value, dict):
        return [f"{at}: {value!r} is no object"]
    found: list[str] = []
    for name, optional, kind in re.findall(r"(\w+)(\??):(\S+)", shape):
        if name not in value:
            found += [] if optional else [f"{at}.{name} is missing"]
        else:
            found += _wrong_value(value[name], kind, f"{at}.{name}")
    return found


def _wrong_value(value: Any, kind: str, at: str) -> list[str]:
    if kind.startswith("["):
        if not isinstance(value, list):
            return [f"{at}: {value!r} is no list"]
        return [one for place, item in enumerate(value) for one in _wrong_value(item, kind[1:-1], f"{at}[{place}]")]
    if kind in SHAPES:
        return wrong(value, SHAPES[kind], at)
    plain = {"str": str, "bool": bool, "number": (int, float), "map": dict, "any": object}.get(kind)
    if plain is None:
        fits = value in kind.split("|")
    else:
        fits = isinstance(value, plain) and (kind != "number" or not isinstance(value, bool))  # type: ignore[arg-type]
    return [] if fits else [f"{at}: {value!r} is not {kind}"]
