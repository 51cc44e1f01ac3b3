// Anthropic's SDK: chats, streams, tools, thinking, errors and counting, with Claude behind the gateway and with an OpenAI
// model, which must look the same.
//
// Run: tests/clients/run node messages.test.js

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';

import Anthropic from '@anthropic-ai/sdk';

import { claudeCaller, said } from './support.js';

const CLAUDE = 'claude-opus-5-5';
const OTHER = 'mock-chat';
// The first try, and the SDK's two retries.
const MOST_TRIES = 3;

const TOOLS = ['get_weather', 'get_time'].map((name) => ({
  name,
  input_schema: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
}));

const textOf = (message) =>
  message.content
    .filter((block) => block.type === 'text')
    .map((block) => block.text)
    .join('');

for (const model of [CLAUDE, OTHER]) {
  test(`a message of ${model} and its stream say the same`, async () => {
    const { client } = claudeCaller();
    const request = { model, max_tokens: 1000, messages: said('a cached question') };
    const message = await client.messages.create(request);
    assert.equal(textOf(message), 'You said: a cached question');
    assert.equal(message.stop_reason, 'end_turn');
    assert.ok(message._request_id);
    const streamed = await client.messages.stream(request).finalMessage();
    assert.equal(textOf(streamed), textOf(message));
    assert.equal(streamed.usage.input_tokens, message.usage.input_tokens);
    assert.equal(streamed.usage.cache_read_input_tokens, message.usage.cache_read_input_tokens);
    assert.equal(streamed.usage.output_tokens, message.usage.output_tokens);
  });

  test(`${model} calls two tools at once and hears their results`, async () => {
    const { client } = claudeCaller();
    const options = { model, max_tokens: 1000, tools: TOOLS };
    const messages = said('parallel weather');
    const message = await client.messages.stream({ ...options, messages }).finalMessage();
    const calls = message.content.filter((block) => block.type === 'tool_use');
    assert.equal(message.stop_reason, 'tool_use');
    assert.equal(calls.length, 2);
    assert.ok(calls.every((call) => typeof call.input.city === 'string'));
    const results = calls.map((call) => ({ type: 'tool_result', tool_use_id: call.id, content: '18C' }));
    const answer = await client.messages.create({
      ...options,
      messages: [...messages, { role: 'assistant', content: message.content }, { role: 'user', content: results }],
    });
    assert.equal(answer.stop_reason, 'end_turn');
  });

  test(`tokens for ${model} are counted`, async () => {
    const { client } = claudeCaller();
    const count = await client.messages.countTokens({ model, messages: said('hello there') });
    assert.ok(count.input_tokens > 0);
  });
}

test('thoughts go back as they came', async () => {
  const { client } = claudeCaller();
  const options = {
    model: CLAUDE,
    max_tokens: 1000,
    thinking: { type: 'adaptive', display: 'summarized' },
    tools: TOOLS,
  };
  const message = await client.messages.stream({ ...options, messages: said('redacted weather') }).finalMessage();
  assert.deepEqual(
    message.content.map((block) => block.type),
    ['thinking', 'redacted_thinking', 'text', 'tool_use'],
  );
  const result = { type: 'tool_result', tool_use_id: message.content.at(-1).id, content: '18C' };
  // The provider refuses a signature that is not its own to the last character.
  const answer = await client.messages.create({
    ...options,
    messages: [
      ...said('redacted weather'),
      { role: 'assistant', content: message.content },
      { role: 'user', content: [result] },
    ],
  });
  assert.equal(answer.stop_reason, 'end_turn');
});

test('refusals are the own errors of the SDK, and are not tried again', async () => {
  const counted = claudeCaller();
  const ask = (client, request) =>
    client.messages.create({ model: CLAUDE, max_tokens: 10, messages: said('hello'), ...request });
  await assert.rejects(ask(claudeCaller({ apiKey: 'wrong' }).client), Anthropic.AuthenticationError);
  await assert.rejects(ask(counted.client, { model: 'no-such-model' }), Anthropic.NotFoundError);
  await assert.rejects(ask(counted.client, { surprise: 1 }), (error) => {
    assert.ok(error instanceof Anthropic.BadRequestError);
    assert.ok(error.requestID);
    assert.match(error.message, /surprise: Extra inputs are not permitted/);
    return true;
  });
  assert.equal(counted.sent, 2);
});

test('one 429 is got over, and a lasting overload is said', async () => {
  const counted = claudeCaller();
  const once = { model: 'claude-opus-5-429-once', max_tokens: 100, messages: said(`once ${randomUUID()}`) };
  assert.match(textOf(await counted.client.messages.create(once)), /^You said: once/);
  assert.ok(counted.sent <= 2);
  const lasting = claudeCaller();
  const busy = lasting.client.messages.create({
    model: 'claude-opus-5-overloaded',
    max_tokens: 100,
    messages: said('hello'),
  });
  await assert.rejects(busy, (error) => error.status === 529);
  assert.equal(lasting.sent, MOST_TRIES);
});

for (const model of ['claude-opus-5-error-mid', 'mock-chat-error-mid', 'mock-chat-cut']) {
  test(`a stream of ${model} raises after what it gave`, async () => {
    const { client } = claudeCaller();
    const stream = await client.messages.create({ model, max_tokens: 1000, messages: said('words:50'), stream: true });
    const seen = [];
    await assert.rejects(
      async () => {
        for await (const event of stream) seen.push(event.type);
      },
      Anthropic.APIError,
    );
    assert.equal(seen[0], 'message_start');
    assert.ok(!seen.includes('message_stop'));
  });
}

test('models are listed page by page, and described one by one', async () => {
  const { client } = claudeCaller();
  const first = await client.models.list({ limit: 2 });
  assert.deepEqual([first.data.length, first.has_more], [2, true]);
  assert.deepEqual([first.first_id, first.last_id], [first.data[0].id, first.data[1].id]);
  const names = [];
  for await (const model of client.models.list({ limit: 2 })) names.push(model.id);
  assert.deepEqual(names, [...names].sort());
  assert.ok(names.includes(CLAUDE) && names.includes(OTHER));
  const model = await client.models.retrieve(CLAUDE);
  assert.deepEqual([model.type, model.id], ['model', CLAUDE]);
  assert.ok(model.display_name && Date.parse(model.created_at));
  await assert.rejects(client.models.retrieve('no-such-model'), (error) => {
    assert.ok(error instanceof Anthropic.NotFoundError);
    assert.equal(error.error.error.type, 'not_found_error');
    return true;
  });
});
