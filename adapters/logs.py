"""The daemon's own log: structlog, as JSON lines for machines or coloured for people, on standard error.

A line is a constant event name and fields; times are ISO 8601 in UTC. What libraries say through `logging` comes out
the same way. Secrets never reach a line: they are handed around as values that nobody logs.
"""

import logging
import sys
from typing import Final, TextIO

import structlog
from structlog.typing import Processor

QUIET: Final = ("asyncio", "aiosqlite", "uvicorn.access")
"""Libraries whose talk below a warning is of no use to who runs a daemon."""


def configure_logs(log_format: str, log_level: str, stream: TextIO | None = None) -> None:
    """Send everything that is logged to a stream.

    Args:
        log_format: "json", "console", or "auto": console where the stream is a terminal.
        log_level: "debug", "info", "warning" or "error".
        stream: where to, standard error by default.
    """
    target = sys.stderr if stream is None else stream
    is_console = log_format == "console" or (log_format == "auto" and target.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    end: list[Processor]
    if is_console:
        # Without the values of variables: tokens and people's data are among them.
        told = structlog.dev.RichTracebackFormatter(show_locals=False)
        end = [structlog.dev.ConsoleRenderer(colors=target.isatty(), exception_formatter=told)]
    else:
        end = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, log_level.upper())),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *end],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(log_level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").setLevel(max(logging.WARNING, root.level))
