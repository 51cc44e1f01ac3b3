"""The list of models: what this key may use, and nothing else.

Run: tests/clients/run python -k models
"""

import openai
import pytest


def test_the_models_this_key_may_use_are_listed(client):
    listed = {model.id for model in client.models.list()}
    assert {"mock-chat", "mock-completion", "mock-embed"} <= listed


def test_one_model_is_retrieved_by_its_name(client):
    model = client.models.retrieve("mock-chat")
    assert (model.id, model.object) == ("mock-chat", "model")
    assert model.created and model.owned_by


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as refused:
        client.models.retrieve("no-such-model")
    assert refused.value.code == "model_not_found"


def test_a_scoped_key_sees_its_own_models_alone(scoped):
    assert [model.id for model in scoped.client.models.list()] == ["mock-embed"]
    with pytest.raises(openai.PermissionDeniedError):
        scoped.client.models.retrieve("mock-chat")
