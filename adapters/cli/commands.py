"""The commands: where each is, what its help says. A module is imported only when its command is given.

The first words of a help text are the docstring of the command's function; a test holds the two together.
"""

from typing import Final

from cyclopts import Group
from msgspec import Struct


class Command(Struct, frozen=True):
    """A command of the command line."""

    where: str  # module:function
    group: Group
    about: str
    examples: str = ""


RUN: Final = Group("Run", sort_key=0)
ASK: Final = Group("Ask", sort_key=1)
MOVE: Final = Group("Move data", sort_key=2)
KEEP: Final = Group("Look after", sort_key=3)

FAMILIES: Final = {
    "tokens": (
        "Issue, list and revoke access tokens.",
        """
    turnout tokens create reporting --scope audiences:read
    turnout tokens create ci --scope audiences:write --scope profiles:read --expires 2027-01-01
    turnout tokens list
    turnout tokens revoke tok_Zg5c0x

Scopes: events:write, profiles:read, audiences:read, audiences:write, exports:raw, admin.
""",
    ),
    "destinations": (
        "Tell how deliveries are doing and what went wrong, and send again what was given up.",
        """
    turnout destinations list
    turnout destinations show dst_Zg5c0x
    turnout destinations dead-letters dst_Zg5c0x --search ann@example.com
    turnout destinations resend dst_Zg5c0x
""",
    ),
}
"""Commands of two words: what the first one is about, and examples."""

