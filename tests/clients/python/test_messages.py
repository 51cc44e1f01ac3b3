"""Anthropic's SDK: chats, streams, tools, thinking, errors and counting, with Claude behind the gateway and with an OpenAI
model, which must look the same.

Run: tests/clients/run python -k messages
"""

import uuid

import anthropic
import pytest

from conftest import ClaudeCaller, SCOPED_KEY, said

CLAUDE = "claude-opus-5-5"
OTHER = "mock-chat"
BOTH = pytest.mark.parametrize("model", [CLAUDE, OTHER])

# The first try, and the SDK's two retries.
MOST_TRIES = 3

TOOLS = [
    {
        "name": name,
        "description": "Something about a city.",
        "input_schema": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    }
    for name in ("get_weather", "get_time")
]


def ask(claude: ClaudeCaller, model: str, text: str, **options):
    return claude.client.messages.create(model=model, max_tokens=1000, messages=said(text), **options)


def text_of(message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


@BOTH
def test_a_message(claude, model):
    message = ask(claude, model, "hello there", system="Be brief.")
    assert (message.type, message.role, message.stop_reason) == ("message", "assistant", "end_turn")
    assert text_of(message) == "You said: hello there"
    assert message.usage.input_tokens > 0 and message.usage.output_tokens == 4
    assert message._request_id


@BOTH
def test_a_stream_adds_up_to_the_message(claude, model):
    whole = ask(claude, model, "a cached question")
    with claude.client.messages.stream(model=model, max_tokens=1000, messages=said("a cached question")) as stream:
        texts = list(stream.text_stream)
        message = stream.get_final_message()
    assert len(texts) > 1 and "".join(texts) == text_of(whole) == text_of(message)
    assert message.stop_reason == "end_turn"
    assert message.usage.input_tokens == whole.usage.input_tokens
    assert message.usage.cache_read_input_tokens == whole.usage.cache_read_input_tokens > 0
    assert message.usage.output_tokens == whole.usage.output_tokens


@BOTH
@pytest.mark.parametrize("streamed", [False, True])
def test_two_tools_at_once_and_the_way_back(claude, model, streamed):
    options = {"model": model, "max_tokens": 1000, "tools": TOOLS}
    messages = said("parallel weather")
    if streamed:
        with claude.client.messages.stream(messages=messages, **options) as stream:
            message = stream.get_final_message()
    else:
        message = claude.client.messages.create(messages=messages, **options)
    assert message.stop_reason == "tool_use"
    calls = [block for block in message.content if block.type == "tool_use"]
    assert len(calls) == 2 and len({call.id for call in calls}) == 2
    assert all(isinstance(call.input["city"], str) for call in calls)
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": "18C"} for call in calls]
    answer = claude.client.messages.create(
        messages=[*messages, {"role": "assistant", "content": message.content}, {"role": "user", "content": results}],
        **options,
    )
    assert answer.stop_reason == "end_turn" and text_of(answer)


def test_thoughts_go_back_as_they_came(claude):
    options = {
        "model": CLAUDE,
        "max_tokens": 1000,
        "thinking": {"type": "adaptive", "display": "summarized"},
        "tools": TOOLS[:1],
    }
    with claude.client.messages.stream(messages=said("redacted weather"), **options) as stream:
        message = stream.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "redacted_thinking", "text", "tool_use"]
    assert message.content[0].thinking == "thought-1 thought-2" and message.content[0].signature
    result = {"type": "tool_result", "tool_use_id": message.content[-1].id, "content": "18C"}
    history = [
        *said("redacted weather"),
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [result]},
    ]
    # The provider refuses a signature that is not its own to the last character.
    assert claude.client.messages.create(messages=history, **options).stop_reason == "end_turn"


def test_a_reasoning_model_of_another_provider_thinks_aloud(claude):
    message = ask(claude, OTHER, "hello", output_config={"effort": "low"})
    thoughts = [block for block in message.content if block.type == "thinking"]
    assert len(thoughts) <= 1 and text_of(message) == "You said: hello"


