"""Refusals that no retry can help: the SDK raises its own exception for them, with the code, and tries once.

Run: tests/clients/run python -k errors
"""

import openai
import pytest

from conftest import Caller, said


def refusal(caller: Caller, expected: type[openai.APIStatusError], **request) -> openai.APIStatusError:
    with pytest.raises(expected) as refused:
        caller.client.chat.completions.create(**{"model": "mock-chat", "messages": said("hello"), **request})
    assert type(refused.value) is expected
    assert len(caller.sent) == 1
    assert refused.value.request_id
    assert refused.value.body["message"]
    return refused.value


@pytest.mark.parametrize("api_key", ["wrong", "bn-" + "0" * 46])
def test_a_wrong_key(api_key):
    assert refusal(Caller(api_key), openai.AuthenticationError).code == "invalid_api_key"


def test_a_model_outside_the_scope(scoped):
    assert refusal(scoped, openai.PermissionDeniedError).code == "model_not_allowed"
    assert scoped.client.embeddings.create(model="mock-embed", input="allowed").data


def test_an_unknown_model(caller):
    assert refusal(caller, openai.NotFoundError, model="no-such-model").code == "model_not_found"


def test_a_refused_stream_is_refused_as_well(caller):
    assert refusal(caller, openai.NotFoundError, model="no-such-model", stream=True).code == "model_not_found"


def test_a_parameter_of_the_wrong_type(caller):
    assert refusal(caller, openai.BadRequestError, extra_body={"temperature": "hot"}).param == "temperature"


def test_a_conversation_without_messages(caller):
    assert refusal(caller, openai.BadRequestError, messages=[]).param == "messages"


@pytest.mark.anyio
async def test_the_async_client_raises_the_same(async_client):
    with pytest.raises(openai.NotFoundError):
        await async_client.chat.completions.create(model="no-such-model", messages=said("hello"))
