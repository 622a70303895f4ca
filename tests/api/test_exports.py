"""CSV exports through the API: what is in the files to the byte, who may have them, and what a restart does."""

import hashlib
from pathlib import Path

import httpx
from httpx import Response

from adapters.config import Settings
from adapters.daemon import running
from tests.api.room import BUYERS, NOON, Room, data_of, identify, open_room, refusal_of, track


def sha256(value: str) -> str:
    """Return a hash as files hold it."""
    return hashlib.sha256(value.encode()).hexdigest()


async def sold(room: Room) -> tuple[str, str]:
    """Let two people buy, one of whom has two emails; return the audience's and a trait's place, and fill them."""
    audience = await room.audience()
    trait = await room.trait("Items", "event('Order Completed').unique(property('item'))")
    await room.send(
        identify("ann", email="Ann@x.io"),
        identify("ann", email="ann2@x.io"),
        track("ann", item='a,"b"'),
        track("=cmd|' /C calc'!A0", item="c"),
        identify("stranger", email="not@x.io"),
    )
    return f"audiences/{audience['id']}", f"computed-traits/{trait['id']}"


async def keys_of(room: Room, of: str) -> dict[str, str]:
    """Return the profiles' own ids by user_id."""
    members = data_of(await room.client.get(f"{room.at}/{of}/members"))["members"]
    return {one["externalIds"]["user_id"][0]: one["id"] for one in members}


async def test_the_three_formats_to_the_byte(room: Room) -> None:
    of, _ = await sold(room)
    keys = await keys_of(room, of)
    ann, formula = keys["ann"], keys["=cmd|' /C calc'!A0"]
    ann_ids = '"{""email"":[""ann@x.io"",""ann2@x.io""],""user_id"":[""ann""]}"'
    formula_ids = '"{""user_id"":[""=cmd|\' /C calc\'!A0""]}"'
    assert await room.csv(of) == f"key,external_ids\n{ann},{ann_ids}\n{formula},{formula_ids}\n"
    assert await room.csv(of, format="formatted") == (
        "key,external_ids,email,email_1,user_id\n"
        f"{ann},{ann_ids},ann@x.io,ann2@x.io,ann\n"
        f"{formula},{formula_ids},,,'=cmd|' /C calc'!A0\n"
    )
    hashes = "".join(f"{sha256(one)}\n" for one in ("ann@x.io", "ann2@x.io"))
    assert await room.csv(of, format="single_column") == f"email\n{hashes}"
    assert await room.csv(of, format="single_column", hash="none") == "email\nann@x.io\nann2@x.io\n"
    raw = await room.csv(of, format="single_column", externalId="user_id", hash="none")
    assert raw == "user_id\nann\n'=cmd|' /C calc'!A0\n"
    assert await room.csv(of, format="single_column", externalId="none") == "none\n"


async def test_a_computed_trait_has_its_value_in_the_second_column(room: Room) -> None:
    _, of = await sold(room)
    assert (await room.csv(of)).splitlines()[0] == "key,value,external_ids"
    lines = (await room.csv(of, format="single_column", externalId="user_id", hash="none")).splitlines()
    assert lines == ["user_id,value", 'ann,"[""a,\\""b\\""""]"', '\'=cmd|\' /C calc\'!A0,"[""c""]"']


async def test_parts_of_a_file_are_sent_as_asked_for(room: Room) -> None:
    of, _ = await sold(room)
    made = await room.export(of)
    path = f"{room.at}/{of}/exports/{made['id']}/download"

    async def part(wanted: str, **more: str) -> Response:
        return await room.client.get(path, headers={"range": wanted, **more})

    whole = await room.client.get(path)
    size = len(whole.content)
    assert made["sizeBytes"] == size
    assert whole.headers["content-type"] == "text/csv; charset=utf-8"
    assert whole.headers["content-disposition"] == 'attachment; filename="buyers-unformatted.csv"'
    assert whole.headers["accept-ranges"] == "bytes"
    head = await room.client.head(path)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(size))
    assert head.headers["etag"] == whole.headers["etag"]
    far = f"bytes=1-{10**30}"
    for wanted, start, stop in (
        ("bytes=0-2", 0, 3),
        ("bytes=4-", 4, size),
        ("bytes=-5", size - 5, size),
        (far, 1, size),
    ):
        answer = await part(wanted)
        assert (answer.status_code, answer.content) == (206, whole.content[start:stop])
        assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
    assert (await part("bytes=0-2", **{"if-range": whole.headers["etag"]})).status_code == 206
    answer = await part("bytes=0-2", **{"if-range": '"other"'})
    assert (answer.status_code, answer.content) == (200, whole.content)
    answer = await part(f"bytes={size}-")
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{size}")
    assert refusal_of(answer)["type"] == "range_not_satisfiable"


