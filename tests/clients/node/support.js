// What every test of the Node client suite shares: the environment, and clients that count what they send.
//
// The suite exists because our clients use the SDKs of OpenAI and Anthropic, not our idea of them: a gateway is
// compatible when the unmodified SDK cannot tell the difference. It runs against a gateway whose upstreams are scripted
// providers of `tests/suite`, left to their faithful answers; those follow from the request alone, so texts and token
// counts are known beforehand.
//
// Run it with `tests/clients/run node`. It needs
//
//     BONITO_BASE_URL       the gateway, ending in /v1
//     BONITO_API_KEY        a key that may use every model
//     BONITO_SCOPED_KEY     a key that may use `mock-embed` and nothing else
//     BONITO_NARROW_KEY     a key that may have one request under way
//     BONITO_POOR_KEY       a key whose budget is too small for any request
//     BONITO_DEAD_BASE_URL  optional: a gateway that takes BONITO_API_KEY, and whose upstream for `mock-chat` is a
//                           closed port

import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';

// Long enough for a slow machine, short enough that a hanging gateway fails a test instead of the whole run.
const TIMEOUT_MS = 10_000;

function required(name) {
  const value = process.env[name];
  if (!value) {
    throw new Error(`${name} is not set; see tests/clients/node/support.js for what the suite needs`);
  }
  return value;
}

const BASE_URL = required('BONITO_BASE_URL');
const API_KEY = required('BONITO_API_KEY');
const SCOPED_KEY = required('BONITO_SCOPED_KEY');
export const NARROW_KEY = required('BONITO_NARROW_KEY');
export const POOR_KEY = required('BONITO_POOR_KEY');

/** An SDK client as anyone would make it, and the number of requests it really sent, retries included. */
export function caller({ apiKey = API_KEY, baseURL = BASE_URL, ...options } = {}) {
  const counted = { sent: 0 };
  counted.client = new OpenAI({
    apiKey,
    baseURL,
    timeout: TIMEOUT_MS,
    fetch: (...request) => {
      counted.sent += 1;
      return fetch(...request);
    },
    ...options,
  });
  return counted;
}

/** The same with Anthropic's SDK, which adds the whole path to the address of the gateway. */
export function claudeCaller({ apiKey = API_KEY, ...options } = {}) {
  const counted = { sent: 0 };
  counted.client = new Anthropic({
    apiKey,
    baseURL: BASE_URL.replace(/\/v1$/, ''),
    timeout: TIMEOUT_MS,
    fetch: (...request) => {
      counted.sent += 1;
      return fetch(...request);
    },
    ...options,
  });
  return counted;
}

export const client = caller().client;

export const scopedCaller = () => caller({ apiKey: SCOPED_KEY });

/** A conversation of one message. */
export const said = (text) => [{ role: 'user', content: text }];

/** Everything a stream gives. */
export async function collected(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

/** The text of one choice of a stream. */
export const textOf = (chunks, index = 0) =>
  chunks
    .flatMap((chunk) => chunk.choices)
    .filter((choice) => choice.index === index)
    .map((choice) => choice.delta.content ?? '')
    .join('');
