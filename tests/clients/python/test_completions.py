"""Legacy completions, whole and streamed.

Run: tests/clients/run python -k completions
"""


def test_a_prompt_is_completed(client):
    completion = client.completions.create(model="mock-completion", prompt="once upon a time")
    assert completion.object == "text_completion"
    assert completion.choices[0].text == " You said: once upon a time"
    assert completion.choices[0].finish_reason == "stop"
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (4, 6)


def test_many_prompts_are_numbered_in_order(client):
    completion = client.completions.create(model="mock-completion", prompt=["one", "two"], max_tokens=2)
    assert [(choice.index, choice.text) for choice in completion.choices] == [(0, " You said:"), (1, " You said:")]
    assert {choice.finish_reason for choice in completion.choices} == {"length"}


def test_the_pieces_of_a_stream_join_to_the_whole(client):
    stream = client.completions.create(
        model="mock-completion", prompt="once upon", stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == " You said: once upon"
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
