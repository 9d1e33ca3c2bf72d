"""The URIs of objects in stores, and addresses on the web."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker.protocol.uris import S3Uri, is_object_uri, is_web_url


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("s3://photos/2026/a b%20c.jpg", ("s3", "photos", "2026/a b%20c.jpg")),
        ("gs://photos/a\nb", ("gs", "photos", "a\nb")),
        ("az://container/", ("az", "container", "")),
        ("az://container", ("az", "container", "")),
        ("file:///tmp/x", ("file", "", "tmp/x")),
        ("s3://photos//a", ("s3", "photos", "/a")),
    ],
)
def test_a_uri_has_a_scheme_a_bucket_and_a_key(text, parts):
    uri = S3Uri(text)
    assert (uri.scheme, uri.bucket, uri.key) == parts
    assert is_object_uri(text)
    assert uri == text


@pytest.mark.parametrize("text", ["", "photos/a", "http://host/a", "S3://photos/a", " s3://photos/a", "s3:/photos/a"])
def test_any_other_text_has_no_parts(text):
    uri = S3Uri(text)
    assert (uri.scheme, uri.bucket, uri.key) == ("", "", "")
    assert not is_object_uri(text)


@pytest.mark.parametrize(("text", "is_prefix"), [("s3://b/a/", True), ("s3://b/a", False), ("s3://b/", True)])
def test_a_uri_that_ends_in_a_slash_is_a_prefix(text, is_prefix):
    assert S3Uri(text).is_prefix is is_prefix


@given(st.sampled_from(["s3", "gs", "az", "file"]), st.text().filter(lambda text: "/" not in text), st.text(min_size=1))
def test_any_bucket_and_key_survive_a_round_trip(scheme, bucket, key):
    uri = S3Uri(f"{scheme}://{bucket}/{key}")
    assert (uri.scheme, uri.bucket, uri.key) == (scheme, bucket, key)


@pytest.mark.parametrize("value", [None, 7, b"s3://b/a", ["s3://b/a"], {}])
def test_a_value_that_is_not_text_is_neither_an_object_nor_on_the_web(value):
    assert not is_object_uri(value)
    assert not is_web_url(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://host/a", True),
        ("HTTPS://host/a", True),
        ("https://", True),
        ("http://host/a", False),
        ("https:/host", False),
        ("see https://host", False),
        ("s3://b/a", False),
    ],
)
def test_what_is_on_the_web_begins_with_https(text, expected):
    assert is_web_url(text) is expected


def test_pydantic_takes_a_text_for_a_uri_and_describes_it():
    pydantic = pytest.importorskip("pydantic")
    adapter = pydantic.TypeAdapter(S3Uri)
    uri = adapter.validate_python("s3://photos/a")
    assert type(uri) is S3Uri
    assert uri.bucket == "photos"
    assert adapter.dump_json(uri) == b'"s3://photos/a"'
    assert adapter.json_schema() == {"type": "string", "format": "s3-uri"}
    with pytest.raises(pydantic.ValidationError):
        adapter.validate_python(7)
