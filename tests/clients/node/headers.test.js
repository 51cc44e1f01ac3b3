// What the gateway says about its own work, in headers the SDK hands out with the raw response.
//
// Run: tests/clients/run node headers.test.js

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { client, collected, said } from './support.js';

function check(headers) {
  assert.ok(headers.get('x-bonito-provider'));
  assert.match(headers.get('x-bonito-model'), /mock-chat/);
  assert.equal(headers.get('x-bonito-attempts'), '1');
}

const chat = { model: 'mock-chat', messages: said('hello') };

test('a whole answer names its provider, model and attempts', async () => {
  const { data, response, request_id } = await client.chat.completions.create(chat).withResponse();
  check(response.headers);
  assert.equal(response.headers.get('x-request-id'), request_id);
  assert.equal(data._request_id, request_id);
});

test('a stream does so before its first event', async () => {
  const { data, response } = await client.chat.completions.create({ ...chat, stream: true }).withResponse();
  check(response.headers);
  assert.ok(response.headers.get('x-request-id'));
  assert.match(response.headers.get('content-type'), /^text\/event-stream/);
  assert.ok((await collected(data)).length > 3);
});
