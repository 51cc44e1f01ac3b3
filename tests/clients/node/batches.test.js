// Files and batches, as OpenAI's guide to batches has them.
//
// Run: tests/clients/run node batches.test.js

import assert from 'node:assert/strict';
import { test } from 'node:test';

import OpenAI, { toFile } from 'openai';

import { client } from './support.js';

const CHAT = '/v1/chat/completions';

/** A batch's input: one chat for each text. */
function lines(...texts) {
  const requests = texts.map((content, number) => ({
    custom_id: `request-${number}`,
    method: 'POST',
    url: CHAT,
    body: { model: 'mock-chat', messages: [{ role: 'user', content }] },
  }));
  return requests.map((request) => JSON.stringify(request)).join('\n');
}

/** The batch when nothing comes after it. */
async function finished(client, batch) {
  const patience = Date.now() + 30_000;
  while (!['completed', 'failed', 'expired', 'cancelled'].includes(batch.status)) {
    assert.ok(Date.now() < patience, JSON.stringify(batch));
    await new Promise((resolve) => setTimeout(resolve, 50));
    batch = await client.batches.retrieve(batch.id);
  }
  return batch;
}

test('a batch from its file to its results', async () => {
  const file = await toFile(Buffer.from(lines('one', 'two')), 'requests.jsonl');
  const uploaded = await client.files.create({ file, purpose: 'batch' });
  assert.equal(uploaded.filename, 'requests.jsonl');
  let batch = await client.batches.create({ input_file_id: uploaded.id, endpoint: CHAT, completion_window: '24h' });
  batch = await finished(client, batch);
  assert.equal(batch.status, 'completed');
  const failures = batch.error_file_id && (await (await client.files.content(batch.error_file_id)).text());
  assert.deepEqual([batch.request_counts, failures], [{ total: 2, completed: 2, failed: 0 }, null]);
  const content = await (await client.files.content(batch.output_file_id)).text();
  const results = content.trim().split('\n').map((line) => JSON.parse(line));
  assert.deepEqual(results.map((result) => result.custom_id).sort(), ['request-0', 'request-1']);
  assert.ok(results.every((result) => result.response.status_code === 200));
  const listed = [];
  for await (const one of client.batches.list({ limit: 1 })) listed.push(one.id);
  assert.ok(listed.includes(batch.id));
  assert.equal((await client.files.delete(uploaded.id)).deleted, true);
  await assert.rejects(client.files.retrieve(uploaded.id), OpenAI.NotFoundError);
});

test('a batch is cancelled', async () => {
  const texts = Array.from({ length: 500 }, () => 'word '.repeat(50));
  const file = await toFile(Buffer.from(lines(...texts)), 'requests.jsonl');
  const uploaded = await client.files.create({ file, purpose: 'batch' });
  const batch = await client.batches.create({ input_file_id: uploaded.id, endpoint: CHAT, completion_window: '24h' });
  assert.ok(['cancelling', 'cancelled'].includes((await client.batches.cancel(batch.id)).status));
  assert.equal((await finished(client, batch)).status, 'cancelled');
});
