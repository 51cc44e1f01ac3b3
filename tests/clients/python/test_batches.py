"""Files and batches, as OpenAI's guide to batches has them.

Run: tests/clients/run python -k batches
"""

import io
import json
import time

import openai
import pytest

CHAT = "/v1/chat/completions"


def lines(*texts):
    """A batch's input: one chat for each text."""
    requests = (
        {
            "custom_id": f"request-{number}",
            "method": "POST",
            "url": CHAT,
            "body": {"model": "mock-chat", "messages": [{"role": "user", "content": text}]},
        }
        for number, text in enumerate(texts)
    )
    return "\n".join(json.dumps(request) for request in requests).encode()


def finished(client, batch):
    """The batch when nothing comes after it."""
    patience = time.monotonic() + 30
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        assert time.monotonic() < patience, batch
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)
    return batch


def test_a_batch_from_its_file_to_its_results(client):
    uploaded = client.files.create(file=("requests.jsonl", io.BytesIO(lines("one", "two", "three"))), purpose="batch")
    assert (uploaded.object, uploaded.filename, uploaded.purpose) == ("file", "requests.jsonl", "batch")
    batch = client.batches.create(
        input_file_id=uploaded.id, endpoint=CHAT, completion_window="24h", metadata={"purpose": "a test"}
    )
    batch = finished(client, batch)
    assert (batch.status, batch.metadata) == ("completed", {"purpose": "a test"})
    counts = batch.request_counts
    failures = client.files.content(batch.error_file_id).text if batch.error_file_id else ""
    assert (counts.total, counts.completed, counts.failed) == (3, 3, 0), failures
    results = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    assert sorted(result["custom_id"] for result in results) == ["request-0", "request-1", "request-2"]
    direct = client.chat.completions.create(model="mock-chat", messages=[{"role": "user", "content": "two"}])
    [second] = [result for result in results if result["custom_id"] == "request-1"]
    message = second["response"]["body"]["choices"][0]["message"]["content"]
    assert (second["response"]["status_code"], message) == (200, direct.choices[0].message.content)
    assert batch.id in [listed.id for listed in client.batches.list(limit=5)]
    assert uploaded.id in [listed.id for listed in client.files.list(purpose="batch")]
    assert client.files.content(uploaded.id).read() == lines("one", "two", "three")
    assert client.files.delete(uploaded.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(uploaded.id)


def test_a_file_that_is_none_fails_the_batch_and_says_where(client):
    uploaded = client.files.create(file=("requests.jsonl", lines("one") + b"\nnothing"), purpose="batch")
    batch = client.batches.create(input_file_id=uploaded.id, endpoint=CHAT, completion_window="24h")
    batch = finished(client, batch)
    assert batch.status == "failed"
    assert [fault.line for fault in batch.errors.data] == [2]


def test_a_batch_is_cancelled(client):
    uploaded = client.files.create(file=("requests.jsonl", lines(*("word " * 50 for _ in range(500)))), purpose="batch")
    batch = client.batches.create(input_file_id=uploaded.id, endpoint=CHAT, completion_window="24h")
    assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
    assert finished(client, batch).status == "cancelled"


def test_what_cannot_be_a_batch_is_refused(client):
    with pytest.raises(openai.BadRequestError) as refused:
        client.batches.create(input_file_id="file-nothing", endpoint=CHAT, completion_window="24h")
    assert refused.value.param == "input_file_id"
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.create(file=("x", b"x"), purpose="assistants")
    assert refused.value.param == "purpose"
