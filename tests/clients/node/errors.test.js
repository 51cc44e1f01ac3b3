// Refusals that no retry can help: the SDK raises its own exception for them, with the code, and tries once.
//
// Run: tests/clients/run node errors.test.js

import assert from 'node:assert/strict';
import { test } from 'node:test';

import OpenAI from 'openai';

import { caller, said, scopedCaller } from './support.js';

/** The error with which a chat is refused. */
async function refusal(counted, type, request = {}) {
  const chat = { model: 'mock-chat', messages: said('hello'), ...request };
  const error = await counted.client.chat.completions.create(chat).then(
    () => assert.fail('it was answered'),
    (refused) => refused,
  );
  assert.equal(error.constructor, type);
  assert.equal(counted.sent, 1);
  assert.ok(error.requestID);
  assert.ok(error.error.message);
  return error;
}

for (const apiKey of ['wrong', `bn-${'0'.repeat(46)}`]) {
  test(`the wrong key ${apiKey}`, async () => {
    const error = await refusal(caller({ apiKey }), OpenAI.AuthenticationError);
    assert.equal(error.code, 'invalid_api_key');
  });
}

test('a model outside the scope', async () => {
  const scoped = scopedCaller();
  const error = await refusal(scoped, OpenAI.PermissionDeniedError);
  assert.equal(error.code, 'model_not_allowed');
  assert.ok((await scoped.client.embeddings.create({ model: 'mock-embed', input: 'allowed' })).data.length);
});

for (const stream of [false, true]) {
  test(`an unknown model (stream: ${stream})`, async () => {
    const error = await refusal(caller(), OpenAI.NotFoundError, { model: 'no-such-model', stream });
    assert.equal(error.code, 'model_not_found');
  });
}

test('a parameter of the wrong type', async () => {
  const error = await refusal(caller(), OpenAI.BadRequestError, { temperature: 'hot' });
  assert.equal(error.param, 'temperature');
});

test('a conversation without messages', async () => {
  const error = await refusal(caller(), OpenAI.BadRequestError, { messages: [] });
  assert.equal(error.param, 'messages');
});
