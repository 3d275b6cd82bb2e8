// The jobs that Node takes part in: `node bench.mjs <job as JSON>` prints one line of JSON, like the Python contenders.
import { createParser } from "eventsource-parser";

const CLOSING_FRAMES = 2;
const READ_BYTES = 64 * 1024;
const DECODE_ROUNDS = 5;

function expect(what, expected, got) {
  if (expected !== got) throw new Error(`${what}: expected ${expected}, got ${got}`);
}

function startClock() {
  const wall = performance.now();
  const cpu = process.cpuUsage();
  return () => {
    const used = process.cpuUsage(cpu);
    return { wall: (performance.now() - wall) / 1000, cpu: (used.user + used.system) / 1e6 };
  };
}

async function read(baseUrl, id) {
  let count = 0;
  const parser = createParser({
    onEvent(event) {
      JSON.parse(event.data);
      count += 1;
    },
  });
  const text = new TextDecoder();
  const response = await fetch(`${baseUrl}/sessions/${id}/stream`);
  for await (const bytes of response.body) parser.feed(text.decode(bytes, { stream: true }));
  return count;
}

async function characters(baseUrl, id) {
  let total = 0;
  const parser = createParser({
    onEvent(event) {
      total += (JSON.parse(event.data).data ?? "").length;
    },
  });
  const response = await fetch(`${baseUrl}/sessions/${id}/stream`);
  const text = new TextDecoder();
  for await (const bytes of response.body) parser.feed(text.decode(bytes, { stream: true }));
  return total;
}

async function stream(baseUrl, { session_id, frames, warm_id, warm_frames, warm_characters }) {
  expect("characters", warm_characters, await characters(baseUrl, warm_id));
  expect("frames", warm_frames + CLOSING_FRAMES, await read(baseUrl, warm_id));
  const stop = startClock();
  const got = await read(baseUrl, session_id);
  const measured = stop();
  expect("frames", frames + CLOSING_FRAMES, got);
  return { ...measured, frames };
}

function decodeOnce(reads) {
  let count = 0;
  const parser = createParser({
    onEvent(event) {
      JSON.parse(event.data);
      count += 1;
    },
  });
  const text = new TextDecoder();
  for (const bytes of reads) parser.feed(text.decode(bytes, { stream: true }));
  return count;
}

async function decode(baseUrl, { session_id, frames }) {
  const response = await fetch(`${baseUrl}/sessions/${session_id}/stream`);
  const body = new Uint8Array(await response.arrayBuffer());
  const reads = [];
  for (let start = 0; start < body.length; start += READ_BYTES) reads.push(body.subarray(start, start + READ_BYTES));
  const rounds = [];
  for (let round = 0; round < DECODE_ROUNDS; round += 1) {
    const stop = startClock();
    const got = decodeOnce(reads);
    rounds.push(stop());
    expect("frames", frames + CLOSING_FRAMES, got);
  }
  const best = (key) => Math.min(...rounds.map((round) => round[key]));
  return { wall: best("wall"), cpu: best("cpu"), frames, bytes: body.length };
}

const request = JSON.parse(process.argv[2]);
const measured = await { stream, decode }[request.job](request.base_url, request.parameters);
console.log(JSON.stringify(measured));
