"""The control plane: spaces, sources, tokens and the audit trail, as a fold of a small log of their own.

Every act is appended with an `Audited` fact beside it, then folded; a restart folds the log anew. Secrets are drawn by
the caller's source of randomness, told once, and kept only as SHA-256: 256 random bits need no slow hash. A write key
is such a secret that belongs to a source. Times are milliseconds since the epoch, UTC.
"""

import hashlib
import re
from base64 import urlsafe_b64encode
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Self

import anyio
from msgspec import Struct, structs

from eventlog.clock import Clock
from eventlog.entries import (
    AnyFact,
    Audited,
    Commit,
    SourceRecord,
    SourceSaved,
    SpaceRecord,
    SpaceSaved,
    TokenRecord,
    TokenSaved,
)
from eventlog.errors import ConflictError, InvalidError, NotFoundError
from eventlog.log import Log

EVENTS_WRITE: Final = "events:write"
PROFILES_READ: Final = "profiles:read"
AUDIENCES_READ: Final = "audiences:read"
AUDIENCES_WRITE: Final = "audiences:write"
EXPORTS_RAW: Final = "exports:raw"
ADMIN: Final = "admin"
SCOPES: Final = (
    EVENTS_WRITE,
    PROFILES_READ,
    AUDIENCES_READ,
    AUDIENCES_WRITE,
    EXPORTS_RAW,
    ADMIN,
)  # contract, section 8
IMPLIED: Final = {AUDIENCES_WRITE: (AUDIENCES_READ,), ADMIN: SCOPES}
"""What a scope grants beside itself: who may change audiences may read them, an admin may do everything."""

SECRET_BYTES: Final = 32  # 256 bits: guessing is out of reach, so a plain hash is enough
ID_BYTES: Final = 9  # 72 bits, 12 letters: ids made by several machines do not meet
HINT_CHARS: Final = 4  # the last letters of a secret, shown in lists to tell tokens apart
SECRET_CHARS_MAX: Final = 200  # ours have 46; a longer one opens nothing and need not be hashed
NAME_CHARS_MAX: Final = 200  # a name is shown in lists and menus
SLUG_CHARS_MAX: Final = 100
SPACES_MAX: Final = 1_000  # each has a log and a loop of its own
SOURCES_MAX: Final = 10_000
TOKENS_MAX: Final = 10_000
WRITE_KEYS_MAX: Final = 10  # of one source: the current one and those being phased out
AUDIT_KEPT_MAX: Final = 10_000  # in memory, newest; the log keeps all

_NOT_SLUG: Final = re.compile(r"[^a-z0-9]+")


class AuditRow(Struct, frozen=True):
    """An entry of the audit trail with its place and time."""

    seq: int
    at_ms: int
    act: Audited


class ControlState:
    """What the control log says by now. `fold` is the only thing that changes it."""

    __slots__ = ("acts", "source_of_key", "sources", "spaces", "token_of_hash", "tokens")

    def __init__(self) -> None:
        self.spaces: dict[str, SpaceRecord] = {}
        self.sources: dict[str, SourceRecord] = {}
        self.tokens: dict[str, TokenRecord] = {}
        self.source_of_key: dict[str, str] = {}
        self.token_of_hash: dict[str, str] = {}
        self.acts: deque[AuditRow] = deque(maxlen=AUDIT_KEPT_MAX)

    def fold(self, commit: Commit) -> None:
        """Take in what was written at once."""
        seq = commit.first_seq + len(commit.events)
        for place, fact in enumerate(commit.facts, seq):
            if isinstance(fact, SpaceSaved):
                self.spaces[fact.space.id] = fact.space
            elif isinstance(fact, SourceSaved):
                self._save_source(fact.source)
            elif isinstance(fact, TokenSaved):
                self._save_token(fact.token)
            elif isinstance(fact, Audited):
                self.acts.append(AuditRow(place, commit.at_ms, fact))

    def _save_source(self, source: SourceRecord) -> None:
        before = self.sources.get(source.id)
        for key in before.key_hashes if before else ():
            self.source_of_key.pop(key, None)
        for key in source.key_hashes:
            self.source_of_key[key] = source.id
        self.sources[source.id] = source

    def _save_token(self, token: TokenRecord) -> None:
        before = self.tokens.get(token.id)
        if before is not None:
            self.token_of_hash.pop(before.token_hash, None)
        self.tokens[token.id] = token
        if token.revoked_ms is None:
            self.token_of_hash[token.token_hash] = token.id


