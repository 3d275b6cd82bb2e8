'use strict';
// Prepares every thread of a Node workload: a global `enclave`, and no network access that the policy does not allow.
//
// It is preloaded with --require, in workers too. It stands where Node's own modules meet the system, below net, dgram,
// dns, http and fetch, so `process.binding` meets it as well. It keeps honest programs in bounds. Native addons and child
// processes do not pass through it.

const dns = require('node:dns');
const fs = require('node:fs');
const Module = require('node:module');
const net = require('node:net');
const path = require('node:path');
const threads = require('node:worker_threads');

const { apply, construct } = Reflect;
const { writeSync, realpathSync } = fs;
const stringify = JSON.stringify;
const pause = new Int32Array(new SharedArrayBuffer(4));

// One report line on standard output. The NUL lets it stand behind half a line of the program's.
function report(document) {
  let rest = Buffer.from(`\0__ENCLAVE__ ${stringify(document)}\n`);
  while (rest.length) {
    try {
      rest = rest.subarray(writeSync(1, rest));
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
      Atomics.wait(pause, 0, 0, 2);
    }
  }
}

globalThis.enclave = Object.freeze({
  // Returns a value, any JSON value, from the session. The last call counts.
  result(value) {
    report({ t: 'result', json: value === undefined ? null : value });
  },
});

// What is allowed

const METADATA = '169.254.169.254';
const EACCES = -13;
const KEY = 'ENCLAVE_RUNNER_POLICY';

const policy = threads.isMainThread
  ? { ...JSON.parse(process.env[KEY]), directory: process.cwd() }
  : threads.getEnvironmentData(KEY);
if (threads.isMainThread) delete process.env[KEY];

// One list for each family: a BlockList compares IPv4 addresses with IPv6 networks too.
const allowed = { ipv4: new net.BlockList(), ipv6: new net.BlockList() };
for (const cidr of policy.allow) {
  const [address, bits] = cidr.split('/');
  const family = net.isIPv6(address) ? 'ipv6' : 'ipv4';
  allowed[family].addSubnet(address, bits === undefined ? (family === 'ipv6' ? 128 : 32) : Number(bits), family);
}
const services = new Set(policy.services.map(([host, port]) => `${host}:${port}`));
const serviceHosts = new Set(policy.services.map(([host]) => host));
const denyAll = policy.mode === 'deny_all';

function permits(address, port) {
  if (services.has(`${address}:${port}`)) return true;
  const plain = address.replace(/^::ffff:(?=\d+\.)/i, '').replace(/%.*/, '');
  if (plain === METADATA || net.isIP(plain) === 0) return false;
  const family = net.isIPv6(plain) ? 'ipv6' : 'ipv4';
  return allowed[family].check(plain, family);
}

// Each of these reports its decision, and gives 0 or the number of the error.

function settle(host, ok) {
  report({ t: 'egress', host, ok });
  return ok ? 0 : EACCES;
}

function settleAddress(address, port) {
  return settle(address, permits(address, port));
}

// Under an allowlist a name may be resolved: the connection to its address is what is decided.
function settleName(name) {
  if (serviceHosts.has(name)) return 0;
  return denyAll || /^metadata(\.google\.internal)?$/i.test(name) ? settle(name, false) : 0;
}

function settlePath(name) {
  const full = path.resolve(name);
  let parent = path.dirname(full);
  try {
    parent = realpathSync(parent);
  } catch {
    // There is no such directory, so there is no socket in it either.
  }
  const inside = (parent + path.sep).startsWith(policy.directory + path.sep);
  return inside && !name.startsWith('\0') ? 0 : settle(`unix:${name}`, false);
}

// Where it is decided

function guard(holder, name, decide, refuse = (error) => error) {
  const original = holder[name];
  holder[name] = function (...args) {
    const error = decide(...args);
    return error ? refuse(error, args) : apply(original, this, args);
  };
}

// Requests for names call back with their error, and would throw one that is returned.
function refuseLater(code) {
  return (_, [request]) => {
    process.nextTick(() => request.oncomplete(code));
    return 0;
  };
}

const { TCP } = process.binding('tcp_wrap');
const { UDP } = process.binding('udp_wrap');
const { Pipe } = process.binding('pipe_wrap');
const cares = process.binding('cares_wrap');

for (const name of ['connect', 'connect6']) {
  guard(TCP.prototype, name, (_, address, port) => settleAddress(address, port));
  guard(UDP.prototype, name, (address, port) => settleAddress(address, port));
}
for (const name of ['send', 'send6']) {
  // A connected socket names no address.
  guard(UDP.prototype, name, (_request, _list, _count, port, address) =>
    typeof address === 'string' ? settleAddress(address, port) : 0);
}
guard(Pipe.prototype, 'connect', (_, name) => settlePath(name));

guard(cares, 'getaddrinfo', (_, name) => (net.isIP(name) ? 0 : settleName(name)), refuseLater(EACCES));
guard(cares, 'getnameinfo', (_, address) => settleName(address), refuseLater(EACCES));
const resolver = cares.ChannelWrap.prototype;
for (const name of Object.getOwnPropertyNames(resolver).filter((name) => /^(query|getHostByAddr)/.test(name))) {
  guard(resolver, name, (_, asked) => settleName(asked), refuseLater('EACCES'));
}
// The servers to ask are addresses too. Those of the machine are set again if others were refused.
let usual = null;
guard(resolver, 'setServers', (servers) => {
  usual = usual || new Set(dns.getServers());
  const others = servers.filter(([, address]) => !usual.has(address));
  return others.map(([, address, port]) => settleAddress(address, port)).find(Boolean);
});

// A worker inherits --require, unless it is given options of its own.
const hook = ['--require', __filename];
threads.Worker = new Proxy(threads.Worker, {
  construct(target, [file, options], newTarget) {
    threads.setEnvironmentData(KEY, policy);
    const isObject = Object(options) === options;
    // Read once: a getter may answer otherwise the next time.
    const asked = isObject ? options.execArgv : undefined;
    const execArgv = Array.isArray(asked) ? [...hook, ...asked] : asked;
    return construct(target, [file, isObject ? Object.create(options, { execArgv: { value: execArgv } }) : options], newTarget);
  },
});
threads.Worker.prototype.constructor = threads.Worker;
// Loader hooks run in a thread of Node's own, which preloads nothing.
Module.register = () => {
  throw Object.assign(new Error('module.register is not permitted'), { code: 'EACCES' });
};
Module.syncBuiltinESMExports();
