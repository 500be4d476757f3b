"""TLS: a handshake that fails means that nothing was sent, and certificates are verified."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

import httpx
import pytest

from bridge.meisa.transport import NEVER_SENT, AiohttpTransport
from tests.support import misbehaving as bad
from tests.support.misbehaving import MisbehavingServer

trustme = pytest.importorskip("trustme", reason="pip install trustme: it makes certificates for tests")

Make = Callable[[ssl.SSLContext | None], httpx.AsyncBaseTransport]


def _ours(context: ssl.SSLContext | None) -> httpx.AsyncBaseTransport:
    return AiohttpTransport(ssl_context=context)


def _plain(context: ssl.SSLContext | None) -> httpx.AsyncBaseTransport:
    return httpx.AsyncHTTPTransport(verify=context or True, trust_env=False)


@pytest.fixture(params=[_ours, _plain], ids=["ours", "plain-httpx"])
def make(request: pytest.FixtureRequest) -> Make:
    made: Make = request.param
    return made


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def _server_context(authority: trustme.CA, host: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    return context


def _trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def _send(transport: httpx.AsyncBaseTransport, url: str, seconds: float = 20.0) -> httpx.Response:
    timeouts = dict.fromkeys(("connect", "read", "write", "pool"), seconds)
    request = httpx.Request("POST", url, content=b"{}", extensions={"timeout": timeouts})
    response = await transport.handle_async_request(request)
    await response.aread()
    await response.aclose()
    return response


async def test_an_answer_over_tls(make: Make, authority: trustme.CA) -> None:
    """A trusted certificate for the right host works, and the connection is kept."""
    async with (
        MisbehavingServer(bad.keep_answering(), tls=_server_context(authority)) as server,
        make(_trusting(authority)) as transport,
    ):
        for _ in range(3):
            assert (await _send(transport, server.url)).content == b'{"id":"c1"}'
            await asyncio.sleep(0.02)  # session tickets arrive on the idle connection
        assert server.connections == 1


async def test_an_untrusted_certificate_is_never_sent(make: Make, authority: trustme.CA) -> None:
    """By default a certificate of an unknown authority is refused before a byte of the request leaves."""
    async with (
        MisbehavingServer(bad.keep_answering(), tls=_server_context(authority)) as server,
        make(None) as transport,
    ):
        with pytest.raises(httpx.ConnectError) as caught:
            await _send(transport, server.url)
        assert isinstance(caught.value, NEVER_SENT)
        assert server.bytes_received == 0


async def test_a_certificate_for_another_host_is_never_sent(make: Make, authority: trustme.CA) -> None:
    """A trusted certificate does not help if it is somebody else's."""
    async with (
        MisbehavingServer(bad.keep_answering(), tls=_server_context(authority, "other.example")) as server,
        make(_trusting(authority)) as transport,
    ):
        with pytest.raises(httpx.ConnectError):
            await _send(transport, server.url)
        assert server.bytes_received == 0


@pytest.mark.parametrize("behaviour", [bad.garbage_at_once, bad.close_at_once, bad.reset_at_once])
async def test_a_broken_handshake_is_never_sent(make: Make, behaviour: bad.Behaviour) -> None:
    """A server that speaks no TLS, or hangs up during the handshake."""
    async with MisbehavingServer(behaviour) as server, make(None) as transport:
        with pytest.raises(NEVER_SENT) as caught:
            await _send(transport, server.url.replace("http:", "https:"))
        assert isinstance(caught.value, httpx.ConnectError)


async def test_a_handshake_that_hangs_is_never_sent(make: Make) -> None:
    """The server accepts and says nothing: still connecting when the time is up."""
    async with MisbehavingServer(bad.never_read) as server, make(None) as transport:
        with pytest.raises(httpx.ConnectTimeout):
            await _send(transport, server.url.replace("http:", "https:"), seconds=0.4)


async def test_a_break_after_the_handshake_is_unknown(make: Make, authority: trustme.CA) -> None:
    """The handshake stood, the request was read, the connection was reset."""
    async with (
        MisbehavingServer(bad.after_request(end="reset"), tls=_server_context(authority)) as server,
        make(_trusting(authority)) as transport,
    ):
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            await _send(transport, server.url)
        assert server.requests == 1