COMMANDS: Final[dict[str, Command]] = {
    "serve": Command(
        "adapters.cli.serving:serve_",
        RUN,
        (
            "Run the daemon: take events, keep audiences, sync destinations, answer the APIs.\n\n"
            "The first start makes a space, a source and an admin token, and prints the token and the write key "
            "once."
        ),
        """
    turnout serve
    turnout serve --data /var/lib/turnout --host 0.0.0.0 --config /etc/turnout.toml
    turnout serve --simulated-clock 2026-03-01      # staging: see PUT /clock

Every setting can also come from the configuration file (port = 8765) or the environment (TURNOUT_PORT=8765); the
command line wins over the environment, and that over the file. Stop it with Ctrl-C or SIGTERM: nothing is lost.
""",
    ),
    "preview": Command(
        "adapters.cli.questions:preview",
        ASK,
        "Tell who a definition would give on history, without creating it: its size and a sample.",
        r"""
Who spent 1000 or more so far:

    turnout preview "event('Order Completed').sum(property('total')) >= 1000"

Who would have been in it a year ago, every one of them, one a line:

    turnout preview --ids --at 2025-03-01 "event('Order Completed').within(30 days).count() >= 2"
""",
    ),
    "members": Command(
        "adapters.cli.questions:members",
        ASK,
        "List the members of an audience, one a line.",
        """
    turnout members big_spenders
    turnout members big_spenders --at 2026-03-01T12:00:00Z --format json
""",
    ),
    "explain": Command(
        "adapters.cli.explaining:explain",
        ASK,
        ("Tell why a profile is, or is not, a member, at any time: each part's truth, and the events it rests on."),
        """
    turnout explain big_spenders user_id:17850
    turnout explain big_spenders email:ann@example.com --at 2026-03-01
    turnout explain lifetime_value 17850       # what a computed trait rests on
""",
    ),
    "check": Command(
        "adapters.cli.checking:check",
        ASK,
        (
            "Check a definition: tell what it means, what it listens to and keeps, and what looks like a "
            "mistake.\n\n"
            "The exit status is 1 if the definition does not stand; warnings leave it at 0."
        ),
        r"""
    turnout check "event('Order Completed').within(14 days).count() >= 2"
    turnout check --trait "event('Order Completed').sum(property('total'))"
    turnout check --type accounts "ANY event('Signed In').within(7 days).count() >= 1"
""",
    ),
    "import": Command(
        "adapters.cli.importing:import_",
        MOVE,
        (
            "Import tracking-API messages from NDJSON files, plain or packed (.gz, .zst); - is standard input.\n\n"
            "Idempotent by messageId. Times are the messages' own. A bad line is reported and recorded, and does "
            "not sink the rest; the exit status is 1 if a file cannot be read to its end or nothing at all was "
            "taken."
        ),
        """
    turnout import events.ndjson.gz
    zcat 2026-*.gz | turnout import -
    TURNOUT_TOKEN=… turnout import events.ndjson --url http://localhost:8765

A line (here two) is a message as the tracking API takes it, with its own time:

    {"type": "track", "userId": "ann", "event": "Order Completed", "messageId": "o-1",
     "timestamp": "2026-03-01T12:00:00Z", "properties": {"total": 12.5}}
""",
    ),
    "export": Command(
        "adapters.cli.exporting:export",
        MOVE,
        "Write an audience (or computed trait) to a CSV file.",
        """
    turnout export big_spenders --out big_spenders.csv
    turnout export big_spenders --format single_column --external-id email > hashes.csv
    turnout export big_spenders --at 2026-03-01 --format formatted
""",
    ),
    "replay": Command(
        "adapters.cli.replaying:replay",
        KEEP,
        (
            "Fold the whole log anew: build everything beside it again, or, with an option, only look.\n\n"
            "Without an option what lies beside the log (identities, memberships, states) is built anew, in "
            "place, in all spaces. Nothing goes to destinations. To only look, a snapshot is "
            "taken: a daemon may be at work meanwhile."
        ),
        """
    turnout replay                          # build anew what lies beside the log
    turnout replay --check                  # nightly: does all follow from the log?
    turnout replay --as-of 2026-03-01       # what stood then
""",
    ),
    "backup": Command(
        "adapters.cli.copies:backup",
        KEEP,
        "Copy a data directory into one file, also while a daemon has it open.",
        """
    turnout backup turnout-2026-03-01.tar.zst
    turnout backup nightly.tar.zst --data /var/lib/turnout    # with a daemon on it
""",
    ),
    "restore": Command(
        "adapters.cli.copies:restore",
        KEEP,
        "Make a data directory from a backup.",
        """
    turnout restore turnout-2026-03-01.tar.zst --data restored
    turnout replay --check --data restored
""",
    ),
    "tokens create": Command(
        "adapters.cli.access:create",
        KEEP,
        "Issue a token and print it; nobody can tell it again.",
        "",
    ),
    "tokens list": Command(
        "adapters.cli.access:list_",
        KEEP,
        "List the tokens, revoked ones too, without their secrets.",
        "",
    ),
    "tokens revoke": Command(
        "adapters.cli.access:revoke",
        KEEP,
        "Revoke a token; it is refused from now on.",
        "",
    ),
    "destinations list": Command(
        "adapters.cli.destinations:list_",
        KEEP,
        "List the destinations with how their deliveries are doing.",
    ),
    "destinations show": Command(
        "adapters.cli.destinations:show",
        KEEP,
        "Tell how one destination is doing, and what went wrong lately: what was asked and what was answered.",
    ),
    "destinations dead-letters": Command(
        "adapters.cli.destinations:dead_letters",
        KEEP,
        "List the deliveries of a destination that were given up, with the reason.",
    ),
    "destinations resend": Command(
        "adapters.cli.destinations:resend",
        KEEP,
        "Send what was given up again; from a data directory it goes out when a daemon next serves it.",
    ),
    "destinations drop": Command(
        "adapters.cli.destinations:drop",
        KEEP,
        "Delete dead letters: what they were to tell is told with the next change, if it is still true.",
    ),
    "destinations copy": Command(
        "adapters.cli.destinations:copy",
        KEEP,
        "Import a destination's configuration, its secrets too, into a new one that nothing is connected to.",
    ),
    "destinations test": Command(
        "adapters.cli.destinations:try_",
        KEEP,
        "Ask a destination a harmless question that fails where its settings are wrong.",
    ),
}
