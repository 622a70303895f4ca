"""`turnout export`: an audience or computed trait as a CSV file, to a file or to standard output."""

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from adapters.cli.opened import opened
from adapters.cli.options import HERE, NOW, MisusedError, Moment, Target
from adapters.cli.remote import POLL_S, DaemonError, choose_space, reach
from adapters.cli.running import waits
from adapters.cli.terminal import Bar, bar, note
from adapters.export import ExportSpec, Format, Hash, take_snapshot, write_export


@waits
async def export(
    key: str,
    /,
    *,
    out: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    format: Format = "unformatted",
    external_id: Annotated[str, Parameter(metavar="TYPE")] = "email",
    hash: Hash | None = None,
    moment: Moment = NOW,
    target: Target = HERE,
) -> int:
    """Write an audience (or computed trait) to a CSV file.

    Args:
        key: The audience's or computed trait's key (or id).
        out: File to write; it appears whole or not at all. [default: standard output]
        format: unformatted has a profile's ids as JSON, formatted a column each, single_column one id a row.
        external_id: Which ids a single column holds.
        hash: Whether ids are hashed. [default: sha256 in a single column, none otherwise]
        moment: As of when.
        target: Where the data is.
    """
    spec = ExportSpec(format, external_id, hash)
    if target.url is not None and moment != NOW:
        raise MisusedError("--at and --known go with --data: a daemon exports what is true now")
    with tempfile.TemporaryDirectory(prefix="turnout-export-", dir=None if out is None else out.parent) as folder:
        path = Path(folder) / "export.csv"
        with bar("exporting", 1.0) as show:
            if target.url is None:
                rows = await _local(key, spec, path, moment, target, show)
            else:
                rows = await _remote(key, spec, path, target, show)
        if out is not None:
            path.replace(out)
        else:
            with path.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
                sys.stdout.buffer.flush()
    note(f"{rows:,} rows{'' if out is None else f' in {out}'}")
    return 0


async def _local(key: str, spec: ExportSpec, path: Path, moment: Moment, target: Target, show: Bar) -> int:
    async with opened(target, "turnout export") as found:
        view = found.space.definition(key)
        snapshot = await take_snapshot(found.space, view, at_ms=moment.at, known_ms=moment.known)
        return await write_export(found.space, view, spec, path, snapshot=snapshot, progress=show.to)


async def _remote(key: str, spec: ExportSpec, path: Path, target: Target, show: Bar) -> int:
    async with reach(target) as daemon:
        await choose_space(daemon, target.space)
        kind, _ = await daemon.definition(key)
        exports = daemon.path(kind, key, "exports")
        body = {"format": spec.format, "externalId": spec.external_id, "hash": spec.hash}
        export = (await daemon.ask("POST", exports, body=body))["export"]
        one = f"{exports}/{export['id']}"
        while export["status"] in ("PENDING", "RUNNING"):
            await asyncio.sleep(POLL_S)
            export = (await daemon.ask("GET", one))["export"]
            show.to(export["progress"])
        if export["status"] != "READY":
            raise DaemonError(daemon.url, f"the export failed: {export.get('failureReason')}")
        await daemon.download(f"{one}/download", path)
        rows: int = export["rows"]
        return rows
