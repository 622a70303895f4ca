"""Every error that Turnout raises on purpose, drawn as a tree: what to catch is seen at a glance.

    TurnoutError
    ├── QueryError            a definition does not parse or type-check (line, column, found, accepted)
    ├── RefusedError          a request that cannot be granted; has a public `code` and an HTTP `status`
    │   ├── InvalidError        400: what was sent is wrong (names the field)
    │   ├── UnauthorizedError   401: no valid token or write key
    │   ├── ForbiddenError      403: the token's scopes or its space fall short
    │   ├── NotFoundError       404: no such space, audience, profile, …
    │   ├── ConflictError       409: a key used before, a locked or referenced definition
    │   └── TooManyError        429: more than is allowed; says after how many ms to try again
    ├── LogError              the log cannot be read or written
    │   ├── LogFullError        the disk is full: nothing was acknowledged, try again later
    │   ├── LogCorruptError     the file is torn or not ours: says where
    │   └── LogHeldError        another process has this data directory open: says which
    └── ConfigError           a setting is wrong: names it, says what would be right

An error's code is public and stays; its sentence may improve.
"""


class TurnoutError(Exception):
    """The root of all errors that Turnout raises on purpose."""


class QueryError(TurnoutError):
    """A definition does not parse or type-check. Says where, what was found and what would be accepted."""

    def __init__(self, *, line: int, column: int, found: str, accepted: tuple[str, ...], hint: str = "") -> None:
        expected = f", expected {' or '.join(accepted)}" if accepted else ""
        tail = f" ({hint})" if hint else ""
        super().__init__(f"line {line}, column {column}: found {found}{expected}{tail}")
        self.line = line
        self.column = column
        self.found = found
        self.accepted = accepted
        self.hint = hint


class RefusedError(TurnoutError):
    """A request that cannot be granted, with a public code and the HTTP status that fits."""

    status = 400

    def __init__(self, code: str, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field


class InvalidError(RefusedError):
    """What was sent is wrong."""

    status = 400


class UnauthorizedError(RefusedError):
    """Nobody that is known asks."""

    status = 401


class ForbiddenError(RefusedError):
    """Who asks is known and may not do this."""

    status = 403


class NotFoundError(RefusedError):
    """What was asked for is not there."""

    status = 404


class ConflictError(RefusedError):
    """What was asked for collides with what is there."""

    status = 409


class TooManyError(RefusedError):
    """More was asked than is allowed in the time."""

    status = 429

    def __init__(self, code: str, message: str, *, retry_after_ms: int) -> None:
        super().__init__(code, message)
        self.retry_after_ms = retry_after_ms


class LogError(TurnoutError):
    """The log cannot be read or written."""


class LogFullError(LogError):
    """The disk is full. Nothing that was not durable has been acknowledged."""


class LogCorruptError(LogError):
    """A file of the log is torn, truncated or not a Turnout log."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path}: {what}; restore a backup (turnout restore) or move the file away")
        self.path = path


class LogHeldError(LogError):
    """Another process holds the data directory."""

    def __init__(self, path: str, holder: str) -> None:
        super().__init__(f"{path} is held by {holder}; stop it first, or ask it with --url")
        self.path = path
        self.holder = holder


class ConfigError(TurnoutError):
    """A setting is wrong."""
