"""What the gateway says about its own work, in headers the SDK hands out with the raw response.

Run: tests/clients/run python -k headers
"""

from conftest import said


def check(headers) -> None:
    assert headers["x-bonito-provider"]
    assert "mock-chat" in headers["x-bonito-model"]
    assert headers["x-bonito-attempts"] == "1"


def test_a_whole_answer_names_its_provider_model_and_attempts(client):
    raw = client.chat.completions.with_raw_response.create(model="mock-chat", messages=said("hello"))
    check(raw.headers)
    assert raw.headers["x-request-id"] == raw.parse()._request_id


def test_a_stream_does_so_before_its_first_event(client):
    raw = client.chat.completions.with_raw_response.create(model="mock-chat", messages=said("hello"), stream=True)
    check(raw.headers)
    assert raw.headers["x-request-id"]
    assert raw.headers["content-type"].startswith("text/event-stream")
    assert len(list(raw.parse())) > 3


def test_no_two_requests_have_the_same_id(client):
    ids = {
        client.chat.completions.create(model="mock-chat", messages=said("hello"))._request_id for _ in range(5)
    }
    assert len(ids) == 5
