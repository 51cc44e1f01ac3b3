// The list of models: what this key may use, and nothing else.
//
// Run: tests/clients/run node models.test.js

import assert from 'node:assert/strict';
import { test } from 'node:test';

import OpenAI from 'openai';

import { client, collected, scopedCaller } from './support.js';

const idsOf = async (someone) => (await collected(await someone.models.list())).map((model) => model.id);

test('the models this key may use are listed', async () => {
  const listed = await idsOf(client);
  for (const id of ['mock-chat', 'mock-completion', 'mock-embed']) assert.ok(listed.includes(id), id);
});

test('one model is retrieved by its name', async () => {
  const model = await client.models.retrieve('mock-chat');
  assert.deepEqual([model.id, model.object], ['mock-chat', 'model']);
  assert.ok(model.created && model.owned_by);
});

test('an unknown model is not found', async () => {
  await assert.rejects(client.models.retrieve('no-such-model'), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.equal(error.code, 'model_not_found');
    return true;
  });
});

test('a scoped key sees its own models alone', async () => {
  const scoped = scopedCaller().client;
  assert.deepEqual(await idsOf(scoped), ['mock-embed']);
  await assert.rejects(scoped.models.retrieve('mock-chat'), OpenAI.PermissionDeniedError);
});
