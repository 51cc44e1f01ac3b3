"""What every test of the Python client suite shares: the environment, and clients that count what they send.

The suite exists because our clients use the SDKs of OpenAI and Anthropic, not our idea of them: a gateway is compatible
when the unmodified SDK cannot tell the difference. It runs against a gateway whose upstreams are scripted providers of
`tests/suite`, left to their faithful answers; those follow from the request alone, so texts and token counts are known
beforehand.

Run it with `tests/clients/run python`. It needs

    BONITO_BASE_URL       the gateway, ending in /v1
    BONITO_API_KEY        a key that may use every model
    BONITO_SCOPED_KEY     a key that may use `mock-embed` and nothing else
    BONITO_NARROW_KEY     a key that may have one request under way
    BONITO_POOR_KEY       a key whose budget is too small for any request
    BONITO_DEAD_BASE_URL  optional: a gateway that takes BONITO_API_KEY, and whose upstream for `mock-chat` is a
                          closed port
"""

import os
from collections.abc import AsyncIterator, Iterator

import anthropic
import openai
import pytest

# Long enough for a slow machine, short enough that a hanging gateway fails a test instead of the whole run.
TIMEOUT_S = 10


def required(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        pytest.exit(f"{name} is not set; see tests/clients/python/conftest.py for what the suite needs", returncode=2)
    return value


BASE_URL = required("BONITO_BASE_URL")
API_KEY = required("BONITO_API_KEY")
SCOPED_KEY = required("BONITO_SCOPED_KEY")
NARROW_KEY = required("BONITO_NARROW_KEY")
POOR_KEY = required("BONITO_POOR_KEY")


class Caller:
    """An SDK client as anyone would make it, and the requests it really sent, retries included."""

    def __init__(self, api_key: str = API_KEY, base_url: str = BASE_URL) -> None:
        self.sent: list[object] = []
        http_client = openai.DefaultHttpxClient(event_hooks={"request": [self.sent.append]})
        self.client = openai.OpenAI(api_key=api_key, base_url=base_url, timeout=TIMEOUT_S, http_client=http_client)


class ClaudeCaller:
    """The same with Anthropic's SDK, which adds the whole path to the address of the gateway."""

    def __init__(self, api_key: str = API_KEY, **options: object) -> None:
        self.sent: list[object] = []
        http_client = anthropic.DefaultHttpxClient(event_hooks={"request": [self.sent.append]})
        self.client = anthropic.Anthropic(
            api_key=api_key,
            base_url=BASE_URL.removesuffix("/v1"),
            timeout=TIMEOUT_S,
            http_client=http_client,
            **options,
        )


def said(text: str) -> list[dict[str, str]]:
    """A conversation of one message."""
    return [{"role": "user", "content": text}]


@pytest.fixture
def caller() -> Iterator[Caller]:
    caller = Caller()
    with caller.client:
        yield caller


@pytest.fixture
def client(caller: Caller) -> openai.OpenAI:
    return caller.client


@pytest.fixture
def scoped() -> Iterator[Caller]:
    caller = Caller(api_key=SCOPED_KEY)
    with caller.client:
        yield caller


@pytest.fixture
def claude() -> Iterator[ClaudeCaller]:
    caller = ClaudeCaller()
    with caller.client:
        yield caller


@pytest.fixture
def anyio_backend() -> str:
    """Tests of the async client run on asyncio, by the pytest plugin that comes with the SDK's own dependencies."""
    return "asyncio"


@pytest.fixture
async def async_client() -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key=API_KEY, base_url=BASE_URL, timeout=TIMEOUT_S) as client:
        yield client
