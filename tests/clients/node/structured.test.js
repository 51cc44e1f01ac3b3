// Structured output: the SDK sends a zod type as a schema and gets a value of that type back.
//
// Run: tests/clients/run node structured.test.js

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { zodResponseFormat } from 'openai/helpers/zod';
import { z } from 'zod';

import { client, said } from './support.js';

const Step = z.object({ explanation: z.string(), seconds: z.int() });
const Plan = z.object({
  mood: z.enum(['calm', 'angry']),
  steps: z.array(Step),
  cost: z.number(),
  urgent: z.boolean(),
  next: Step.nullable(),
});
const request = { model: 'mock-chat', messages: said('a plan'), response_format: zodResponseFormat(Plan, 'plan') };

test('a whole answer is parsed', async () => {
  const completion = await client.chat.completions.parse(request);
  const { parsed } = completion.choices[0].message;
  assert.deepEqual(Plan.parse(parsed), parsed);
  assert.equal(parsed.mood, 'calm');
  assert.ok(parsed.steps.length);
});

test('a streamed answer is parsed', async () => {
  const completion = await client.chat.completions.stream(request).finalChatCompletion();
  assert.equal(completion.choices[0].message.parsed.mood, 'calm');
});
