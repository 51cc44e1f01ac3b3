"""Tool calls: one and two in parallel, whole and streamed, and the way back to a text.

Run: tests/clients/run python -k tools
"""

import json

from conftest import said

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


def ask(client, text: str, **options):
    return client.chat.completions.create(model="mock-chat", messages=said(text), tools=[WEATHER], **options)


def accumulated(chunks) -> list[dict[str, str]]:
    """Joins fragments as naive clients do: every string of the same index is appended."""
    calls: list[dict[str, str]] = []
    for fragment in (f for chunk in chunks for choice in chunk.choices for f in choice.delta.tool_calls or []):
        if fragment.index == len(calls):
            calls.append({"id": "", "name": "", "arguments": ""})
        call = calls[fragment.index]
        call["id"] += fragment.id or ""
        call["name"] += fragment.function.name or ""
        call["arguments"] += fragment.function.arguments or ""
    return calls


def check(call_id: str, name: str, arguments: str) -> None:
    assert call_id.count("call_") == 1
    assert name == "get_weather"
    assert set(json.loads(arguments)) == {"city", "days"}


def test_a_tool_is_called(client):
    choice = ask(client, "weather please").choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,) = choice.message.tool_calls
    check(call.id, call.function.name, call.function.arguments)


def test_two_tools_are_called_in_parallel(client):
    calls = ask(client, "weather in parallel").choices[0].message.tool_calls
    assert len({call.id for call in calls}) == 2
    for call in calls:
        check(call.id, call.function.name, call.function.arguments)


def test_streamed_fragments_join_to_valid_calls(client):
    for text, count in [("weather please", 1), ("weather in parallel", 2)]:
        chunks = list(ask(client, text, stream=True))
        calls = accumulated(chunks)
        assert len({call["id"] for call in calls}) == count
        for call in calls:
            check(call["id"], call["name"], call["arguments"])
        assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_the_stream_helper_of_the_sdk_parses_the_arguments(client):
    with client.chat.completions.stream(
        model="mock-chat", messages=said("weather in parallel"), tools=[WEATHER]
    ) as stream:
        calls = stream.get_final_completion().choices[0].message.tool_calls
    assert [call.function.parsed_arguments["days"] for call in calls] == [1, 1]


def test_a_tools_result_leads_to_a_text(client):
    messages = said("weather in parallel")
    message = client.chat.completions.create(model="mock-chat", messages=messages, tools=[WEATHER]).choices[0].message
    messages.append(message)
    messages += [{"role": "tool", "tool_call_id": call.id, "content": "18C"} for call in message.tool_calls]
    answer = client.chat.completions.create(model="mock-chat", messages=messages, tools=[WEATHER])
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content == "You said: weather in parallel"


def test_tool_choice_is_obeyed(client):
    assert ask(client, "weather please", tool_choice="none").choices[0].message.tool_calls is None
    named = {"type": "function", "function": {"name": "get_weather"}}
    assert len(ask(client, "weather please", tool_choice=named).choices[0].message.tool_calls) == 1
