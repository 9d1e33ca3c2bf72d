"""Answers as they come, in any pieces: what they are, what is refused, and where they end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker.errors import AnswerTooLongError, ConnectionFailedError, TransportError
from avtomatika_worker.transport.parsing import MAX_HEAD, MAX_HEADERS, AnswerParser

LIMIT = 1_000
OK = b"HTTP/1.1 200 OK\r\n"


def read(*pieces, head=False, end=False):
    """Feed the pieces; return the parser, or what it raised."""
    return fed(AnswerParser(LIMIT), *pieces, head=head, end=end)


def fed(parser, *pieces, head=False, end=False):
    parser.expect(head=head)
    try:
        for piece in pieces:
            parser.feed(piece)
    except TransportError as error:
        return error
    if end:
        parser.end()
    return parser


def seen(parser):
    """Return everything that a caller can see."""
    if isinstance(parser, TransportError):
        return type(parser), str(parser)
    return parser.complete, parser.reusable, parser.status, parser.headers(), parser.encoding, parser.body()


ANSWERS = {
    "plain": OK + b"Content-Length: 5\r\nDate: today\r\n\r\nhello",
    "chunked": OK
    + b"Transfer-Encoding: chunked\r\nX-RXON-Version: 1.0b17\r\n\r\n3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\nT: x\r\n\r\n",
    "interim": b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 103 Early\r\n\r\n"
    + OK
    + b"Content-Length: 5\r\n\r\nhello",
    "no content": b"HTTP/1.1 204 No Content\r\nDate: today\r\n\r\n",
    "closing": OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello",
    "until the end": OK + b"Retry-After: 3\r\n\r\nhello",
    "garbage after it": OK + b"Content-Length: 5\r\n\r\nhelloHTTP/1.1 garbage",
    "another after it": (OK + b"Content-Length: 5\r\n\r\nhello") * 2,
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "too long": OK + b"Content-Length: 1001\r\n\r\n" + b"x" * 1001,
    "too long in chunks": OK + b"Transfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n",
}


@given(st.data())
@pytest.mark.parametrize("name", [each for each in ANSWERS if "after it" not in each])
def test_pieces_make_no_difference(name, data):
    whole = ANSWERS[name]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert seen(read(*pieces, end=True)) == seen(read(whole, end=True))


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_any_bytes_in_any_pieces_end_in_an_answer_or_a_transport_error(data, cuts):
    places = sorted(min(cut, len(data)) for cut in cuts)
    pieces = [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
    assert isinstance(read(*pieces), AnswerParser | TransportError)


@pytest.mark.parametrize("name", ["plain", "chunked", "interim", "no content"])
def test_a_connection_may_be_used_again_after_an_answer_that_says_where_it_ends(name):
    parser = read(ANSWERS[name])
    assert (parser.complete, parser.reusable) == (True, True)
    for _ in range(2):
        parser.expect()
        assert parser.feed(ANSWERS["plain"])
        assert (parser.body(), parser.reusable) == (b"hello", True)


@pytest.mark.parametrize("name", ["closing", "garbage after it", "another after it"])
def test_a_connection_is_not_used_again_after_an_answer_that_may_not_be_the_last(name):
    parser = read(ANSWERS[name])
    assert (parser.complete, parser.reusable, parser.body()) == (True, False, b"hello")


def test_a_body_without_a_length_ends_with_the_connection_and_only_there():
    parser = read(ANSWERS["until the end"])
    assert not parser.complete
    assert parser.end()
    assert (parser.body(), parser.reusable, parser.headers()) == (b"hello", False, {"retry-after": "3"})


@pytest.mark.parametrize("name", ["plain", "chunked"])
def test_a_body_that_is_cut_off_is_not_taken_for_whole(name):
    whole = ANSWERS[name]
    for size in range(len(whole)):
        assert not read(whole[:size], end=True).complete


@pytest.mark.parametrize(
    ("fields", "rest"),
    [
        (b"Content-Length: 2\r\nTransfer-Encoding: chunked", b"2\r\n{}\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 2", b"2\r\n{}\r\n0\r\n\r\n"),
        (b"Content-Length: 2\r\nContent-Length: 3", b"{}x"),
        (b"Content-Length: 2, 2", b"{}"),
        (b"Content-Length: +2", b"{}"),
        (b"Content-Length: 0x2", b"{}"),
        (b"Content-Length: 99999999999999999999999", b""),
        (b"Content-Length: ", b"{}"),
        (b"Content-Length : 2", b"{}"),
        (b"Transfer-Encoding: gzip, chunked", b"2\r\n{}\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked, gzip", b"{}"),
        (b"Transfer-Encoding: identity", b"{}"),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"2\r\n{}\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked", b"-2\r\n{}"),
        (b"Transfer-Encoding: chunked", b"FFFFFFFFFFFFFFFFF\r\n{}"),
        (b"Transfer-Encoding: chunked", b"2\r\n{}xx0\r\n\r\n"),
        (b"X: a\r\n folded", b""),
        (b"X: nul\x00", b""),
        (b"X\xff: y", b""),
        (b"no colon", b""),
    ],
    ids=lambda each: each.decode("latin-1")[:40],
)
def test_ambiguous_framing_is_refused(fields, rest):
    error = read(OK + fields + b"\r\n\r\n" + rest)
    assert type(error) is ConnectionFailedError
    assert str(error).startswith("the answer is not valid HTTP: ")


@pytest.mark.parametrize(
    "start", [b"HTTP/2 200", b"HTTP/9.9 200 OK", b"ICY 200 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 099 X"]
)
def test_status_lines_of_other_protocols_are_refused(start):
    assert type(read(start + b"\r\nContent-Length: 0\r\n\r\n")) is ConnectionFailedError


@pytest.mark.parametrize("fields", [b"Upgrade: x\r\nConnection: upgrade\r\n", b""])
def test_a_switch_of_protocols_is_refused(fields):
    assert type(read(b"HTTP/1.1 101 Switching\r\n" + fields + b"\r\nzzz")) is ConnectionFailedError


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_has_none_whatever_is_sent(status):
    parser = read(b"HTTP/1.1 %d X\r\nContent-Length: 5\r\n\r\nhello" % status)
    assert (parser.complete, parser.body(), parser.reusable) == (True, b"", False)


def test_an_answer_to_head_has_no_body():
    parser = read(OK + b"Content-Length: 5000\r\n\r\n", head=True)
    assert (parser.complete, parser.body(), parser.reusable) == (True, b"", False)


def test_a_trailer_changes_no_header():
    text = OK + b"Transfer-Encoding: chunked\r\nDate: today\r\n\r\n0\r\nDate: never\r\nRetry-After: 9\r\n\r\n"
    assert read(text).headers() == {"date": "today"}


def test_a_header_that_is_not_printable_ascii_counts_as_absent():
    assert read(OK + b"Date: caf\xe9\r\nRetry-After: \x7f\r\nContent-Length: 0\r\n\r\n") is not None
    assert read(OK + b"Date: caf\xe9\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n").headers() == {"retry-after": "1"}


# ------------------------------------------------------------------------------------------- bounds


def flood(*pieces, of, times=100_000):
    """Feed pieces, then one over and over; return the bytes it took until that was refused."""
    parser, fed = AnswerParser(LIMIT), 0
    for piece in pieces:
        parser.feed(piece)
    try:
        for _ in range(times):
            parser.feed(of)
            fed += len(of)
    except TransportError:
        return fed
    raise AssertionError("it was never refused")


@pytest.mark.parametrize(
    ("pieces", "more"),
    [
        ((OK, b"X: "), b"y" * 1_000),
        ((OK,), b"X" * 1_000),
        ((OK,), b"X: y\r\n"),
        ((b"HTTP/1.1 200 ",), b"O" * 1_000),
        ((), b"HTTP/1.1 100 Continue\r\n\r\n"),
        ((), b"\r\n"),
        ((OK + b"Transfer-Encoding: chunked\r\n\r\n1;x=",), b"y" * 1_000),
        ((OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ",), b"y" * 1_000),
        ((OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n",), b"X: y\r\n"),
    ],
    ids=[
        "a value",
        "a name",
        "headers",
        "a reason",
        "interim answers",
        "empty lines",
        "extension",
        "trailer",
        "trailers",
    ],
)
def test_bytes_outside_of_the_body_are_bounded(pieces, more):
    assert flood(*pieces, of=more) <= MAX_HEAD


def test_headers_are_bounded_in_number():
    lines = b"".join(b"X: y\r\n" for _ in range(MAX_HEADERS))
    assert read(OK + lines + b"\r\n", end=True).complete
    assert "headers" in str(read(OK + lines + b"X: y\r\n\r\n"))


def test_a_body_that_says_it_is_too_long_is_refused_before_it_comes():
    assert type(read(OK + b"Content-Length: 1001\r\n\r\n")) is AnswerTooLongError
    assert read(OK + b"Content-Length: 1000\r\n\r\n" + b"x" * 1_000).complete


def test_a_body_that_grows_too_long_is_refused():
    chunk = b"64\r\n" + b"x" * 100 + b"\r\n"
    assert flood(OK + b"Transfer-Encoding: chunked\r\n\r\n", of=chunk) <= LIMIT + 2 * len(chunk)
    assert flood(OK + b"\r\n", of=b"x" * 100) <= LIMIT + 100


ENCODED = OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"
REUSING = [
    ANSWERS["plain"],
    OK + b"Content-Length: 5\r\nDate: tomorrow\r\n\r\nhallo",
    OK + b"Content-Length: 0\r\n\r\n",
    b"HTTP/1.1 404 Not Found\r\nDate: today\r\nContent-Length: 5\r\n\r\nnobod",
    ANSWERS["chunked"],
    ANSWERS["no content"],
    ANSWERS["interim"],
    ENCODED,
]


@given(
    st.lists(st.tuples(st.sampled_from(REUSING), st.integers(0, 3)), max_size=40),
    st.sampled_from([*ANSWERS.values(), ENCODED]),
)
def test_earlier_answers_on_a_connection_make_no_difference(before, last):
    parser = AnswerParser(LIMIT)
    for answer, cut in before:
        parser.expect()
        pieces = [answer[: -cut or None], answer[len(answer) - cut :]]
        for piece in filter(None, pieces):
            parser.feed(piece)
        assert seen(parser) == seen(read(answer))
        assert parser.reusable
        assert parser.size == len(parser.body())
    assert seen(fed(parser, last)) == seen(read(last))


@given(st.lists(st.tuples(st.sampled_from([b"hello", b"hell", b"hello!", b""]), st.booleans()), max_size=20))
def test_a_head_that_is_known_does_not_say_how_much_has_come(bodies):
    head = OK + b"Content-Length: 5\r\nDate: today\r\n\r\n"
    parser = AnswerParser(LIMIT)
    for body, to_head in bodies:
        parser.expect(head=to_head)
        parser.feed(head + body)
        assert seen(parser) == seen(read(head + body, head=to_head))
        if not parser.reusable:
            return
