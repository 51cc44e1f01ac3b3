"""One conversation, held with any model behind the gateway: the same questions, the same code, whoever answers.

The model thinks, looks at a picture, calls two tools at once, reads their results, and at last writes a report in JSON
that follows a schema. That is done four times with each model: with the plain OpenAI SDK and with the plain Anthropic SDK, and with
answers that come whole and answers that come in pieces. At the end all of them must have said the same kind of thing.

    examples/run http://127.0.0.1:8001 bn-… gpt-5-mini anthropic/claude-sonnet-4-5 aws/claude-sonnet-4-5 gcp/gemini-2.5-pro

What to look at: nothing below knows who the provider is. Even thoughts, which providers sign and want to see again, go back
without a line of code, because the whole message goes back.
"""

import json
import sys

import anthropic
import openai

PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAIAAAD8GO2jAAAAOElEQVR42mN4pqGBHVXgQCSqZxi1"
    "YNSCoWABlQzCpX7UglELhoQFo0XFqAWjFowWFaMWjFqgoQEAdbR4TGHtFhoAAAAASUVORK5CYII="
)

QUESTION = (
    "The picture shows the pattern of my suitcase. Look up, in parallel, the weather in Paris and the local time in Rome. "
    "Then tell me which colours you saw and what you found out."
)
WISH = "Now put the colours and your findings into a report."


def weather(city: str) -> str:
    return f"Sunny in {city}, 21 degrees."


def local_time(city: str) -> str:
    return f"It is 14:05 in {city}."


# Each tool once: its name, what it does, and the function behind it. Both take a city.
TOOLS = {"weather": ("The weather in a city.", weather), "local_time": ("The local time in a city.", local_time)}
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "Its English name."}},
    "required": ["city"],
    "additionalProperties": False,
}

# What the report must look like.
REPORT = {
    "type": "object",
    "properties": {
        "colours": {"type": "array", "items": {"type": "string"}},
        "findings": {"type": "string"},
    },
    "required": ["colours", "findings"],
    "additionalProperties": False,
}

# Room for thoughts and answer, and how much of it may be thought.
MAX_TOKENS = 8_000
THINKING_TOKENS = 2_000


def call(name: str, arguments: dict) -> str:
    """Does what the model asked for."""
    _, function = TOOLS[name]
    return function(arguments["city"])


def called(name: str, arguments: dict) -> str:
    """A call as it can be compared and read: `weather(city)`."""
    return f"{name}({', '.join(sorted(arguments))})"


# ---------------------------------------------------------------- OpenAI's SDK


def with_openai(client: openai.OpenAI, model: str, stream: bool) -> dict:
    tools = [
        {"type": "function", "function": {"name": name, "description": what, "parameters": CITY, "strict": True}}
        for name, (what, _) in TOOLS.items()
    ]
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": QUESTION}, picture]}]

    def ask(**more) -> tuple[dict, str]:
        request = dict(
            model=model,
            messages=messages,
            tools=tools,
            reasoning_effort="low",
            max_completion_tokens=MAX_TOKENS,
            **more,
        )
        if stream:
            return joined(client.chat.completions.create(**request, stream=True))
        choice = client.chat.completions.create(**request).choices[0]
        return choice.message.model_dump(exclude_none=True), choice.finish_reason

    first, why = ask()
    calls = first.get("tool_calls", [])
    messages.append(first)
    for each in calls:
        result = call(each["function"]["name"], json.loads(each["function"]["arguments"]))
        messages.append({"role": "tool", "tool_call_id": each["id"], "content": result})

    second, why_second = ask()
    messages += [second, {"role": "user", "content": WISH}]

    schema = {"type": "json_schema", "json_schema": {"name": "report", "schema": REPORT, "strict": True}}
    last, why_last = ask(tool_choice="none", response_format=schema)
    return {
        "calls": [called(each["function"]["name"], json.loads(each["function"]["arguments"])) for each in calls],
        "thought": bool(first.get("reasoning_content") or first.get("thinking_blocks")),
        "ends": [why == "tool_calls", why_second == "stop", why_last == "stop"],
        "report": json.loads(last["content"]),
    }


def joined(chunks) -> tuple[dict, str]:
    """The message that the pieces of a stream make, as it would have come whole."""
    message, calls, thoughts, why = {"role": "assistant"}, {}, [], None
    for chunk in chunks:
        if not chunk.choices:
            continue
        why = chunk.choices[0].finish_reason or why
        delta = chunk.choices[0].delta.model_dump(exclude_none=True)
        for name in ("content", "reasoning_content"):
            if delta.get(name):
                message[name] = message.get(name, "") + delta[name]
        for piece in delta.get("tool_calls", []):
            whole = calls.setdefault(piece["index"], {"type": "function", "function": {"name": "", "arguments": ""}})
            whole["id"] = piece.get("id") or whole["id"]
            whole["function"]["name"] += piece["function"].get("name") or ""
            whole["function"]["arguments"] += piece["function"].get("arguments") or ""
        thoughts += delta.get("thinking_blocks", [])
    if calls:
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    if thoughts:
        message["thinking_blocks"] = thoughts
    return message, why


