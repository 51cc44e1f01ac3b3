// Legacy completions, whole and streamed.
//
// Run: tests/clients/run node completions.test.js

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { client, collected } from './support.js';

test('a prompt is completed', async () => {
  const completion = await client.completions.create({ model: 'mock-completion', prompt: 'once upon a time' });
  assert.equal(completion.object, 'text_completion');
  assert.equal(completion.choices[0].text, ' You said: once upon a time');
  assert.equal(completion.choices[0].finish_reason, 'stop');
  assert.deepEqual([completion.usage.prompt_tokens, completion.usage.completion_tokens], [4, 6]);
});

test('many prompts are numbered in order', async () => {
  const prompt = ['one', 'two'];
  const completion = await client.completions.create({ model: 'mock-completion', prompt, max_tokens: 2 });
  const seen = completion.choices.map(({ index, text, finish_reason }) => [index, text, finish_reason]);
  assert.deepEqual(seen, [[0, ' You said:', 'length'], [1, ' You said:', 'length']]);
});

test('the pieces of a stream join to the whole', async () => {
  const stream = await client.completions.create({
    model: 'mock-completion',
    prompt: 'once upon',
    stream: true,
    stream_options: { include_usage: true },
  });
  const chunks = await collected(stream);
  const text = chunks.flatMap((chunk) => chunk.choices.map((choice) => choice.text)).join('');
  assert.equal(text, ' You said: once upon');
  assert.deepEqual(chunks.filter((chunk) => chunk.usage), [chunks.at(-1)]);
});
