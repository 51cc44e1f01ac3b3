// Embeddings: the SDK asks for base64 unless told otherwise and decodes it, so both ways must give the same numbers.
//
// Run: tests/clients/run node embeddings.test.js

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { client } from './support.js';

const embed = (input, options = {}) => client.embeddings.create({ model: 'mock-embed', input, ...options });

test('the default and float give the same unit vector', async () => {
  const byDefault = await embed('one two three');
  const asFloats = await embed('one two three', { encoding_format: 'float' });
  const [left, right] = [byDefault, asFloats].map((answer) => answer.data[0].embedding);
  assert.equal(left.length, right.length);
  assert.ok(left.every((entry, index) => Math.abs(entry - right[index]) < 1e-7));
  assert.ok(Math.abs(Math.hypot(...left) - 1) < 1e-4);
  assert.deepEqual(byDefault.usage, { prompt_tokens: 3, total_tokens: 3 });
});

test('base64 is left alone when it was asked for', async () => {
  const encoded = await embed('one', { encoding_format: 'base64', dimensions: 8 });
  assert.equal(Buffer.from(encoded.data[0].embedding, 'base64').length, 4 * 8);
});

test('dimensions are obeyed', async () => {
  assert.equal((await embed('one', { dimensions: 8 })).data[0].embedding.length, 8);
});

test('many inputs come back in order and token ids are one input', async () => {
  const many = await embed(['one', 'two words', 'three'], { dimensions: 4 });
  assert.deepEqual(many.data.map((item) => item.index), [0, 1, 2]);
  assert.deepEqual(many.data[2].embedding, (await embed('three', { dimensions: 4 })).data[0].embedding);
  assert.equal(many.usage.prompt_tokens, 4);
  assert.equal((await embed([1, 2, 3], { dimensions: 4 })).data.length, 1);
});
