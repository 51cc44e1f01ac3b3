"""Trouble upstream, which the provider makes for models with a telling name: the SDK retries what a retry can help, and
a broken stream is an exception and never a short answer.

Run: tests/clients/run python -k retries
"""

import os
import threading
import time
import uuid
from contextlib import contextmanager

import openai
import pytest

from conftest import NARROW_KEY, POOR_KEY, Caller, said

# The first try, and the SDK's two retries.
MOST_TRIES = 3


def test_one_429_is_got_over(caller):
    # The provider refuses each prompt once, so this one must be new.
    prompt = said(f"once {uuid.uuid4()}")
    completion = caller.client.chat.completions.create(model="mock-chat-429-once", messages=prompt)
    assert completion.choices[0].message.content.startswith("You said: once")
    assert len(caller.sent) <= 2


@contextmanager
def under_way(caller):
    """A request of the key, under way: its model takes its time."""
    request = threading.Thread(
        target=caller.client.chat.completions.create, kwargs={"model": "mock-chat-slow", "messages": said("slowly")}
    )
    request.start()
    # It has long been counted by then, and is far from its end.
    time.sleep(0.3)
    yield
    request.join()


def test_a_limit_is_waited_for_as_long_as_the_gateway_says():
    caller = Caller(NARROW_KEY)
    with under_way(Caller(NARROW_KEY)):
        begun = time.monotonic()
        completion = caller.client.chat.completions.create(model="echo", messages=said("hello"))
        waited = time.monotonic() - begun
    assert completion.choices[0].message.content == "hello"
    assert waited >= 1, "retry-after says a second"
    assert len(caller.sent) == 2, "one that was refused, one that was not"


def test_a_limit_without_retries_is_a_rate_limit_error():
    caller = Caller(NARROW_KEY)
    with under_way(Caller(NARROW_KEY)), pytest.raises(openai.RateLimitError) as refused:
        once = caller.client.with_options(max_retries=0)
        once.chat.completions.create(model="echo", messages=said("hello"))
    assert refused.value.code == "rate_limit_exceeded"
    assert refused.value.response.headers["retry-after-ms"] == "1000"


def test_a_budget_that_is_used_up_is_not_asked_for_again():
    caller = Caller(POOR_KEY)
    with pytest.raises(openai.RateLimitError) as refused:
        caller.client.chat.completions.create(model="mock-chat", messages=said("hello"))
    assert refused.value.code == "insufficient_quota"
    assert len(caller.sent) == 1, "no retry makes it fit"


def test_a_lasting_500_is_an_internal_server_error_after_the_retries(caller):
    with pytest.raises(openai.InternalServerError) as refused:
        caller.client.chat.completions.create(model="mock-chat-500", messages=said("hello"))
    assert refused.value.status_code >= 500
    assert len(caller.sent) == MOST_TRIES


@pytest.mark.parametrize("model", ["mock-chat-cut", "mock-chat-error-mid"])
def test_a_stream_that_breaks_raises_after_what_it_gave(caller, model):
    stream = caller.client.chat.completions.create(model=model, messages=said("words:50"), stream=True)
    seen = []
    with pytest.raises(openai.APIError) as broken:
        for chunk in stream:
            seen.append(chunk)
    assert broken.value.message
    assert seen and all(choice.finish_reason is None for chunk in seen for choice in chunk.choices)
    assert len(caller.sent) == 1


@pytest.mark.parametrize("model", ["mock-chat-cut", "mock-chat-error-mid"])
def test_a_whole_answer_that_breaks_is_no_answer(model):
    client = Caller().client.with_options(max_retries=0)
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model=model, messages=said("hello"))


@pytest.mark.anyio
async def test_the_async_client_raises_when_a_stream_breaks(async_client):
    stream = await async_client.chat.completions.create(model="mock-chat-cut", messages=said("words:50"), stream=True)
    with pytest.raises(openai.APIError):
        async for _chunk in stream:
            pass


def test_a_gateway_without_a_living_upstream_says_so():
    base_url = os.environ.get("BONITO_DEAD_BASE_URL")
    if not base_url:
        pytest.skip("BONITO_DEAD_BASE_URL is not set")
    caller = Caller(base_url=base_url)
    with pytest.raises(openai.InternalServerError) as refused:
        caller.client.chat.completions.create(model="mock-chat", messages=said("hello"))
    assert refused.value.status_code in (502, 503, 504)
    assert refused.value.code == "upstream_error"
    assert len(caller.sent) <= MOST_TRIES
