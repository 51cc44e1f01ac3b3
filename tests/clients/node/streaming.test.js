// Streams: the pieces join to the whole, usage comes only when asked for, leaving early harms nobody.
//
// Run: tests/clients/run node streaming.test.js

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { client, collected, said, textOf } from './support.js';

// A stream that would take a minute.
const ENDLESS = 'words:3000 pause_ms:20';

const stream = (text, options = {}) =>
  client.chat.completions.create({ model: 'mock-chat', messages: said(text), stream: true, ...options });

test('the deltas join to the whole answer', async () => {
  const text = 'grüße aus 北京 🐟';
  const whole = await client.chat.completions.create({ model: 'mock-chat', messages: said(text) });
  const chunks = await collected(await stream(text));
  assert.equal(textOf(chunks), whole.choices[0].message.content);
  assert.equal(new Set(chunks.map((chunk) => chunk.id)).size, 1);
  assert.equal(chunks[0].choices[0].delta.role, 'assistant');
  const reasons = chunks.flatMap((chunk) => chunk.choices.map((choice) => choice.finish_reason)).filter(Boolean);
  assert.deepEqual(reasons, ['stop']);
});

test('without include_usage there is no usage and no chunk without choices', async () => {
  const chunks = await collected(await stream('hello'));
  assert.ok(chunks.every((chunk) => !chunk.usage && chunk.choices.length > 0));
});

test('with include_usage the last chunk and no other has it', async () => {
  const chunks = await collected(await stream('Hello there', { stream_options: { include_usage: true } }));
  const last = chunks.pop();
  assert.ok(chunks.every((chunk) => !chunk.usage));
  assert.deepEqual(last.choices, []);
  assert.deepEqual([last.usage.prompt_tokens, last.usage.completion_tokens], [5, 4]);
});

test('choices of one stream stay apart', async () => {
  const chunks = await collected(await stream('twice', { n: 2 }));
  assert.equal(textOf(chunks, 0), 'You said: twice');
  assert.equal(textOf(chunks, 1), 'Choice 1, you said: twice');
});

test('the stream helper of the SDK puts the answer together', async () => {
  const helper = client.chat.completions.stream({ model: 'mock-chat', messages: said('hello') });
  const completion = await helper.finalChatCompletion();
  assert.equal(completion.choices[0].message.content, 'You said: hello');
});

test('a stream can be left early and the client goes on', async () => {
  const startedMs = performance.now();
  for await (const chunk of await stream(ENDLESS)) {
    if (textOf([chunk])) break;
  }
  const aborted = await stream(ENDLESS);
  setTimeout(() => aborted.controller.abort(), 50);
  await collected(aborted);
  const next = await client.chat.completions.create({ model: 'mock-chat', messages: said('next') });
  assert.ok(next.choices.length);
  assert.ok(performance.now() - startedMs < 5_000);
});
