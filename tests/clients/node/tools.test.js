// Tool calls: one and two in parallel, whole and streamed, and the way back to a text.
//
// Run: tests/clients/run node tools.test.js

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { client, collected, said } from './support.js';

const PARAMETERS = {
  type: 'object',
  properties: { city: { type: 'string' }, days: { type: 'integer' } },
  required: ['city', 'days'],
  additionalProperties: false,
};
const WEATHER = {
  type: 'function',
  function: { name: 'get_weather', description: 'The weather in a city.', parameters: PARAMETERS, strict: true },
};

const ask = (text, options = {}) =>
  client.chat.completions.create({ model: 'mock-chat', messages: said(text), tools: [WEATHER], ...options });

/** Joins fragments as naive clients do: every string of the same index is appended. */
function accumulated(chunks) {
  const calls = [];
  for (const fragment of chunks.flatMap((chunk) => chunk.choices.flatMap((choice) => choice.delta.tool_calls ?? []))) {
    if (fragment.index === calls.length) calls.push({ id: '', function: { name: '', arguments: '' } });
    const call = calls[fragment.index];
    call.id += fragment.id ?? '';
    call.function.name += fragment.function.name ?? '';
    call.function.arguments += fragment.function.arguments ?? '';
  }
  return calls;
}

function check(calls, count) {
  assert.equal(new Set(calls.map((call) => call.id)).size, count);
  for (const call of calls) {
    assert.equal(call.id.split('call_').length, 2);
    assert.equal(call.function.name, 'get_weather');
    assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)).sort(), ['city', 'days']);
  }
}

for (const [text, count] of [['weather please', 1], ['weather in parallel', 2]]) {
  test(`${count} call(s) in a whole answer`, async () => {
    const [choice] = (await ask(text)).choices;
    assert.equal(choice.finish_reason, 'tool_calls');
    assert.equal(choice.message.content, null);
    check(choice.message.tool_calls, count);
  });

  test(`${count} call(s) in fragments of a stream`, async () => {
    const chunks = await collected(await ask(text, { stream: true }));
    check(accumulated(chunks), count);
    assert.equal(chunks.at(-1).choices[0].finish_reason, 'tool_calls');
  });

  test(`${count} call(s) put together by the stream helper of the SDK`, async () => {
    const helper = client.chat.completions.stream({ model: 'mock-chat', messages: said(text), tools: [WEATHER] });
    check((await helper.finalChatCompletion()).choices[0].message.tool_calls, count);
  });
}

for (const stream of [false, true]) {
  test(`the tool runner of the SDK comes back with a text (stream: ${stream})`, async () => {
    const asked = [];
    const runner = client.chat.completions.runTools({
      model: 'mock-chat',
      messages: said('weather in parallel'),
      stream,
      tools: [
        {
          type: 'function',
          function: {
            name: 'get_weather',
            description: 'The weather in a city.',
            parameters: PARAMETERS,
            parse: JSON.parse,
            function: ({ city }) => {
              asked.push(city);
              return '18C';
            },
          },
        },
      ],
    });
    assert.equal(await runner.finalContent(), 'You said: weather in parallel');
    assert.equal(new Set(asked).size, 2);
  });
}

test('tool_choice is obeyed', async () => {
  const refused = await ask('weather please', { tool_choice: 'none' });
  assert.equal(refused.choices[0].message.tool_calls, undefined);
  const named = await ask('weather please', { tool_choice: { type: 'function', function: { name: 'get_weather' } } });
  check(named.choices[0].message.tool_calls, 1);
});
