"""Streams: the pieces join to the whole, usage comes only when asked for, leaving early harms nobody.

Run: tests/clients/run python -k streaming
"""

import time

import pytest

from conftest import said

# A stream that would take a minute.
ENDLESS = "words:3000 pause_ms:20"


def text_of(chunks) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def test_the_deltas_join_to_the_whole_answer(client):
    whole = client.chat.completions.create(model="mock-chat", messages=said("grüße aus 北京 🐟"))
    chunks = list(client.chat.completions.create(model="mock-chat", messages=said("grüße aus 北京 🐟"), stream=True))
    assert text_of(chunks) == whole.choices[0].message.content
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert reasons == ["stop"]


def test_without_include_usage_there_is_no_usage_and_no_chunk_without_choices(client):
    chunks = list(client.chat.completions.create(model="mock-chat", messages=said("hello"), stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_with_include_usage_the_last_chunk_and_no_other_has_it(client):
    chunks = list(
        client.chat.completions.create(
            model="mock-chat", messages=said("Hello there"), stream=True, stream_options={"include_usage": True}
        )
    )
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].choices == []
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (5, 4)


def test_choices_of_one_stream_stay_apart(client):
    chunks = list(client.chat.completions.create(model="mock-chat", messages=said("twice"), n=2, stream=True))
    texts = ["", ""]
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        texts[choice.index] += choice.delta.content or ""
    assert texts == ["You said: twice", "Choice 1, you said: twice"]


def test_the_stream_helper_of_the_sdk_puts_the_answer_together(client):
    with client.chat.completions.stream(model="mock-chat", messages=said("hello")) as stream:
        for _event in stream:
            pass
        completion = stream.get_final_completion()
    assert completion.choices[0].message.content == "You said: hello"


def test_a_stream_can_be_left_early_and_the_client_goes_on(client):
    started_s = time.monotonic()
    stream = client.chat.completions.create(model="mock-chat", messages=said(ENDLESS), stream=True)
    seen = [next(stream) for _ in range(3)]
    stream.close()
    assert text_of(seen).startswith("word-1")
    assert client.chat.completions.create(model="mock-chat", messages=said("next")).choices
    assert time.monotonic() - started_s < 5


def test_events_arrive_one_by_one_and_not_all_at_the_end(client):
    started_s = time.monotonic()
    with client.chat.completions.create(model="mock-chat", messages=said(ENDLESS), stream=True) as stream:
        next(stream)
        assert time.monotonic() - started_s < 5


@pytest.mark.anyio
async def test_the_async_client_streams_and_can_leave(async_client):
    stream = await async_client.chat.completions.create(model="mock-chat", messages=said("hello"), stream=True)
    assert text_of([chunk async for chunk in stream]) == "You said: hello"
    async with await async_client.chat.completions.create(
        model="mock-chat", messages=said(ENDLESS), stream=True
    ) as endless:
        async for chunk in endless:
            assert chunk.choices
            break
    assert (await async_client.chat.completions.create(model="mock-chat", messages=said("next"))).choices
