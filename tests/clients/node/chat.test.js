// Chat completions answered in one piece.
//
// Run: tests/clients/run node chat.test.js

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { client, said } from './support.js';

test('a chat is answered with its text, usage and request id', async () => {
  const messages = said('Hello there gateway');
  const completion = await client.chat.completions.create({ model: 'mock-chat', messages });
  const [choice] = completion.choices;
  assert.ok(completion.id);
  assert.equal(completion.object, 'chat.completion');
  assert.ok(completion._request_id);
  assert.equal(choice.message.role, 'assistant');
  assert.equal(choice.message.content, 'You said: Hello there gateway');
  assert.equal(choice.finish_reason, 'stop');
  const { prompt_tokens, completion_tokens, total_tokens } = completion.usage;
  assert.deepEqual([prompt_tokens, completion_tokens, total_tokens], [6, 5, 11]);
});

test('details of usage and fields the SDK does not know survive', async () => {
  const completion = await client.chat.completions.create({
    model: 'mock-chat',
    messages: said('this was cached before'),
    reasoning_effort: 'low',
  });
  assert.equal(completion.usage.prompt_tokens_details.cached_tokens, 3);
  assert.equal(completion.usage.completion_tokens_details.reasoning_tokens, 2);
  assert.equal(completion.choices[0].message.reasoning_content, 'thought-1 thought-2');
});

test('every one of n choices comes back', async () => {
  const completion = await client.chat.completions.create({ model: 'mock-chat', messages: said('twice'), n: 2 });
  const contents = completion.choices.map((choice) => choice.message.content);
  assert.deepEqual(contents, ['You said: twice', 'Choice 1, you said: twice']);
});

test('a limit ends the answer with length', async () => {
  const completion = await client.chat.completions.create({
    model: 'mock-chat',
    messages: said('words:50'),
    max_completion_tokens: 3,
  });
  assert.equal(completion.choices[0].finish_reason, 'length');
  assert.equal(completion.choices[0].message.content, 'word-1 word-2 word-3');
});

test('logprobs come when asked for', async () => {
  const completion = await client.chat.completions.create({
    model: 'mock-chat',
    messages: said('hi'),
    logprobs: true,
    top_logprobs: 2,
  });
  const tokens = completion.choices[0].logprobs.content;
  assert.equal(tokens.map((token) => token.token).join(''), completion.choices[0].message.content);
  assert.ok(tokens.every((token) => token.top_logprobs.length === 2));
});

test('answers to many requests at once are not mixed up', async () => {
  const numbers = Array.from({ length: 30 }, (_, number) => number);
  const answers = await Promise.all(
    numbers.map(async (number) => {
      const messages = said(`number ${number}`);
      const completion = await client.chat.completions.create({ model: 'mock-chat', messages });
      return completion.choices[0].message.content;
    }),
  );
  assert.deepEqual(answers, numbers.map((number) => `You said: number ${number}`));
});
