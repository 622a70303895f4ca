"""Answers from a data directory that this process opens itself."""

from typing import Any, Final

from actors.space_api import Collection, EntityType, SpaceApi
from adapters.cli.answers import Member, PreviewAnswer
from eventlog.errors import InvalidError, NotFoundError

SAMPLE: Final = 10  # names in a preview: what fits a glance


class LocalAnswers:
    """Asks a space in this process."""

    def __init__(self, space: SpaceApi) -> None:
        self._space = space

    async def preview(
        self,
        query: str,
        entity_type: EntityType,
        *,
        trait: bool,
        at_ms: int | None,
        known_ms: int | None,
        everyone: bool,
    ) -> PreviewAnswer:
        """See `Answers`."""
        sample = None if everyone else SAMPLE
        found = await self._space.preview(
            query, entity_type, trait=trait, at_ms=at_ms, known_ms=known_ms, sample=sample
        )
        return PreviewAnswer(found.size, tuple(name for _, name in found.sample), found.at_ms)

    async def members(self, key: str, *, at_ms: int | None, known_ms: int | None) -> list[Member]:
        """See `Answers`."""
        space = self._space
        found = await space.members(key, at_ms=at_ms, known_ms=known_ms)
        return [Member(space.name_of(entity), since_ms) for entity, since_ms in found]

    async def explain(self, key: str, profile: str, *, at_ms: int | None, known_ms: int | None) -> dict[str, Any]:
        """See `Answers`."""
        accounts = self._space.definition(key).definition.entity_type == "ACCOUNTS"
        entity = find(self._space, "accounts" if accounts else "users", profile)
        return await self._space.explain(key, entity, at_ms=at_ms, known_ms=known_ms)


def find(space: SpaceApi, collection: Collection, profile: str) -> int:
    """Return the entity that TYPE:VALUE names; without a type it is a user_id (group_id for accounts).

    A value may hold a colon itself, so `TYPE:` is tried first and the whole as a user_id after it.
    """
    if not profile:
        raise InvalidError(
            "invalid_profile", "a profile is named TYPE:VALUE, as in user_id:ann or email:ann@example.com"
        )
    id_type, colon, value = profile.partition(":")
    entity = space.find(collection, id_type, value) if colon else None
    if entity is None:
        entity = space.find(collection, "user_id" if collection == "users" else "group_id", profile)
    if entity is None:
        raise NotFoundError("no_such_profile", f"no {collection[:-1]} has the id {profile!r}")
    return entity
