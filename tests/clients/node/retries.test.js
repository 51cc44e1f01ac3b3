// Trouble upstream, which the provider makes for models with a telling name: the SDK retries what a retry can help, and
// a broken stream is an exception and never a short answer.
//
// Run: tests/clients/run node retries.test.js

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';

import OpenAI from 'openai';

import { NARROW_KEY, POOR_KEY, caller, said } from './support.js';

// The first try, and the SDK's two retries.
const MOST_TRIES = 3;

test('one 429 is got over', async () => {
  const counted = caller();
  // The provider refuses each prompt once, so this one must be new.
  const messages = said(`once ${randomUUID()}`);
  const completion = await counted.client.chat.completions.create({ model: 'mock-chat-429-once', messages });
  assert.match(completion.choices[0].message.content, /^You said: once/);
  assert.ok(counted.sent <= 2);
});

test('a limit is waited for as long as the gateway says', async () => {
  const counted = caller({ apiKey: NARROW_KEY });
  const slow = caller({ apiKey: NARROW_KEY }).client.chat.completions.create({
    model: 'mock-chat-slow',
    messages: said('slowly'),
  });
  // It has long been counted by then, and is far from its end.
  await setTimeout(300);
  const begun = performance.now();
  const completion = await counted.client.chat.completions.create({ model: 'echo', messages: said('hello') });
  assert.equal(completion.choices[0].message.content, 'hello');
  assert.ok(performance.now() - begun >= 1_000, 'retry-after says a second');
  assert.equal(counted.sent, 2, 'one that was refused, one that was not');
  await slow;
});

test('a budget that is used up is not asked for again', async () => {
  const counted = caller({ apiKey: POOR_KEY });
  const answer = counted.client.chat.completions.create({ model: 'mock-chat', messages: said('hello') });
  await assert.rejects(answer, (error) => error instanceof OpenAI.RateLimitError && error.code === 'insufficient_quota');
  assert.equal(counted.sent, 1, 'no retry makes it fit');
});

test('a lasting 500 is an InternalServerError after the retries', async () => {
  const counted = caller();
  const answer = counted.client.chat.completions.create({ model: 'mock-chat-500', messages: said('hello') });
  await assert.rejects(answer, (error) => error.constructor === OpenAI.InternalServerError && error.status >= 500);
  assert.equal(counted.sent, MOST_TRIES);
});

for (const model of ['mock-chat-cut', 'mock-chat-error-mid']) {
  test(`a stream of ${model} raises after what it gave`, async () => {
    const counted = caller();
    const stream = await counted.client.chat.completions.create({ model, messages: said('words:50'), stream: true });
    const seen = [];
    await assert.rejects(
      async () => {
        for await (const chunk of stream) seen.push(chunk);
      },
      OpenAI.APIError,
    );
    assert.ok(seen.length);
    assert.ok(seen.every((chunk) => chunk.choices.every((choice) => !choice.finish_reason)));
    assert.equal(counted.sent, 1);
  });

  test(`a whole answer of ${model} is no answer`, async () => {
    const { client } = caller({ maxRetries: 0 });
    const answer = client.chat.completions.create({ model, messages: said('hello') });
    await assert.rejects(answer, OpenAI.InternalServerError);
  });
}

const deadBaseURL = process.env.BONITO_DEAD_BASE_URL;
const skip = !deadBaseURL && 'BONITO_DEAD_BASE_URL is not set';

test('a gateway without a living upstream says so', { skip }, async () => {
  const counted = caller({ baseURL: deadBaseURL });
  const answer = counted.client.chat.completions.create({ model: 'mock-chat', messages: said('hello') });
  await assert.rejects(answer, (error) => {
    assert.equal(error.constructor, OpenAI.InternalServerError);
    assert.ok([502, 503, 504].includes(error.status));
    assert.equal(error.code, 'upstream_error');
    return true;
  });
  assert.ok(counted.sent <= MOST_TRIES);
});
