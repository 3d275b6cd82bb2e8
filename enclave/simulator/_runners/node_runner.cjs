'use strict';
// Runs a Node workload: `node node_runner.cjs <file>`, in the workload's own process.
//
// It gives the program a global `enclave`, denies network access that the policy does not allow, and then runs the file
// as the main module: as CommonJS if it parses as such, else as an ES module (import, top-level await) with `require`
// kept. The hook keeps honest programs in bounds. Native addons and child processes do not pass through it.

const fs = require('node:fs');
const Module = require('node:module');
const net = require('node:net');
const path = require('node:path');
const dns = require('node:dns');
const dgram = require('node:dgram');
const vm = require('node:vm');

const METADATA = '169.254.169.254';
const policy = JSON.parse(process.env.ENCLAVE_RUNNER_POLICY);
delete process.env.ENCLAVE_RUNNER_POLICY;

const writeSync = fs.writeSync;
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

// Which addresses are allowed

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

function denial(host) {
  return Object.assign(new Error(`egress to ${host} is denied by the session's policy`), {
    code: 'EACCES', errno: -13, syscall: 'connect', address: host,
  });
}

// The error if the address is denied, after reporting the decision
function settle(host, port) {
  const ok = permits(host, port);
  report({ t: 'egress', host, ok });
  return ok ? null : denial(host);
}

function mayResolve(host) {
  if (net.isIP(host) || serviceHosts.has(host)) return null;
  if (!denyAll && !/^metadata(\.google\.internal)?$/i.test(host)) return null;
  report({ t: 'egress', host, ok: false });
  return denial(host);
}

// TCP: every stream socket, those of http, tls and fetch included, connects here

const connect = net.Socket.prototype.connect;
net.Socket.prototype.connect = function (...args) {
  const normalized = Array.isArray(args[0]) ? args[0] : net._normalizeArgs(args);
  const options = normalized[0];
  if (options.path) return connect.apply(this, args);
  const host = options.host || 'localhost';
  let refused = null;
  if (services.has(`${host}:${options.port}`)) report({ t: 'egress', host, ok: true });
  else if (net.isIP(host)) refused = settle(host, options.port);
  else if (denyAll) refused = settle(host, options.port);
  else options.lookup = checkedLookup(options.lookup || dns.lookup, options.port);
  if (!refused) return connect.apply(this, args);
  this.connecting = true;
  process.nextTick(() => this.destroy(refused));
  return this;
};

function checkedLookup(lookup, port) {
  return (name, options, callback) => lookup(name, options, (error, found, family) => {
    if (error) return callback(error);
    const records = Array.isArray(found) ? found : [{ address: found, family }];
    const passing = records.filter((record) => !(error = settle(record.address, port)));
    if (passing.length === 0) return callback(error || denial(name));
    return Array.isArray(found) ? callback(null, passing) : callback(null, found, family);
  });
}

// Names

function guardCallback(holder, name) {
  const original = holder[name];
  if (typeof original !== 'function') return;
  holder[name] = function (host, ...rest) {
    const refused = typeof host === 'string' ? mayResolve(host) : null;
    if (!refused) return original.call(this, host, ...rest);
    const callback = rest[rest.length - 1];
    if (typeof callback !== 'function') throw refused;
    process.nextTick(callback, refused);
    return undefined;
  };
}

function guardPromise(holder, name) {
  const original = holder[name];
  if (typeof original !== 'function') return;
  holder[name] = async function (host, ...rest) {
    const refused = typeof host === 'string' ? mayResolve(host) : null;
    if (refused) throw refused;
    return original.call(this, host, ...rest);
  };
}

const resolvers = Object.keys(dns).filter((name) => /^(resolve|reverse)/.test(name));
for (const name of ['lookup', ...resolvers]) {
  guardCallback(dns, name);
  guardPromise(dns.promises, name);
}
for (const name of resolvers) {
  if (dns.Resolver.prototype[name]) guardCallback(dns.Resolver.prototype, name);
  if (dns.promises.Resolver.prototype[name]) guardPromise(dns.promises.Resolver.prototype, name);
}

// UDP

const send = dgram.Socket.prototype.send;
dgram.Socket.prototype.send = function (...args) {
  const address = args.slice(1).find((value) => typeof value === 'string');
  const refused = address === undefined && this._connectedAddress ? null : settle(address || '127.0.0.1', udpPort(args));
  if (!refused) return send.apply(this, args);
  const callback = args[args.length - 1];
  process.nextTick(() => (typeof callback === 'function' ? callback(refused) : this.emit('error', refused)));
  return undefined;
};

function udpPort(args) {
  const at = args.findIndex((value, index) => index > 0 && typeof value === 'string');
  return args[at - 1];
}

const connectUdp = dgram.Socket.prototype.connect;
dgram.Socket.prototype.connect = function (port, address, callback) {
  const host = typeof address === 'string' ? address : '127.0.0.1';
  const refused = settle(host, port);
  if (!refused) {
    this._connectedAddress = host;
    return connectUdp.call(this, port, address, callback);
  }
  process.nextTick(() => (typeof callback === 'function' ? callback(refused) : this.emit('error', refused)));
  return undefined;
};

Module.syncBuiltinESMExports();

// The program

const file = path.resolve(process.argv[2]);
process.argv.splice(1, 2, file);

function isCommonJS(source) {
  try {
    vm.compileFunction(source, ['exports', 'require', 'module', '__filename', '__dirname'], { filename: file });
    return true;
  } catch (error) {
    return !/import statement|import\.meta|Unexpected token 'export'|await is only valid/.test(String(error));
  }
}

if (isCommonJS(fs.readFileSync(file, 'utf8').replace(/^#!.*/, ''))) {
  Module.runMain();
} else {
  const main = file.replace(/\.js$/, '.mjs');
  fs.renameSync(file, main);
  process.argv[1] = main;
  globalThis.require = Module.createRequire(main);
  Module.runMain();
}
