"""Chat completions answered in one piece, with the synchronous and the asynchronous client.

Run: tests/clients/run python -k chat
"""

import asyncio

import pytest

from conftest import said


def test_a_chat_is_answered_with_its_text_usage_and_request_id(client):
    completion = client.chat.completions.create(model="mock-chat", messages=said("Hello there gateway"))
    choice = completion.choices[0]
    assert completion.id and completion.object == "chat.completion"
    assert completion._request_id
    assert (choice.message.role, choice.message.content) == ("assistant", "You said: Hello there gateway")
    assert choice.finish_reason == "stop"
    assert completion.usage.prompt_tokens == 6
    assert completion.usage.completion_tokens == 5
    assert completion.usage.total_tokens == 11


def test_details_of_usage_survive(client):
    completion = client.chat.completions.create(
        model="mock-chat", messages=said("this was cached before"), reasoning_effort="low"
    )
    assert completion.usage.prompt_tokens_details.cached_tokens == 3
    assert completion.usage.completion_tokens_details.reasoning_tokens == 2
    assert completion.choices[0].message.model_extra["reasoning_content"] == "thought-1 thought-2"


def test_content_parts_and_roles_are_understood(client):
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "in parts"}]},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "name": "Ann", "content": [{"type": "text", "text": text} for text in ("two", "parts")]},
    ]
    completion = client.chat.completions.create(model="mock-chat", messages=messages)
    assert completion.choices[0].message.content == "You said: two parts"
    assert completion.usage.prompt_tokens == 4 * 3 + 7


def test_every_one_of_n_choices_comes_back(client):
    completion = client.chat.completions.create(model="mock-chat", messages=said("twice"), n=2)
    assert [choice.index for choice in completion.choices] == [0, 1]
    assert completion.choices[1].message.content == "Choice 1, you said: twice"


def test_a_limit_ends_the_answer_with_length(client):
    completion = client.chat.completions.create(model="mock-chat", messages=said("words:50"), max_completion_tokens=3)
    assert completion.choices[0].finish_reason == "length"
    assert completion.choices[0].message.content == "word-1 word-2 word-3"


def test_logprobs_come_when_asked_for(client):
    completion = client.chat.completions.create(model="mock-chat", messages=said("hi"), logprobs=True, top_logprobs=2)
    tokens = completion.choices[0].logprobs.content
    assert "".join(token.token for token in tokens) == completion.choices[0].message.content
    assert all(len(token.top_logprobs) == 2 for token in tokens)


@pytest.mark.anyio
async def test_the_async_client_gets_the_same(async_client):
    completion = await async_client.chat.completions.create(model="mock-chat", messages=said("Hello there"))
    assert completion.choices[0].message.content == "You said: Hello there"
    assert completion._request_id


@pytest.mark.anyio
async def test_answers_to_many_requests_at_once_are_not_mixed_up(async_client):
    async def ask(number: int) -> str:
        completion = await async_client.chat.completions.create(model="mock-chat", messages=said(f"number {number}"))
        return completion.choices[0].message.content

    answers = await asyncio.gather(*(ask(number) for number in range(30)))
    assert answers == [f"You said: number {number}" for number in range(30)]