# ------------------------------------------------------------- Anthropic's SDK


def with_anthropic(client: anthropic.Anthropic, model: str, stream: bool) -> dict:
    tools = [{"name": name, "description": what, "input_schema": CITY} for name, (what, _) in TOOLS.items()]
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}}
    messages = [{"role": "user", "content": [{"type": "text", "text": QUESTION}, picture]}]

    def ask(**more):
        request = dict(
            model=model,
            messages=messages,
            tools=tools,
            max_tokens=MAX_TOKENS,
            thinking={"type": "enabled", "budget_tokens": THINKING_TOKENS},
            **more,
        )
        if stream:
            with client.messages.stream(**request) as events:
                return events.get_final_message()
        return client.messages.create(**request)

    first = ask()
    calls = [block for block in first.content if block.type == "tool_use"]
    messages.append({"role": "assistant", "content": first.content})
    results = [
        {"type": "tool_result", "tool_use_id": each.id, "content": call(each.name, each.input)} for each in calls
    ]
    messages.append({"role": "user", "content": results})

    second = ask()
    messages += [{"role": "assistant", "content": second.content}, {"role": "user", "content": WISH}]

    schema = {"format": {"type": "json_schema", "schema": REPORT}}
    last = ask(tool_choice={"type": "none"}, extra_body={"output_config": schema})
    text = "".join(block.text for block in last.content if block.type == "text")
    return {
        "calls": [called(each.name, each.input) for each in calls],
        "thought": any(block.type in ("thinking", "redacted_thinking") for block in first.content),
        "ends": [
            first.stop_reason == "tool_use",
            second.stop_reason == "end_turn",
            last.stop_reason == "end_turn",
        ],
        "report": json.loads(text),
    }


# ------------------------------------------------------------------ Everything


def wrong(said: dict) -> list[str]:
    """What is not as it should be, whichever model and SDK it was."""
    report = said["report"]
    return [
        problem
        for problem, found in {
            "it did not call two tools at once": len(said["calls"]) < 2,
            "an answer ended for another reason than it should": not all(said["ends"]),
            "its report does not follow the schema": set(report) != set(REPORT["required"])
            or not isinstance(report["findings"], str)
            or not all(isinstance(colour, str) for colour in report["colours"]),
        }.items()
        if found
    ]


def meaning(said: dict) -> dict:
    """What must be the same whichever model and SDK it was. Models choose words of their own, and some keep their thoughts,
    which must then be the same whole and in pieces."""
    return {
        "calls": sorted(said["calls"]),
        "ends": said["ends"],
        "report": {name: type(value).__name__ for name, value in sorted(said["report"].items())},
    }


def main(base_url: str, key: str, models: list[str]) -> int:
    # Both SDKs take any key and any address; nothing else is needed to use the gateway.
    openai_client = openai.OpenAI(base_url=f"{base_url}/v1", api_key=key)
    anthropic_client = anthropic.Anthropic(base_url=base_url, api_key=key)
    failures, first = 0, None
    for model in models:
        for name, converse, client in (
            ("OpenAI's SDK", with_openai, openai_client),
            ("Anthropic's SDK", with_anthropic, anthropic_client),
        ):
            thought = None
            for stream in (False, True):
                how = f"{model:<32} {name:<16} {'in pieces' if stream else 'whole':<10}"
                try:
                    said = converse(client, model, stream)
                    problems = wrong(said)
                    first = first or meaning(said)
                    if meaning(said) != first:
                        problems.append(f"it means {meaning(said)}, and the first one meant {first}")
                    if thought not in (None, said["thought"]):
                        problems.append("its thoughts are shown whole or in pieces, and not both")
                    thought = said["thought"]
                except Exception as error:  # What an SDK throws is what its user would see.
                    said, problems = None, [f"{type(error).__name__}: {error}"]
                if problems:
                    failures += 1
                    print(f"{how} WRONG  {'; '.join(problems)}  {said or ''}")
                else:
                    thoughts = "thoughts shown" if said["thought"] else "thoughts kept"
                    print(f"{how} ok     {', '.join(said['calls'])}; {thoughts}; {said['report']}")
    return 1 if failures else 0


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: conversation.py BASE_URL KEY MODEL…")
    sys.exit(main(sys.argv[1].rstrip("/"), sys.argv[2], sys.argv[3:]))
