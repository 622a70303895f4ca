"""The destination types, one file each: their settings, their limits, and how they talk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from actors.delivery import Adapter, Ask
from adapters.destinations.braze import BRAZE
from adapters.destinations.csv_files import CSV, FileAsk, FileTransport
from adapters.destinations.customerio import CUSTOMERIO
from adapters.destinations.facebook_custom_audiences import FACEBOOK
from adapters.destinations.google_customer_match import GOOGLE
from adapters.destinations.hubspot import HUBSPOT
from adapters.destinations.mailchimp import MAILCHIMP
from adapters.destinations.marketo_static_lists import MARKETO
from adapters.destinations.postgres import POSTGRES, PostgresTransport, SqlAsk
from adapters.destinations.segment import SEGMENT
from adapters.destinations.webhook import WEBHOOK
from adapters.net import AskTransport, HttpTransport, Transports

DESTINATIONS: Final[Mapping[str, Adapter]] = {
    one.type: one
    for one in (
        WEBHOOK,
        SEGMENT,
        BRAZE,
        CUSTOMERIO,
        HUBSPOT,
        MAILCHIMP,
        FACEBOOK,
        GOOGLE,
        MARKETO,
        POSTGRES,
        CSV,
    )
}


def transports(data_dir: Path, *, allow_private: bool) -> Transports:
    """Return what performs the requests of every destination type.

    Args:
        data_dir: where the files of `csv` destinations are written.
        allow_private: whether private and loopback addresses may be called.
    """
    others: Mapping[type[Ask], AskTransport] = {
        FileAsk: FileTransport(data_dir),
        SqlAsk: PostgresTransport(allow_private=allow_private),
    }
    return Transports(HttpTransport(allow_private=allow_private), others)