class FirstStart(Struct, frozen=True):
    """The secrets made by a first start; nobody can tell them again."""

    space: SpaceRecord
    source: SourceRecord
    write_key: str
    admin_token: str


def hash_of(secret: str) -> str:
    """Return what is kept of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def grants(scopes: Sequence[str], scope: str) -> bool:
    """Tell whether a token with these scopes may do what needs `scope`."""
    return scope in scopes or any(scope in IMPLIED.get(held, ()) for held in scopes)


class Control:
    """Spaces, sources and tokens: asked by every request, changed by few."""

    def __init__(self, log: Log, clock: Clock, entropy: Callable[[int], bytes]) -> None:
        self._log = log
        self._clock = clock
        self._entropy = entropy
        self._state = ControlState()
        self._one_at_a_time = anyio.Lock()

    @classmethod
    async def open(cls, log: Log, clock: Clock, entropy: Callable[[int], bytes]) -> Self:
        """Fold what the log holds.

        Args:
            log: the control log, which this is the only writer of.
            clock: tells when acts happen and tokens expire.
            entropy: returns so many random bytes; secrets come from it.
        """
        control = cls(log, clock, entropy)
        for commit in log.read():
            control._state.fold(commit)
        return control

    async def start(self) -> FirstStart | None:
        """Make the first space, source and admin token, all at once; None where there is a space already."""
        async with self._one_at_a_time:
            if self._state.spaces:
                return None
            space = self._made_space("Default", "default")
            source, write_key = self._made_source("Default", "default", space.id, {})
            token, admin_token = self._made_token("First admin token", (ADMIN,), "", None)
            act = Audited("Space Created", "first start", space.id, "space", space.name, space.id)
            await self._append(SpaceSaved(space), SourceSaved(source), TokenSaved(token), act)
        return FirstStart(space, source, write_key, admin_token)

    # -- spaces ------------------------------------------------------------------------------------------------------

    def spaces(self) -> list[SpaceRecord]:
        """Return all spaces, the first one first."""
        return list(self._state.spaces.values())

    def space(self, id_or_slug: str) -> SpaceRecord:
        """Return a space. Raises NotFoundError."""
        found = self._state.spaces.get(id_or_slug)
        if found is None:
            found = next((space for space in self._state.spaces.values() if space.slug == id_or_slug), None)
        if found is None:
            raise NotFoundError("not_found", f"there is no space {id_or_slug!r}", field="spaceId")
        return found

    async def create_space(self, name: str, *, slug: str | None = None, actor: str = "") -> SpaceRecord:
        """Create a space. Raises InvalidError for a name or slug that will not do, ConflictError for a slug taken."""
        async with self._one_at_a_time:
            _within(len(self._state.spaces), SPACES_MAX, "spaces")
            space = self._made_space(name, slug)
            await self._append(
                SpaceSaved(space), Audited("Space Created", actor, space.id, "space", space.name, space.id)
            )
        return space

    # -- sources -----------------------------------------------------------------------------------------------------

    def sources(self, space_id: str | None = None) -> list[SourceRecord]:
        """Return the sources of a space, or all, oldest first."""
        return [source for source in self._state.sources.values() if space_id in (None, source.space_id)]

    def source(self, source_id: str) -> SourceRecord:
        """Return a source by id or slug. Raises NotFoundError."""
        found = self._state.sources.get(source_id)
        if found is None:
            found = next((source for source in self._state.sources.values() if source.slug == source_id), None)
        if found is None:
            raise NotFoundError("not_found", f"there is no source {source_id!r}", field="sourceId")
        return found

    def source_of_write_key(self, write_key: str) -> SourceRecord | None:
        """Return the source that a write key belongs to."""
        return None if len(write_key) > SECRET_CHARS_MAX else self.source_of_key_hash(hash_of(write_key))

    def source_of_key_hash(self, key_hash: str) -> SourceRecord | None:
        """Return the source that a write key with this hash belongs to; asked for every tracking request."""
        source_id = self._state.source_of_key.get(key_hash)
        return None if source_id is None else self._state.sources[source_id]

    async def create_source(
        self,
        name: str,
        *,
        slug: str | None = None,
        space_id: str | None = None,
        enabled: bool = True,
        metadata_id: str = "",
        settings: dict[str, Any] | None = None,
        actor: str = "",
    ) -> tuple[SourceRecord, str]:
        """Create a source; return it with its write key, which cannot be told again.

        It belongs to `space_id`, else to the space that `settings["spaceId"]` names, else to the first one.
        Raises InvalidError, NotFoundError for the space, ConflictError for a slug that is taken.
        """
        async with self._one_at_a_time:
            _within(len(self._state.sources), SOURCES_MAX, "sources")
            home = self._space_for(space_id, settings or {})
            source, write_key = self._made_source(name, slug, home, settings or {})
            source = structs.replace(source, enabled=enabled, metadata_id=metadata_id)
            await self._append(
                SourceSaved(source), Audited("Source Created", actor, source.id, "source", source.name, source.space_id)
            )
        return source, write_key

    async def change_source(self, source_id: str, *, enabled: bool, actor: str = "") -> SourceRecord:
        """Enable or disable a source. Raises NotFoundError."""
        async with self._one_at_a_time:
            source = structs.replace(self.source(source_id), enabled=enabled)
            act = "Source Enabled" if enabled else "Source Disabled"
            await self._append(
                SourceSaved(source), Audited(act, actor, source.id, "source", source.name, source.space_id)
            )
        return source

    async def add_write_key(self, source_id: str, *, actor: str = "") -> tuple[SourceRecord, str]:
        """Give a source one more write key; return it once. The older ones go on until they are removed."""
        async with self._one_at_a_time:
            source = self.source(source_id)
            _within(len(source.key_hashes), WRITE_KEYS_MAX, "write keys of a source")
            write_key = self._new_secret("wk")
            source = structs.replace(
                source,
                key_hashes=(*source.key_hashes, hash_of(write_key)),
                key_hints=(*source.key_hints, write_key[-HINT_CHARS:]),
            )
            await self._append(
                SourceSaved(source),
                Audited("Write Key Added", actor, source.id, "source", source.name, source.space_id),
            )
        return source, write_key

    async def remove_write_key(self, source_id: str, key: str, *, actor: str = "") -> SourceRecord:
        """Take a write key from a source, named in full or by its last letters. Raises NotFoundError."""
        hashed, hint = hash_of(key), key[-HINT_CHARS:]
        async with self._one_at_a_time:
            source = self.source(source_id)
            named = zip(source.key_hashes, source.key_hints, strict=True)
            kept = [place for place, known in enumerate(named) if known[0] != hashed and known[1] != key]
            if len(kept) == len(source.key_hints):
                raise NotFoundError("not_found", f"the source has no write key that ends in {hint!r}", field="hint")
            source = structs.replace(
                source,
                key_hashes=tuple(source.key_hashes[place] for place in kept),
                key_hints=tuple(source.key_hints[place] for place in kept),
            )
            await self._append(
                SourceSaved(source),
                Audited("Write Key Removed", actor, source.id, "source", source.name, source.space_id),
            )
        return source

    # -- tokens ------------------------------------------------------------------------------------------------------

    def tokens(self, space_id: str | None = None) -> list[TokenRecord]:
        """Return the tokens that reach a space, or all, oldest first, revoked ones too."""
        return [token for token in self._state.tokens.values() if space_id is None or token.space_id in ("", space_id)]

    def token(self, token_id: str) -> TokenRecord:
        """Return a token by its id. Raises NotFoundError."""
        found = self._state.tokens.get(token_id)
        if found is None:
            raise NotFoundError("not_found", f"there is no token {token_id!r}", field="tokenId")
        return found

    def token_of(self, plain: str) -> TokenRecord | None:
        """Return the token that a secret opens, unless it is revoked or has expired."""
        if len(plain) > SECRET_CHARS_MAX:
            return None
        token_id = self._state.token_of_hash.get(hash_of(plain))
        if token_id is None:
            return None
        token = self._state.tokens[token_id]
        return None if token.expires_ms is not None and token.expires_ms <= self._clock.now_ms() else token

    async def issue_token(
        self,
        name: str,
        scopes: Iterable[str],
        *,
        space_id: str = "",
        expires_ms: int | None = None,
        actor: str = "",
    ) -> tuple[TokenRecord, str]:
        """Issue a token; return it with its secret, which cannot be told again.

        Raises InvalidError for unknown scopes or an end in the past, NotFoundError for the space.
        """
        async with self._one_at_a_time:
            _within(sum(token.revoked_ms is None for token in self._state.tokens.values()), TOKENS_MAX, "tokens")
            home = self.space(space_id).id if space_id else ""
            token, secret = self._made_token(name, tuple(dict.fromkeys(scopes)), home, expires_ms)
            await self._append(
                TokenSaved(token), Audited("Access Token Created", actor, token.id, "token", token.name, token.space_id)
            )
        return token, secret

    async def rotate_token(self, token_id: str, *, actor: str = "") -> tuple[TokenRecord, str]:
        """Give a token a new secret; the old one is refused at once. Raises NotFoundError, ConflictError if revoked."""
        async with self._one_at_a_time:
            token = self.token(token_id)
            if token.revoked_ms is not None:
                raise ConflictError("revoked", f"the token {token.name!r} is revoked; issue a new one")
            secret = self._new_secret("tt")
            token = structs.replace(token, token_hash=hash_of(secret), hint=secret[-HINT_CHARS:])
            await self._append(
                TokenSaved(token), Audited("Access Token Rotated", actor, token.id, "token", token.name, token.space_id)
            )
        return token, secret

    async def revoke_token(self, token_id: str, *, actor: str = "") -> TokenRecord:
        """Revoke a token; doing it again changes nothing. Raises NotFoundError, ConflictError for the last admin."""
        async with self._one_at_a_time:
            token = self.token(token_id)
            if token.revoked_ms is not None:
                return token
            if self._is_last_admin(token):
                raise ConflictError("last_admin", "this is the last admin token; issue another one first")
            token = structs.replace(token, revoked_ms=self._clock.now_ms())
            await self._append(
                TokenSaved(token), Audited("Access Token Deleted", actor, token.id, "token", token.name, token.space_id)
            )
        return token

    # -- the audit trail ---------------------------------------------------------------------------------------------

    async def record(self, act: Audited) -> None:
        """Write down an act that is kept nowhere else."""
        async with self._one_at_a_time:
            await self._append(act)

    def acts(self, *, before_seq: int | None = None, limit: int = 100) -> list[AuditRow]:
        """Return the newest acts first, those before a sequence, at most `limit` (of the newest AUDIT_KEPT_MAX)."""
        rows: list[AuditRow] = []
        for row in reversed(self._state.acts):
            if before_seq is None or row.seq < before_seq:
                rows.append(row)
                if len(rows) >= limit:
                    break
        return rows

    async def close(self) -> None:
        """Release the log."""
        await self._log.close()

    # ----------------------------------------------------------------------------------------------------------------

    async def _append(self, *facts: AnyFact) -> None:
        """Make facts durable, then fold them: what is not stored never happened."""
        commit = Commit(self._log.last_seq + 1, self._clock.now_ms(), facts=facts)
        await self._log.append([commit])
        self._state.fold(commit)

    def _made_space(self, name: str, slug: str | None) -> SpaceRecord:
        checked = _slug_of(name, slug)
        if any(checked in (space.slug, space.id) for space in self._state.spaces.values()):
            raise ConflictError("slug_taken", f"a space with the slug {checked!r} is there already", field="slug")
        return SpaceRecord(self._new_id("spa"), checked, _name_of(name), self._clock.now_ms())

    def _made_source(
        self, name: str, slug: str | None, space_id: str, settings: dict[str, Any]
    ) -> tuple[SourceRecord, str]:
        checked = _slug_of(name, slug)
        if any(checked in (source.slug, source.id) for source in self._state.sources.values()):
            raise ConflictError("slug_taken", f"a source with the slug {checked!r} is there already", field="slug")
        write_key = self._new_secret("wk")
        source = SourceRecord(
            id=self._new_id("src"),
            slug=checked,
            name=_name_of(name),
            space_id=space_id,
            key_hashes=(hash_of(write_key),),
            key_hints=(write_key[-HINT_CHARS:],),
            settings=settings,
            created_ms=self._clock.now_ms(),
        )
        return source, write_key

    def _made_token(
        self, name: str, scopes: tuple[str, ...], space_id: str, expires_ms: int | None
    ) -> tuple[TokenRecord, str]:
        _check_scopes(scopes)
        now_ms = self._clock.now_ms()
        if expires_ms is not None and expires_ms <= now_ms:
            raise InvalidError("invalid", "a token cannot expire in the past", field="expiresAt")
        secret = self._new_secret("tt")
        token = TokenRecord(
            id=self._new_id("tok"),
            name=_name_of(name),
            token_hash=hash_of(secret),
            hint=secret[-HINT_CHARS:],
            scopes=scopes,
            space_id=space_id,
            created_ms=now_ms,
            expires_ms=expires_ms,
        )
        return token, secret

    def _space_for(self, space_id: str | None, settings: dict[str, Any]) -> str:
        named = space_id if space_id is not None else settings.get("spaceId")
        if named is None:
            return next(iter(self._state.spaces))
        if not isinstance(named, str):
            raise InvalidError(
                "invalid", "settings.spaceId: expected the id of a space as text", field="settings.spaceId"
            )
        return self.space(named).id

    def _is_last_admin(self, token: TokenRecord) -> bool:
        now_ms = self._clock.now_ms()
        admins = [
            other.id
            for other in self._state.tokens.values()
            if ADMIN in other.scopes
            and not other.space_id
            and other.revoked_ms is None
            and (other.expires_ms is None or other.expires_ms > now_ms)
        ]
        return admins == [token.id]

    def _new_id(self, prefix: str) -> str:
        return f"{prefix}_{_letters(self._entropy(ID_BYTES))}"

    def _new_secret(self, prefix: str) -> str:
        return f"{prefix}_{_letters(self._entropy(SECRET_BYTES))}"


def _letters(drawn: bytes) -> str:
    """Spell bytes in letters and digits alone, so that a double click takes the whole of it."""
    return urlsafe_b64encode(drawn).rstrip(b"=").decode().replace("-", "a").replace("_", "z")


def _name_of(name: str) -> str:
    tidy = name.strip()
    if not tidy or len(tidy) > NAME_CHARS_MAX:
        raise InvalidError("invalid", f"name: {len(tidy)} characters, expected 1 to {NAME_CHARS_MAX}", field="name")
    return tidy


def _slug_of(name: str, slug: str | None) -> str:
    """Return the slug as given if it will do, or one made from the name."""
    if slug is None:
        made = _NOT_SLUG.sub("-", name.lower()).strip("-")[:SLUG_CHARS_MAX]
        if not made:
            raise InvalidError("invalid", f"slug: none can be made from the name {name!r}; give one", field="slug")
        return made
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", slug) or len(slug) > SLUG_CHARS_MAX:
        raise InvalidError(
            "invalid",
            f"slug: found {slug[:SLUG_CHARS_MAX]!r}, expected 1 to {SLUG_CHARS_MAX} letters, digits, '-', '_' or '.'",
            field="slug",
        )
    return slug


def _check_scopes(scopes: tuple[str, ...]) -> None:
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        found = f"found {unknown[0]!r}" if unknown else "found none"
        raise InvalidError("invalid", f"scopes: {found}, expected some of {', '.join(SCOPES)}", field="scopes")


def _within(count: int, most: int, what: str) -> None:
    if count >= most:
        raise ConflictError("limit_reached", f"there are {count} {what}, at most {most}; remove one first")
