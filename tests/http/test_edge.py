"""The layer around the API: paths, media types, byte ranges."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.http.byte_ranges import Span, UnsatisfiableError, wanted_span
from adapters.http.edge import MEDIA_TYPES, routed_path, wanted_type

PROFILE = "/v1/spaces/s/collections/users/profiles/"


@given(st.text(min_size=1, max_size=20))
def test_an_encoded_id_is_one_part_of_the_path_whatever_it_holds(value: str) -> None:
    raw = f"{PROFILE}user_id:{quote(value, safe='')}/traits"
    path = routed_path(raw)
    assert path.startswith(PROFILE + "user_id:")
    assert path.endswith("/traits")
    assert "/" not in path.removeprefix(PROFILE).removesuffix("/traits")


def test_slashes_that_a_client_did_not_encode_belong_to_the_id() -> None:
    assert routed_path(f"{PROFILE}user_id:a/b/traits/events") == f"{PROFILE}user_id:a%2Fb%2Ftraits/events"


def test_other_paths_are_decoded_part_by_part() -> None:
    assert routed_path("/spaces/s%2Fx/audi%65nces?a=/b") == "/spaces/s%2Fx/audiences"


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
def test_each_media_type_is_answered_as_asked(media_type: str) -> None:
    assert wanted_type(f"text/html, {media_type}") == media_type


@pytest.mark.parametrize(
    ("accept", "answered"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/html", "application/json"),
        ("application/json;q=0.5, application/vnd.segment.v1+json", "application/vnd.segment.v1+json"),
        ("application/vnd.segment.v1beta+json;q=0.1, application/json;q=0.2", "application/json"),
        ("Application/Vnd.Segment.V1+Json; charset=utf-8", "application/vnd.segment.v1+json"),
        ("application/vnd.segment.v1+json;q=x", "application/json"),
    ],
)
def test_the_type_liked_best_is_answered_and_json_by_default(accept: str, answered: str) -> None:
    assert wanted_type(accept) == answered


#  bytes   0 1 2 3 4 5 6 7 8 9
@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, None),
        ("bytes=0-0", Span(0, 1)),
        ("bytes=2-4", Span(2, 5)),
        ("bytes=8-", Span(8, 10)),
        ("bytes=9-99", Span(9, 10)),
        ("bytes=-3", Span(7, 10)),
        ("bytes=-99", Span(0, 10)),
        ("BYTES = 1-2", Span(1, 3)),
        ("bytes=4-2", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=0-1,3-4", None),
        ("items=0-1", None),
    ],
)
def test_a_range_is_read_as_the_rfc_says(header: str | None, span: Span | None) -> None:
    assert wanted_span(header, 10) == span


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-11", "bytes=-0"])
def test_a_range_past_the_end_cannot_be_satisfied(header: str) -> None:
    with pytest.raises(UnsatisfiableError):
        wanted_span(header, 10)


def test_nothing_of_an_empty_file_can_be_satisfied() -> None:
    with pytest.raises(UnsatisfiableError):
        wanted_span("bytes=-1", 0)