async def test_values_as_they_are_take_the_scope_exports_raw(room: Room, stranger: httpx.AsyncClient) -> None:
    of, _ = await sold(room)
    plain = (await room.token("audiences:read"), "")
    raw = (await room.token("audiences:read", "exports:raw"), "")
    body = {"format": "single_column", "hash": "none"}
    path = f"{room.at}/{of}/exports"
    assert "exports:raw" in refusal_of(await stranger.post(path, json=body, auth=plain))["message"]
    made = data_of(await stranger.post(path, json=body, auth=raw))["export"]
    await room.until(f"{path}/{made['id']}", "export", "PENDING", "RUNNING")
    assert (await stranger.get(f"{path}/{made['id']}/download", auth=raw)).status_code == 200
    assert (await stranger.get(f"{path}/{made['id']}/download", auth=plain)).status_code == 403
    assert (await stranger.post(path, json={"format": "single_column"}, auth=plain)).status_code == 200


async def test_what_is_wrong_with_an_export_is_told(room: Room) -> None:
    of, trait = await sold(room)
    for body in ({"format": "xml"}, {"hash": "md5"}, {"externalId": ""}, {"externalId": "x" * 101}, {"format": 1}):
        assert (await room.client.post(f"{room.at}/{of}/exports", json=body)).status_code == 400, body
    made = await room.export(of)
    for path in (f"{trait}/exports/{made['id']}", f"{of}/exports/exp_none", f"{of}/exports/exp_none/download"):
        assert refusal_of(await room.client.get(f"{room.at}/{path}"))["status"] == 404


async def test_an_export_is_the_audience_as_of_the_request(room: Room) -> None:
    of, _ = await sold(room)
    path = f"{room.at}/{of}/exports"
    made = data_of(await room.client.post(path, json={}))["export"]
    await room.send(track("late"), identify("ann", email="ann3@x.io"))
    await room.until(f"{path}/{made['id']}", "export", "PENDING", "RUNNING")
    text = (await room.client.get(f"{path}/{made['id']}/download")).text
    assert len(text.splitlines()) == 3
    assert "late" not in text
    assert "ann3" not in text
    assert "ann3" in await room.csv(of)


async def test_exports_survive_a_restart_and_one_cut_short_is_taken_again(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path / "data"), port=0, simulated_clock=NOON, durability="normal")
    async with running(settings) as daemon, httpx.AsyncClient(base_url=daemon.url) as client:
        assert daemon.first is not None
        client.headers["authorization"] = f"Bearer {daemon.first.admin_token}"
        room = await open_room(daemon, client)
        audience = await room.audience(query=BUYERS)
        await room.send(track("ann"), track("bob"))
        of = f"{room.at}/audiences/{audience['id']}/exports"
        done = await room.export(f"audiences/{audience['id']}")
        before = (await client.get(f"{of}/{done['id']}/download")).content
        cut = data_of(await client.post(of, json={}))["export"]
    later = Settings(data=str(tmp_path / "data"), port=0, simulated_clock="2026-03-01T12:00:01Z")
    async with running(later) as daemon, httpx.AsyncClient(base_url=daemon.url, headers=client.headers) as client:
        room = Room(daemon, client, room.space_id, room.source_id, room.write_key)
        await room.send(track("late"))
        await room.until(f"{of}/{cut['id']}", "export", "PENDING", "RUNNING")
        for made in (done, cut):
            assert (await client.get(f"{of}/{made['id']}/download")).content == before
        assert [one["id"] for one in data_of(await client.get(of))["exports"]] == sorted([done["id"], cut["id"]])
