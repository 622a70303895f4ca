"""The public API's fields, as its official client library declares them, and a judge of answers by them.

A name that ends in `?` is optional; a list of one holds such things; a tuple of texts are the values allowed.
"""

from typing import Any, Final

Shape = Any

NUMBER: Final = (int, float)
PAGINATION: Final = {"current": str, "next?": str, "previous?": str, "totalEntries?": NUMBER}
SPACE: Final = {"id": str, "slug": str, "name": str}
AUDIENCE_TYPES: Final = ("ACCOUNTS", "LINKED", "USERS")
SIZE: Final = {"count?": NUMBER, "type": ("ACCOUNTS", "ENTITIES", "USERS"), "uniqueCount?": NUMBER}
AUDIENCE_DEFINITION: Final = {"targetEntity?": str, "query": str}
AUDIENCE_OPTIONS: Final = {
    "includeHistoricalData?": bool,
    "filterByExternalIds?": [str],
    "backfillEventDataDays?": NUMBER,
}
_SAVED: Final = {
    "id": str,
    "spaceId": str,
    "name": str,
    "description?": str,
    "key": str,
    "enabled": bool,
    "status?": str,
    "createdBy": str,
    "updatedBy": str,
    "createdAt": str,
    "updatedAt": str,
}
AUDIENCE: Final = {
    **_SAVED,
    "definition?": AUDIENCE_DEFINITION,
    "audienceType": AUDIENCE_TYPES,
    "options?": AUDIENCE_OPTIONS,
}
AUDIENCE_WITH_LOOKBACK: Final = {
    **AUDIENCE,
    "computeCadence": {"type": ("BATCH", "REALTIME")},
    "size?": SIZE,
    "options?": {
        "filterByExternalIds": [str],
        "includeHistoricalData?": bool,
        "backfillEventDataDays?": NUMBER,
    },
}
PREVIEW: Final = {
    "id": str,
    "audienceType": AUDIENCE_TYPES,
    "definition": AUDIENCE_DEFINITION,
    "options": AUDIENCE_OPTIONS,
    "status": ("COMPLETED", "FAILED", "RUNNING"),
    "results?": [{"id": str}],
    "size?": SIZE,
    "failureReason?": str,
}
TRAIT: Final = {
    **_SAVED,
    "definition?": {"query": str, "type": ("ACCOUNTS", "USERS")},
    "options?": {
        "includeHistoricalData?": bool,
        "includeAnonymousUsers?": bool,
        "backfillDurationDays?": NUMBER,
    },
}
DELETED: Final = {"status": ("SUCCESS",)}
ID: Final = {"id": str}
ID_SYNC: Final = [{"externalId": str, "strategy": str, "mapTo?": str}]
CONNECTED: Final = {"connection": ID, "idSyncConfiguration": ID_SYNC, "connectionSettings?": object}
CONNECTION_EDITED: Final = {"destination": ID, "idSyncConfiguration?": ID_SYNC, "connectionSettings?": object}
CONNECTION: Final = {
    "id": str,
    "name?": str,
    "sourceId": str,
    "enabled": bool,
    "createdAt": str,
    "updatedAt": str,
    "settings": dict,
    "destinationId": str,
    "metadata?": {"id": str, "name": str, "slug": str},
    "idSyncConfiguration?": ID_SYNC,
    "connectionSettings?": object,
}
ACTIVATION: Final = {
    "id": str,
    "enabled": bool,
    "workspaceId": str,
    "spaceId": str,
    "audienceId": str,
    "connectionId": str,
    "activationType": str,
    "activationName": str,
    "displayName?": str,
    "personalization": {
        "profile": {"properties": [str], "mapping?": dict},
        "entities?": [{"properties": [str], "relationshipSlug": str}],
        "syncEntityPropertyChanges?": bool,
    },
    "destinationMapping?": {"actionId": str, "settings?": dict},
    "performResync?": bool,
}
_STATUS: Final = (
    "DEPRECATED",
    "PRIVATE_BETA",
    "PRIVATE_BUILDING",
    "PRIVATE_SUBMITTED",
    "PUBLIC",
    "PUBLIC_BETA",
    "UNAVAILABLE",
)
_LOGOS: Final = {"default": str, "mark?": str, "alt?": str}
_OPTIONS: Final = [
    {"name": str, "type": str, "required": bool, "description?": str, "defaultValue?": object, "label?": str}
]
METADATA: Final = {
    "id": str,
    "name": str,
    "description": str,
    "slug": str,
    "logos": _LOGOS,
    "options": _OPTIONS,
    "status": _STATUS,
    "previousNames": [str],
    "categories": [str],
    "website": str,
    "components": [{"type": ("ANDROID", "BROWSER", "IOS", "SERVER"), "code": str, "owner?": ("PARTNER", "SEGMENT")}],
    "supportedFeatures": {
        "cloudModeInstances?": ("0", "1", "MULTIPLE", "NONE", "SINGLE"),
        "deviceModeInstances?": ("0", "1", "NONE", "SINGLE"),
        "replay?": bool,
        "browserUnbundling?": bool,
        "browserUnbundlingPublic?": bool,
    },
    "supportedMethods": {"pageview?": bool, "identify?": bool, "alias?": bool, "track?": bool, "group?": bool},
    "supportedPlatforms": {
        "browser?": bool,
        "server?": bool,
        "mobile?": bool,
        "warehouse?": bool,
        "cloudAppObject?": bool,
        "linkedAudiences?": bool,
    },
    "actions": [dict],
    "presets": [dict],
    "contacts?": [{"name?": str, "email": str, "role?": str, "isPrimary?": bool}],
    "partnerOwned?": bool,
    "supportedRegions?": [str],
    "regionEndpoints?": [str],
    "multiInstanceSupportedVersion?": str,
}
DESTINATION: Final = {
    "id": str,
    "name?": str,
    "enabled": bool,
    "metadata": METADATA,
    "sourceId": str,
    "settings": dict,
}
SOURCE: Final = {
    "id": str,
    "slug": str,
    "name?": str,
    "metadata": {
        "id": str,
        "name": str,
        "slug": str,
        "description": str,
        "logos": _LOGOS,
        "options": _OPTIONS,
        "categories": [str],
        "isCloudEventSource": bool,
        "status": _STATUS,
        "partnerOwned?": bool,
    },
    "workspaceId": str,
    "enabled": bool,
    "writeKeys": [str],
    "settings?": dict,
    "labels": [{"key": str, "value": str, "description?": str}],
}
_REGULATION_STATUS: Final = (
    "FAILED",
    "FINISHED",
    "INITIALIZED",
    "INVALID",
    "NOT_SUPPORTED",
    "PARTIAL_SUCCESS",
    "RUNNING",
)
REGULATION: Final = {
    "id": str,
    "workspaceId": str,
    "overallStatus": _REGULATION_STATUS,
    "finishedAt?": str,
    "createdAt": str,
    "streamStatus": [
        {
            "id": str,
            "destinationStatus": [
                {"name": str, "id": str, "status": _REGULATION_STATUS, "errString": str, "finishedAt": str}
            ],
        }
    ],
}
SUPPRESSED: Final = {"subjectType": str, "subjectIds": [str]}
AUDIT_EVENT: Final = {
    "id": str,
    "timestamp": str,
    "type": str,
    "actor": str,
    "actorEmail?": str,
    "resourceId": str,
    "resourceType": str,
    "resourceName": str,
}
ERRORS: Final = {
    "errors": [{"type": str, "message?": str, "field?": str, "data?": object, "status?": NUMBER}],
}


def wrong_in(value: Any, shape: Shape, where: str = "data") -> list[str]:
    """Return what a client of the public API would trip over in an answer: fields missing, or of another type."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return [f"{where}: {value!r} is no object"]
        wrong = []
        for name, part in shape.items():
            field = name.removesuffix("?")
            if field in value:
                wrong += wrong_in(value[field], part, f"{where}.{field}")
            elif field == name:
                wrong.append(f"{where}.{field} is missing")
        return wrong
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [f"{where}: {value!r} is no list"]
        return [one for place, item in enumerate(value) for one in wrong_in(item, shape[0], f"{where}[{place}]")]
    if isinstance(shape, tuple) and isinstance(shape[0], str):
        return [] if value in shape else [f"{where}: {value!r} is none of {shape}"]
    fits = isinstance(value, shape) and not (isinstance(value, bool) and shape not in (bool, object))
    return [] if fits else [f"{where}: {value!r} is no {shape}"]
