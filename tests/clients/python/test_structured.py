"""Structured output: the SDK sends a pydantic model as a schema and gets an instance of it back.

Run: tests/clients/run python -k structured
"""

from enum import Enum

from pydantic import BaseModel

from conftest import said


class Mood(Enum):
    CALM = "calm"
    ANGRY = "angry"


class Step(BaseModel):
    explanation: str
    seconds: int


class Plan(BaseModel):
    mood: Mood
    steps: list[Step]
    cost: float
    urgent: bool
    next: Step | None


def test_a_whole_answer_is_parsed(client):
    completion = client.chat.completions.parse(model="mock-chat", messages=said("a plan"), response_format=Plan)
    plan = completion.choices[0].message.parsed
    assert isinstance(plan, Plan)
    assert plan.mood is Mood.CALM and plan.steps and plan.urgent


def test_a_streamed_answer_is_parsed(client):
    with client.chat.completions.stream(
        model="mock-chat", messages=said("a plan"), response_format=Plan
    ) as stream:
        completion = stream.get_final_completion()
    assert isinstance(completion.choices[0].message.parsed, Plan)
