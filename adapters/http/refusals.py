"""Errors to answers: which status, which code, in which envelope; nothing of our inside is told.

The Profile API answers `{"error": {code, message}}`, everything else `{"errors": [{type, message, field, status}]}`.
"""

from typing import Any, Final, Self

import msgspec
from msgspec import Struct

from adapters.http.auth import PROFILE_CODES, refusal_headers
from adapters.http.envelopes import DetailedError, Errors, RequestError
from eventlog.errors import LogFullError, QueryError, RefusedError

PROFILE_PREFIX: Final = "/v1/"
PROFILE_400_CODES: Final = ("validation_error", "invalid_request_error")  # contract, section 6
MESSAGE_CHARS_MAX: Final = 1_000  # ours: what was sent is quoted, and it may be megabytes
FULL_RETRY_AFTER_S: Final = 10  # a full disk is seldom freed sooner


class Problem(Struct, frozen=True):
    """What is answered instead of what was asked for."""

    status: int
    errors: tuple[RequestError, ...]
    headers: dict[str, str] = {}

    @classmethod
    def of_fields(cls, status: int, code: str, wrong: list[tuple[str | None, str]]) -> Self:
        """Return a problem with one error for each (field, message)."""
        errors = [
            RequestError(
                type=code, message=message if field is None else f"{field}: {message}", field=field, status=status
            )
            for field, message in wrong
        ]
        return cls(status, tuple(errors))


def problem_of(error: Exception) -> Problem:
    """Return how an error is answered; what is not meant for callers becomes a bare 500."""
    if isinstance(error, RefusedError):
        headers = refusal_headers(error)
        data = error.data if isinstance(error, DetailedError) else None
        if isinstance(error, DetailedError) and error.retry_after_s is not None:
            headers["Retry-After"] = str(error.retry_after_s)
        said = RequestError(type=error.code, message=error.message, field=error.field, data=data, status=error.status)
        return Problem(error.status, (said,), headers)
    if isinstance(error, QueryError):
        data = {
            "line": error.line,
            "column": error.column,
            "found": error.found,
            "accepted": list(error.accepted),
            "hint": error.hint,
        }
        said = RequestError(type="invalid_query", message=str(error), field="definition.query", data=data, status=400)
        return Problem(400, (said,))
    if isinstance(error, LogFullError):
        said = RequestError(
            type="log_full", message="the disk is full; nothing was changed, try again later", status=503
        )
        return Problem(503, (said,), {"Retry-After": str(FULL_RETRY_AFTER_S)})
    said = RequestError(type="internal_error", message="our fault; the log of the daemon says more", status=500)
    return Problem(500, (said,))


def answer_to(problem: Problem, path: str) -> tuple[Any, dict[str, str]]:
    """Return the body and the headers of an answer, in the words of the API that the path belongs to."""
    if not path.startswith(PROFILE_PREFIX):
        return msgspec.to_builtins(Errors([_brief(error) for error in problem.errors])), problem.headers
    code = PROFILE_CODES.get(problem.status, problem.errors[0].type)
    if problem.status == 400 and code not in PROFILE_400_CODES:
        code = "validation_error"
    message = "; ".join(_brief(error).message or error.type for error in problem.errors)
    return {"error": {"code": code, "message": message}}, problem.headers


def _brief(error: RequestError) -> RequestError:
    """Return an error that repeats little of what was sent, where that was long."""
    message = error.message or ""
    if len(message) <= MESSAGE_CHARS_MAX:
        return error
    half = MESSAGE_CHARS_MAX // 2
    return msgspec.structs.replace(error, message=f"{message[:half]} … {message[-half:]}")
