"""Embeddings: the SDK asks for base64 unless told otherwise and decodes it, so both ways must give the same numbers.

Run: tests/clients/run python -k embeddings
"""

import math

import pytest


def test_the_default_and_float_give_the_same_unit_vector(client):
    by_default = client.embeddings.create(model="mock-embed", input="one two three")
    as_floats = client.embeddings.create(model="mock-embed", input="one two three", encoding_format="float")
    assert by_default.data[0].embedding == pytest.approx(as_floats.data[0].embedding, abs=1e-7)
    assert math.hypot(*by_default.data[0].embedding) == pytest.approx(1, abs=1e-4)
    assert by_default.usage.prompt_tokens == by_default.usage.total_tokens == 3


def test_dimensions_are_obeyed(client):
    shortened = client.embeddings.create(model="mock-embed", input="one", dimensions=8)
    assert len(shortened.data[0].embedding) == 8


def test_many_inputs_come_back_in_order_and_token_ids_are_one_input(client):
    many = client.embeddings.create(model="mock-embed", input=["one", "two words", "three"], dimensions=4)
    assert [item.index for item in many.data] == [0, 1, 2]
    alone = client.embeddings.create(model="mock-embed", input="three", dimensions=4)
    assert many.data[2].embedding == alone.data[0].embedding
    assert many.usage.prompt_tokens == 4
    assert len(client.embeddings.create(model="mock-embed", input=[1, 2, 3], dimensions=4).data) == 1


@pytest.mark.anyio
async def test_the_async_client_gets_the_same(async_client):
    embedding = await async_client.embeddings.create(model="mock-embed", input="one", dimensions=4)
    assert len(embedding.data[0].embedding) == 4