@BOTH
def test_counting_tokens(claude, model):
    short = claude.client.messages.count_tokens(model=model, messages=said("hello"))
    long = claude.client.messages.count_tokens(model=model, messages=said("hello " * 100), tools=TOOLS)
    assert 0 < short.input_tokens < long.input_tokens


def refused(caller: ClaudeCaller, expected: type[anthropic.APIStatusError], **request) -> anthropic.APIStatusError:
    with pytest.raises(expected) as refusal:
        caller.client.messages.create(**{"model": CLAUDE, "max_tokens": 10, "messages": said("hello"), **request})
    assert type(refusal.value) is expected
    assert refusal.value.request_id
    assert refusal.value.body["type"] == "error"
    return refusal.value


def test_refusals_are_the_sdks_own_exceptions(claude):
    assert refused(ClaudeCaller("wrong"), anthropic.AuthenticationError).status_code == 401
    assert refused(ClaudeCaller(SCOPED_KEY), anthropic.PermissionDeniedError).status_code == 403
    assert refused(claude, anthropic.NotFoundError, model="no-such-model").status_code == 404
    assert refused(claude, anthropic.BadRequestError, messages=[]).status_code == 400
    error = refused(claude, anthropic.BadRequestError, extra_body={"surprise": 1})
    assert "surprise: Extra inputs are not permitted" in error.message
    assert len(claude.sent) == 3, "no refusal is tried again"


def test_one_429_is_got_over(claude):
    message = ask(claude, "claude-opus-5-429-once", f"once {uuid.uuid4()}")
    assert text_of(message).startswith("You said: once")
    assert len(claude.sent) <= 2


def test_an_overload_is_tried_again_and_then_said(claude):
    with pytest.raises(anthropic.APIStatusError) as refusal:
        ask(claude, "claude-opus-5-overloaded", "hello")
    assert refusal.value.status_code == 529
    assert refusal.value.body["error"]["type"] == "overloaded_error"
    assert len(claude.sent) == MOST_TRIES


@pytest.mark.parametrize("model", ["claude-opus-5-error-mid", "mock-chat-error-mid", "mock-chat-cut"])
def test_a_stream_that_breaks_raises_after_what_it_gave(claude, model):
    seen = []
    with pytest.raises(anthropic.APIError):
        with claude.client.messages.stream(model=model, max_tokens=1000, messages=said("words:50")) as stream:
            for event in stream:
                seen.append(event.type)
    assert "message_start" in seen and "message_stop" not in seen
    assert len(claude.sent) == 1


def test_a_bearer_token_is_as_good_as_a_key():
    from conftest import API_KEY, BASE_URL

    with anthropic.Anthropic(auth_token=API_KEY, base_url=BASE_URL.removesuffix("/v1")) as client:
        message = client.messages.create(model=OTHER, max_tokens=10, messages=said("hi"))
    assert text_of(message) == "You said: hi"


def test_models_are_listed_page_by_page(claude):
    first = claude.client.models.list(limit=2)
    assert (len(first.data), first.has_more) == (2, True)
    assert (first.first_id, first.last_id) == (first.data[0].id, first.data[1].id)
    names = [model.id for model in claude.client.models.list(limit=2)]
    assert names == sorted(names) and {CLAUDE, OTHER} <= set(names)
    before = claude.client.models.list(limit=1, before_id=names[2])
    assert ([model.id for model in before.data], before.has_more) == ([names[1]], True)


def test_one_model_is_described_and_an_unknown_one_is_not_found(claude):
    model = claude.client.models.retrieve(CLAUDE)
    assert (model.type, model.id, model.created_at.year) == ("model", CLAUDE, 2026)
    assert model.display_name
    with pytest.raises(anthropic.NotFoundError) as refused:
        claude.client.models.retrieve("no-such-model")
    assert refused.value.body["error"]["type"] == "not_found_error"
    assert refused.value.request_id
